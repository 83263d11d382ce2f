"""The library that lock-steps the game, compiled at first use and kept."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import tempfile
from pathlib import Path

from neuralsim.envs.minetest.needs import INSTALL, MinetestMissingError, find_compiler

SOURCE = Path(__file__).with_name("shim.c")


def shim_path(cache: Path | None = None) -> Path:
    """The compiled library; compiles it if this version of it is not there yet.

    Args:
        cache: Folder to keep it in; by default ``$XDG_CACHE_HOME/neuralsim`` or ``~/.cache/neuralsim``.

    Raises:
        MinetestMissingError: Without a compiler, or without the headers of X11 and OpenGL; the message says which.
        OSError: If the folder cannot be written to.
    """
    source = SOURCE.read_bytes()
    version = hashlib.sha256(source + platform.machine().encode() + repr(platform.libc_ver()).encode()).hexdigest()[:16]
    folder = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neuralsim"
    library = folder / f"minetest-shim-{version}.so"
    if " " in str(library) or ":" in str(library):
        raise OSError(
            f"{folder} has a space or a colon in its name, where LD_PRELOAD cannot name a library; let XDG_CACHE_HOME "
            "name another folder"
        )
    if not library.exists():
        _compile(library)
    return library


def _compile(library: Path) -> None:
    compiler = find_compiler()
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(".so", library.stem, library.parent)
    except OSError as error:
        raise OSError(
            f"the compiled lock-step cannot be kept in {library.parent} ({error}); let XDG_CACHE_HOME name a folder "
            "that can be written to"
        ) from error
    os.close(handle)
    # -z lazy: the X server, which is guarded by the same library, has none of the game's functions.
    flags = ["-O2", "-shared", "-fPIC", "-pthread", "-Wl,-z,lazy"]
    command = [compiler, *flags, "-o", name, str(SOURCE), "-ldl"]
    try:
        built = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if built.returncode != 0:
            raise MinetestMissingError(_explain(compiler, built.stderr))
        os.chmod(name, 0o644)
        os.replace(name, library)  # whole or not at all, also when several processes compile at once
    finally:
        Path(name).unlink(missing_ok=True)


def _explain(compiler: str, said: str) -> str:
    first = next((line for line in said.splitlines() if "error" in line), said.strip()[-300:])
    if "No such file" in first:
        return f"headers that the game's lock-step is compiled with are not installed ({first.strip()}): {INSTALL}"
    return f"{compiler} cannot compile {SOURCE.name}: {first.strip()}"
