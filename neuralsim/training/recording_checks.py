"""Is there something to learn from these recordings?"""

from __future__ import annotations

import numpy as np

from neuralsim.data.episodes import EpisodeStore
from neuralsim.data.show import summarise
from neuralsim.training.diagnostic_rules import Finding
from neuralsim.training.weight_checks import Check, some

MAJORITY = 0.9
"""Share of one action, or one reward, above which it drowns the others."""
FEWEST_EVENTS = 50
"""Rare rewards can be shown more often in training, but not if there are fewer than this to show."""


def check_recordings(store: EpisodeStore) -> list[Check]:
    """Counts actions and rewards."""
    if not len(store):
        empty = Finding("no_episodes", "error", "there are no episodes", "record some: neuralsim record --help")
        return [Check("episodes", "", (empty,))]
    try:
        summary = summarise(store)
    except (ValueError, KeyError) as error:
        damaged = Finding("recordings_damaged", "error", str(error), "neuralsim data show --verify reads every frame")
        return [Check("episodes", "", (damaged,))]
    episodes = Check("episodes", f"{summary.episodes} with {summary.steps:,} steps, all readable")
    rewards = {0.0: summary.steps - sum(summary.rewards.values()), **summary.rewards}
    return [episodes, check_actions(summary.actions), check_rewards({k: n for k, n in rewards.items() if n})]


def check_actions(actions: dict[str, np.ndarray]) -> Check:
    """Whether one action, with all its parts, is taken nearly always.

    Args:
        actions: Name of a part -> its values ``(N,)``; an action with a single part has the name "".
    """
    whole = np.stack([np.asarray(values, np.float64) for values in actions.values()], axis=1)
    share, action = _commonest(whole)
    findings = []
    if share > MAJORITY:
        shown = ", ".join(f"{value:g}" for value in action[:8]) + (", ..." if len(action) > 8 else "")
        findings.append(
            Finding(
                "action_imbalance",
                "warning",
                f"{share:.1%} of {len(whole):,} actions are {shown}",
                "what the other actions do is seen too rarely to be learned: record other play, mixed from several "
                "policies and random actions",
            )
        )
    parts = {name: _commonest(values[:, None])[0] for name, values in actions.items()}
    rare = [name for name, most in parts.items() if most > MAJORITY]
    if rare and not findings:
        findings.append(
            Finding(
                "action_part_imbalance",
                "note",
                f"{len(rare)} of {len(parts)} parts of the action hardly ever change: {some(rare)}",
                "what they do is learned slowly; record play that uses them, if it matters",
            )
        )
    return Check("actions", f"the commonest is taken {share:.1%} of the time", tuple(findings))


def check_rewards(counts: dict[float, int]) -> Check:
    """Whether there are rewards to learn from.

    Args:
        counts: Reward, 0 included -> how often it came (at least once).
    """
    steps = sum(counts.values())
    common = max(counts, key=lambda reward: counts[reward])
    others = steps - counts[common]
    share = counts[common] / steps
    seen = f"{share:.1%} of them are {common:g}, {others:,} are not"
    findings = []
    if share > MAJORITY and others < FEWEST_EVENTS:
        findings.append(
            Finding(
                "reward_imbalance",
                "warning",
                f"{steps - others:,} of {steps:,} rewards are {common:g}",
                f"from fewer than {FEWEST_EVENTS} others no head learns when they come: record more, or better play",
            )
        )
    elif share > MAJORITY:
        findings.append(
            Finding(
                "reward_imbalance",
                "note",
                f"{share:.1%} of {steps:,} rewards are {common:g}",
                "show the others more often in training (--clips.events), and judge the heads by precision and recall",
            )
        )
    return Check("rewards", seen, tuple(findings))


def _commonest(rows: np.ndarray) -> tuple[float, np.ndarray]:
    """Share of the commonest row of ``(N, parts)``, and that row."""
    kinds, counts = np.unique(rows, axis=0, return_counts=True)
    return float(counts.max() / counts.sum()), kinds[counts.argmax()]
