"""What dreams of recorded actions pay, against what was really paid: the error that a planner's returns would have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from neuralsim.data.episodes import EpisodeStore
from neuralsim.evaluation.held_out import BATCH, choose_cuts, read_clips
from neuralsim.evaluation.intervals import mean
from neuralsim.evaluation.open_loop import dream_clips
from neuralsim.world import World

SPANS = (64, 256)
"""Steps over which rewards are summed."""


def return_error(
    world: World,
    store: EpisodeStore,
    clips: int,
    spans: tuple[int, ...],
    steps: int,
    batch: int = BATCH,
    seed: int = 12,
    progress: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Dreams recorded actions and sums rewards.

    Args:
        world: The world.
        store: Held-out recordings.
        clips: How many.
        spans: Steps to sum over, rising.
        steps: Sampling steps K.
        batch: Clips at a time.
        seed: Draws the clips.
        progress: Called after each step of a batch.

    Returns:
        See :func:`compare_returns`.
    """
    context = world.dynamics.context_length
    cuts = choose_cuts(store, clips, context + spans[-1], seed)
    dreamed, real = [], []
    for begin in range(0, clips, batch):
        part = read_clips(store, cuts[begin : begin + batch], context, spans[-1])
        rewards, alive = [], np.ones(len(part.frames), bool)
        for said in dream_clips(world, part, part.actions, steps, begin):
            rewards.append(np.where(alive, said.reward.cpu().numpy(), 0.0))
            alive &= ~said.terminated.cpu().numpy()  # a planner stops where the dream ends
            if progress is not None:
                progress()
        dreamed.append(np.stack(rewards, axis=1))
        real.append(part.rewards[:, context - 1 :])
    return compare_returns(np.concatenate(dreamed), np.concatenate(real), spans)


def compare_returns(dreamed: np.ndarray, real: np.ndarray, spans: tuple[int, ...]) -> dict[str, Any]:
    """Returns over the first steps.

    Args:
        dreamed: Rewards ``(clips, T)``.
        real: Likewise.
        spans: Steps to sum over, at most T.

    Returns:
        By span (as a string): ``error``, mean absolute error of the return; ``bias``, dreamed less real; ``constant``,
        the error of always saying the mean real return; each with a 95 % bootstrap interval.
    """
    table = {}
    for span in spans:
        said, true = dreamed[:, :span].sum(1), real[:, :span].sum(1)
        table[str(span)] = {
            "error": mean(np.abs(said - true)),
            "bias": mean(said - true),
            "constant": mean(np.abs(true - true.mean())),
        }
    return table
