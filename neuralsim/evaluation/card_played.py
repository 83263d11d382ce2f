"""Sections of the world card about play: a player, many policies, possible futures and long dreams."""

from __future__ import annotations

from typing import Any

from neuralsim.evaluation.figures import fixed, interval, number, percent, quartiles, table
from neuralsim.evaluation.games import LATE
from neuralsim.evaluation.long_dreams import WINDOW


def closed_loop(card: dict[str, Any]) -> list[str]:
    """What a player meets in the dream and in the real game."""
    dream, real = card["closed_loop"]["dream"], card["closed_loop"]["real"]
    rows = [[name.replace("_", " "), number(dream[name]), number(real[name])] for name in dream]
    return [
        "## Closed loop",
        "",
        f"{card['player']} acts on the frames alone: {card['lanes']} lanes of {card['steps']} steps, in the dream and "
        "in the real game.",
        "",
        *table(["", "dream", "real"], rows),
    ]


def games(card: dict[str, Any]) -> list[str]:
    """Whole games, beside real ones."""
    lines = ["## Whole games", ""]
    for player, figures in card["games"].items():
        dream, real = figures["dream"], figures["real"]
        rows = [
            ["games (ended)", *(f"{side['games']} ({side['ended']})" for side in (dream, real))],
            ["points won, of all", *(interval(side["won"], 2) for side in (dream, real))],
            ["points per 1,000 steps", *(interval(side["points_per_1000"], 2) for side in (dream, real))],
            ["game length, steps", *(quartiles(side["lengths"]) for side in (dream, real))],
            ["rally, steps", *(quartiles(side["rallies"]) for side in (dream, real))],
            ["board counts the point", *(interval(side["board"], 2) for side in (dream, real))],
            [f"board legible after {LATE} steps", *(interval(side["legible"], 2) for side in (dream, real))],
        ]
        distance = figures["distance"]
        lines += [
            f"{player}, from the first serve to the last point (quartiles and medians; largest gap between the "
            f"distributions: lengths {percent(distance['lengths'])}, rallies {percent(distance['rallies'])}).",
            "",
            *table(["", "dream", "real"], rows),
        ]
    return lines


def ranking(card: dict[str, Any]) -> list[str]:
    """Which policy is better."""
    figures = card["ranking"]
    rows = [
        [name, *(interval(row[side], 1) for side in ("dream", "real", "control"))]
        for name, row in figures["policies"].items()
    ]
    return [
        "## Order of policies",
        "",
        f"Reward per 1,000 steps, {figures['lanes']} lanes of {figures['steps']} steps each. In the control "
        "actions are shuffled among the lanes at every step: what a policy does hardly shows there.",
        "",
        *table(["", "dream", "real", "control"], rows),
        f"Spearman {interval(figures['spearman'], 2)} (control {interval(figures['control']['spearman'], 2)}), Pearson "
        f"{interval(figures['pearson'], 2)}, mean maximum rank violation {interval(figures['mmrv'], 2)}. Taking the "
        f"policy that the dream calls best costs {fixed(figures['regret'], 2)}.",
        "",
        *(line for kind, gap in figures.get("exploitation", {}).items() for line in _exploitation(kind, gap)),
    ]


def _exploitation(kind: str, gap: dict[str, Any]) -> list[str]:
    rows = [
        [f"{int(age):,}", *(interval(row[side], 1) for side in ("dream", "real", "gap"))]
        for age, row in gap["ages"].items()
    ]
    return [
        f"### Exploitation: {kind}",
        "",
        "An agent that learned in this dream, by its steps of training (0: the clone it began from):",
        "",
        *table(["steps", "dream", "real", "dream less real"], rows),
        f"Training gained it {interval(gap['dream_gain'], 1)} in the dream and {interval(gap['real_gain'], 1)} in "
        f"reality: {interval(gap['exploitation'], 1)} were the dream's own.",
        "",
    ]


def counterfactuals(card: dict[str, Any]) -> list[str]:
    """Which future is better."""
    figures = card["counterfactuals"]
    outcome = figures["return"]
    rows = [
        [name, str(row["pairs"]), interval(row["order"], 2)]
        for name, row in (("return", outcome), *figures["things"].items())
    ]
    return [
        "## Order of possible futures",
        "",
        f"From {figures['moments']} real moments, {figures['branches']} futures of {figures['horizon']} steps each, in "
        "the emulator and in the dream: share of the pairs that really differ which the dream puts in the right order "
        "(0.5 is chance).",
        "",
        *table(["", "pairs", "in order"], rows),
        f"Taking the future that the dream calls best costs {interval(outcome['regret'], 2)} of the real return, a "
        f"random one {interval(outcome['regret_random'], 2)}.",
        "",
    ]


def long_dreams(card: dict[str, Any]) -> list[str]:
    """Whether a dream stays what it is."""
    figures = card["long_dreams"]
    dream, real = figures["dream"], figures["real"]
    at = list(figures["drift"])
    rows = []
    for name, values in dream["windows"].items():
        usual = real["windows"][name]
        shown = [values[int(step) // WINDOW - 1] for step in at]
        drift = [figures["drift"][step][name] for step in at]
        rows.append(
            [
                name.replace("_", " "),
                number(sum(usual) / len(usual)),
                *(f"{number(value)} ({gap:+.1f})" for value, gap in zip(shown, drift, strict=True)),
            ]
        )
    ends, real_ends = dream["episodes"], real["episodes"]
    distance = figures["distance"]
    return [
        "## Long dreams",
        "",
        f"{figures['lanes']} lanes of {figures['steps']:,} steps, {card['player']}; means over {WINDOW} steps, with "
        "their distance from reality in standard deviations of such means.",
        "",
        *table(["", "real", *(f"after {int(step):,}" for step in at)], rows),
        f"{len(ends['lengths'])} dreamed and {len(real_ends['lengths'])} real episodes ended: mean length "
        f"{_mean(ends['lengths'])} against {_mean(real_ends['lengths'])} steps, mean return {_mean(ends['returns'])} "
        f"against {_mean(real_ends['returns'])} (largest gap between the distributions: lengths "
        f"{percent(distance['lengths'])}, returns {percent(distance['returns'])}).",
        "",
    ]


def _mean(values: list[float]) -> str:
    return number(sum(values) / len(values)) if values else "-"
