"""Open-loop fidelity: dream the recorded actions and compare with what really happened.

Everything is measured per clip (:class:`OpenLoop`), so that two worlds can be compared clip by clip, and only then put
together by horizon (:func:`by_horizon`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from neuralsim.data.episodes import EpisodeStore
from neuralsim.envs.keyboard import idle_action
from neuralsim.evaluation.held_out import BATCH, Clips, choose_cuts, others_of, read_actions, read_clips
from neuralsim.evaluation.image_quality import psnr
from neuralsim.evaluation.intervals import mean, share
from neuralsim.evaluation.probes import Probes, find
from neuralsim.world import World

WRONG_ACTIONS = ("shuffled", "random", "noop")
"""Dreams of the same world from the same past, with another clip's actions, with random ones, and with none."""
SOURCES = ("dream", *WRONG_ACTIONS, "copy", "tokenizer")
"""What is compared with reality: those, the dream, copying the last frame, and the tokenizer's ceiling."""

FILM = 32
"""At most so many frames of a dream are judged as a film."""

Metric = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Frames ``(N, H, W, 3)`` and real ones to numbers ``(N,)``."""


class Observer(Protocol):
    """Looks at the beginnings of dreams, whole films instead of single frames."""

    def see(self, dreamed: np.ndarray, clips: Clips) -> None:
        """Takes in films ``(N, film, H, W, 3)`` of a batch of clips."""
        ...


@dataclass
class OpenLoop:
    """What was measured on each clip.

    Attributes:
        horizons: Steps into the dream.
        metrics: Names of the metrics on frames.
        things: Names of the probed things.
        values: ``(clips, horizons)`` each: ``<metric>/<source>``; ``<thing>/<source>``, whether the thing is near its
            real place; ``<thing>/<source>/seen`` and ``<thing>/truth``, whether it is there at all; of dreams with
            recorded actions also ``doubt`` (see :class:`~neuralsim.world_state.WorldState`) and, beside baselines,
            ``error``, the mean squared distance of its latent to the real one, and ``unrelated``, that of the real one
            to another clip's (NaN for a clip dreamed alone).
        said: ``(clips, H)`` rewards of every step of those dreams, H the last horizon.
        paid: ``(clips, H)`` the real ones.
    """

    horizons: tuple[int, ...]
    metrics: tuple[str, ...]
    things: tuple[str, ...]
    values: dict[str, np.ndarray] = field(default_factory=dict)
    said: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    paid: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    def only(self, chosen: np.ndarray) -> OpenLoop:
        """The same of some clips, ``chosen`` ``(clips,)`` bool."""
        values = {name: rows[chosen] for name, rows in self.values.items()}
        return dataclasses.replace(self, values=values, said=self.said[chosen], paid=self.paid[chosen])


def dream_clips(world: World, clips: Clips, actions: np.ndarray, steps: int, seed: int = 0) -> Iterator[Any]:
    """Dreams encoded actions ``(N, C + H - 1, A)`` after the clips' context; yields a Prediction per step."""
    past = clips.context - 1
    state = world.start(
        clips.frames[:, : clips.context],
        world.actions.decode(clips.actions[:, :past]),
        seed=list(range(seed, seed + len(clips.frames))),
    )
    for t in range(past, actions.shape[1]):
        state, said = world.step(state, world.actions.decode(actions[:, t]), steps=steps)
        yield said


def wrong_actions(world: World, clips: Clips, others: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """The clips' actions, but after the context those of other clips, random ones, and hands off."""
    past = clips.context - 1
    world.action_space.seed(seed)
    shape = clips.actions[:, past:].shape[:2]
    drawn = [world.actions.encode(world.action_space.sample()) for _ in range(shape[0] * shape[1])]
    idle = world.actions.encode(idle_action(world.action_space, world.config.action_meanings))
    replacements = {
        "shuffled": others[:, past:],
        "random": np.stack(drawn).reshape(*shape, -1),
        "noop": np.broadcast_to(idle, clips.actions[:, past:].shape),
    }
    return {name: np.concatenate([clips.actions[:, :past], new], axis=1) for name, new in replacements.items()}


def open_loop(
    world: World,
    store: EpisodeStore,
    probes: Probes | None,
    clips: int,
    horizons: tuple[int, ...],
    steps: int,
    metrics: dict[str, Metric] | None = None,
    observers: tuple[Observer, ...] = (),
    film: int = 0,
    context: int = 0,
    baselines: bool = True,
    batch: int = BATCH,
    seed: int = 11,
    progress: Callable[[], None] | None = None,
) -> OpenLoop:
    """Measures fidelity by horizon, beside dreams of wrong actions, copying the last frame and the tokenizer's ceiling.

    A dream that is no better than with other actions does not listen to them.

    Args:
        world: The world.
        store: Held-out recordings.
        probes: What to look for on frames; None for nothing.
        clips: How many.
        horizons: At which steps to measure, rising.
        steps: Sampling steps K.
        metrics: Measures of two frames by name; by default PSNR.
        observers: Shown the first ``film`` frames of every dream (of the right actions).
        film: So many; at most the last horizon.
        context: Real frames before a dream; by default as many as the dynamics can use.
        baselines: Whether to measure all :data:`SOURCES`, or only the dream.
        batch: Clips at a time.
        seed: Draws the clips, and random actions.
        progress: Called after each step of a batch.

    Raises:
        ValueError: If no episode is long enough.
    """
    metrics = metrics or {"psnr": psnr}
    result = OpenLoop(horizons, tuple(metrics), tuple(thing.name for thing in probes.things) if probes else ())
    columns: dict[str, list[np.ndarray]] = {}
    said_rewards, paid_rewards = [], []
    context = context or world.dynamics.context_length
    cuts = choose_cuts(store, clips, context + horizons[-1], seed)
    others = others_of(cuts)
    for begin in range(0, clips, batch):
        part = read_clips(store, cuts[begin : begin + batch], context, horizons[-1])
        actions = {"dream": part.actions}
        if baselines:
            shuffled = read_actions(store, others[begin : begin + batch], part.actions.shape[1])
            actions |= wrong_actions(world, part, shuffled, seed + begin)
        dreams = {name: dream_clips(world, part, said, steps, begin) for name, said in actions.items()}
        filmed: list[np.ndarray] = []
        rewards: list[np.ndarray] = []
        rows: dict[str, list[np.ndarray]] = {}
        doubt = np.zeros(len(part.frames))
        for h in range(1, horizons[-1] + 1):
            said = {name: next(dream) for name, dream in dreams.items()}
            latents = {name: prediction.latent for name, prediction in said.items()}
            rewards.append(said["dream"].reward.cpu().numpy())
            doubt += said["dream"].uncertainty.square().cpu().numpy()
            looked_at = latents if h in horizons else {"dream": latents["dream"]} if h <= film else {}
            frames = {name: world.decode(latent).cpu().numpy() for name, latent in looked_at.items()}
            if h <= film:
                filmed.append(frames["dream"])
            if h in horizons:
                real = part.future[:, h - 1]
                rows.setdefault("doubt", []).append(doubt.copy())
                if baselines:
                    code = world.encode(real[:, None])[:, 0]
                    frames["copy"] = part.frames[:, context - 1]
                    frames["tokenizer"] = world.decode(code).cpu().numpy()
                    other = code.roll(1, 0) if len(code) > 1 else torch.full_like(code, torch.nan)
                    for name, latent in (("error", latents["dream"]), ("unrelated", other)):
                        distance = (latent - code).float().square().mean((1, 2, 3))
                        rows.setdefault(name, []).append(distance.cpu().numpy())
                _measure(frames, real, metrics, probes, rows)
            if progress is not None:
                progress()
        said_rewards.append(np.stack(rewards, axis=1))
        paid_rewards.append(part.rewards[:, context - 1 :])
        for name, row in rows.items():
            columns.setdefault(name, []).append(np.stack(row, axis=1))
        for observer in observers:
            observer.see(np.stack(filmed, axis=1), part)
    result.values = {name: np.concatenate(parts) for name, parts in columns.items()}
    result.said, result.paid = np.concatenate(said_rewards), np.concatenate(paid_rewards)
    return result


def _measure(
    frames: dict[str, np.ndarray],
    real: np.ndarray,
    metrics: dict[str, Metric],
    probes: Probes | None,
    rows: dict[str, list[np.ndarray]],
) -> None:
    def note(name: str, values: np.ndarray) -> None:
        rows.setdefault(name, []).append(values)

    for name, metric in metrics.items():
        for source, shown in frames.items():
            note(f"{name}/{source}", metric(shown, real))
    if probes is None:
        return
    truth = find(probes, real)
    for thing in probes.things:
        note(f"{thing.name}/truth", truth[thing.name].present)
    for source, shown in frames.items():
        seen = find(probes, shown)
        for thing in probes.things:
            note(f"{thing.name}/{source}", seen[thing.name].distance(truth[thing.name]) <= thing.tolerance)
            note(f"{thing.name}/{source}/seen", seen[thing.name].present)


def by_horizon(measured: OpenLoop) -> dict[str, Any]:
    """Clips put together.

    Returns:
        By horizon (as a string): each metric by source, and for every probed thing the share of frames that hold it in
        reality in which the source has it within its tolerance; ``false_<thing>``: the share of frames without it in
        which the dream shows one; ``present_<thing>``: of the frames in which the dream shows it the share that really
        hold it (``precision``), and of these the share in which the dream shows it (``recall``). Each with a 95 %
        bootstrap interval over clips.
    """
    table: dict[str, Any] = {}
    for column, horizon in enumerate(measured.horizons):
        values = {name: rows[:, column] for name, rows in measured.values.items()}
        entry: dict[str, Any] = {
            metric: {source: mean(values[f"{metric}/{source}"]) for source in SOURCES} for metric in measured.metrics
        }
        for thing in measured.things:
            there = values[f"{thing}/truth"]
            entry[thing] = {source: share(values[f"{thing}/{source}"], there) for source in SOURCES}
            seen = values[f"{thing}/dream/seen"]
            entry[f"false_{thing}"] = share(seen, ~there)
            entry[f"present_{thing}"] = {"precision": share(there, seen), "recall": share(seen, there)}
        table[str(horizon)] = entry
    return table
