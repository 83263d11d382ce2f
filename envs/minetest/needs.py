"""What must be installed for Minetest to run in lock-step, found or named."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys

PACKAGES = ("minetest", "minetest-data", "xvfb", "libgl1-mesa-dri", "gcc", "libc6-dev", "libgl-dev", "libx11-dev")
"""Debian's packages; `make minetest` installs them."""

INSTALL = (
    f"install it with `make minetest`, or with `apt-get install {' '.join(PACKAGES)}` (Debian, Ubuntu and relatives)"
)


VERSIONS = ((5, 5), (5, 8))
"""First and last version that the lock-step is for; 5.6.1 is the one it is tested with. Later ones get keys and mouse
from SDL, which the shim knows nothing of."""


class MinetestMissingError(FileNotFoundError):
    """Something that Minetest needs is not installed; the message says what, and how to get it."""


def find_game() -> str:
    """Path of the game: ``minetest``, or what the variable ``MINETEST_BINARY`` names.

    Raises:
        MinetestMissingError: If there is none, or this is not Linux.
    """
    check_system()
    named = os.environ.get("MINETEST_BINARY")
    if named:
        found = shutil.which(named)
        if found is None:
            raise MinetestMissingError(f"MINETEST_BINARY={named} is no program that can be run")
        return found
    # Debian puts games into a folder that is not on the path of root, nor of services.
    found = shutil.which("minetest") or shutil.which("minetest", path="/usr/games:/usr/local/games")
    if found is None:
        raise MinetestMissingError(f"the game `minetest` is not installed: {INSTALL}")
    return found


def find_display_server() -> str:
    """Path of the X server without a screen, ``Xvfb``.

    Raises:
        MinetestMissingError: If there is none.
    """
    found = shutil.which("Xvfb")
    if found is None:
        raise MinetestMissingError(f"the display server `Xvfb` is not installed, on which the game draws: {INSTALL}")
    return found


def find_compiler() -> str:
    """Path of a C compiler: ``cc``, ``gcc`` or ``clang``, or what the variable ``CC`` names.

    Raises:
        MinetestMissingError: If there is none.
    """
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise MinetestMissingError(
        f"there is no C compiler (cc, gcc, clang, $CC), and the game's lock-step is compiled at first use: {INSTALL}"
    )


@functools.cache
def check_game(program: str) -> None:
    """Refuses games that the lock-step is not for, asked by ``--version``.

    Raises:
        MinetestMissingError: If it cannot be run, is too old or too new, or was built without LuaJIT.
    """
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MinetestMissingError(f"{program} --version cannot be run: {error}") from error
    told = re.search(r"(?:Minetest|Luanti) (\d+)\.(\d+)\S*", said)
    (first, last) = VERSIONS
    if told is None or not first <= (int(told[1]), int(told[2])) <= last:
        version = told[0] if told else repr(said[:80])
        raise MinetestMissingError(
            f"{program} is {version}, and the lock-step is for Minetest {first[0]}.{first[1]} to {last[0]}.{last[1]} "
            "(Debian 12 and Ubuntu 24.04 have 5.6.1): install one of these, and let MINETEST_BINARY name it"
        )
    if re.search(r"Using Lua \d|USE_LUAJIT=0", said):
        raise MinetestMissingError(f"{program} was built without LuaJIT, by which the world's mod calls the lock-step")


def check_system() -> None:
    """Refuses other systems than Linux.

    Raises:
        MinetestMissingError: Where the lock-step cannot work.
    """
    if not sys.platform.startswith("linux"):
        raise MinetestMissingError(
            f"the Minetest environments run on Linux only, and this is {sys.platform}: their lock-step preloads a "
            "library into the game (LD_PRELOAD) and speaks X11; run them in a Linux container"
        )


def what_is_missing() -> str | None:
    """Why Minetest cannot run here, or None if nothing that can be seen from outside is missing."""
    try:
        find_game()
        find_display_server()
        find_compiler()
    except MinetestMissingError as error:
        return str(error)
    return None
