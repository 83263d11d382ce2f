"""Closed loop: a player acts on what it sees, in the dream and in the real game, and both are described alike."""

from __future__ import annotations

import numpy as np

from neuralsim.evaluation.games import BOARD_WITHIN
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
        moves by more than 8 pixels while it stays in play; where the probes know a board, ``board_right``, see
        :func:`board_right`, in all frames and in the second half.
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
    if probes.scores is not None:
        read = probes.read(play.frames.reshape(-1, *play.frames.shape[2:]))
        board = np.stack([read[key] for key in probes.scores], axis=-1).reshape(*play.rewards.shape, 2)
        figures["board_right"] = board_right(play, board)
        figures["board_right_late"] = board_right(play, board, half)
    return figures


def board_right(play: Play, board: np.ndarray, begin: int = 0) -> float:
    """Share of frames whose board shows what it showed first and the points paid since.

    Frames up to :data:`~neuralsim.evaluation.games.BOARD_WITHIN` steps after a point are left out, as are those after
    the end of a lane's first episode, and lanes whose board is never legible.

    Args:
        play: The play.
        board: ``(N, T, 2)`` points of player and opponent as read, NaN where they cannot be.
        begin: First frame that counts.
    """
    right = judged = 0
    for shown, rewards, ended in zip(board, play.rewards, play.ended, strict=True):
        points = np.stack([rewards > 0, rewards < 0], axis=-1).cumsum(0)
        settled = (points == np.pad(points, ((BOARD_WITHIN, 0), (0, 0)))[: len(points)]).all(1)
        settled &= np.cumsum(ended) == 0
        legible = np.flatnonzero(settled & np.isfinite(shown).all(1))
        if not len(legible):
            continue
        due = shown[legible[0]] + points - points[legible[0]]
        counts = settled & (np.arange(len(points)) >= max(begin, legible[0]))
        right += int((shown[counts] == due[counts]).all(1).sum())
        judged += int(counts.sum())
    return right / judged if judged else float("nan")


def _longest_run(flags: np.ndarray) -> int:
    best = run = 0
    for flag in flags:
        run = run + 1 if flag else 0
        best = max(best, run)
    return best
