"""Closed loop: a player acts on what it sees, in the dream and in the real game, and both are described alike."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuralsim.agents.scripted import PongPlayer
from neuralsim.envs.real import make_real
from neuralsim.evaluation.probes import Probes, find
from neuralsim.world import World

SERVE_WITHIN = 60
"""Steps after a point within which the thing that vanished (the ball) should be back: twice the real wait."""
SETTLE = 3
"""A thing counts as gone or back after this many steps in a row."""


@dataclass
class Play:
    """Many lanes of play.

    Attributes:
        frames: ``(N, T, H, W, 3)`` uint8, after each step.
        rewards: ``(N, T)``.
        ended: ``(N, T)`` bool; the next frame of that lane is the first of a new episode.
    """

    frames: np.ndarray
    rewards: np.ndarray
    ended: np.ndarray


def play_dream(
    world: World,
    lanes: int,
    steps: int,
    sampling_steps: int,
    skill: float,
    seed: int = 0,
    progress: Any = None,
) -> Play:
    """Scripted players, each in its own dream from a start at the beginning of a game."""
    beginnings = [i for i, start in enumerate(world.starts) if start.kind == "beginning"] or range(len(world.starts))
    rng = np.random.default_rng(seed)
    chosen = [int(beginnings[i]) for i in rng.integers(len(beginnings), size=lanes)]
    players = [PongPlayer(skill, seed=seed + lane) for lane in range(lanes)]
    contexts = [world.starts[i] for i in chosen]
    state = type(world.start_at(chosen[0])).stack([world.start_at(i, seed=seed + n) for n, i in enumerate(chosen)])
    current = np.stack([context.frames[-1] for context in contexts])
    frames, rewards, ended = [], [], []
    for t in range(steps):
        actions = np.array([player.act(frame, {}) for player, frame in zip(players, current, strict=True)])
        state, said = world.step(state, actions, steps=sampling_steps)
        current = world.decode(said.latent).cpu().numpy()
        over = said.terminated.cpu().numpy()
        frames.append(current.copy())
        for lane in np.flatnonzero(over):
            again = world.start_at(chosen[lane], seed=seed + 7919 * (t + 1) + int(lane))
            state = state.replace([int(lane)], again)
            current[lane] = contexts[lane].frames[-1]
            players[lane].reset()
        rewards.append(said.reward.cpu().numpy())
        ended.append(over)
        if progress is not None:
            progress()
    return Play(np.stack(frames, 1), np.stack(rewards, 1), np.stack(ended, 1))


def play_real(world: World, lanes: int, steps: int, skill: float, seed: int = 0, progress: Any = None) -> Play:
    """The same players in the real environment the world was learned from; they see frames only, as in the dream."""
    columns: tuple[list[np.ndarray], ...] = ([], [], [])
    with contextlib.closing(make_real(world.config.env_id, world.config.env_kwargs, world.config.preprocessing)) as env:
        for lane in range(lanes):
            player = PongPlayer(skill, seed=seed + lane)
            frame, _ = env.reset(seed=seed + lane)
            rows: tuple[list, list, list] = ([], [], [])
            for _ in range(steps):
                frame, reward, terminated, truncated, _ = env.step(player.act(frame, {}))
                over = terminated or truncated
                for row, value in zip(rows, (frame, reward, over), strict=True):
                    row.append(value)
                if over:
                    frame, _ = env.reset()
                    player.reset()
            for column, row in zip(columns, rows, strict=True):
                column.append(np.stack(row))
            if progress is not None:
                progress()
    return Play(*(np.stack(column) for column in columns))


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
