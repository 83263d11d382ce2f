"""Dream against reality for policies: does the dream say which of them is better?

A world that is used to choose or to train policies need not be right to the pixel; it must put policies in their real
order. Figures: rank correlation (Spearman), correlation (Pearson), and the mean maximum rank violation of SIMPLER (Li
et al. 2024, "Evaluating real-world robot manipulation policies in simulation"): how much real score is lost, at worst,
by believing the dream about two policies. Agents that learned in the dream play along at several ages: what they have
gained there and not in reality is exploitation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from neuralsim.agents.agent import agent_facts, find_agent
from neuralsim.agents.policies import Policy
from neuralsim.evaluation.exploitation import exploitation_gap
from neuralsim.evaluation.intervals import mean, resampled_means
from neuralsim.evaluation.playing import Moment, dream_play, make_players, real_play
from neuralsim.world import World
from neuralsim.world_files import AGENTS

PONG_POLICIES = (
    "random",
    "noop",
    "sticky-random",
    "pong-mix",
    "scripted=0",
    "scripted=0.25",
    "scripted=0.5",
    "scripted=0.75",
    "scripted=1",
)
"""Policies of different strength for Pong, as :func:`~neuralsim.agents.policies.make_policy` reads them."""
FEWEST = 3
"""Fewer policies have no order to speak of."""


def rank_policies(
    world: World,
    policies: tuple[str, ...],
    lanes: int,
    steps: int,
    sampling_steps: int,
    seed: int = 100,
    progress: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Lets policies play in the dream, in reality, and in a dream that does not listen to them.

    Args:
        world: The world.
        policies: Names, see :data:`~neuralsim.agents.policies.POLICIES`; each once.
        lanes: Lanes per policy.
        steps: Steps per lane.
        sampling_steps: Sampling steps K.
        seed: Of policies, starts and games.
        progress: Called after each step of all lanes.

    Returns:
        See :func:`compare_scores`, ``steps`` and ``lanes``; and ``exploitation``, by kind of agent, of those that
        learned in this world (:func:`~neuralsim.evaluation.exploitation.exploitation_gap`).

    Raises:
        ValueError: If a policy does not fit the environment, or there are too few.
    """
    check_policies(world, policies)

    def players() -> list[Policy]:
        return make_players(world, [name for name in policies for _ in range(lanes)])

    def scores(moments: Iterable[Moment]) -> np.ndarray:
        total = sum(moment.rewards.astype(float) for moment in moments)
        return np.asarray(total).reshape(len(policies), lanes) * 1000 / steps

    real = scores(real_play(world, players(), steps, seed, progress=progress))
    dreamed = scores(dream_play(world, players(), steps, sampling_steps, seed, progress=progress))
    control = scores(dream_play(world, players(), steps, sampling_steps, seed, shuffled=True, progress=progress))
    gaps = {}
    for kind, chosen in learned_here(world, policies).items():
        rows = [policies.index(name) for name in chosen.values()]
        gaps[kind] = exploitation_gap(tuple(chosen), dreamed[rows], real[rows])
    return {
        "steps": steps,
        "lanes": lanes,
        **compare_scores(labels(policies), dreamed, real, control),
        "exploitation": gaps,
    }


def labels(policies: tuple[str, ...]) -> tuple[str, ...]:
    """What a card calls policies: an agent by kind and age, and by its run where that does not tell it from others."""
    brief = [policy if (known := _agent(policy)) is None else f"{known[1]}-{known[2]:07d}" for policy in policies]
    return tuple(
        name if brief.count(name) == 1 or (known := _agent(policy)) is None else f"{known[0]}/{name}"
        for policy, name in zip(policies, brief, strict=True)
    )


def learned_here(world: World, policies: tuple[str, ...]) -> dict[str, dict[int, str]]:
    """Of the policies, agents that learned in this world, by kind and steps of training, youngest first.

    Where several runs are of a kind their names stand before it; agents of one age alone are left out.
    """
    here: dict[tuple[str, str], dict[int, str]] = {}
    checksum = world.config.weights_sha256
    for policy in policies:
        known = _agent(policy)
        if known is not None and checksum and known[3] == checksum:
            here.setdefault(known[:2], {})[known[2]] = policy
    kinds = [kind for _, kind in here]
    return {
        kind if kinds.count(kind) == 1 else f"{run}/{kind}": dict(sorted(of_age.items()))
        for (run, kind), of_age in here.items()
        if len(of_age) > 1
    }


def _agent(policy: str) -> tuple[str, str, int, str | None] | None:
    """Run, kind, steps of training and the world's checksum of a policy that is an agent, else None."""
    name, _, source = policy.partition("=")
    if name != "agent":
        return None
    path, facts = find_agent(source), agent_facts(source)
    home = path.parent.parent if path.parent.name == AGENTS else path.parent
    return home.name, facts["trained"]["kind"], facts["trained"]["steps"], facts["world"]


def check_policies(world: World, policies: tuple[str, ...]) -> None:
    """Complains about policies that cannot be ranked.

    Raises:
        ValueError: If there are fewer than :data:`FEWEST`, one comes twice, or one does not fit the environment.
        ModuleNotFoundError: If one needs an extra that is not installed.
    """
    named = labels(policies)
    if len(named) < FEWEST:
        raise ValueError(f"policies are {policies}; at least {FEWEST} different ones can be ranked")
    if twice := sorted({name for name in named if named.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)} would be ranked twice; name each policy once (policies are {policies})")
    if "keyboard" in policies:
        raise ValueError("a keyboard player does not play the same way twice and cannot be ranked")
    for player in make_players(world, policies):
        player.close()


def compare_scores(
    policies: tuple[str, ...], dreamed: np.ndarray, real: np.ndarray, control: np.ndarray, seed: int = 0
) -> dict[str, Any]:
    """Compares what policies score in a dream and in reality.

    Args:
        policies: Their names, P.
        dreamed: ``(P, lanes)`` score of each lane, reward per 1,000 steps.
        real: Likewise.
        control: Likewise, in a dream that does not listen.
        seed: Of the bootstrap, which resamples the lanes of every policy.

    Returns:
        ``policies``: by name ``dream``, ``real`` and ``control``, each a mean with its 95 % interval; ``spearman``,
        ``pearson`` and ``mmrv`` of dream against reality with 95 % intervals; ``control``: ``spearman`` of the control;
        ``regret``: real score of the best policy less that of the policy which the dream calls best.
    """
    rng = np.random.default_rng(seed)

    truth, said, unheard = real.mean(1), dreamed.mean(1), control.mean(1)
    truths, says, unheards = (resampled_means(scores, rng) for scores in (real, dreamed, control))

    def figure(measure: Callable[[np.ndarray, np.ndarray], float], x: np.ndarray, xs: np.ndarray) -> dict[str, float]:
        draws = np.array([measure(a, b) for a, b in zip(xs, truths, strict=True)])
        draws = draws[np.isfinite(draws)]
        low, high = np.quantile(draws, [0.025, 0.975]) if len(draws) else (np.nan, np.nan)
        return {"value": float(measure(x, truth)), "low": float(low), "high": float(high), "n": len(policies)}

    rows = {
        name: {"dream": mean(dreamed[i]), "real": mean(real[i]), "control": mean(control[i])}
        for i, name in enumerate(policies)
    }
    return {
        "policies": rows,
        "spearman": figure(spearman, said, says),
        "pearson": figure(pearson, said, says),
        "mmrv": figure(mean_maximum_rank_violation, said, says),
        "control": {"spearman": figure(spearman, unheard, unheards)},
        "regret": float(truth.max() - truth[said.argmax()]),
    }


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation of two ``(n,)``; NaN if one of them is constant."""
    x, y = x - x.mean(), y - y.mean()
    size = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / size) if size > 0 else float("nan")


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Rank correlation of two ``(n,)``; equal values share the mean of their ranks."""
    return pearson(ranks(x), ranks(y))


def ranks(x: np.ndarray) -> np.ndarray:
    """Ranks ``(n,)`` from 0; equal values share their mean."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[inverse]


def mean_maximum_rank_violation(said: np.ndarray, truth: np.ndarray) -> float:
    """For each policy the largest real gap to one that the dream puts on the wrong side of it; their mean.

    Args:
        said: ``(P,)`` scores in the dream.
        truth: ``(P,)`` real ones.

    Returns:
        In units of the real score; 0 where the order is right.
    """
    wrong = (said[:, None] < said) != (truth[:, None] < truth)
    return float((wrong * np.abs(truth[:, None] - truth)).max(axis=1).mean())
