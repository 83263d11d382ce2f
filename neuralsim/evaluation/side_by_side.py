"""Parts of an evaluation, measured at the same time in processes of their own.

A part plays dozens of dreams at once but one step after the other, and two threads gain little on it: two parts side by
side are done in little more than half of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, wait
from typing import Any

import torch

from neuralsim.evaluation.plan import EvaluateConfig, Plan
from neuralsim.processes import SPAWN, Workers

LOOK = 0.5
"""Seconds between two looks at what the processes have done."""

Measure = Callable[[Plan, Callable[[], None]], dict[str, Any]]
"""Measures a part; calls its second argument after each step."""


def side_by_side(
    plan: Plan, measures: dict[str, Measure], tick: Callable[[str, int], None]
) -> Generator[tuple[str, dict[str, Any]], None, None]:
    """Measures parts in ``plan.config.workers`` processes, which share the CPU threads.

    Args:
        plan: Of the evaluation; it is made anew for every part, and must still be the same.
        measures: By part; functions of a module. Those that take long best come first.
        tick: Called with a part's name and how many steps it has done since: 0 when it begins.

    Yields:
        Parts and their figures, as they are done.

    Raises:
        ChildProcessError: If a process died.
        ValueError: If world, recordings or agents have changed since the evaluation began.
        Exception: Whatever a part raised.
    """
    count = min(plan.config.workers, len(measures))
    ticks = SPAWN.SimpleQueue()  # written at once: what a part has done is told before its figures
    threads = max(1, torch.get_num_threads() // count)
    with Workers(count, "measuring", "finished parts", _share, plan.of, plan.config, threads, ticks) as workers:
        try:
            running = {
                workers.submit(_measure, part, measure, plan.fingerprint(part)): part
                for part, measure in measures.items()
            }
            while running:
                done, _ = wait(running, LOOK, FIRST_COMPLETED)
                while not ticks.empty():
                    tick(*ticks.get())
                # What was measured counts, even if another part failed at the same moment.
                for future in sorted(done, key=lambda future: future.exception() is not None):
                    yield running.pop(future), future.result()
        finally:
            workers.terminate()


_shared: tuple[Callable[[EvaluateConfig], Plan], EvaluateConfig, Any] | None = None  # of a worker process


def _share(make_plan: Callable[[EvaluateConfig], Plan], config: EvaluateConfig, threads: int, ticks: Any) -> None:
    global _shared
    _shared = (make_plan, config, ticks)
    torch.set_num_threads(threads)


def _measure(part: str, measure: Measure, fingerprint: str) -> dict[str, Any]:
    assert _shared is not None
    make_plan, config, ticks = _shared
    ticks.put((part, 0))
    plan = make_plan(config)
    if plan.fingerprint(part) != fingerprint:
        raise ValueError(
            f"{config.world}, {config.data} or an agent has changed since the evaluation began: begin again"
        )
    return measure(plan, lambda: ticks.put((part, 1)))
