"""Minetest as a lock-stepped Gymnasium environment: one frame per action, 50 ms of game time apart. Linux only.

    env = gym.make("Minetest-Treechop-v0")
    observation, info = env.reset(seed=1)             # a fresh world; the game takes some seconds to start
    action = noop_action(env.action_space)            # neuralsim.envs.minerl_spaces
    observation, reward, terminated, truncated, info = env.step({**action, "forward": 1, "camera": (0.0, 5.0)})

It is Minetest, not Minecraft: a free engine (LGPL-2.1 or later) with the Minetest Game, whose media are mostly
CC BY-SA 3.0; whoever publishes its frames names them. Observations and actions have the form of MineRL's.

- ``environment.py`` the environment; ``tasks.py`` what the tasks are; ``inputs.py`` from actions to keys and mouse
- ``game.py`` one running game in lock-step; ``display.py`` its X server; ``processes.py`` none outlives its owner
- ``instance.py`` the folder of a game; ``needs.py`` what must be installed; ``shim.py`` compiles ``shim.c``
- ``shim.c`` hooks into the game; ``world_mod`` tasks and truth on the server; ``client_mod`` the pose of each frame
"""

from neuralsim.envs.minetest.environment import MinetestEnv
from neuralsim.envs.minetest.needs import MinetestMissingError
from neuralsim.envs.minetest.processes import MinetestGameError

__all__ = ["MinetestEnv", "MinetestGameError", "MinetestMissingError"]
