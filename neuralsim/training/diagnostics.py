"""Watching a run: figures in, findings out, each told once when it begins.

    diagnostics = Diagnostics.resumed(out / "metrics.jsonl")
    begun, over = diagnostics.look({"loss": 3.2, "gradient_norm": 250.0}, step)

All it remembers is which findings hold, and the run's log tells that again after an interruption. It reads figures
and draws nothing, so it cannot change what is trained.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from neuralsim.training.diagnostic_rules import RULES, Finding, Rule

ALWAYS_DEFINED = ("loss", "gradient_norm")
"""Figures of which even NaN is wrong. Elsewhere it means that there was nothing to measure: no such event, no ball."""


class Diagnostics:
    """Watches the figures of a run.

    Args:
        rules: What to look for; figures that are not finite are always looked for.
        active: Names of findings that hold already and are not to be told again.

    Attributes:
        active: Names of the findings that hold now.
    """

    def __init__(self, rules: Sequence[Rule] = RULES, active: Iterable[str] = ()) -> None:
        self.rules = tuple(rules)
        self.active = set(active)

    @classmethod
    def resumed(cls, log: Path) -> Diagnostics:
        """Goes on where the run whose log this is stopped; a log that does not exist has no findings."""
        return cls(active=active_findings(log))

    def look(self, figures: Mapping[str, float], step: int) -> tuple[list[Finding], list[str]]:
        """Judges figures; what they do not hold stays as it was judged before.

        Args:
            figures: Figures by name, such as a line of the log.
            step: Optimiser steps done.

        Returns:
            The findings that begin now, and the names of those that are over.
        """
        begun, over = [], []
        for rule in self.rules:
            value = rule.measure(figures)
            if value is None or step < rule.after:
                continue
            if rule.name not in self.active and rule.broken(value):
                begun.append(rule.finding(value))
            elif rule.name in self.active and rule.mended(value):
                over.append(rule.name)
        for figure, value in figures.items():
            found = not_finite(figure, value)
            wrong = math.isinf(value) or (math.isnan(value) and figure in ALWAYS_DEFINED)
            if wrong and found.name not in self.active:
                begun.append(found)
            elif not wrong and found.name in self.active:
                over.append(found.name)
        self.active |= {finding.name for finding in begun}
        self.active -= set(over)
        return begun, over


def not_finite(figure: str, value: float) -> Finding:
    """The finding of a figure that is infinite or not a number."""
    return Finding(
        f"not_finite/{figure}",
        "error",
        f"{figure} is {value:g}",
        "resume from the last checkpoint with a smaller --loop.learning-rate or --loop.dtype float32; if it comes "
        "back, look at the batch it came with",
    )


def active_findings(log: Path) -> dict[str, Finding]:
    """What a run's log tells of findings that have begun and are not over, by name."""
    found: dict[str, Finding] = {}
    for row in read_log(log):
        if row.get("kind") != "finding":
            continue
        if row.get("over"):
            found.pop(row["name"], None)
        else:
            found[row["name"]] = Finding(row["name"], row["level"], row["message"], row["advice"])
    return found


def read_log(log: Path) -> list[dict]:
    """The rows of a ``metrics.jsonl``; a line that was cut off is left out, and a missing file has none."""
    rows = []
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows
