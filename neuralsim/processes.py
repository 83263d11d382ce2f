"""Worker processes that end with their parent and leave Ctrl-C to it; one that dies is an error that says so."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any

SPAWN = multiprocessing.get_context("spawn")
"""How they are started: not as copies of a process that may have threads. Queues and counters for them come from it."""


class Workers:
    """A pool of processes; as a context, it waits at its end for what is being worked on, and drops what is not.

    Args:
        count: How many.
        doing: What one does, for the error: "recording".
        kept: What is not lost where one dies: "finished episodes".
        share: Called in each process, before it works, with ...
        *shared: ... these.

    Raises:
        ChildProcessError: At the end of the context, if a process died.
    """

    def __init__(self, count: int, doing: str, kept: str, share: Callable[..., None], *shared: Any) -> None:
        self._died = (
            f"{'an' if doing[0] in 'aeiou' else 'a'} {doing} process died (was it killed, or is memory short?); {kept} "
            "are kept: run the same command again, perhaps with fewer --workers"
        )
        self._pool = ProcessPoolExecutor(count, SPAWN, _begin, (share, shared))

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise ChildProcessError(self._died) from None

    def submit(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Has a process call a function of a module; may start one. A Ctrl-C at this very moment is lost."""
        with _interrupts_ignored():  # which a process inherits, before it can say so itself
            return self._pool.submit(task, *arguments)

    def terminate(self) -> None:
        """Ends all processes, whatever they are at."""
        for process in list((self._pool._processes or {}).values()):  # from Python 3.14 on: pool.terminate_workers()
            process.terminate()


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _begin(share: Callable[..., None], shared: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    share(*shared)


def _end_with_the_parent() -> None:
    """A parent that was killed cannot end its processes, which would work on, or wait for it for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
