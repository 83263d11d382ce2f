"""Probes: small things that matter in a game, and where they are on a frame.

PSNR is blind to them: in Pong, copying the last frame reaches 33 dB at 40 steps without a ball in the right place.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Thing:
    """Something to find on a frame.

    Attributes:
        name: What it is called in reports.
        present: Key of the probe's output that says whether it is there.
        position: Keys of its coordinates, in pixels.
        tolerance: How far off a dreamed one may be, in pixels.
        foreseen: How many frames ahead the past alone tells where it will be, whatever is done in between: training
            asks for these (:mod:`neuralsim.training.foresight`); 1 is the next frame, whose action is known.
        turns_along: Keys of those coordinates along which a change of course is a turn (:func:`turns`), where others
            are easily foreseen; by default all of ``position``.
        turn_shares: How often to show turns towards lower and towards higher coordinates, one against the other: what a
            player does to a thing is harder to foresee than what a program does.
    """

    name: str
    present: str
    position: tuple[str, ...]
    tolerance: float
    foreseen: tuple[int, ...] = (1,)
    turns_along: tuple[str, ...] = ()
    turn_shares: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Probes:
    """What can be measured on the frames of a game.

    Attributes:
        module: Where its function ``probe`` is: frames ``(N, H, W, 3)`` to arrays ``(N,)`` by key.
        things: What to look for.
        scores: Keys of the player's and the opponent's points on the board, NaN where they cannot be read; None for
            games without a board of two.
    """

    module: str
    things: tuple[Thing, ...]
    scores: tuple[str, str] | None = None

    @property
    def read(self) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
        """The function that reads frames."""
        return importlib.import_module(self.module).probe


PROBES = {
    "pong": Probes(
        "neuralsim.evaluation.pong_probes",
        (
            # What a paddle does to the ball is the hard part; walls turn it along y alone, always in the same way.
            Thing("ball", "ball_present", ("ball_x", "ball_y"), 2.0, (1, 2, 4, 7), ("ball_x",), turn_shares=(3, 1)),
            Thing("player", "player_present", ("player_y",), 1.0),
            Thing("enemy", "enemy_present", ("enemy_y",), 1.0),
        ),
        scores=("player_score", "enemy_score"),
    )
}
"""Probes by the name that a world's config gives."""


def find_probes(name: str | None) -> Probes | None:
    """Probes by name: one of :data:`PROBES`, or ``module:NAME`` for those of your own; None for None.

    Raises:
        ValueError: If there are none of that name.
        ModuleNotFoundError: If their module is not there.
    """
    if name is None or name in PROBES:
        return PROBES[name] if name else None
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(f"unknown probes {name!r}; there are {', '.join(PROBES)}, and module:NAME for your own")
    try:
        probes = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0] and error.name != module:
            raise
        raise ModuleNotFoundError(
            f"the probes {name!r} need the module {module}, which Python does not find: for one in this folder, "
            "PYTHONPATH=. neuralsim ..."
        ) from None
    if probes is None:
        raise ValueError(f"the module {module} has no {attribute}, which the probes {name!r} name")
    if not isinstance(probes, Probes):
        raise ValueError(f"{name!r} is no Probes but {type(probes).__name__}")
    return probes


def probes_for(env_id: str, preprocessing: dict[str, Any]) -> str | None:
    """Name of the probes that can read frames of an environment, preprocessed like this; None if there are none."""
    whole_screen = (
        list(preprocessing.get("size", ())) == [64, 64]
        and preprocessing.get("resample") == "box"
        and preprocessing.get("crop") is None
    )
    return "pong" if env_id.startswith("ALE/Pong") and whole_screen else None


@dataclass
class Found:
    """Where a thing was found on a batch of frames ``(...)``.

    Attributes:
        present: ``(...)`` bool.
        position: ``(..., n)`` pixels; whatever the probe says where it is absent.
    """

    present: np.ndarray
    position: np.ndarray

    def distance(self, other: Found) -> np.ndarray:
        """Euclidean distance ``(...)`` in pixels; infinite where either is absent."""
        away = np.linalg.norm(np.nan_to_num(self.position - other.position), axis=-1)
        return np.where(self.present & other.present, away, np.inf)


def find(probes: Probes, frames: np.ndarray) -> dict[str, Found]:
    """Looks for every thing on frames ``(..., H, W, 3)``."""
    lead = frames.shape[:-3]
    read = probes.read(frames.reshape(-1, *frames.shape[-3:]))
    return {
        thing.name: Found(
            read[thing.present].reshape(lead) > 0.5,
            np.stack([read[key].reshape(lead) for key in thing.position], axis=-1),
        )
        for thing in probes.things
    }


NEAR_TURN = 3
"""Steps before and after a turn in which passing the line is part of it."""


def turns(thing: Thing, labels: dict[str, np.ndarray], least: float = 1.5, passing: bool = True) -> np.ndarray:
    """Where a thing changes its course, or might have.

    Clips that are chosen by what happens in them teach a model that it always happens: shown the balls that a paddle
    returns and not those that it misses, it returns them all. So where turns are along one coordinate, passing the
    place where they usually happen counts like one.

    Args:
        thing: What to look at.
        labels: Ground truth ``(T + 1,)`` by the keys of the thing's probe.
        least: Change of velocity from which on it is a turn, in pixels per step.
        passing: Whether to mark where it passes as well; without, only where it turns.

    Returns:
        ``(T,)`` int64: how often to show a step with which it leaves its course, or could have (``turn_shares``); 0
        elsewhere, where the thing is not there all the while, or the labels do not know it.
    """
    length = len(next(iter(labels.values()), ())) - 1
    turned = np.zeros(max(0, length), np.int64)
    if length < 2 or any(key not in labels for key in (thing.present, *thing.position)):
        return turned
    there = np.asarray(labels[thing.present]) > 0.5
    position = np.stack([np.asarray(labels[key], float) for key in thing.turns_along or thing.position], axis=1)
    change = np.nan_to_num(np.diff(position, n=2, axis=0))
    turning = (np.linalg.norm(change, axis=1) > least) & there[:-2] & there[1:-1] & there[2:]
    turned[1:] = np.where(turning, np.where(change.sum(1) < 0, *thing.turn_shares), 0)
    if passing and position.shape[1] == 1:
        for way, times in zip((1, -1), thing.turn_shares, strict=True):  # upwards, where turns lead down; and downwards
            _mark_passing(turned, way * position[:, 0], np.r_[False, turning & (way * change[:, 0] < 0)], there, times)
    return turned


def _mark_passing(turned: np.ndarray, position: np.ndarray, turning: np.ndarray, there: np.ndarray, times: int) -> None:
    """Marks in ``turned`` the steps that lead upwards past the place where half of the turns back have happened."""
    if not turning.any():
        return
    line = np.median(position[:-1][turning])
    with np.errstate(invalid="ignore"):
        passing = (position[:-1] <= line) & (position[1:] > line) & there[:-1] & there[1:]
    around = np.convolve(turning, np.ones(2 * NEAR_TURN + 1), mode="same") > 0
    turned[passing & ~around] = times


def comebacks(thing: Thing, labels: dict[str, np.ndarray], least: int = 5) -> np.ndarray:
    """Where a thing is back after it was gone: a ball that is served.

    Args:
        thing: What to look at.
        labels: Ground truth ``(T + 1,)`` by the keys of the thing's probe.
        least: Frames it must have been gone for.

    Returns:
        ``(T,)`` int64: for a step that brings it back the first frame without it, elsewhere 0; also where it was gone
        from the first frame on, or the labels do not know it.
    """
    length = len(next(iter(labels.values()), ())) - 1
    gone = np.zeros(max(0, length), np.int64)
    if thing.present not in labels:
        return gone
    there = np.flatnonzero(np.asarray(labels[thing.present]) > 0.5)
    for before, after in itertools.pairwise(there):
        if after - before > least:
            gone[after - 1] = before + 1
    return gone
