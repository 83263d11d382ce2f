"""Processes that never outlive their owner, and the error that tells what became of one.

Four ways lead to their end: ``close()``, garbage collection, the interpreter's exit, and the death of this process
(the shim holds the other end of a line from here, and dies when the line breaks).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO

_PATIENCE = 3.0  # seconds between asking a process to end and killing it


class MinetestGameError(ConnectionError):
    """The game did not start, crashed, or did not answer; the message ends with the last lines of its log."""


class Guarded:
    """A child process with the shim loaded, in a session of its own.

    Args:
        command: Program and arguments.
        shim: The compiled library.
        environment: Variables beside those of this process.
        log: Open file for what the process says; if None it comes by the pipe ``process.stdout``.
        keep: File descriptors that the process inherits.
        cwd: Folder that the process runs in.

    Attributes:
        process: The ``subprocess.Popen``.
    """

    def __init__(
        self,
        command: Sequence[str],
        shim: Path,
        environment: dict[str, str],
        log: IO[bytes] | None = None,
        keep: Sequence[int] = (),
        cwd: Path | None = None,
    ) -> None:
        here, there = socket.socketpair()
        preload = " ".join(filter(None, [str(shim), os.environ.get("LD_PRELOAD")]))
        variables = {
            **os.environ,
            **environment,
            "LD_PRELOAD": preload,
            "NEURALSIM_LIFELINE": str(there.fileno()),
            "NEURALSIM_PARENT": str(os.getpid()),
        }
        try:
            with there:
                self.process: subprocess.Popen[bytes] = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE if log is None else log,
                    stderr=subprocess.STDOUT,
                    env=variables,
                    pass_fds=[there.fileno(), *keep],
                    start_new_session=True,  # a Ctrl-C at the terminal is for this process to handle
                    cwd=cwd,
                )
        except BaseException:
            here.close()
            raise
        self._end = weakref.finalize(self, _end, self.process, here, os.getpid())

    @property
    def ending(self) -> str | None:
        """How the process ended, in words; None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        return f"it was ended by signal {signal.Signals(-code).name}" if code < 0 else f"it ended with status {code}"

    def wait(self, seconds: float = 2.0) -> str | None:
        """Waits for the process to end by itself, and says how it did; None if it did not."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.ending

    def close(self) -> None:
        """Ends the process and waits until it is gone; nothing if that has happened."""
        self._end()


def _end(process: subprocess.Popen[bytes], line: socket.socket, owner: int) -> None:
    if os.getpid() != owner:
        line.close()  # a fork's copy: the process belongs to the parent
        return
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
    line.close()
    if process.stdout is not None:
        process.stdout.close()


def last_lines(log: str, count: int = 8) -> str:
    """The last lines of a log, for an error message."""
    lines = [line for line in log.splitlines() if line.strip()][-count:]
    return "its log ends with:\n  " + "\n  ".join(lines) if lines else "its log is empty"
