"""Which id dreams which world, and which plays which task in Minetest.

Only names are registered: a spec must survive JSON, and :func:`gymnasium.make` copies its arguments deeply, so a
model must never be one of them. The time limit is the world's own, enforced by the environments themselves.
"""

from __future__ import annotations

import gymnasium as gym

BUNDLED_WORLDS = {"Dream-Pong-v0": "pong", "Dream-MineRL-v0": "minerl"}
"""Registered id -> folder under ``neuralsim/worlds``."""

OBS_KEYS = {"minerl": "pov"}
"""World -> name under which its frames are shown, as the environments show them whose code shall run unchanged."""

OWN_WORLD = "Dream-v0"
"""Registered id for a world of one's own: ``gym.make("Dream-v0", world="path or hub id")``."""

MINETEST_TASKS = {
    "Minetest-Treechop-v0": ("treechop", 8000),
    "Minetest-Navigate-v0": ("navigate", 6000),
    "Minetest-Dig-v0": ("dig", 2000),
    "Minetest-Explore-v0": ("explore", 6000),
}
"""Registered id -> task of :mod:`neuralsim.envs.minetest.tasks`, and steps until an episode is cut."""


def register_dreams() -> None:
    """Registers every bundled world, and :data:`OWN_WORLD`; ids that are registered already are left alone."""
    for env_id, world in [*BUNDLED_WORLDS.items(), (OWN_WORLD, None)]:
        if env_id in gym.registry:
            continue
        gym.register(
            id=env_id,
            entry_point="neuralsim.envs.dream:DreamEnv",
            vector_entry_point="neuralsim.envs.dream_vector:DreamVectorEnv",
            kwargs=_dream_kwargs(world),
        )


def _dream_kwargs(world: str | None) -> dict[str, str]:
    named = {"world": world, "obs_key": OBS_KEYS.get(world or "")}
    return {name: value for name, value in named.items() if value is not None}


def register_minetest() -> None:
    """Registers the tasks in Minetest; whether the game is there is asked when one is made."""
    for env_id, (task, time_limit) in MINETEST_TASKS.items():
        if env_id not in gym.registry:
            gym.register(
                id=env_id,
                entry_point="neuralsim.envs.minetest:MinetestEnv",
                kwargs={"task": task},
                max_episode_steps=time_limit,
                nondeterministic=True,  # the game's threads make land and meshes in real time
            )
