"""neuralsim: learned simulators as ordinary Gymnasium environments.

``import neuralsim`` registers the dreams (``Dream-Pong-v0``, ``Dream-v0``) and the tasks in Minetest
(``Minetest-Treechop-v0``, ...), and imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from neuralsim.registration import register_dreams, register_minetest

if TYPE_CHECKING:
    from neuralsim.data.episodes import Episode, EpisodeStore
    from neuralsim.world import Prediction, World, WorldState

__version__ = "0.1.0"

# Public names that are imported when first used.
_LAZY = {
    "Episode": "neuralsim.data.episodes",
    "EpisodeStore": "neuralsim.data.episodes",
    "Prediction": "neuralsim.world",
    "World": "neuralsim.world",
    "WorldState": "neuralsim.world",
}

__all__ = ["Episode", "EpisodeStore", "Prediction", "World", "WorldState", "__version__"]

register_dreams()
register_minetest()


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'neuralsim' has no attribute {name!r}")
