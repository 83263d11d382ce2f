"""Parts of an evaluation, measured at the same time in processes of their own.

A part plays dozens of dreams at once but one step after the other, and two threads gain little on it: two parts side by
side are done in little more than half of the time.
"""

from __future__ import annotations

import importlib
import multiprocessing
import queue
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from neuralsim.evaluation.plan import EvaluateConfig, Plan

LOOK = 0.5
"""Seconds between two looks at what the processes have done."""


def side_by_side(
    config: EvaluateConfig, parts: Sequence[str], workers: int, tick: Callable[[str], None]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Measures parts in ``workers`` processes, which share the CPU threads; yields each part's figures once it is done.

    Args:
        config: Of the evaluation.
        parts: What to measure, the longest best first.
        workers: How many at the same time.
        tick: Called with a part's name for every step of its progress.

    Raises:
        ChildProcessError: If a process died.
        Exception: Whatever a part raised.
    """
    if not parts:
        return
    context = multiprocessing.get_context("spawn")
    ticks = context.Queue()
    threads = max(1, torch.get_num_threads() // workers)
    pool = ProcessPoolExecutor(min(workers, len(parts)), context, _share, (config, threads, ticks))
    try:
        running = {pool.submit(_measure, part): part for part in parts}
        while running:
            done, _ = wait(running, LOOK, FIRST_COMPLETED)
            while True:
                try:
                    tick(ticks.get_nowait())
                except queue.Empty:
                    break
            for future in done:
                yield running.pop(future), future.result()
    except BrokenProcessPool:
        raise ChildProcessError(
            "a measuring process died (was it killed, or is memory short?); finished parts are kept: run the same "
            "command again, perhaps with fewer --workers"
        ) from None
    finally:
        for process in list((pool._processes or {}).values()):  # what is half measured is measured again
            process.terminate()
        pool.shutdown(cancel_futures=True)


_shared: tuple[EvaluateConfig, Any] | None = None  # of a worker process


def _share(config: EvaluateConfig, threads: int, ticks: Any) -> None:
    global _shared
    _shared = (config, ticks)
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its processes


def _measure(part: str) -> dict[str, Any]:
    assert _shared is not None
    config, ticks = _shared
    measures = importlib.import_module("neuralsim.evaluation.run").MEASURES
    return measures[part](Plan.of(config), lambda: ticks.put(part))
