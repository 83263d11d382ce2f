"""The live MineRL environments as Gymnasium environments, where the user has installed ``minerl``.

    env = make_minerl("MineRLTreechop-v0")
    observation, info = env.reset(seed=1)
    action = noop_action(env.action_space)          # neuralsim.envs.minerl_spaces
    observation, reward, terminated, truncated, info = env.step({**action, "forward": 1, "camera": (0.0, 5.0)})

MineRL speaks the API of gym 0.19 to 0.23, and what it says is put right here:

- A lost connection raises. MineRL returns a *random observation* then, and ``info["error"]``.
- Running out of time truncates an episode. MineRL says "done" for it, as for death and success.
- ``reset(seed=...)`` seeds the Minecraft world, and resets without a seed follow from the last one; MineRL forgets a
  seed after every episode.
- Actions are checked. MineRL leaves unknown keys out in silence.
- Names of items are numbers, whose names are in :attr:`MineRLEnv.action_names` and
  :attr:`MineRLEnv.observation_names`.
"""

from __future__ import annotations

import difflib
import importlib
import struct
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from neuralsim.envs.minerl_spaces import CAMERA_LIMIT, TICKS_PER_SECOND, check_action, check_pov, limit_camera
from neuralsim.envs.old_gym_spaces import translate_space

INSTALL = """\
the live MineRL environments need the package "minerl", which is not installed here. It cannot be an extra of this \
package: the package index has version 0.4.4 alone, which does not install on Python 3.11; version 1.0 is in its git \
repository, needs Java's JDK 8 to build and to run, and asks for gym <= 0.23.1 and numpy < 1.24, older than this \
package allows. Install it by hand, without its own pins (numpy 1.26 serves both):
  1. sudo apt-get install openjdk-8-jdk
     `java -version` must then say 1.8; set JAVA_HOME if it does not.
  2. pip install "gym==0.23.1" "numpy>=1.26,<2" "opencv-python<4.12" coloredlogs daemoniker dill getch imagehash \
inflection ipython jinja2 lxml psutil Pyro4 requests tqdm "xmltodict==0.12.0"
  3. pip install --no-deps "git+https://github.com/minerllabs/minerl@v1.0.2"
On a machine without a screen, run it under `xvfb-run`. Recordings of MineRL and VPT need none of this."""

TIME_UP_TICKS = 20
"""Minecraft's own clock starts before the first observation, so its time is up a little before MineRL's step limit."""


class MineRLConnectionError(ConnectionError):
    """The connection to Minecraft broke; what MineRL returned is no observation."""


class MineRLEnv(gym.Env):
    """One of MineRL's environments behind Gymnasium's API.

    Observations and actions are those of the installed environment: a Dict with ``pov`` ``(H, W, 3)`` uint8 (and
    inventory, equipment, ... in some), and a Dict of buttons and the camera, see
    :mod:`neuralsim.envs.minerl_spaces`.

    Args:
        env_id: MineRL's own id, such as ``"MineRLTreechop-v0"`` or ``"MineRLBasaltFindCave-v0"``.
        render_mode: ``"rgb_array"``: :meth:`render` returns the view; ``"human"``: MineRL shows its own window.
        camera_limit: Most degrees per tick that the camera turns; with less than MineRL's 180, actions are those of
            recordings that were imported with such a limit.
        **kwargs: For the old ``gym.make``.

    Attributes:
        action_names: What the numbers of the actions' choices stand for, by key.
        observation_names: The same of observations, keys of nested dicts joined by dots.
        time_limit: Steps after which MineRL ends an episode; None if it does not say.

    Raises:
        ModuleNotFoundError: Without ``minerl``; the message says how to install it.
        ValueError: If ``minerl`` has no such environment, or its spaces are unknown.
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": TICKS_PER_SECOND}  # noqa: RUF012

    def __init__(
        self, env_id: str, render_mode: str | None = None, camera_limit: float = CAMERA_LIMIT, **kwargs: Any
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode {render_mode!r}; choose one of {self.metadata['render_modes']}")
        _check_id(env_id)
        self.env_id, self.render_mode = env_id, render_mode
        _forget_random_state(env_id)
        self.old = _old_gym().make(env_id, **kwargs)
        self._observations = translate_space(self.old.observation_space, skip_unknown=True)
        self._actions = translate_space(self.old.action_space)
        self.observation_space, self.action_space = self._observations.space, self._actions.space
        if camera_limit != CAMERA_LIMIT:
            assert isinstance(self.action_space, spaces.Dict)
            self.action_space = limit_camera(self.action_space, camera_limit)
        self.observation_names, self.action_names = self._observations.names, self._actions.names
        self.time_limit = _time_limit(self.old)
        self._pov: np.ndarray | None = None
        self._steps = 0
        self._over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode in a new world; the first one takes minutes, as Minecraft has to start.

        Args:
            seed: Of the world; without one it follows from the last seed given.
            options: None are known.

        Returns:
            The observation, and ``{"world_seed": the seed that Minecraft was given}``.

        Raises:
            MineRLConnectionError: If Minecraft does not answer.
        """
        super().reset(seed=seed)
        self._over, self._steps = True, 0
        world_seed = int(self.np_random.integers(2**31)) if seed is None else int(seed)
        self.old.seed(world_seed)
        try:
            observation = self.old.reset()
        except Exception as error:
            self._raise_if_lost(error, "while it started an episode")
            raise
        new = self._observe(observation)
        self._over = False
        if self.render_mode == "human":
            self.old.render()
        return new, {"world_seed": world_seed}

    def step(self, action: dict[str, Any]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Plays one tick, a 20th of a second.

        Returns:
            Observation, reward, terminated (death, success, the key ESC), truncated (time is up) and MineRL's info.

        Raises:
            ValueError: For an action outside the space, or a frame of another size; the message explains it.
            MineRLConnectionError: If the connection to Minecraft is lost; ``reset`` begins another episode.
            gymnasium.error.ResetNeeded: After the end of an episode.
        """
        if self._over:
            raise gym.error.ResetNeeded("this episode is over: call reset() before the next step()")
        assert isinstance(self.action_space, spaces.Dict)
        checked = check_action(action, self.action_space)
        try:
            observation, reward, done, info = self.old.step(self._actions.to_old(checked))
        except Exception as error:
            self._raise_if_lost(error, f"at step {self._steps}")
            raise
        if "error" in info:
            self._over = True
            raise MineRLConnectionError(
                f"{self.env_id} lost its connection to Minecraft at step {self._steps} ({info['error']}). The "
                "observation that MineRL returned is random noise and was thrown away; the episode ends without it. "
                "reset() begins a new one"
            )
        self._steps += 1
        if not done and getattr(self.old.unwrapped, "done", False) is True:
            # The tick after this observation failed, which MineRL only writes to its log.
            self._over = True
            raise MineRLConnectionError(
                f"{self.env_id} lost its connection to Minecraft after step {self._steps}; reset() begins a new episode"
            )
        new = self._observe(observation)
        truncated = bool(done) and (bool(info.get("TimeLimit.truncated", False)) or self._time_is_up())
        self._over = bool(done)
        if self.render_mode == "human":
            self.old.render()
        return new, float(reward), bool(done) and not truncated, truncated, dict(info)

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The player's view ``(H, W, 3)`` uint8 with ``render_mode="rgb_array"``."""
        return None if self.render_mode != "rgb_array" or self._pov is None else self._pov.copy()

    def close(self) -> None:
        """Ends Minecraft."""
        self._over = True
        self.old.close()

    def _observe(self, observation: dict[str, Any]) -> dict[str, Any]:
        space = self.observation_space
        if isinstance(space, spaces.Dict) and "pov" in space.spaces and "pov" in observation:
            part = space.spaces["pov"]
            assert isinstance(part, spaces.Box)
            self._pov = check_pov(observation["pov"], part)
            observation = {**observation, "pov": self._pov}
        try:
            return self._observations.to_new(observation)
        except ValueError as error:
            raise ValueError(f"{self.env_id} returned an observation outside its own space: {error}") from error

    def _time_is_up(self) -> bool:
        # An episode that ends within a second of the limit counts as cut: to call a cut a death teaches that the world
        # ends there, which is the worse mistake.
        limit = self.time_limit
        return limit is not None and self._steps >= limit - min(TIME_UP_TICKS, limit // 100)

    def _raise_if_lost(self, error: Exception, when: str) -> None:
        """Raises the error of a lost connection, if that lies behind ``error``: MineRL stumbles where it cleans up."""
        self._over = True
        behind: BaseException | None = error
        while behind is not None:
            if isinstance(behind, (OSError, EOFError, struct.error)):
                raise MineRLConnectionError(
                    f"{self.env_id} lost its connection to Minecraft {when} ({type(behind).__name__}: {behind}); "
                    "reset() begins a new episode, and if that fails too, close() and make the environment anew"
                ) from error
            behind = behind.__cause__ or behind.__context__


def make_minerl(env_id: str, render_mode: str | None = None, **kwargs: Any) -> gym.Env:
    """Makes one of MineRL's environments, see :class:`MineRLEnv`.

    Args:
        env_id: MineRL's own id, such as ``"MineRLTreechop-v0"``.
        render_mode: ``"rgb_array"`` or ``"human"``.
        **kwargs: For ``gymnasium.make``, and from there for the old ``gym.make``.

    Raises:
        ModuleNotFoundError: Without ``minerl``; the message says how to install it.
        ValueError: If ``minerl`` has no such environment.
    """
    register_minerl()
    _check_id(env_id)
    return gym.make(env_id, render_mode=render_mode, **kwargs)


def register_minerl() -> None:
    """Registers the environments of the installed ``minerl`` with Gymnasium, under their own ids.

    Raises:
        ModuleNotFoundError: Without ``minerl``; the message says how to install it.
    """
    for env_id in minerl_ids():
        if env_id not in gym.registry:
            # Without the checker and the time limit: the first would step through minutes, the second is MineRL's own.
            gym.register(
                env_id,
                entry_point="neuralsim.envs.minerl:MineRLEnv",
                kwargs={"env_id": env_id},
                disable_env_checker=True,
            )


def minerl_ids() -> list[str]:
    """Ids of the environments that the installed ``minerl`` has.

    Raises:
        ModuleNotFoundError: Without ``minerl``; the message says how to install it.
    """
    registry = _old_gym().envs.registry
    known = getattr(registry, "env_specs", registry)  # a plain dict from gym 0.24 on
    return sorted(name for name in known if name.startswith("MineRL"))


def _check_id(env_id: str) -> None:
    known = minerl_ids()
    if env_id not in known:
        near = difflib.get_close_matches(env_id, known, n=3) or known
        raise ValueError(
            f"the installed minerl has no environment {env_id!r}; did you mean {' or '.join(near)}? (Version 1.0 has "
            "Treechop, Navigate, ObtainDiamondShovel, HumanSurvival and BASALT; ObtainDiamond is of version 0.4.4.)"
        )


def _old_gym() -> Any:
    """The old gym, with MineRL's environments registered."""
    try:
        importlib.import_module("minerl")
    except ModuleNotFoundError as error:
        if error.name != "minerl":
            raise  # it is there, and one of its own imports is not: that error says more
        raise ModuleNotFoundError(INSTALL, name="minerl") from None
    return importlib.import_module("gym")


def _forget_random_state(env_id: str) -> None:
    """Gives MineRL's task fresh spaces: gym 0.23 copies it, and cannot copy used ones with NumPy 1.24 and later.

    They are used where a connection was lost, as that is where the noise comes from.
    """
    registry = _old_gym().envs.registry
    known = getattr(registry, "env_specs", registry)
    # Underscored up to gym 0.21, and no task at all in environments that are not MineRL's own.
    arguments = getattr(known[env_id], "kwargs", None) or getattr(known[env_id], "_kwargs", None) or {}
    if "env_spec" in arguments:
        arguments["env_spec"].reset()


def _time_limit(old: Any) -> int | None:
    specified = getattr(getattr(old, "spec", None), "max_episode_steps", None)
    limit = specified or getattr(getattr(old.unwrapped, "task", None), "max_episode_steps", None)
    return None if limit is None else int(limit)
