"""One running Minetest in lock-step: an order in, a frame and what the game says of itself out."""

from __future__ import annotations

import json
import mmap
import os
import re
import shutil
import socket
import struct
import tempfile
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuralsim.envs.minetest.display import Display
from neuralsim.envs.minetest.instance import PLAYER, WorldSettings, free_port, write_instance
from neuralsim.envs.minetest.needs import check_game, find_game
from neuralsim.envs.minetest.processes import Guarded, MinetestGameError, last_lines

STEP_MICROSECONDS = 50_000
"""Game time from one frame to the next, as in Minecraft."""

_ORDER = struct.Struct("<IIiiI48I")  # `order` of shim.c: kind, step, turn x and y, number of keys, keys
_REPORT = struct.Struct("<QddIIII")  # `report` of shim.c
_RUN_FREELY, _STEP = 0, 1
_POSE = re.compile(rb"neuralsim-pose((?: -?[\d.]+){8})")
_FAILED = re.compile(rb"ServerError|ModError|Access denied|Failed to bind|Could not (?:find|load) game")
_SETTLED = 0.25  # mean change of a still picture in grey levels (water moves by itself)


@dataclass(frozen=True)
class Report:
    """What is true at a frame.

    Attributes:
        frame: ``(H, W, 3)`` uint8.
        says: What the mod on the server says, after its step for this frame.
        pose: Position (3), velocity (3), yaw and pitch of the player in this frame. In Minetest's way: in radians,
            the yaw counter-clockwise from +x, the pitch up. None before the player is there.
        game_seconds: Game time since the game was locked.
        behind_seconds: The part of it that the server has not lived through.
        waited_seconds: Real time for which the frame waited for the server.
    """

    frame: np.ndarray
    says: dict[str, Any]
    pose: tuple[float, ...] | None
    game_seconds: float
    behind_seconds: float
    waited_seconds: float


class Game:
    """Starts Minetest in a fresh world and waits until the player stands where the episode begins.

    Args:
        settings: What the game is like.
        display: Where it draws.
        shim: The compiled library.
        port: UDP port for its server; a free one if None.
        start_timeout: Seconds of real time that the start may take.
        step_timeout: Seconds of real time that a frame may take.

    Attributes:
        folder: With the world and the logs; gone after :meth:`close`.
        process: The game.
        report: The latest :class:`Report`.

    Raises:
        MinetestMissingError: If the game is not installed, or of a version that the lock-step is not for.
        MinetestGameError: If it does not start, or not in time; the message ends with its log.
        OSError: If the port is in use.
    """

    def __init__(
        self,
        settings: WorldSettings,
        display: Display,
        shim: Path,
        port: int | None = None,
        start_timeout: float = 120.0,
        step_timeout: float = 30.0,
    ) -> None:
        program = find_game()
        check_game(program)
        self.settings, self.step_timeout = settings, step_timeout
        self.port = free_port(port)
        self.folder = Path(tempfile.mkdtemp(prefix="neuralsim-minetest-"))
        self._end = weakref.finalize(self, _remove, self.folder, os.getpid())
        write_instance(self.folder, settings)
        self._start(program, display, shim)
        self._said = self._log = b""
        self._pose: tuple[float, ...] | None = None
        self._poses = 0
        self._lost: str | None = None
        try:
            self._begin(start_timeout)
        except BaseException:
            self.close()
            raise

    def step(self, keys: Sequence[int] = (), turn: tuple[int, int] = (0, 0)) -> Report:
        """Plays one frame.

        Args:
            keys: X keysyms of keys that go down, or up (highest bit set).
            turn: Movement of the mouse, right and down, in pixels.

        Raises:
            MinetestGameError: If the game has crashed, or does not answer in time; it is closed then.
        """
        return self._exchange(_STEP, self.step_timeout, keys, turn)

    def close(self) -> None:
        """Ends the game and removes its folder."""
        self._lost = self._lost or "it was closed"
        self._channel.close()
        self.process.close()
        self._picture.close()
        self._end()

    def _start(self, program: str, display: Display, shim: Path) -> None:
        height, width = self.settings.render_size
        memory = os.memfd_create("neuralsim-frame")
        try:
            os.ftruncate(memory, height * width * 3)
            self._picture = mmap.mmap(memory, height * width * 3)
            # Whole messages, and an end that is noticed.
            self._channel, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with there:
                self.process = Guarded(
                    [
                        program, "--go", "--world", str(self.folder / "world"), "--gameid", "minetest",
                        "--name", PLAYER, "--config", str(self.folder / "minetest.conf"), "--port", str(self.port),
                    ],
                    shim,
                    {
                        "DISPLAY": display.name,
                        "HOME": str(self.folder),
                        "MINETEST_USER_PATH": str(self.folder / ".minetest"),
                        "LC_ALL": "C.UTF-8",
                        "LIBGL_ALWAYS_SOFTWARE": "1",
                        "GALLIUM_DRIVER": "llvmpipe",
                        # One thread beside the game's own: more wait for each other where games run side by side.
                        "LP_NUM_THREADS": os.environ.get("LP_NUM_THREADS", "1"),
                        "NEURALSIM_FOLDER": str(self.folder),
                        "NEURALSIM_CHANNEL": str(there.fileno()),
                        "NEURALSIM_FRAME": str(memory),
                        "NEURALSIM_WIDTH": str(width),
                        "NEURALSIM_HEIGHT": str(height),
                    },
                    keep=[there.fileno(), memory],
                    cwd=self.folder,
                )  # fmt: skip
        finally:
            os.close(memory)
        assert self.process.process.stdout is not None
        os.set_blocking(self.process.process.stdout.fileno(), False)

    def _begin(self, timeout: float) -> None:
        """Runs freely until the mod has put the player at the start, then locked until the land around is drawn."""
        deadline = time.monotonic() + timeout
        self.report = self._receive(timeout)
        while not (self.report.says.get("ready") and self._pose):
            if time.monotonic() > deadline:
                raise self._error(f"did not get to the start of an episode within {timeout:g} s (start_timeout)")
            if _FAILED.search(self._log):
                raise self._error("could not begin an episode")
            self._exchange(_RUN_FREELY, timeout)
        still, before = 0, self.step().frame
        for frames in range(1, 600):
            frame = self.step().frame
            change = np.abs(frame.astype(np.int16) - before).mean()
            still, before = (still + 1 if change < _SETTLED else 0), frame
            # At least three seconds: meshes come in batches, and the player falls onto the ground.
            if (frames >= 60 and still >= 20) or time.monotonic() > deadline:
                break
            # Meshes are made in real time, by threads that the lock leaves alone.
            time.sleep(0.002)

    def _exchange(self, kind: int, timeout: float, keys: Sequence[int] = (), turn: tuple[int, int] = (0, 0)) -> Report:
        if self._lost:
            raise MinetestGameError(f"Minetest is not running: {self._lost}")
        order = _ORDER.pack(kind, STEP_MICROSECONDS, *turn, len(keys), *keys, *([0] * (48 - len(keys))))
        self._poses = 0
        try:
            self._channel.send(order)
            self.report = self._receive(timeout)
            if kind == _STEP and not self._poses:
                # Frames of a menu: the player is in no world any more.
                raise self._error("has left the world")
        except (BrokenPipeError, ConnectionResetError):
            raise self._error("has crashed") from None
        except MinetestGameError:
            raise
        except BaseException as interruption:
            # Its answer to this order would be taken for that to the next.
            self._lost = f"a step was interrupted by {type(interruption).__name__}"
            self.close()
            raise
        return self.report

    def _receive(self, timeout: float) -> Report:
        self._channel.settimeout(timeout)
        try:
            message = self._channel.recv(1 << 16)
        except TimeoutError:
            raise self._error(f"did not answer within {timeout:g} s, and was ended") from None
        if not message:
            raise self._error("has crashed")
        _, game_seconds, behind, width, height, size, waited = _REPORT.unpack_from(message)
        says = json.loads(message[_REPORT.size : _REPORT.size + size]) if size else {}
        # OpenGL begins at the bottom.
        frame = np.frombuffer(self._picture, np.uint8).reshape(height, width, 3)[::-1].copy()
        self._listen()
        return Report(frame, says, self._pose, game_seconds, behind, waited * 1e-6)

    def _listen(self) -> None:
        """Reads what the game has printed up to this frame: log lines, and the client mod's poses."""
        assert self.process.process.stdout is not None
        while True:
            try:
                part = os.read(self.process.process.stdout.fileno(), 1 << 16)
            except BlockingIOError:
                break
            if not part:
                break
            self._said += part
        *lines, self._said = self._said.split(b"\n")
        for line in lines:
            told = _POSE.search(line)
            if told:
                self._poses += 1
                self._pose = tuple(map(float, told[1].split()))
            else:
                self._log = (self._log + line + b"\n")[-10_000:]

    def _error(self, what: str) -> MinetestGameError:
        """Closes the game, and makes the error that says why."""
        # The channel breaks a little before the process is gone.
        ending = self.process.wait() if what == "has crashed" else None
        how = f" ({ending})" if ending else ""
        self._listen()
        message = f"Minetest {what}{how}; {last_lines((self._log + self._said).decode(errors='replace'))}"
        hint = _hint(message, self.port)
        self._lost = f"it {what}{how}"
        self.close()
        return MinetestGameError(message + hint)


def _hint(message: str, port: int) -> str:
    if "bind" in message.lower() and "fail" in message.lower():
        return (
            f"\nThe UDP port {port} seems to be in use by another program: try again, or choose another one by port=."
        )
    if "Invalid gameid" in message or ("not find" in message and "game" in message):
        return "\nThe Minetest Game seems to be missing: install the package minetest-data."
    return ""


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
