"""Rewards and ends of episodes as events: are they told, when they happen, and with the right confidence?

Teacher-forced: the heads judge real transitions. What they make of dreamed ones is seen in the closed loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from neuralsim.data.episodes import EpisodeStore
from neuralsim.data.latents import encode_frames
from neuralsim.world import World

LAGS = (0, 1, 2)
"""How many steps early or late an event may be told and still count."""
DOUBTFUL = 0.01
"""Most transitions are nothing special, and said to be so; calibration is also measured on those that might be, by the
heads' own word: given at least this probability."""


@dataclass
class Judged:
    """What the heads said of one episode of T real transitions, and what was true.

    Attributes:
        reward: ``(T,)`` real rewards.
        reward_said: ``(T,)`` rewards as the world gives them.
        reward_probability: ``(T,)`` how likely any reward was, by the heads; NaN if rewards are too small to tell.
        terminated: ``(T,)`` bool.
        end_probability: ``(T,)`` how likely the end was, by the heads.
    """

    reward: np.ndarray
    reward_said: np.ndarray
    reward_probability: np.ndarray
    terminated: np.ndarray
    end_probability: np.ndarray


@torch.inference_mode()
def judge_episode(world: World, store: EpisodeStore, episode: int, least: float = 1.0, batch: int = 512) -> Judged:
    """Lets the heads judge the real transitions of an episode; ``least`` is the smallest reward of the recordings."""
    latents = encode_frames(world.tokenizer, store.frames(episode, 0, store.length(episode) + 1))
    latents = latents.float().to(world.device)  # the heads compute in float32, whatever the world's dtype
    before = world.heads.look_back(latents[None])[0]
    actions = torch.from_numpy(world.actions.encode(store.actions(episode))).to(world.device)
    real = np.asarray(store.rewards(episode), np.float32)
    centers = world.heads.two_hot.centers
    # A bin speaks for a reward if it is nearer to the smallest that there is than to none.
    paid = centers.abs() > least / 2
    said, probability, ends = [], [], []
    for part in torch.arange(len(actions)).split(batch):
        out = world.heads(before[part], latents[part + 1], actions[part])
        said.append(world.real_reward(out.reward.float()).cpu())
        likely = out.reward_logits.float().softmax(-1)[:, paid].sum(-1).cpu()
        # Rewards between the bins beside 0 are spread over 0 as well: their bins are no probability of a reward.
        probability.append(likely if least >= centers[centers > 0].min() else torch.full_like(likely, torch.nan))
        ends.append((-out.continue_logit).sigmoid().cpu())
    return Judged(
        real,
        torch.cat(said).numpy(),
        torch.cat(probability).numpy(),
        np.asarray(store.terminated(episode), bool),
        torch.cat(ends).numpy(),
    )


def matches(said: np.ndarray, real: np.ndarray, lag: int) -> int:
    """How many real events were told, each by a word of its own of the same value, at most ``lag`` steps off.

    Args:
        said: ``(T,)`` values; 0 is no event.
        real: Likewise.
        lag: Steps.
    """
    count = 0
    for value in np.unique(real[real != 0]):
        words = np.flatnonzero((said != 0) & np.isclose(said, value, atol=1e-3))
        next_word = 0
        # Earliest first on both sides: no other pairing of intervals of one length matches more.
        for event in np.flatnonzero(real == value):
            while next_word < len(words) and words[next_word] < event - lag:
                next_word += 1
            if next_word < len(words) and words[next_word] <= event + lag:
                count += 1
                next_word += 1
    return count


def calibration(probability: np.ndarray, happened: np.ndarray, bins: int = 15) -> dict[str, Any]:
    """Expected calibration error: how far probabilities are from frequencies, weighted by how often they are given.

    Source: Naeini et al. 2015; Guo et al. 2017, equation 3, with bins of equal width.

    Returns:
        ``ece``, NaN without any; ``bins``: rows of mean probability, frequency and count.
    """
    known = ~np.isnan(probability)
    probability, happened = probability[known], happened[known]
    index = np.minimum((probability * bins).astype(int), bins - 1)
    rows = [
        (float(probability[index == i].mean()), float(happened[index == i].mean()), int((index == i).sum()))
        for i in np.unique(index)
    ]
    total = len(probability)
    error = sum(count / total * abs(mean - share) for mean, share, count in rows) if total else float("nan")
    return {"ece": error, "bins": rows}


def summarise(episodes: list[Judged]) -> dict[str, Any]:
    """Figures for ``reward`` and ``end``.

    Returns:
        For each: ``precision``, ``recall``, ``f1`` at lag 0, all three by lag under ``lags``; ``said`` and ``real``
        counts; ``calibration`` over all transitions, and ``doubtful`` over those of at least :data:`DOUBTFUL`.
    """
    columns = {
        "reward": [(j.reward_said, j.reward, j.reward_probability) for j in episodes],
        "end": [
            ((j.end_probability > 0.5).astype(float), j.terminated.astype(float), j.end_probability) for j in episodes
        ],
    }
    result: dict[str, Any] = {}
    for name, rows in columns.items():
        said, real = (sum(int((row[i] != 0).sum()) for row in rows) for i in (0, 1))
        lags = {}
        for lag in LAGS:
            hits = sum(matches(row[0], row[1], lag) for row in rows)
            precision, recall = (hits / n if n else float("nan") for n in (said, real))
            lags[str(lag)] = {
                "precision": precision,
                "recall": recall,
                "f1": 2 * hits / (said + real) if said + real else float("nan"),
            }
        probability, happened = np.concatenate([row[2] for row in rows]), np.concatenate([row[1] != 0 for row in rows])
        doubtful = probability >= DOUBTFUL
        result[name] = {
            **lags["0"],
            "said": said,
            "real": real,
            "lags": lags,
            "calibration": calibration(probability, happened),
            "doubtful": calibration(probability[doubtful], happened[doubtful]),
        }
    return result


def teacher_forced_events(
    world: World, store: EpisodeStore, progress: Callable[[], None] | None = None
) -> dict[str, Any]:
    """See :func:`summarise`; over all episodes."""
    rewards = [np.abs(store.rewards(i)) for i in store.ids]
    least = min((float(r[r > 0].min()) for r in rewards if (r > 0).any()), default=1.0)
    judged = []
    for episode in store.ids:
        judged.append(judge_episode(world, store, episode, least))
        if progress is not None:
            progress()
    return summarise(judged)
