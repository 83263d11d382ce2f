"""Players: everything with ``act(frame, info)``, and agents that learn.

``from neuralsim.agents import Agent`` imports torch when first used, not before.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuralsim.agents.agent import Agent
    from neuralsim.agents.ppo import PPO

_LAZY = {"PPO": "neuralsim.agents.ppo", "Agent": "neuralsim.agents.agent"}

__all__ = ["PPO", "Agent"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'neuralsim.agents' has no attribute {name!r}")
