"""An X server without a screen, one for each environment."""

from __future__ import annotations

import os
import select
import tempfile
from pathlib import Path
from typing import IO

from neuralsim.envs.minetest.needs import find_display_server
from neuralsim.envs.minetest.processes import Guarded, MinetestGameError, last_lines

_PATIENCE = 30.0


class Display:
    """Xvfb, under a display number that it finds itself: any number of them run side by side.

    Args:
        size: Height and width of the screen in pixels.
        shim: The compiled library, which ends the server with this process.

    Attributes:
        name: Value for the variable ``DISPLAY``.

    Raises:
        MinetestMissingError: If Xvfb is not installed.
        MinetestGameError: If it does not start.
    """

    def __init__(self, size: tuple[int, int], shim: Path) -> None:
        program = find_display_server()
        reader, writer = os.pipe()
        # -noreset: it serves one game after the other, and must not start afresh between them.
        screen = f"{size[1]}x{size[0]}x24"
        command = [program, "-displayfd", str(writer), "-screen", "0", screen, "-nolisten", "tcp", "-noreset"]
        try:
            with tempfile.TemporaryFile() as log:  # without a name, so that nobody has to remove it
                try:
                    self.server = Guarded(command, shim, {}, log, [writer])
                finally:
                    os.close(writer)
                self.name = f":{self._number(program, reader, log)}"
        finally:
            os.close(reader)

    def _number(self, program: str, reader: int, log: IO[bytes]) -> int:
        said = b""
        while not said.endswith(b"\n"):
            readable, _, _ = select.select([reader], [], [], _PATIENCE)
            part = os.read(reader, 64) if readable else b""
            if not part:
                late = f"it did not say its display's number within {_PATIENCE:g} s"
                # It breaks the pipe a little before it is gone.
                reason = late if not readable else self.server.wait() or late
                self.server.close()
                raise MinetestGameError(f"the display server {program} did not start: {reason}; {_read(log)}")
            said += part
        return int(said)

    def close(self) -> None:
        """Ends the server."""
        self.server.close()


def _read(log: IO[bytes]) -> str:
    log.seek(0)
    return last_lines(log.read().decode(errors="replace"))
