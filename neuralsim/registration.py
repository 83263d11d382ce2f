"""Which id dreams which world."""

from __future__ import annotations

import gymnasium as gym

BUNDLED_WORLDS = {"Dream-Pong-v0": "pong"}
"""Registered id -> folder under ``neuralsim/worlds``."""


def register_dreams() -> None:
    """Registers every bundled world, and ``Dream-v0`` for a world of one's own (``world=path``)."""
    for env_id, world in [*BUNDLED_WORLDS.items(), ("Dream-v0", None)]:
        if env_id in gym.registry:
            continue
        gym.register(
            id=env_id,
            entry_point="neuralsim.envs.dream:DreamEnv",
            vector_entry_point="neuralsim.envs.dream_vector:DreamVectorEnv",
            # Names only: a spec must survive JSON, and gym.make copies its keyword arguments deeply.
            kwargs={} if world is None else {"world": world},
        )
