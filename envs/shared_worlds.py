"""Worlds are loaded once per process: making an environment in a loop costs next to nothing."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path

import torch

from neuralsim.devices import choose_device, choose_dream_dtype
from neuralsim.world import World
from neuralsim.world_files import CONFIG, find_world

KEPT = 4
"""How many worlds are kept when nobody uses them any more; the one used longest ago goes first."""

_Key = tuple[Path, int, torch.device, torch.dtype]
_worlds: OrderedDict[_Key, World] = OrderedDict()
_downloads: dict[str, Path] = {}
_lock = threading.Lock()


def shared_world(source: str | os.PathLike[str], device: str = "auto", dtype: str = "auto") -> World:
    """A world that may be in use elsewhere in this process: dream with it, do not change it.

    A world folder that was written anew since is loaded anew.

    Args:
        source: A bundled name, a folder or a hub id.
        device: See :class:`neuralsim.world.World`.
        dtype: See :class:`neuralsim.world.World`.

    Raises:
        FileNotFoundError: See :meth:`neuralsim.world.World.load`.
        ValueError: See :meth:`neuralsim.world.World.load`.
    """
    with _lock:
        name = os.fspath(source)
        folder = _downloads[name] if name in _downloads and not Path(name).exists() else find_world(source).resolve()
        if not Path(name).exists():
            _downloads[name] = folder
        place = choose_device(str(device))
        number = choose_dream_dtype(dtype, place)
        key = (folder, (folder / CONFIG).stat().st_mtime_ns, place, number)
        if key not in _worlds:
            _worlds[key] = World.load(folder, place, str(number).removeprefix("torch."))
        _worlds.move_to_end(key)
        while len(_worlds) > KEPT:
            _worlds.popitem(last=False)
        return _worlds[key]
