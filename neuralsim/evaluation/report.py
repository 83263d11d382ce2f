"""The world card as a page to look at: one file that needs no network, with plots, films and the card itself.

    write_report(Path("report"), card, render_card(card), films=[("Real and dreamed", frames, 15.0)])

A section is a function from the card to blocks (tiles, charts, paragraphs), or to nothing where the card has no such
figures. To add one, write it and name it in :data:`SECTIONS`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from neuralsim.data.episodes import write_atomically
from neuralsim.evaluation import page
from neuralsim.evaluation.long_dreams import WINDOW
from neuralsim.evaluation.page import Block, Film, Picture, Tile
from neuralsim.evaluation.plots import WHY, Chart, Series, colours
from neuralsim.extras import require

REPORT = "report.html"
"""Name of the file."""
HEADLINE = 16
"""Steps into the dream at which the summary looks, or the nearest that were measured."""


class Form(NamedTuple):
    """How a figure is written."""

    digits: int
    unit: str = ""
    scale: float = 1

    def __call__(self, value: float) -> str:
        """The figure as text."""
        return f"{self.scale * value:.{self.digits}f}{self.unit}"


DECIBELS, PERCENT, NUMBER = Form(1, "\N{NO-BREAK SPACE}dB"), Form(0, "\N{NO-BREAK SPACE}%", 100), Form(2)


class Cell(NamedTuple):
    """A figure and its 95 % interval; NaN where it is not known."""

    value: float
    low: float
    high: float


class Columns(NamedTuple):
    """Many figures and their intervals."""

    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def write_report(
    folder: Path,
    card: dict[str, Any],
    text: str,
    films: Iterable[Film] = (),
    pictures: Iterable[Picture] = (),
) -> Path:
    """Writes the report, in one move.

    Without matplotlib it has no plots, and says which extra brings them.

    Args:
        folder: Where to; made if it is missing.
        card: The figures; what is missing, None or NaN is left out.
        text: The card as Markdown; HTML in it is shown, not obeyed.
        films: Embedded at their own size (see :func:`~neuralsim.evaluation.page.webp`) and enlarged by
            whole numbers when shown.
        pictures: Attention maps, see :func:`~neuralsim.evaluation.attention.attention_pictures`.

    Returns:
        The path of ``report.html``.

    Raises:
        ValueError: For films or pictures of another type or shape.
        OSError: If the place cannot be written to.
    """
    try:
        require("matplotlib", "evaluation", WHY)
        missing = ""
    except ModuleNotFoundError as error:
        missing = str(error)
    name = f"World: {card.get('world', 'without a name')}"
    parts = [f"<h1>{escape(name)}</h1>", f'<p class="lead">{escape(_lead(card))}</p>']
    if missing:
        parts.append(f'<p class="note">No plots here: {escape(missing)}</p>')
    count = itertools.count(1)
    for title, section in SECTIONS.items():
        blocks = [block for block in section(card) if not (missing and isinstance(block, Chart))]
        if blocks:
            parts += [f"<section><h2>{escape(title)}</h2>", *page.blocks(blocks, count), "</section>"]
    parts += page.films(films)
    parts += page.pictures(pictures)
    parts.append(f'<section class="card">{page.markdown(text)}</section>')
    folder.mkdir(parents=True, exist_ok=True)
    html = page.PAGE.format(title=escape(name), style=colours() + page.STYLE, body="\n".join(parts))
    write_atomically(folder / REPORT, html)
    return folder / REPORT


# -- sections


def summary(card: dict[str, Any]) -> list[Block]:
    """A handful of figures, each beside what it has to beat."""
    tiles: list[Block] = []
    table = _rows(card, "open_loop")
    if table:
        horizon = _nearest(table)
        after, row = f"after {horizon} steps", _rows(table, horizon)
        tiles += _beside_others(f"Picture {after} (PSNR)", row.get("psnr", {}), DECIBELS)
        for thing in _things(table)[:3]:
            tiles += _beside_others(f"{thing} in its place {after}", row.get(thing, {}), PERCENT)
    delta = _rows(card, "controllability").get("delta_psnr")
    tiles += _tile("Listens to actions (Δ PSNR)", delta, DECIBELS, {DEAF: 0.0})
    for name, row in _rows(card, "events").items():
        told = {"precision": row.get("precision"), "recall": row.get("recall")}
        tiles += _tile(f"Told from real frames: {name} (F1)", row.get("f1"), NUMBER, told)
    for span, row in itertools.islice(_rows(card, "returns").items(), 1):
        constant = {"always saying the mean": row.get("constant")}
        tiles += _tile(f"Error of the return over {span} steps", row.get("error"), NUMBER, constant)
    return tiles + _rank_tiles(card)[:1]


def open_loop(card: dict[str, Any]) -> list[Block]:
    """Fidelity by horizon, of frames and of things on them."""
    table = _rows(card, "open_loop")
    blocks: list[Block] = []
    for name, (label, better) in METRICS.items():
        caption = (
            f"{better} is better: a dream that can be trusted stays near the tokenizer's ceiling, and away from "
            "a copy of the last frame and from dreams of wrong actions (band: 95 % interval over clips)."
        )
        blocks += _chart(label, caption, "steps into the dream", label, _by_source(table, name), steps=True)
    for name in _things(table):
        caption = (
            f"Of the frames that really show the {name}, the share in which it is where it belongs, within its "
            "tolerance: as long as the dream lies above its baselines it knows more than they do (band: 95 % interval "
            "over clips)."
        )
        lines = _by_source(table, name)
        blocks += _chart(
            f"Where is the {name}?", caption, "steps into the dream", "in its place", lines, steps=True, share=True
        )
    return blocks


def controllability(card: dict[str, Any]) -> list[Block]:
    """What wrong actions cost, by horizon."""
    ratios = _rows(card, "controllability", "error_ratio")
    lines = [_line(*LINES[wrong], row, band=True) for wrong, row in ratios.items() if wrong in LINES]
    caption = (
        "Squared error of dreams of wrong actions over that of the actions taken: at 1, the dotted line, the dream "
        "does not listen, and the higher the more it does (bands: 95 % intervals over clips)."
    )
    return _chart(
        "Wrong actions must cost", caption, "steps into the dream", "error ratio", lines, steps=True, level=1.0
    )


def events(card: dict[str, Any]) -> list[Block]:
    """Rewards and ends: told or not, and with which confidence."""
    blocks: list[Block] = []
    for name, row in _rows(card, "events").items():
        lags = _rows(row, "lags")
        lines = [
            _line(what, pen, {lag: cells.get(what) for lag, cells in lags.items()}, band=True)
            for what, pen in (("precision", "blue"), ("recall", "orange"))
        ]
        caption = (
            f"Precision is the share of the told events of kind “{name}” that happened, recall the share of those that "
            "happened that was told, when being early or late by so many steps counts as right: both belong at the top."
        )
        ticks = tuple(float(lag) for lag in lags)
        label = "steps early or late"
        blocks += _chart(f"{name}: told when it happens?", caption, label, "share", lines, share=True, ticks=ticks)
        blocks += _reliability(name, _rows(row).get("calibration", {}).get("bins") or ())
    return blocks


def ranking(card: dict[str, Any]) -> list[Block]:
    """What policies score in the dream and in reality."""
    policies = _rows(card, "ranking", "policies")
    x, y = (_columns(scores.get(where) for scores in policies.values()) for where in ("real", "dream"))
    marks = tuple(str(i + 1) for i in range(len(policies)))
    points = Series("policies", "blue", x.value, y.value, y.low, y.high, x.low, x.high, marks, points=True)
    caption = (
        "Each point is a policy: where the points rise together the dream knows which policy is better, and on the "
        "dotted line its scores are the real ones (bars: 95 % intervals)."
    )
    blocks = _rank_tiles(card) + _chart(
        "Scores of policies", caption, "real score", "dreamed score", [points], identity=True, names=tuple(policies)
    )
    for kind, gap in _rows(card, "ranking", "exploitation").items():
        blocks += _exploitation(kind, gap)
    return blocks


def _exploitation(kind: str, gap: dict[str, Any]) -> list[Block]:
    """What an agent scores in the dream it learned in, and in reality, as it grows older."""
    ages = _rows(gap, "ages")
    lines = []
    for side, pen in SIDES.items():
        scores = _columns(row.get(side) for row in ages.values())
        lines.append(Series(side, pen, tuple(map(float, ages)), scores.value, scores.low, scores.high))
    caption = (
        "Both lines should rise together: where only the dreamed score rises, the agent has learned the dream's faults."
    )
    gains = {"gained in the dream": gap.get("dream_gain"), "gained in reality": gap.get("real_gain")}
    return [
        *_tile(f"Exploitation: dreamed gain less real gain ({kind})", gap.get("exploitation"), NUMBER, gains),
        *_chart(f"Scores of {kind} by age", caption, "steps of training", "score", lines),
    ]


def trust(card: dict[str, Any]) -> list[Block]:
    """What a dream says of its own errors."""
    figures = _rows(card, "trust")
    judged, curve, calibration = (figures.get(name, {}) for name in ("judged", "curve", "calibration"))
    tiles: list[Block] = []
    if alike := judged.get("by_horizon"):
        horizon = _nearest(alike)
        label = f"Doubt and true error of dreams of {horizon} steps (rank correlation)"
        tiles = _tile(label, alike[horizon], NUMBER, {"a doubt that knows nothing": 0.0})
    blocks: list[Block] = list(tiles)
    for title, x, columns in (
        ("Error by steps into the dream", "steps into the dream", (curve.get("steps"), curve.get("errors"))),
        ("Error by doubt", "doubt so far", (calibration.get("doubts"), calibration.get("expected"))),
    ):
        if columns[0] and columns[1]:
            line = Series("dream", "blue", tuple(map(float, columns[0])), tuple(map(float, columns[1])))
            caption = (
                "Mean error of dreamed latents, from 0, exact, to 1, as far from reality as any other frame of the "
                'game: what info["horizon_trust"] and info["uncertainty"] tell while a dream goes on.'
            )
            blocks += _chart(title, caption, x, "error", [line], share=True)
    return blocks


def counterfactuals(card: dict[str, Any]) -> list[Block]:
    """Whether possible futures are in their real order."""
    figures = _rows(card, "counterfactuals")
    outcome = figures.get("return", {})
    blocks = _tile("Futures in the right order (return)", outcome.get("order"), PERCENT, {"chance": 0.5})
    for name, row in figures.get("things", {}).items():
        blocks += _tile(f"Futures in the right order ({name})", row.get("order"), PERCENT, {"chance": 0.5})
    regret = {"a random future": outcome.get("regret_random")}
    return blocks + _tile("Return lost by trusting the dream's choice", outcome.get("regret"), NUMBER, regret)


def games(card: dict[str, Any]) -> list[Block]:
    """Whole games, beside real ones."""
    blocks: list[Block] = []
    for player, sides in _rows(card, "games").items():
        dream, real = ({**_rows(sides, side)} for side in SIDES)
        for figure, label, form in (
            ("won", "Share of points won", PERCENT),
            ("points_per_1000", "Points per 1,000 steps", NUMBER),
            ("board", "Points that the board counts", PERCENT),
            ("legible", "Late boards that can be read", PERCENT),
        ):
            blocks += _tile(f"{label} ({player})", dream.get(figure), form, {"really": real.get(figure)})
    return blocks


def long_dreams(card: dict[str, Any]) -> list[Block]:
    """What long dreams look like, beside long real play."""
    sides = _rows(card, "long_dreams")
    windows = [sides.get(side, {}).get("windows") or {} for side in SIDES]
    blocks: list[Block] = []
    for name in windows[0]:
        lines = [
            Series(
                side, pen, tuple(WINDOW * (i + 1.0) for i in range(len(shown[name]))), tuple(map(float, shown[name]))
            )
            for (side, pen), shown in zip(SIDES.items(), windows, strict=True)
            if shown.get(name)
        ]
        label = name.replace("_", " ")
        caption = (
            f"Means over {WINDOW} steps: a dream that stays what it is stays where reality is, and does not drift."
        )
        blocks += _chart(label, caption, "steps", label, lines, share=name.endswith("_present"))
    return blocks


SIDES = {"dream": "blue", "real": "orange"}
"""Dream and reality, with their pens."""
SECTIONS: dict[str, Callable[[dict[str, Any]], list[Block]]] = {
    "At a glance": summary,
    "How long does the dream stay true?": open_loop,
    "Does it listen to actions?": controllability,
    "Are rewards and ends told?": events,
    "Does it know when it errs?": trust,
    "Does it know which policy is better?": ranking,
    "Does it know which future is better?": counterfactuals,
    "Are its games like real ones?": games,
    "Does it last?": long_dreams,
}
"""Sections by heading, in their order."""

LINES = {
    "dream": ("dream", "blue"),
    "tokenizer": ("tokenizer's ceiling", "teal"),
    "copy": ("copy of the last frame", "grey"),
    "shuffled": ("another clip's actions", "orange"),
    "random": ("random actions", "purple"),
    "noop": ("no actions", "green"),
}
"""What is compared with reality: its name and its pen."""
METRICS = {"psnr": ("PSNR in dB", "Higher"), "ssim": ("SSIM", "Higher"), "lpips": ("LPIPS", "Lower"),
           "sharpness": ("Sharpness (1: as the real frames)", "Nearer 1")}  # fmt: skip
"""Measures of frames: their names, and what is better. Everything else by source is a thing on the frames."""
DEAF = "a dream that does not listen"
"""The baseline of figures about actions."""


def read(figure: Any) -> Cell:
    """A figure of the card: a number, one with an interval (``value``, ``low``, ``high``), or nothing."""
    parts = [figure.get(name) for name in Cell._fields] if isinstance(figure, dict) else [figure, None, None]
    return Cell(*(math.nan if part is None else float(part) for part in parts))


def _nearest(by_horizon: Iterable[str]) -> str:
    return min(by_horizon, key=lambda steps: abs(math.log(int(steps) / HEADLINE)))


def _tile(label: str, figure: Any, form: Form, beside: dict[str, Any]) -> list[Block]:
    cell = read(figure)
    if not math.isfinite(cell.value):
        return []
    sure = math.isfinite(cell.low) and math.isfinite(cell.high)
    interval = f"95 %: {form._replace(unit='')(cell.low)} to {form(cell.high)}" if sure else ""
    known = {name: other for name, figure in beside.items() if math.isfinite(other := read(figure).value)}
    others = tuple(f"{name}:\N{NO-BREAK SPACE}{form(other)}" for name, other in known.items())
    return [Tile(label[:1].upper() + label[1:], form(cell.value), interval, others)]


def _beside_others(label: str, row: dict[str, Any], form: Form) -> list[Block]:
    others = {LINES[source][0]: row.get(source) for source in ("copy", "random", "tokenizer")}
    return _tile(label, row.get("dream"), form, others)


def _rank_tiles(card: dict[str, Any]) -> list[Block]:
    figures = _rows(card, "ranking")
    deaf = {DEAF: figures.get("control", {}).get("spearman")}
    return [
        *_tile("Order of policies (Spearman)", figures.get("spearman"), NUMBER, deaf),
        *_tile("Scores of policies (Pearson)", figures.get("pearson"), NUMBER, {"no relation": 0.0}),
        *_tile("Real score lost by wrong order (MMRV)", figures.get("mmrv"), NUMBER, {"right order": 0.0}),
    ]


def _rows(table: dict[str, Any], *path: str) -> dict[str, dict[str, Any]]:
    """The rows of a table at a path of the card; nothing where it ends early, and without rows of no figures."""
    for name in path:
        table = table.get(name) or {}
    return {name: row for name, row in table.items() if isinstance(row, dict)}


def _things(table: dict[str, Any]) -> list[str]:
    """Names of what is probed on frames: all that is measured by source and is no metric."""
    first: dict[str, Any] = next(iter(table.values()), {})
    return [name for name, row in first.items() if isinstance(row, dict) and "dream" in row and name not in METRICS]


def _by_source(table: dict[str, Any], name: str) -> list[Series]:
    return [
        _line(label, pen, {h: (row.get(name) or {}).get(source) for h, row in table.items()}, band=source == "dream")
        for source, (label, pen) in LINES.items()
    ]


def _line(label: str, pen: str, row: dict[str, Any], band: bool) -> Series:
    y = _columns(row.values())
    banded = band and any(map(math.isfinite, y.low))
    return Series(label, pen, tuple(map(float, row)), y.value, *((y.low, y.high) if banded else ()))


def _columns(figures: Iterable[Any]) -> Columns:
    cells = [read(figure) for figure in figures]
    return Columns(*(tuple(cell[i] for cell in cells) for i in range(3)))


def _reliability(name: str, bins: Sequence[Sequence[float]]) -> list[Block]:
    said, happened = ([float(row[i]) for row in bins] for i in (0, 1))
    ends = [_wilson(share, row[2]) for share, row in zip(happened, bins, strict=True)]
    low, high = (tuple(end[i] for end in ends) for i in (0, 1))
    points = Series("transitions of like probability", "blue", tuple(said), tuple(happened), low, high, points=True)
    caption = (
        "On the dotted line events happen as often as the world says; bars are 95 % intervals (Wilson), long where "
        "few transitions were given such a probability."
    )
    return _chart(
        f"{name}: is its probability right?", caption, "probability given", "share that happened", [points],
        share=True, identity=True,
    )  # fmt: skip


def _wilson(share: float, count: float, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927), which never leaves [0, 1]."""
    if not count:
        return math.nan, math.nan
    middle, half = share + z**2 / (2 * count), z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return (middle - half) / (1 + z**2 / count), (middle + half) / (1 + z**2 / count)


def _chart(title: str, caption: str, x: str, y: str, series: list[Series], **options: Any) -> list[Block]:
    known = tuple(one for one in series if one.known)
    return [Chart(title[:1].upper() + title[1:], caption, x, y, known, **options)] if known else []


def _lead(card: dict[str, Any]) -> str:
    held = card.get("held_out") or {}
    words = [f"A dream of {card['env_id']}" if card.get("env_id") else "A dream"]
    if card.get("sampling_steps"):
        words.append(f"with {card['sampling_steps']} sampling steps per frame")
    if held.get("episodes") and held.get("steps"):
        words.append(f"judged on {held['episodes']} held-out episodes of {held['steps']:,} steps in all")
    return ", ".join(words) + "."
