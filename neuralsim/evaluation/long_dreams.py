"""Long dreams: does a dream of thousands of steps still look, pay and end like the game?

Described window by window, so that drift shows; beside the same player in the real game.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from neuralsim.evaluation.playing import Moment
from neuralsim.evaluation.probes import Probes, find
from neuralsim.world import World

WINDOW = 500
"""Steps that are described together."""
EVERY = 5
"""One of so many frames is looked at closely; all rewards and ends count."""
ALIEN = 0.99
"""A frame is alien if the tokenizer gives it back worse than this share of real frames."""


class LongPlay:
    """Describes play as it goes by, without keeping its frames.

    Args:
        world: The world, whose tokenizer judges frames.
        probes: What to look for, or None.
        alien: Round-trip error from which on a frame is alien; see :func:`alien_limit`.
    """

    def __init__(self, world: World, probes: Probes | None, alien: float) -> None:
        self.world, self.probes, self.alien = world, probes, alien
        self.rows: dict[str, list[float]] = {}
        self.rewards: list[np.ndarray] = []
        self.lengths: list[int] = []
        self.returns: list[float] = []

    def see(self, moments: Iterable[Moment]) -> LongPlay:
        """Watches a play to its end."""
        running: np.ndarray | None = None
        for t, moment in enumerate(moments):
            if running is None:
                running = np.zeros((2, len(moment.rewards)))  # steps and reward of the episodes that go on
            running += (np.ones(len(moment.rewards)), moment.rewards)
            for lane in np.flatnonzero(moment.ended):
                self.lengths.append(int(running[0, lane]))
                self.returns.append(float(running[1, lane]))
            running[:, moment.ended] = 0
            self.rewards.append(moment.rewards)
            if t % EVERY == EVERY - 1:
                self._look(moment)
        return self

    def _look(self, moment: Moment) -> None:
        latents = self.world.encode(moment.frames[:, None])[:, 0] if moment.latents is None else moment.latents
        # Real frames as the tokenizer shows them: a dreamed one has been through it, too.
        shown = moment.frames if moment.latents is not None else self.world.decode(latents).cpu().numpy()
        values = {
            "brightness": float(moment.frames.mean()),
            "contrast": float(moment.frames.std(axis=(1, 2, 3)).mean()),
            "latent_norm": float(latents.float().square().mean((1, 2, 3)).sqrt().mean()),
            "alien": float((round_trip_error(self.world, shown) > self.alien).mean()),
        }
        if self.probes is not None:
            for name, found in find(self.probes, moment.frames).items():
                values[f"{name}_present"] = float(found.present.mean())
        for name, value in values.items():
            self.rows.setdefault(name, []).append(value)

    def figures(self) -> dict[str, Any]:
        """What was seen.

        Returns:
            ``windows``: by name a list over windows of :data:`WINDOW` steps: ``brightness`` (0 to 255) and
            ``contrast`` of frames, ``latent_norm`` (RMS), ``alien`` (share of frames), ``<thing>_present`` and
            ``points_per_1000``; ``episodes``: ``lengths`` and ``returns`` of the episodes that ended.
        """
        size, whole = WINDOW // EVERY, len(self.rewards) // WINDOW
        windows = {
            name: [float(np.mean(values[i * size : (i + 1) * size])) for i in range(whole)]
            for name, values in self.rows.items()
        }
        paid = np.stack(self.rewards) != 0
        windows["points_per_1000"] = [float(paid[i * WINDOW : (i + 1) * WINDOW].mean() * 1000) for i in range(whole)]
        return {"windows": windows, "episodes": {"lengths": self.lengths, "returns": self.returns}}


def round_trip_error(world: World, frames: np.ndarray) -> np.ndarray:
    """Mean squared error ``(N,)`` of frames ``(N, H, W, 3)`` encoded and decoded, in levels of 255."""
    again = world.decode(world.encode(frames[:, None])[:, 0]).cpu().numpy()
    return np.square(again.astype(np.float32) - frames).mean(axis=(1, 2, 3))


def alien_limit(world: World, frames: np.ndarray) -> float:
    """Round-trip error that all but 1 % of real frames ``(N, H, W, 3)`` stay under, once the tokenizer shows them."""
    batches = (frames[i : i + 64] for i in range(0, len(frames), 64))
    shown = (world.decode(world.encode(part[:, None])[:, 0]).cpu().numpy() for part in batches)
    parts = [round_trip_error(world, part) for part in shown]
    return float(np.quantile(np.concatenate(parts), ALIEN))


def compare_long(dreamed: LongPlay, real: LongPlay, at: Sequence[int]) -> dict[str, Any]:
    """Puts a long dream beside long real play.

    Args:
        dreamed: The dream.
        real: Reality, of any length: it has no drift, so that its mean counts.
        at: Steps at which the dream is summed up.

    Returns:
        ``dream`` and ``real``, see :meth:`LongPlay.figures`; ``drift``: by step of ``at`` (as a string) and name the
        dream's last window up to there, less the real mean, in real standard deviations between windows (at least 1 %
        of the mean); ``distance``: of the ``lengths`` and ``returns`` of episodes, see :func:`ks_distance`.
    """
    figures = {"dream": dreamed.figures(), "real": real.figures()}
    drift: dict[str, dict[str, float]] = {}
    for step in at:
        last = min(len(dreamed.rewards), step) // WINDOW - 1
        if last < 0 or step > len(dreamed.rewards):
            continue
        drift[str(step)] = {}
        for name, values in figures["real"]["windows"].items():
            usual = max(float(np.std(values)), 0.01 * abs(float(np.mean(values))), 1e-9)
            drift[str(step)][name] = (figures["dream"]["windows"][name][last] - float(np.mean(values))) / usual
    ends, real_ends = figures["dream"]["episodes"], figures["real"]["episodes"]
    return {**figures, "drift": drift, "distance": ks_distances(ends, real_ends, ("lengths", "returns"))}


def ks_distances(a: dict[str, Any], b: dict[str, Any], names: Sequence[str]) -> dict[str, float]:
    """:func:`ks_distance` of the samples of these names in two tables."""
    return {name: ks_distance(np.array(a[name]), np.array(b[name])) for name in names}


def ks_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Largest gap between the distributions of two samples (Kolmogorov-Smirnov), 0 to 1; NaN if one is empty."""
    if not len(a) or not len(b):
        return float("nan")
    points = np.concatenate([a, b])
    shares = [np.searchsorted(np.sort(sample), points, side="right") / len(sample) for sample in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())
