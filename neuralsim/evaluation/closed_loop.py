"""Closed loop: a player acts on what it sees, in the dream and in the real game, and both are described alike."""

from __future__ import annotations

import numpy as np

from neuralsim.evaluation.playing import Play
from neuralsim.evaluation.probes import Probes, find

SERVE_WITHIN = 60
"""Steps after a point within which the thing that vanished (the ball) should be back: twice the real wait."""
SETTLE = 3
"""A thing counts as gone or back after this many steps in a row."""


def describe(play: Play, probes: Probes) -> dict[str, float]:
    """What happened, in numbers that dream and reality share.

    Returns:
        ``<thing>_present`` (share of frames) in all and in the second half; ``points`` per 1,000 steps, and those won;
        ``served_again``: share of points after which the first thing goes, and is back within :data:`SERVE_WITHIN`
        steps; ``dead``: share of lanes that end without it for longer than that; ``jumps``: share of steps in which it
        moves by more than 8 pixels while it stays in play.
    """
    found = find(probes, play.frames)
    half = play.frames.shape[1] // 2
    figures: dict[str, float] = {}
    for thing in probes.things:
        there = found[thing.name].present
        figures[f"{thing.name}_present"] = float(there.mean())
        figures[f"{thing.name}_present_late"] = float(there[:, half:].mean())
    figures["points_per_1000"] = float((play.rewards != 0).mean() * 1000)
    figures["points_won_per_1000"] = float((play.rewards > 0).mean() * 1000)
    figures["ends_per_1000"] = float(play.ended.mean() * 1000)
    main = found[probes.things[0].name]
    back, points = 0, 0
    for lane, step in zip(*np.nonzero(play.rewards), strict=True):
        window = main.present[lane, step : step + SERVE_WITHIN]
        if len(window) < SERVE_WITHIN or play.ended[lane, step : step + SERVE_WITHIN].any():
            continue
        points += 1
        # It must have gone before it can come back: a ball that flies on through a point was never served.
        back += int(not window.all() and _longest_run(window[int(window.argmin()) :]) >= SETTLE)
    figures["served_again"] = back / points if points else float("nan")
    figures["served_again_of"] = points
    tail = main.present[:, -SERVE_WITHIN:]
    figures["dead"] = float(np.mean([_longest_run(lane) < SETTLE for lane in tail]))
    moved = np.linalg.norm(np.diff(np.nan_to_num(main.position), axis=1), axis=-1)
    both = main.present[:, 1:] & main.present[:, :-1] & ~play.ended[:, :-1]
    figures["jumps"] = float((moved[both] > 8).mean()) if both.any() else float("nan")
    return figures


def _longest_run(flags: np.ndarray) -> int:
    best = run = 0
    for flag in flags:
        run = run + 1 if flag else 0
        best = max(best, run)
    return best
