"""The plots of the report: charts as plain values, and matplotlib to draw them as SVG.

Notable:
- a :class:`Chart` holds all that will be drawn: what a plot shows can be tested, and told, without drawing it;
- one drawing serves light and dark pages: colours are drawn by their light values and then named, as CSS variables;
- text stays text. No pyplot, no date, no chance: the same card gives the same bytes.
"""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass
from html import escape
from typing import Any

from neuralsim.extras import require

WHY = "drawing the plots of the report"
"""What needs matplotlib, for the error where it is missing."""


@dataclass(frozen=True)
class Pen:
    """How a line looks; never by its colour alone.

    Attributes:
        light: Colour on a light page.
        dark: Colour on a dark page.
        width: In points.
        dashes: Lengths of strokes and gaps in units of the width; empty for a solid line.
    """

    light: str
    dark: str
    width: float = 1.3
    dashes: tuple[float, ...] = ()


PENS = {
    "blue": Pen("#1d5fc9", "#79aefc", 2.2),
    "orange": Pen("#b5500e", "#f5a05c", dashes=(4, 2)),
    "purple": Pen("#8a3d9c", "#d79be4", dashes=(1, 1.5)),
    "green": Pen("#3f7a22", "#93cf6e", dashes=(6, 2, 1, 2)),
    "grey": Pen("#686c73", "#a3a8b0", dashes=(2.5, 2.5)),
    "teal": Pen("#0b7a80", "#4fc6cc", dashes=(9, 2.5)),
    "ink": Pen("#30343b", "#d3d7de", 0.8),
    "grid": Pen("#dadde2", "#3b4049", 0.6),
}
"""Names of colours in the page's style, too. No two light colours are the same: that is how they are found."""

_SIZE = (4.7, 3.0)  # inches; small, so that letters can be read where a phone shows the whole width
_TIGHTEST = 1.5  # steps on a logarithmic axis closer than this get no number of their own
_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "neuralsim",
    "text.parse_math": False,
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
}


@dataclass(frozen=True)
class Series:
    """One line, or one cloud of points.

    Attributes:
        label: Name in the legend.
        pen: Key of :data:`PENS`.
        x: Where; all other lists have its length, or none.
        y: How much; NaN where that is not known.
        low: Lower ends of the intervals of ``y``.
        high: Upper ends.
        x_low: Lower ends of the intervals of ``x`` (points only).
        x_high: Upper ends.
        marks: Short text beside each point.
        points: Whether these are points with error bars rather than a line with a band.
    """

    label: str
    pen: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    x_low: tuple[float, ...] = ()
    x_high: tuple[float, ...] = ()
    marks: tuple[str, ...] = ()
    points: bool = False

    @property
    def known(self) -> bool:
        """Whether there is anything to draw."""
        return any(math.isfinite(x) and math.isfinite(y) for x, y in zip(self.x, self.y, strict=True))


@dataclass(frozen=True)
class Chart:
    """One plot.

    Attributes:
        title: Heading.
        caption: One sentence that says how to read it.
        x_label: Below the horizontal axis.
        y_label: Beside the vertical axis.
        series: What is drawn, thick lines first: a thin one on top hides none.
        steps: Whether x counts steps, which get a logarithmic axis.
        share: Whether y is a share from 0 to 1, written in percent.
        level: A dotted line across, at what a bad world would have; None for none.
        identity: A dotted line where y is x, on axes of one kind and range.
        ticks: Where x gets numbers; by default where matplotlib wants them.
        names: What the marks 1, 2, ... stand for.
    """

    title: str
    caption: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    steps: bool = False
    share: bool = False
    level: float | None = None
    identity: bool = False
    ticks: tuple[float, ...] = ()
    names: tuple[str, ...] = ()


def draw(chart: Chart, name: str) -> str:
    """Draws a chart.

    Args:
        chart: What to draw.
        name: Starts every id within the drawing; different for every drawing of a page.

    Returns:
        An ``<svg>`` element of class "plot", whose colours are CSS variables named as :data:`PENS`.

    Raises:
        ModuleNotFoundError: Without the extra "evaluation".
    """
    matplotlib = require("matplotlib", "evaluation", WHY)
    buffer = io.BytesIO()
    with matplotlib.rc_context():
        # Whatever a user's own settings are: a report looks the same everywhere.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        figure(chart).savefig(buffer, format="svg", metadata={"Date": None})
    return _inline(buffer.getvalue().decode(), name, chart.title)


def figure(chart: Chart) -> Any:
    """The chart as a matplotlib ``Figure``.

    Raises:
        ModuleNotFoundError: Without the extra "evaluation".
    """
    figure = require("matplotlib.figure", "evaluation", WHY).Figure(figsize=_SIZE, layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    for series in chart.series:
        (_points if series.points else _line)(axes, series)
    _frame(axes, chart)
    return figure


def legend(chart: Chart) -> str:
    """What the lines of a chart are, or its marks, as an HTML list; nothing for points without marks."""
    if chart.names:
        return f'<ol class="legend">{"".join(f"<li>{escape(name)}</li>" for name in chart.names)}</ol>'
    lines = [series for series in chart.series if not series.points]
    rows = "".join(f"<li>{_swatch(PENS[line.pen], line.pen)}{escape(line.label)}</li>" for line in lines)
    return f'<ul class="legend">{rows}</ul>' if rows else ""


def colours() -> str:
    """The pens as CSS variables, on light and on dark pages."""

    def variables(page: str) -> str:
        return ";".join(f"--{name}:{getattr(pen, page)}" for name, pen in PENS.items())

    return f":root{{{variables('light')}}}\n@media (prefers-color-scheme:dark){{:root{{{variables('dark')}}}}}\n"


def _swatch(pen: Pen, colour: str) -> str:
    """A piece of line."""
    dashes = " ".join(f"{length * pen.width:g}" for length in pen.dashes)
    return (
        '<svg class="swatch" viewBox="0 0 26 8" aria-hidden="true">'
        f'<path d="M0 4H26" style="stroke:var(--{colour})" stroke-width="{pen.width}" '
        f'stroke-dasharray="{dashes or "none"}"/></svg>'
    )


def _line(axes: Any, series: Series) -> None:
    pen = PENS[series.pen]
    style = (0, pen.dashes) if pen.dashes else "-"
    axes.plot(series.x, series.y, color=pen.light, linewidth=pen.width, linestyle=style)
    if series.low:
        axes.fill_between(series.x, series.low, series.high, color=pen.light, alpha=0.18, linewidth=0)


def _points(axes: Any, series: Series) -> None:
    pen = PENS[series.pen]
    bars = {
        "yerr": _reach(series.low, series.y, series.high),
        "xerr": _reach(series.x_low, series.x, series.x_high),
    }
    axes.errorbar(series.x, series.y, **bars, fmt="o", markersize=4.5, color=pen.light, elinewidth=0.9)
    for x, y, mark in zip(series.x, series.y, series.marks, strict=False):
        if math.isfinite(x) and math.isfinite(y):
            axes.annotate(mark, (x, y), (4, 3), textcoords="offset points", color=PENS["ink"].light)


def _reach(low: tuple[float, ...], middle: tuple[float, ...], high: tuple[float, ...]) -> Any:
    """How far intervals reach down and up, as matplotlib wants them; None without intervals."""
    if not low:
        return None
    # A bootstrap's interval can lie beside its value; a bar cannot.
    down = [max(value - end, 0) if math.isfinite(end) else 0 for value, end in zip(middle, low, strict=True)]
    up = [max(end - value, 0) if math.isfinite(end) else 0 for value, end in zip(middle, high, strict=True)]
    return [down, up]


def _frame(axes: Any, chart: Chart) -> None:
    """Axes, grid, numbers and the lines to compare with."""
    ink, grid = PENS["ink"].light, PENS["grid"].light
    ticker = require("matplotlib.ticker", "evaluation", WHY)
    axes.set_xlabel(chart.x_label, color=ink)
    axes.set_ylabel(chart.y_label, color=ink)
    axes.grid(color=grid, linewidth=PENS["grid"].width)
    axes.tick_params(which="both", colors=ink)
    for spine in axes.spines.values():
        spine.set_color(ink)
    if chart.steps:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(ticker.FixedLocator(spread(sorted({x for s in chart.series for x in s.x}))))
        axes.xaxis.set_major_formatter(ticker.FormatStrFormatter("%d"))
        axes.xaxis.set_minor_locator(ticker.NullLocator())
    elif chart.ticks:
        axes.set_xticks(chart.ticks)
    if chart.share:
        axes.set_ylim(-0.03, 1.03)
        for axis in (axes.yaxis, axes.xaxis) if chart.identity else (axes.yaxis,):
            axis.set_major_formatter(ticker.PercentFormatter(1.0, decimals=0))
    if chart.level is not None:
        axes.axhline(chart.level, color=ink, linewidth=0.9, linestyle=(0, (1, 2)))
    if chart.identity:
        low = min(axes.get_xlim()[0], axes.get_ylim()[0])
        high = max(axes.get_xlim()[1], axes.get_ylim()[1])
        axes.plot((low, high), (low, high), color=ink, linewidth=0.9, linestyle=(0, (1, 2)))
        axes.set(xlim=(low, high), ylim=(low, high))


def spread(steps: list[float]) -> list[float]:
    """Which of rising steps get a number on a logarithmic axis, so that no two run into each other."""
    chosen: list[float] = []
    for step in steps:
        if not chosen or step >= _TIGHTEST * chosen[-1]:
            chosen.append(step)
    return chosen


def _inline(svg: str, name: str, title: str) -> str:
    """A drawing as part of a page: without what fetches, dates or styles other elements, and with named colours."""
    size = re.search(r'viewBox="[^"]*"', svg)
    assert size is not None
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<(metadata|style)\b.*?</\1>", "", body, flags=re.DOTALL)
    body = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{name}-", body).replace("xlink:href", "href")
    for variable, pen in PENS.items():
        body = body.replace(pen.light, f"var(--{variable})")
    return f'<svg class="plot" {size.group()} role="img" aria-label="{escape(title)}">{body.strip()}'
