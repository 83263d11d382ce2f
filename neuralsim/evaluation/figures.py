"""Figures as text: how the card writes numbers and tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Lines of a Markdown table, with an empty one behind it."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return [*("| " + " | ".join(line) + " |" for line in lines), ""]


def missing(value: float | None) -> bool:
    """Whether there is no figure: NaN, or null in a card that was read from a file."""
    return value is None or math.isnan(value)


def interval(cell: dict[str, float], digits: int, brief: bool = False) -> str:
    """A value with its 95 % interval, or without if ``brief``; "-" where there is none."""
    if missing(cell["value"]):
        return "-"
    text = f"{cell['value']:.{digits}f}"
    return text if brief else f"{text} ({cell['low']:.{digits}f} to {cell['high']:.{digits}f})"


def fixed(value: float | None, digits: int) -> str:
    """A number with so many digits after the point; "-" where there is none."""
    return "-" if missing(value) else f"{value:.{digits}f}"


def number(value: float | None) -> str:
    """A number with three digits; "-" where there is none."""
    return "-" if missing(value) else f"{value:.3g}"


def percent(value: float | None) -> str:
    """0.123 as "12.3 %"; "-" where there is none."""
    return "-" if value is None or missing(value) else f"{100 * value:.1f} %"


def quartiles(values: Sequence[float]) -> str:
    """The median, with the quartiles behind it; "-" where there are no values."""
    if not values:
        return "-"
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:,.0f} ({low:,.0f} to {high:,.0f})"
