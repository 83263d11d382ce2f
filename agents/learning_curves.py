"""``neuralsim agent curves``: how agents learned, as a picture: several seeds as their mean and the band they span.

    neuralsim agent curves runs/ppo-0 runs/ppo-1 runs/ppo-2 --out curves.png

Runs that differ in nothing but the seed are seeds of one thing. Their band reaches from the lowest to the highest:
with as few as there usually are, that says more than a deviation would (Agarwal et al. 2021, "Deep reinforcement
learning at the edge of the statistical precipice").
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from neuralsim.evaluation.plots import PENS
from neuralsim.extras import require
from neuralsim.pictures import write_picture
from neuralsim.training.diagnostics import read_log

CURVES = "curves.png"
"""The picture in the folder of a finished run."""
WHY = "drawing learning curves"

FIGURES = {
    "episode_return": "return of an episode",
    "return_of_200": "return of 200 steps",
    "return_per_1000": "reward per 1,000 steps",
    "cloning_accuracy": "share of actions cloned",
    "policy_entropy": "entropy of the policy (nats)",
    "value_error": "error of the value",
    "kl": "divergence from the clone (nats)",
    "approximate_kl": "change of the policy (nats)",
    "loss": "loss",
}
"""What is drawn, if the runs report it, the most telling first, and what it is called."""
MOST = 6
"""Panels of a picture; figures at the end of :data:`FIGURES` are left out."""


@dataclass
class CurvesConfig:
    """Draws learning curves of one or several agents' runs.

    Runs that differ in nothing but the seed become one line, their mean, with a band from the lowest to the highest.
    Needs matplotlib (extra "evaluation").
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    """Folders of runs (neuralsim agent train)."""
    out: Path = Path(CURVES)
    """The picture, a PNG."""
    figures: tuple[str, ...] = field(default=())
    """Names of figures as in metrics.jsonl; by default those that tell most."""


@dataclass(frozen=True)
class Curve:
    """One figure in the course of training.

    Attributes:
        x: ``(points,)`` steps, rising.
        y: ``(points,)``.
        low: Lowest seed at each of them.
        high: Highest seed.
        seeds: How many there are.
    """

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray
    seeds: int = 1


@dataclass(frozen=True)
class Log:
    """What the folder of a run tells.

    Attributes:
        folder: Whole path of the folder.
        config: Its ``config.json``.
        rows: Its figures, line by line.
    """

    folder: Path
    config: dict[str, Any]
    rows: list[dict[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> Log:
        """Reads a run's folder.

        Raises:
            FileNotFoundError: If it is none.
            ValueError: If it holds no figures yet, or is damaged.
        """
        if not (folder / "metrics.jsonl").is_file():
            raise FileNotFoundError(f"{folder} is no run: it has no metrics.jsonl (neuralsim agent train makes it)")
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder / 'config.json'} cannot be read: {error}") from None
        rows = [row for row in read_log(folder / "metrics.jsonl") if row.get("kind") in ("train", "held-out")]
        if not rows:
            raise ValueError(f"{folder} holds no figures yet; wait for --loop.log-every steps")
        return cls(folder.resolve(), config, rows)

    def curve(self, figure: str) -> Curve | None:
        """One figure over steps of the environment, where the run has any, else over optimiser steps.

        What is reported in training and on held-out data is taken from training, where it is reported more often.
        """
        for kind in ("train", "held-out"):
            points = [(row["step"], row[figure]) for row in self.rows if row["kind"] == kind and figure in row]
            if points:
                steps, y = np.array(points, np.float64).T
                return Curve(steps * self.config.get("env_steps_per_step", 1), y, y, y)
        return None

    @property
    def setting(self) -> str:
        """All but the seed: the same for runs that are seeds of one thing."""
        loop = {name: value for name, value in self.config.get("loop", {}).items() if name != "seed"}
        return json.dumps({**self.config, "loop": loop, "seed": None}, sort_keys=True)

    @property
    def counts(self) -> str:
        """What its steps are."""
        return "steps of the environment" if "env_steps_per_step" in self.config else "optimiser steps"


def together(curves: Sequence[Curve]) -> Curve | None:
    """Mean and band of several seeds, at every step that one of them reports and all have reached; None for none.

    Between its own points a curve is a straight line.
    """
    if not curves:
        return None
    begin, end = max(curve.x[0] for curve in curves), min(curve.x[-1] for curve in curves)
    x = np.unique(np.concatenate([curve.x for curve in curves]))
    x = x[(x >= begin) & (x <= end)]
    if not len(x):
        return None
    y = np.stack([np.interp(x, curve.x, curve.y) for curve in curves])
    return Curve(x, y.mean(0), y.min(0), y.max(0), len(curves))


def draw_curves(config: CurvesConfig) -> None:
    """Writes the picture.

    Raises:
        FileNotFoundError: If there is no such run.
        ValueError: If runs hold nothing to draw, or ``out`` is a folder.
        ModuleNotFoundError: Without the extra "evaluation".
    """
    if not config.runs:
        raise ValueError("name one or more runs: neuralsim agent curves runs/ppo")
    if config.out.is_dir():
        raise ValueError(f"--out {config.out} is a folder; name the picture to write, {config.out / CURVES}")
    print(f"curves: {write_curves([Log.read(run) for run in config.runs], config.out, config.figures)}")


def keep_curves(run: Path) -> None:
    """Draws the curves of a run into its folder, if matplotlib is there."""
    if importlib.util.find_spec("matplotlib") is not None:
        draw_curves(CurvesConfig((run,), run / CURVES))


def write_curves(logs: Sequence[Log], path: Path, figures: Sequence[str] = ()) -> Path:
    """Draws runs as a PNG, written whole or not at all.

    Raises:
        ValueError: If the runs report none of the figures, or the name does not end in ``.png``.
        ModuleNotFoundError: Without the extra "evaluation".
    """
    groups: dict[str, list[Log]] = {}
    for log in logs:
        groups.setdefault(log.setting, []).append(log)
    above = Path(os.path.commonpath([log.folder.parent for log in logs]))
    panels: dict[str, dict[str, Curve]] = {}
    for figure in figures or FIGURES:
        lines = {}
        for group in groups.values():
            curves = [curve for log in group if (curve := log.curve(figure)) is not None]
            if (curve := together(curves)) is not None:
                lines[_label(group, above)] = curve
        if lines:
            panels[figure] = lines
    if missing := [figure for figure in figures if figure not in panels]:
        known = sorted({name for log in logs for row in log.rows for name in row} - {"step", "kind", "seconds"})
        raise ValueError(f"no run reports {', '.join(missing)}; there are {', '.join(known)}")
    if not panels:
        raise ValueError(f"the runs {', '.join(log.folder.name for log in logs)} report nothing that could be drawn")
    shown = panels if figures else dict(list(panels.items())[:MOST])
    return write_picture(path, _draw(shown, " / ".join(dict.fromkeys(log.counts for log in logs))))


def _label(group: list[Log], above: Path) -> str:
    names = ", ".join(log.folder.relative_to(above).as_posix() for log in group)
    return names if len(group) == 1 else f"{names}: mean of {len(group)}"


def _draw(panels: dict[str, dict[str, Curve]], x_label: str) -> np.ndarray:
    """One panel per figure, all lines in each: a picture ``(H, W, 3)`` uint8."""
    matplotlib = require("matplotlib", "evaluation", WHY)
    pens = [pen for name, pen in PENS.items() if name not in ("ink", "grid")]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with matplotlib.rc_context():
        # Whatever a user's own settings are: a picture looks the same everywhere.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
        size = (4.2 * columns, 2.9 * rows + 0.4)
        figure = require("matplotlib.figure", "evaluation", WHY).Figure(figsize=size, dpi=120, layout="constrained")
        colours: dict[str, int] = {}
        for place, (name, lines) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(rows, columns, place)
            for label, curve in lines.items():
                pen = pens[colours.setdefault(label, len(colours)) % len(pens)]
                style = (0, pen.dashes) if pen.dashes else "-"
                axes.plot(curve.x, curve.y, color=pen.light, linewidth=1.5, linestyle=style, label=label)
                if curve.seeds > 1:
                    axes.fill_between(curve.x, curve.low, curve.high, color=pen.light, alpha=0.18, linewidth=0)
            axes.set_title(FIGURES.get(name, name), fontsize=9)
            axes.set_xlabel(x_label)
            axes.grid(color=PENS["grid"].light, linewidth=PENS["grid"].width)
            axes.set_axisbelow(True)
        handles = {text: handle for axes in figure.axes for handle, text in
                   zip(*axes.get_legend_handles_labels(), strict=True)}  # fmt: skip
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=min(3, len(handles)),
                      frameon=False)  # fmt: skip
        canvas = require("matplotlib.backends.backend_agg", "evaluation", WHY).FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()
