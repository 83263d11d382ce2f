"""Counterfactuals: from one real moment many futures, in the emulator and in the dream. Which is better?

A planner asks a world exactly this. The emulator answers too, because it can be set back (``clone_state``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from neuralsim.agents.policies import Policy, make_policy
from neuralsim.envs.real import make_real
from neuralsim.evaluation.intervals import mean, ratio
from neuralsim.evaluation.probes import Probes, find
from neuralsim.world import World

PATIENCE = 10_000
"""Steps of play after which no moment comes any more."""
APART = (20, 60)
"""Steps of play between two moments from which futures branch off, drawn in this range."""


@dataclass
class Futures:
    """Futures of many moments.

    Attributes:
        rewards: ``(moments, branches, T)``; 0 after the end of an episode.
        places: By thing ``(moments, branches, n)``, where it is at the end; NaN where it is absent.
    """

    rewards: np.ndarray
    places: dict[str, np.ndarray]


def can_branch(env: gym.Env) -> bool:
    """Whether an environment can be set back to an earlier moment."""
    return hasattr(env.unwrapped, "clone_state") and hasattr(env.unwrapped, "restore_state")


def counterfactuals(
    world: World,
    player: str,
    probes: Probes | None,
    moments: int,
    branches: int,
    horizon: int,
    sampling_steps: int,
    seed: int = 200,
    progress: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Branches off real play and compares what the dream and the emulator say of each branch.

    Args:
        world: The world.
        player: Policy that plays between the moments, as :func:`~neuralsim.agents.policies.make_policy` reads it.
        probes: What to look for at the end, or None.
        moments: How many real moments.
        branches: Futures of each: actions held for 1 to 12 steps, drawn at random.
        horizon: Steps of a future.
        sampling_steps: Sampling steps K.
        seed: Of play, branches and dreams.
        progress: Called after each moment.

    Returns:
        See :func:`compare_futures`.

    Raises:
        ValueError: If the environment cannot be set back.
    """
    # A time limit would go on counting through futures that were never played.
    kwargs = {**(world.config.env_kwargs or {}), "max_episode_steps": -1}
    env = make_real(world.config.env_id, kwargs, world.config.preprocessing)
    if not can_branch(env):
        env.close()
        raise ValueError(f"{world.config.env_id} cannot be set back: it has no clone_state and restore_state")
    rng, context = np.random.default_rng(seed), world.dynamics.context_length
    guide, wanderer = make_policy(player, env), make_policy("sticky-random", env)
    guide.reset(seed)
    frame, _ = env.reset(seed=seed)
    frames: deque[np.ndarray] = deque([frame], maxlen=context)
    actions: deque[np.ndarray] = deque(maxlen=context - 1)
    real, dreamed = [], []
    for moment in range(moments):
        wait = int(rng.integers(*APART)) + (context if moment == 0 else 0)
        patience = wait + PATIENCE
        while wait > 0 or len(frames) < context:
            patience -= 1
            if patience < 0:
                env.close()
                raise ValueError(
                    f"{player} plays no episode of {context} frames, as long as this world looks back, within "
                    f"{PATIENCE:,} steps: choose another --player, or leave out counterfactuals"
                )
            action = guide.act(frame, {})
            frame, _, terminated, truncated, _ = env.step(action)
            frames.append(frame)
            actions.append(world.actions.encode(action))
            wait -= 1
            if terminated or truncated:
                frame, _ = env.reset()
                guide.reset()
                frames.clear()
                actions.clear()
                frames.append(frame)
        chosen = _draw(wanderer, world, frame, branches, horizon, seed + moment)
        real.append(_emulate(env, world, chosen))
        dreamed.append(_dream(world, np.stack(frames), list(actions), chosen, sampling_steps, seed + moment))
        if progress is not None:
            progress()
    env.close()
    return compare_futures(_futures(dreamed, probes), _futures(real, probes), probes)


Outcome = tuple[np.ndarray, np.ndarray]
"""Rewards ``(branches, T)`` and last frames ``(branches, H, W, 3)`` of one moment's futures."""


def _draw(policy: Policy, world: World, frame: np.ndarray, branches: int, horizon: int, seed: int) -> np.ndarray:
    """Encoded actions ``(branches, horizon, A)``."""
    rows = []
    for branch in range(branches):
        policy.reset(seed * 1000 + branch)
        rows.append(np.stack([world.actions.encode(policy.act(frame, {})) for _ in range(horizon)]))
    return np.stack(rows)


def _emulate(env: gym.Env, world: World, actions: np.ndarray) -> Outcome:
    """Plays every branch and sets the emulator back after each."""
    unwrapped: Any = env.unwrapped
    saved = unwrapped.clone_state(include_rng=True)
    rewards, last = np.zeros(actions.shape[:2]), []
    for branch, row in enumerate(actions):
        for t, encoded in enumerate(row):
            frame, rewards[branch, t], terminated, _, _ = env.step(world.actions.decode(encoded))
            if terminated:
                break
        last.append(frame)
        unwrapped.restore_state(saved)
    return rewards, np.stack(last)


def _dream(
    world: World, frames: np.ndarray, past: list[np.ndarray], actions: np.ndarray, sampling_steps: int, seed: int
) -> Outcome:
    """Dreams every branch from the same context, all in one batch."""
    branches, horizon = actions.shape[:2]
    before = world.actions.decode(np.stack(past)[None]) if past else None
    state = world.start(frames[None], before).select([0] * branches)
    state = state.reseed([seed * 1000 + branch for branch in range(branches)])
    rewards, alive, latent = np.zeros((branches, horizon)), np.ones(branches, bool), state.latent
    for t in range(horizon):
        state, said = world.step(state, world.actions.decode(actions[:, t]), steps=sampling_steps)
        rewards[:, t] = np.where(alive, said.reward.cpu().numpy(), 0.0)
        over = said.terminated.cpu().numpy() & alive
        # What an emulator shows at the end of an episode stands still.
        going = torch.from_numpy(alive).to(latent.device)[:, None, None, None]
        latent = torch.where(going, said.latent, latent)
        alive &= ~over
    return rewards, world.decode(latent).cpu().numpy()


def _futures(outcomes: list[Outcome], probes: Probes | None) -> Futures:
    places = {}
    if probes is not None:
        for name, found in find(probes, np.stack([last for _, last in outcomes])).items():
            places[name] = np.where(found.present[..., None], found.position, np.nan)
    return Futures(np.stack([rewards for rewards, _ in outcomes]), places)


def compare_futures(dreamed: Futures, real: Futures, probes: Probes | None) -> dict[str, Any]:
    """How far dream and emulator agree on which branch is which.

    Args:
        dreamed: What the dream says.
        real: What the emulator says.
        probes: The things whose places were noted, with their tolerances.

    Returns:
        ``moments``, ``branches``, ``horizon``; ``return``: ``order``, the share of pairs of branches with different
        real returns that the dream puts in the same order (a tie is half right; 0.5 is chance), ``pairs``, how many
        there are, ``regret``, real return lost by taking the branch that the dream calls best (the mean over those
        where several are), and ``regret_random``, the same for a random branch; ``things``: by coordinate ``order`` and
        ``pairs`` likewise, over pairs whose real places differ by more than the thing's tolerance. Intervals are
        bootstraps over moments.
    """
    returns = {"dream": dreamed.rewards.sum(2), "real": real.rewards.sum(2)}
    best = returns["dream"] == returns["dream"].max(axis=1, keepdims=True)
    taken = (returns["real"] * best).sum(1) / best.sum(1)
    highest = returns["real"].max(axis=1)
    things: dict[str, Any] = {}
    for thing in probes.things if probes is not None else ():
        for n, coordinate in enumerate(thing.position):
            said, truth = (futures.places[thing.name][..., n] for futures in (dreamed, real))
            things[coordinate] = _order(said, truth, thing.tolerance)
    return {
        "moments": len(best),
        "branches": best.shape[1],
        "horizon": real.rewards.shape[2],
        "return": {
            **_order(returns["dream"], returns["real"], 0.0),
            "regret": mean(highest - taken),
            "regret_random": mean(highest - returns["real"].mean(axis=1)),
        },
        "things": things,
    }


def _order(said: np.ndarray, truth: np.ndarray, tolerance: float) -> dict[str, Any]:
    """Share of pairs ``(moments, branches)`` in the right order, of those that really differ by more than this."""
    gap_said, gap_true = said[:, :, None] - said[:, None], truth[:, :, None] - truth[:, None]
    with np.errstate(invalid="ignore"):
        counts = np.triu(np.abs(gap_true) > tolerance, 1)
    # A thing that the dream has lost says nothing about its place: as a tie, half right.
    agrees = np.where(np.isnan(gap_said), 0.5, (1 + np.sign(np.nan_to_num(gap_said)) * np.sign(gap_true)) / 2)
    right = np.where(counts, agrees, 0.0).sum((1, 2))
    pairs = counts.sum((1, 2)).astype(float)
    return {"order": ratio(right, pairs), "pairs": int(pairs.sum())}
