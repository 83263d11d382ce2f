"""The world card: measured figures as a page to read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from neuralsim.evaluation.camera import EARLY, LEAST_FLOW, TURN, TURNING, WITHIN
from neuralsim.evaluation.card_played import closed_loop, counterfactuals, games, long_dreams, ranking
from neuralsim.evaluation.figures import fixed, interval, missing, percent, table
from neuralsim.evaluation.open_loop import FILM, SOURCES
from neuralsim.world_config import history

METRICS = {"psnr": ("PSNR in dB,", 1), "ssim": ("SSIM", 3), "lpips": ("LPIPS", 3), "sharpness": ("sharpness", 2)}
"""Measures of frames: what the card calls them, and with how many digits."""
LABELS = {
    "dream": "dreamed",
    "shuffled": "dreamed with another clip's actions",
    "random": "dreamed with random actions",
    "noop": "dreamed without actions",
    "copy": "copied from the last frame",
    "tokenizer": "tokenizer's ceiling",
}
"""What the card calls the sources of frames."""


def render_card(card: dict[str, Any]) -> str:
    """The card as Markdown; what was not measured has no section."""
    lines = [
        f"# World card: {card['world']}",
        "",
        *([f"**{card['notice']}**", ""] if card.get("notice") else []),
        f"A dream of `{card['env_id']}` with `{card['env_kwargs']}`, K = {card['sampling_steps']} sampling steps.",
        "",
    ]
    for key, section in SECTIONS.items():
        if key is None or card.get(key):
            lines += section(card)
    return "\n".join(lines)


def _origin(card: dict[str, Any]) -> list[str]:
    trained, held = card["trained_on"], card["held_out"]
    recordings = trained.get("recordings", {})
    lines = ["## Where it comes from", ""]
    if recordings:
        lines.append(
            f"- Trained on {recordings['episodes']} episodes, {recordings['steps']:,} steps: `{recordings['command']}`"
        )
    for part in ("tokenizer", "dynamics", "heads"):
        if "seconds" in trained.get(part, {}):
            runs = [trained[part], *history(trained[part])]
            spent = [f"{run['steps']:,} steps in {run['seconds'] / 60:.0f} minutes" for run in runs if "seconds" in run]
            lines.append(f"- {part.capitalize()}: trained for {', after '.join(spent)}")
    for run, facts in trained.get("dynamics", {}).get("blend", {}).items():
        took = f", {facts['steps']:,} steps in {facts['seconds'] / 60:.0f} minutes" if "seconds" in facts else ""
        lines.append(f"- Dynamics: {percent(facts['share'])} of its weights are those of {run}{took}")
    lines += [
        f"- Judged on {held['episodes']} held-out episodes, {held['steps']:,} steps: `{held['command']}`",
        "",
    ]
    return lines


def _tokenizer(card: dict[str, Any]) -> list[str]:
    figures = card["tokenizer"]
    rows = [["PSNR", f"{figures['psnr']:.1f} dB"]]
    for name, value in figures.items():
        if name in ("psnr", "frames") or value is None:
            continue
        ghost = name.startswith("no_ghost_")
        rows.append([f"no ghost of the {name[9:]}" if ghost else f"{name} within 1 pixel", percent(value)])
    return [
        "## Tokenizer",
        "",
        f"{figures['frames']:,} held-out frames, encoded and decoded.",
        "",
        *table(" " * 2, rows),
    ]


def _by_source(by_horizon: dict[str, Any], name: str) -> list[list[str]]:
    """Rows of a metric or a thing, one for each source of frames."""
    label, digits = METRICS.get(name, (name, 2))
    return [
        [
            f"{label} {LABELS[source]}",
            *(interval(row[name][source], digits, brief=source != "dream") for row in by_horizon.values()),
        ]
        for source in SOURCES
    ]


def _open_loop(card: dict[str, Any]) -> list[str]:
    by_horizon = card["open_loop"]
    horizons = list(by_horizon)
    first = by_horizon[horizons[0]]
    metrics = [name for name in METRICS if name in first]
    things = [name for name in first if name not in METRICS and not name.startswith(("false_", "present_"))]
    rows = []
    for name in (*metrics, *things):
        rows += _by_source(by_horizon, name)
        if name in things:
            cells = [interval(by_horizon[h][f"false_{name}"], 2, brief=True) for h in horizons]
            rows.append([f"{name} dreamed where there is none", *cells])
            for figure in ("precision", "recall") if f"present_{name}" in first else ():
                cells = [interval(by_horizon[h][f"present_{name}"][figure], 2, brief=True) for h in horizons]
                rows.append([f"{name} there or not, {figure}", *cells])
    return [
        "## Open loop",
        "",
        f"{card['clips']} held-out clips, recorded actions, by steps into the dream. For things: the share of the "
        "frames that hold one in which it is within its tolerance. With 95 % intervals over clips.",
        "",
        *table(["horizon", *horizons], rows),
    ]


def _controllability(card: dict[str, Any]) -> list[str]:
    figures = card["controllability"]
    lines = ["## Controllability", ""]
    if "delta_psnr" in figures:
        lines += [f"Delta_t PSNR (t = 4, random actions): {interval(figures['delta_psnr'], 2)} dB.", ""]
    ratios = figures["error_ratio"]
    horizons = list(next(iter(ratios.values())))
    rows = [[LABELS[wrong], *(interval(row[h], 2) for h in horizons)] for wrong, row in ratios.items()]
    return [
        *lines,
        "Squared error with wrong actions over squared error with those taken (1: the dream does not listen).",
        "",
        *table(["horizon", *horizons], rows),
    ]


def _trust(card: dict[str, Any]) -> list[str]:
    trust = card["trust"]
    judged, curve = trust["judged"], trust["curve"]
    rows = [
        ["error", *(fixed(error, 3) for error in curve["errors"])],
        ["rank correlation among clips", *(fixed(judged["by_horizon"][str(step)], 2) for step in curve["steps"])],
    ]
    return [
        "## Trust while dreaming",
        "",
        "Error of dreamed latents: 0 is exact, 1 as far from reality as any other frame of the game. "
        '`info["horizon_trust"]` is 1 less the error at that step; `info["uncertainty"]` the error to expect from how '
        "unsure the sampling has been so far. Calibrated on one half of the clips; on the other half its rank "
        f"correlation with the true error is {fixed(judged['rank_correlation'], 2)} over all frames"
        + (f" (that of the mere number of steps: {fixed(judged['clock'], 2)})" if "clock" in judged else "")
        + f", and it is off by {fixed(judged['off'], 3)} where the mean error is {fixed(judged['error'], 3)}.",
        "",
        *table(["horizon", *map(str, curve["steps"])], rows),
    ]


def _films(card: dict[str, Any]) -> list[str]:
    reader = card["inverse_dynamics"]
    if not reader["actions"]:
        return []
    distance = ", ".join(f"{name} {value:.3g}" for name, value in reader["distance"].items())
    return [
        "## Actions read off dreamed frames",
        "",
        "A network trained on other real recordings reads the actions off the frames: macro F1 "
        f"{reader['f1_dream']:.3f} on dreamed and {reader['f1_real']:.3f} on real frames of the same "
        f"{reader['actions']:,} actions (ratio {fixed(reader['f1_ratio'], 2)}).",
        "",
        f"Frechet distance of its features to those of the real films (not FVD): {distance}. The past is real too: "
        "what is left there is noise.",
        "",
        *_parts_read(reader.get("parts") or {}),
    ]


def _parts_read(parts: dict[str, dict[str, float]]) -> list[str]:
    if not parts:
        return []
    rows = [[name, f"{row['times']:,}", fixed(row["dream"], 3), fixed(row["real"], 3)] for name, row in parts.items()]
    return [
        "By part of an action; for a button F1 of its being pressed, for others macro F1:",
        "",
        *table(["part", "times not idle", "on dreamed frames", "on real ones"], rows),
    ]


def _camera(card: dict[str, Any]) -> list[str]:
    if not any(row["turns"] for row in card["camera"].values()):
        return []
    rows = [
        [name, str(row["turns"]), interval(row["same_way"], 2), interval(row["as_far"], 2)]
        for name, row in card["camera"].items()
    ]
    least, most = TURN
    return [
        "## Camera",
        "",
        f"Recorded turns by {least:g} to {most:g} degrees within {TURNING} of the first {FILM} steps: how the picture "
        f"moves meanwhile, dreamed and really (phase correlation, where the real one moves by {LEAST_FLOW:g} pixels or "
        f"more); as far means within {percent(WITHIN)} of the real movement.",
        "",
        *table(["turn", "turns", "the same way", "as far"], rows),
    ]


def _camera_in_motion(card: dict[str, Any]) -> list[str]:
    figures = card["camera_in_motion"]
    by_horizon = figures["open_loop"]
    horizons = list(by_horizon)
    rows = [row for name in METRICS if name in by_horizon[horizons[0]] for row in _by_source(by_horizon, name)]
    return [
        "## Open loop, camera in motion",
        "",
        f"The {figures['clips']} of those clips in which the camera looks {TURN[0]:g} degrees or more away from where "
        f"it began within {EARLY} steps.",
        "",
        *table(["horizon", *horizons], rows),
    ]


def _fvd(card: dict[str, Any]) -> list[str]:
    fvd = card["fvd"]
    return [
        "## FVD",
        "",
        f"{fvd['dream']:.1f} (a film that stands still: {fvd['copy']:.1f}), {fvd['clips']} clips of 16 frames.",
        "",
    ]


def _events(card: dict[str, Any]) -> list[str]:
    rows = []
    for name, row in card["events"].items():
        cells = [row["precision"], row["recall"], row["f1"], *(row["lags"][lag]["f1"] for lag in ("1", "2"))]
        errors = [row[key]["ece"] for key in ("calibration", "doubtful")]
        rows.append(
            [name, str(row["real"]), *(fixed(cell, 3) for cell in cells), *(fixed(error, 4) for error in errors)]
        )
    head = ["", "real events", "precision", "recall", "F1", "F1 within 1 step", "within 2", "ECE", "ECE where doubtful"]
    return ["## Rewards and ends on real transitions", "", *table(head, rows)]


def _dreamed_events(card: dict[str, Any]) -> list[str]:
    figures = card["dreamed_events"]
    rows = []
    for name, label in (("all", "all"), ("won", "above 0"), ("lost", "below 0")):
        row = figures[name]
        rows.append(
            [label, str(row["real"]), str(row["said"]), *(interval(row[k], 2) for k in ("precision", "recall"))]
        )
    return [
        "## Rewards in dreams of recorded actions",
        "",
        f"Within {figures['lag']} steps, in the first {figures['span']} steps of {card['clips']} dreams.",
        "",
        *table(["rewards", "real", "dreamed", "precision", "recall"], rows),
    ]


def _returns(card: dict[str, Any]) -> list[str]:
    rows = [
        [span, *(interval(row[name], 2, brief=name == "constant") for name in ("error", "bias", "constant"))]
        for span, row in card["returns"].items()
    ]
    head = ["steps", "mean error of the dreamed return", "its bias", "error of a constant"]
    return ["## Returns of recorded actions", "", *table(head, rows)]


def _cost(card: dict[str, Any]) -> list[str]:
    cost = card["cost"]
    speeds = cost["steps_per_second"]
    steps = list(next(iter(speeds.values())))
    threads = f"{cost['threads']} thread{'s' if cost['threads'] != 1 else ''}"
    latency, share = cost["latency_ms"], cost["matmul_share"]
    return [
        "## Cost",
        "",
        f"Steps per second with pictures, all lanes together ({cost['machine']}, {threads}).",
        "",
        *table(
            ["lanes", *(f"K = {k}" for k in steps)],
            [[lanes, *(f"{row[k]:.0f}" for k in steps)] for lanes, row in speeds.items()],
        ),
        f"Latency of one step of one dream at K = {card['sampling_steps']}: {latency['p50']:.1f} ms (median), "
        f"{latency['p99']:.1f} ms (99th percentile). {cost['flops'] / 1e9:.3g} GFLOP per step, "
        f"{cost['bytes_per_lane'] / 1024:.0f} KiB per lane"
        + ("." if missing(share) else f"; the largest batch reaches {percent(share)} of the rate of a matrix product."),
        "",
        "Parameters: " + ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in card["parameters"].items()) + ".",
        "",
    ]


def _not_measured(card: dict[str, Any]) -> list[str]:
    return ["## Not measured", "", *(f"- {name}: {why}" for name, why in card["not_measured"].items()), ""]


SECTIONS: dict[str | None, Callable[[dict[str, Any]], list[str]]] = {
    None: _origin,
    "tokenizer": _tokenizer,
    "open_loop": _open_loop,
    "controllability": _controllability,
    "trust": _trust,
    "inverse_dynamics": _films,
    "camera": _camera,
    "camera_in_motion": _camera_in_motion,
    "fvd": _fvd,
    "events": _events,
    "dreamed_events": _dreamed_events,
    "returns": _returns,
    "closed_loop": closed_loop,
    "games": games,
    "ranking": ranking,
    "counterfactuals": counterfactuals,
    "long_dreams": long_dreams,
    "cost": _cost,
    "not_measured": _not_measured,
}
"""Sections in order, by the entry of the card that they need."""
