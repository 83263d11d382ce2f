"""``neuralsim compare``: two worlds on the same clips and turns, with the same seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from neuralsim.data.episodes import EpisodeStore
from neuralsim.evaluation.after_turns import after_turns
from neuralsim.evaluation.held_out import batches, check_held_out
from neuralsim.evaluation.intervals import mean
from neuralsim.evaluation.open_loop import OpenLoop, open_loop
from neuralsim.evaluation.probes import find_probes
from neuralsim.world import World


@dataclass
class CompareConfig:
    """Puts two worlds side by side: open-loop fidelity on the same held-out clips, and the difference.

    A difference whose interval (a bootstrap over clips) holds no 0 is more than chance. A world beside itself with
    more sampling steps (--second-sampling-steps 64) shows what these would bring.
    """

    first: Annotated[str, tyro.conf.Positional]
    """World folder, bundled name or hub id."""
    second: Annotated[str, tyro.conf.Positional]
    """Another one, of the same game."""
    data: Path = Path("data/pong-heldout")
    """Recordings that neither was trained on."""
    clips: int = 100
    """How many clips."""
    horizons: tuple[int, ...] = (1, 5, 10, 20, 40)
    """Steps into the dream at which both are judged, rising."""
    turns: int = 200
    """How many turns of the first thing that the game's probes know are dreamed from shortly before (a ball that meets
    the player's paddle); where the recordings know of none, none."""
    sampling_steps: int = 4
    """Sampling steps K."""
    second_sampling_steps: int | None = None
    """Those of the second world; by default as many."""


def compare(config: CompareConfig) -> dict[str, Any]:
    """Measures both worlds and prints a table.

    Returns:
        See :func:`differences`, and for the first thing ``"<thing> after <n> turns"``, where there are two or more, by
        when real frames end (see :func:`~neuralsim.evaluation.after_turns.after_turns`).

    Raises:
        ValueError: If the worlds are of different games, or the recordings do not fit them.
    """
    worlds = [World.load(source) for source in (config.first, config.second)]
    if not config.horizons or list(config.horizons) != sorted(set(config.horizons)) or config.horizons[0] < 1:
        raise ValueError(f"horizons are {config.horizons}; they must be positive and rise")
    if config.clips < 2:
        raise ValueError(f"clips is {config.clips}; it must be at least 2")
    if config.turns < 0:
        raise ValueError(f"turns is {config.turns}; it must be at least 0")
    store = EpisodeStore.open(config.data)
    context = max(world.dynamics.context_length for world in worlds)
    second = config.second_sampling_steps
    steps = (config.sampling_steps, config.sampling_steps if second is None else second)
    sides = list(zip(worlds, steps, strict=True))
    for world, k in sides:
        check_held_out(world, store, context + config.horizons[-1])
        world.check_steps(k)
    probes = find_probes(worlds[0].config.probes)
    with Progress() as progress:
        task = progress.add_task("comparing", total=2 * batches(config.clips) * config.horizons[-1])
        measured = [
            open_loop(
                world,
                store,
                probes,
                config.clips,
                config.horizons,
                k,
                context=context,
                baselines=False,
                progress=lambda: progress.advance(task),
            )
            for world, k in sides
        ]
        turned: list[dict[str, np.ndarray]] = []
        if probes is not None and config.turns:
            task = progress.add_task("turns", total=2 * batches(config.turns))
            turned = [
                after_turns(world, store, probes, config.turns, k, context, progress=lambda: progress.advance(task))
                for world, k in sides
            ]
            progress.update(task, completed=2 * batches(config.turns))  # there may be fewer turns
    result = differences(*measured)
    if probes is not None and turned:
        count = len(next(iter(turned[0].values())))
        if count > 1:  # one alone says nothing of the next
            result[f"{probes.things[0].name} after {count} turns"] = {
                moment: _difference(*(hits[moment].astype(float) for hits in turned)) for moment in turned[0]
            }
    _print(result, config, steps)
    return result


def differences(first: OpenLoop, second: OpenLoop) -> dict[str, Any]:
    """Two worlds on the same clips.

    Returns:
        By metric or thing, and horizon (as a string): ``first``, ``second`` and ``difference`` (second less first),
        the last with a 95 % bootstrap interval over clips, which are resampled for both worlds together.
    """
    table: dict[str, Any] = {}
    for name in (*first.metrics, *first.things):
        rows = table[name] = {}
        for column, horizon in enumerate(first.horizons):
            a, b = (x.values[f"{name}/dream"][:, column].astype(float) for x in (first, second))
            if name in first.things:
                there = first.values[f"{name}/truth"][:, column]
                a, b = a[there], b[there]
            rows[str(horizon)] = _difference(a, b)
    return table


def _difference(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    return {"first": mean(a)["value"], "second": mean(b)["value"], "difference": mean(b - a)}


def _print(table: dict[str, Any], config: CompareConfig, steps: tuple[int, int]) -> None:
    console = Console(soft_wrap=True)
    console.print(f"first: {config.first}, K = {steps[0]}\nsecond: {config.second}, K = {steps[1]}")
    page = Table(title=f"{config.clips} clips; second less first with 95 % interval")
    for heading in ("", "when", "first", "second", "difference"):
        page.add_column(heading, justify="left" if heading == "" else "right", no_wrap=True)
    for name, rows in table.items():
        for horizon, row in rows.items():
            gap = row["difference"]
            sure = np.isfinite(gap["value"]) and (gap["low"] > 0 or gap["high"] < 0)
            text = f"{gap['value']:+.3f} ({gap['low']:+.3f} to {gap['high']:+.3f})" if gap["n"] else "-"
            page.add_row(
                "PSNR, dB" if name == "psnr" else name,
                horizon,
                f"{row['first']:.3f}",
                f"{row['second']:.3f}",
                f"[bold]{text}[/bold]" if sure else text,
            )
    console.print(page)
