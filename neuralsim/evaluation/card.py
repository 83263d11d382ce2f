"""The world card: measured figures as a page to read."""

from __future__ import annotations

import math
from typing import Any

from neuralsim.evaluation.open_loop import SOURCES


def render_card(card: dict[str, Any]) -> str:
    """The card as Markdown."""
    lines = [
        f"# World card: {card['world']}",
        "",
        f"A dream of `{card['env_id']}` with `{card['env_kwargs']}`, K = {card['sampling_steps']} sampling steps.",
        "",
    ]
    lines += _origin(card)
    lines += _tokenizer(card["tokenizer"])
    lines += _open_loop(card)
    lines += _controllability(card["controllability"])
    lines += _films(card)
    lines += _events(card["events"])
    lines += _returns(card["returns"])
    if "closed_loop" in card:
        lines += _closed_loop(card)
    speed, parameters = card["speed"], card["parameters"]
    lines += [
        "## Cost",
        "",
        f"{speed['steps_per_second']:.0f} steps/s for one dream with pictures ({speed['threads']} threads, "
        f"{speed['device']}). Parameters: "
        + ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in parameters.items())
        + ".",
        "",
    ]
    if card["not_measured"]:
        lines += ["## Not measured", "", *(f"- {name}: {why}" for name, why in card["not_measured"].items()), ""]
    return "\n".join(lines)


def _origin(card: dict[str, Any]) -> list[str]:
    trained, held = card["trained_on"], card["held_out"]
    recordings = trained.get("recordings", {})
    lines = ["## Where it comes from", ""]
    if recordings:
        lines.append(
            f"- Trained on {recordings['episodes']} episodes, {recordings['steps']:,} steps: `{recordings['command']}`"
        )
    for part in ("tokenizer", "dynamics"):
        if "seconds" in trained.get(part, {}):
            runs = [trained[part]]
            while initial := runs[-1].get("init_from"):
                runs.append(initial)
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


def _tokenizer(figures: dict[str, Any]) -> list[str]:
    rows = [f"| PSNR | {figures['psnr']:.1f} dB |"]
    for name, value in figures.items():
        if name in ("psnr", "frames") or value is None:
            continue
        ghost = name.startswith("no_ghost_")
        label = f"no ghost of the {name[9:]}" if ghost else f"{name} within 1 pixel"
        rows.append(f"| {label} | {percent(value)} |")
    return [
        "## Tokenizer",
        "",
        f"{figures['frames']:,} held-out frames, encoded and decoded.",
        "",
        "| | |",
        "|---|---|",
        *rows,
        "",
    ]


def _open_loop(card: dict[str, Any]) -> list[str]:
    table = card["open_loop"]
    horizons = list(table)
    lines = [
        "## Open loop",
        "",
        f"{card['clips']} held-out clips, recorded actions, by steps into the dream. For things: the share of the "
        "frames that hold one in which it is within its tolerance. With 95 % intervals over clips.",
        "",
        "| horizon | " + " | ".join(horizons) + " |",
        "|---" * (len(horizons) + 1) + "|",
    ]
    metrics = [name for name in METRICS if name in table[horizons[0]]]
    things = [name for name in table[horizons[0]] if name not in METRICS and not name.startswith("false_")]
    for name in (*metrics, *things):
        label, digits = METRICS.get(name, (name, 2))
        for source in SOURCES:
            cells = [_interval(table[h][name][source], digits, brief=source != "dream") for h in horizons]
            lines.append(f"| {label} {_LABEL[source]} | " + " | ".join(cells) + " |")
        if name in things:
            cells = [_interval(table[h][f"false_{name}"], 2, brief=True) for h in horizons]
            lines.append(f"| {name} dreamed where there is none | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _controllability(figures: dict[str, Any]) -> list[str]:
    lines = ["## Controllability", ""]
    if "delta_psnr" in figures:
        lines += [f"Delta_t PSNR (t = 4, random actions): {_interval(figures['delta_psnr'], 2, brief=False)} dB.", ""]
    horizons = list(next(iter(figures["error_ratio"].values())))
    lines += [
        "Squared error with wrong actions over squared error with those taken (1: the dream does not listen).",
        "",
        "| horizon | " + " | ".join(horizons) + " |",
        "|---" * (len(horizons) + 1) + "|",
    ]
    for wrong, by_horizon in figures["error_ratio"].items():
        cells = [_interval(by_horizon[h], 2, brief=False) for h in horizons]
        lines.append(f"| {_LABEL[wrong]} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _films(card: dict[str, Any]) -> list[str]:
    reader = card["inverse_dynamics"]
    lines: list[str] = []
    if reader and reader["actions"]:
        distance = ", ".join(f"{name} {value:.3g}" for name, value in reader["distance"].items())
        lines += [
            "A network trained on other real recordings reads the actions off the frames: macro F1 "
            f"{reader['f1_dream']:.3f} on dreamed and {reader['f1_real']:.3f} on real frames of the same "
            f"{reader['actions']:,} actions (ratio {_fixed(reader['f1_ratio'], 2)}).",
            "",
            f"Frechet distance of its features to those of the real films (not FVD): {distance}. The past is real too: "
            "what is left there is noise.",
            "",
        ]
    if card["fvd"]:
        lines += [
            f"FVD: {card['fvd']['dream']:.1f} (a film that stands still: {card['fvd']['copy']:.1f}), "
            f"{card['fvd']['clips']} clips of 16 frames.",
            "",
        ]
    return ["## Films", "", *lines] if lines else []


def _events(events: dict[str, Any]) -> list[str]:
    lines = [
        "## Rewards and ends on real transitions",
        "",
        "| | real events | precision | recall | F1 | F1 within 1 step | within 2 | ECE | ECE where doubtful |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in events.items():
        cells = [row["precision"], row["recall"], row["f1"], *(row["lags"][lag]["f1"] for lag in ("1", "2"))]
        errors = [row[key]["ece"] for key in ("calibration", "doubtful")]
        lines.append(
            f"| {name} | {row['real']} | "
            + " | ".join([*(_fixed(cell, 3) for cell in cells), *(_fixed(error, 4) for error in errors)])
            + " |"
        )
    return [*lines, ""]


def _returns(table: dict[str, Any]) -> list[str]:
    if not table:
        return []
    lines = [
        "## Returns of recorded actions",
        "",
        "| steps | mean error of the dreamed return | its bias | error of a constant |",
        "|---|---|---|---|",
    ]
    for span, row in table.items():
        cells = [_interval(row[name], 2, brief=name == "constant") for name in ("error", "bias", "constant")]
        lines.append(f"| {span} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _closed_loop(card: dict[str, Any]) -> list[str]:
    dream, real = card["closed_loop"]["dream"], card["closed_loop"]["real"]
    lines = [
        "## Closed loop",
        "",
        f"A scripted player of skill {card['skill']} acts on the frames alone: "
        f"{card['lanes']} lanes of {card['steps']} steps, in the dream and in the real game.",
        "",
        "| | dream | real |",
        "|---|---|---|",
    ]
    lines += [f"| {name.replace('_', ' ')} | {_number(dream[name])} | {_number(real[name])} |" for name in dream]
    return [*lines, ""]


METRICS = {"psnr": ("PSNR in dB,", 1), "ssim": ("SSIM", 3), "lpips": ("LPIPS", 3)}
"""Measures of frames: what the card calls them, and with how many digits."""
_LABEL = {
    "dream": "dreamed",
    "shuffled": "dreamed with another clip's actions",
    "random": "dreamed with random actions",
    "noop": "dreamed without actions",
    "copy": "copied from the last frame",
    "tokenizer": "tokenizer's ceiling",
}


def _interval(cell: dict[str, float], digits: int, brief: bool) -> str:
    if math.isnan(cell["value"]):
        return "-"
    text = f"{cell['value']:.{digits}f}"
    return text if brief else f"{text} ({cell['low']:.{digits}f} to {cell['high']:.{digits}f})"


def _fixed(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"


def percent(value: float) -> str:
    """0.123 as "12.3 %"."""
    return f"{100 * value:.1f} %"
