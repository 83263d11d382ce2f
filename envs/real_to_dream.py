"""One episode that crosses over: a running real game is handed to the dream at any step, and back."""

from __future__ import annotations

import copy
import os
from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector.utils import concatenate, create_empty_array

from neuralsim.envs.dream import DreamEnv
from neuralsim.envs.preprocessing import Preprocess, as_observation
from neuralsim.envs.real import make_real
from neuralsim.world import World
from neuralsim.world_config import WorldConfig


class RealToDream(gym.Env):
    """A real environment and a dream of it behind one :meth:`step`; :meth:`to_dream` and :meth:`to_reality` switch.

    Episodes begin in the real environment, seen through the preprocessing that the world declares. The dream goes on
    from the last real frames and the actions between them. Meanwhile the real environment stands still.

    Example::

        env = RealToDream("pong")
        frame, info = env.reset(seed=0)
        for action in opening:
            frame, *_ = env.step(action)
        frame, info = env.to_dream()        # the same moment, dreamed on
        for action in plan:
            frame, reward, terminated, truncated, info = env.step(action)
        frame, info = env.to_reality()      # the emulator is where it was left

    ## Observation and action space
    ``Box(0, 255, (H, W, 3), uint8)``, with ``obs_key`` a Dict of it, and the actions of the real environment, on both
    sides.

    ## Episode end
    Where either side says so. After a dream has ended, :meth:`to_reality` and :meth:`to_dream` still lead out of it:
    the real episode goes on. A dream counts its time limit from its own beginning.

    ## Info
    ``in_dream`` (bool), beside what the real environment or :class:`~neuralsim.envs.dream.DreamEnv` tells.

    All randomness follows from ``reset(seed=s)``: it seeds the real environment with s, and the dreams by draws from
    ``np_random``, a new one at every :meth:`to_dream`.

    Args:
        world: Name of a bundled world, folder, hub id, or a loaded world.
        real: The real environment, as Gymnasium makes it or preprocessed as the world declares; it is closed with
            this one. None makes the one that the world was learned from.
        context: How many real frames a dream gets to see, at most; None for as many as the world can make use of.
        render_mode: ``"rgb_array"`` (frames as the world sees them) or None.
        render_scale: Whole factor by which rendered frames are enlarged.
        **dream: Further arguments of :class:`~neuralsim.envs.dream.DreamEnv`, such as ``sampling_steps``,
            ``max_episode_steps`` (of a dream), ``min_trust`` or ``obs_key``.

    Attributes:
        real: The preprocessed real environment.
        dream: The dream.
        in_dream: Which of the two takes the next step.

    Raises:
        ValueError: If the world and the real environment do not fit, or an argument makes no sense.
        FileNotFoundError: If there is no such world.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012

    def __init__(
        self,
        world: str | os.PathLike[str] | World,
        real: gym.Env | None = None,
        context: int | None = None,
        render_mode: str | None = None,
        render_scale: int | None = None,
        **dream: Any,
    ) -> None:
        if dream.get("obs_type", "rgb") != "rgb":
            raise ValueError(f"obs_type is {dream['obs_type']!r}; reality has no latents, only 'rgb' frames")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode is {render_mode!r}; it must be 'rgb_array' or None")
        self.dream = DreamEnv(world, render_mode=render_mode, render_scale=render_scale, **dream)
        longest = self.world.dynamics.context_length
        self.context = longest if context is None else context
        if not 1 <= self.context <= longest:
            raise ValueError(f"context is {context} frames; this world makes use of 1 to {longest}")
        self.real = fit_real(self.world, real)
        self.action_space = self.dream.action_space
        self.observation_space = self.dream.observation_space
        self._obs_key = dream.get("obs_key")
        self.render_mode, self.render_scale = render_mode, render_scale or 1
        self.metadata = {**self.metadata, "render_fps": self.dream.metadata["render_fps"]}
        self.in_dream = False
        self._begun = self._real_over = self._dream_over = False
        self._frames: deque[np.ndarray] = deque(maxlen=self.context)
        self._actions: deque[Any] = deque(maxlen=self.context - 1)
        self._real_info: dict[str, Any] = {}
        self._dreamed: list[Any] = []  # the actions since to_dream()

    @property
    def world(self) -> World:
        """The world that is dreamed; other environments may share it."""
        return self.dream.world

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins a new real episode; ``options`` go to the real environment."""
        super().reset(seed=seed)
        frame, info = self.real.reset(seed=seed, options=options)
        self.in_dream, self._begun, self._real_over = False, True, False
        self._frames.clear()
        self._actions.clear()
        self._dreamed = []
        self._frames.append(frame.copy())
        return self._in_reality(frame, info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Takes one step on the side where the episode is.

        Raises:
            ResetNeeded: Before the first reset, and after an end.
            ValueError: In a dream, for an action outside the space.
        """
        self._need_begun("step()")
        if not self.in_dream:
            return self._real_step(action)
        if self._dream_over:
            raise ResetNeeded("This dream has ended: call to_reality(), to_dream() for another one, or reset()")
        observation, reward, terminated, truncated, info = self.dream.step(action)
        self._dreamed.append(copy.deepcopy(action))
        self._dream_over = terminated or truncated
        return observation, reward, terminated, truncated, {**info, "in_dream": True}

    def to_dream(self) -> tuple[Any, dict[str, Any]]:
        """Dreams on from where the real episode stands; called in a dream, begins another one from there.

        Returns:
            The world's reconstruction of the last real frame, and the dream's info.

        Raises:
            ResetNeeded: Before the first reset, and after the end of the real episode.
        """
        self._need_begun("to_dream()")
        if self._real_over:
            raise ResetNeeded("The real episode has ended, there is nothing to dream on from: call reset() first")
        options: dict[str, Any] = {"frames": np.stack(self._frames)}
        if self._actions:
            batch: Any = create_empty_array(self.action_space, len(self._actions))
            options["actions"] = concatenate(self.action_space, self._actions, batch)
        observation, info = self.dream.reset(seed=int(self.np_random.integers(2**31)), options=options)
        self.in_dream, self._dream_over, self._dreamed = True, False, []
        return observation, {**info, "in_dream": True}

    def to_reality(self, advance: bool = False) -> tuple[Any, dict[str, Any]]:
        """Goes back to the real episode; in reality it changes nothing.

        Args:
            advance: False: the real environment is where :meth:`to_dream` left it, and the dream had no effect. True:
                the real environment first takes the actions that were taken in the dream, so that both stand at the
                same step. It stops where the real episode ends.

        Returns:
            The real frame, and the real info. With ``advance``, ``info["advanced"]`` tells what was caught up on:
            ``steps``, the sum of the real ``reward``, and ``terminated`` and ``truncated``.

        Raises:
            ResetNeeded: Before the first reset.
        """
        self._need_begun("to_reality()")
        self.in_dream = False
        caught_up = {"steps": 0, "reward": 0.0, "terminated": False, "truncated": False}
        for action in self._dreamed if advance else ():
            _, reward, terminated, truncated, _ = self._real_step(action)
            caught_up["steps"] += 1
            caught_up["reward"] += reward
            caught_up["terminated"], caught_up["truncated"] = terminated, truncated
            if terminated or truncated:
                break
        self._dreamed = []
        observation, info = self._in_reality(self._frames[-1].copy(), self._real_info)
        return observation, {**info, "advanced": caught_up} if advance else info

    def _real_step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._real_over:
            raise ResetNeeded("The real episode has ended (terminated or truncated was True): call reset() first")
        frame, reward, terminated, truncated, info = self.real.step(action)
        self._frames.append(frame.copy())
        self._actions.append(copy.deepcopy(action))  # players may reuse their arrays
        self._real_over = terminated or truncated
        observation, info = self._in_reality(frame, info)
        return observation, float(reward), bool(terminated), bool(truncated), info

    def _in_reality(self, frame: np.ndarray, info: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        self._real_info = dict(info)
        return as_observation(frame, self._obs_key), {**info, "in_dream": False}

    def _need_begun(self, what: str) -> None:
        if not self._begun:
            raise ResetNeeded(f"Cannot call {what} before calling reset(): no real episode has begun")

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The current frame ``(H, W, 3)`` uint8, real or dreamed, enlarged by ``render_scale``.

        Raises:
            ResetNeeded: Before the first reset.
        """
        self._need_begun("render()")
        if self.in_dream:
            return self.dream.render()
        if self.render_mode is None:
            gym.logger.warn(
                "You are calling render() without a render mode: make the environment with render_mode='rgb_array'."
            )
            return None
        return self._frames[-1].repeat(self.render_scale, axis=0).repeat(self.render_scale, axis=1)

    def get_keys_to_action(self) -> dict[tuple[str | int, ...], Any]:
        """See :meth:`neuralsim.envs.dream.DreamEnv.get_keys_to_action`."""
        return self.dream.get_keys_to_action()

    def close(self) -> None:
        """Closes both sides."""
        self.real.close()
        self.dream.close()


def fit_real(world: World, real: gym.Env | None = None) -> gym.Env:
    """A real environment that shows what a world was learned from, checked against it.

    Args:
        world: The world.
        real: An environment; it is wrapped in :class:`~neuralsim.envs.preprocessing.Preprocess` with the world's
            settings unless it is already. None makes the environment that the world names.

    Raises:
        ValueError: If actions, frames or preprocessing are not those of the world.
    """
    config = world.config
    declared = declared_preprocessing(config)
    if real is None:
        if not config.env_id:
            raise ValueError(f"the world {config.name!r} does not say which environment it was learned from: give real")
        real = make_real(config.env_id, config.env_kwargs, declared)
    wrapper = _preprocessing_of(real)
    if wrapper is None:
        real = Preprocess(real, **declared)
    else:
        found = {key: wrapper.settings.get(key) for key in declared}
        if found != declared:
            raise ValueError(
                f"{real} shows frames preprocessed by {found}, and the world {config.name!r} learned from frames "
                f"preprocessed by {declared}: give the environment without preprocessing"
            )
    if real.observation_space != gym.spaces.Box(0, 255, world.frame_shape, np.uint8):
        raise ValueError(
            f"{real} shows {real.observation_space}, and the world {config.name!r} dreams frames {world.frame_shape} "
            "uint8: give the environment without wrappers of observations"
        )
    if real.action_space != world.actions.space:
        raise ValueError(
            f"{real} has the actions {real.action_space}, and the world {config.name!r} {world.actions.space}"
        )
    return real


def declared_preprocessing(config: WorldConfig) -> dict[str, Any]:
    """A world's preprocessing as :attr:`Preprocess.settings` writes it, of the settings that the world declares."""
    settings: dict[str, Any] = {"size": config.frame_shape[:2], **config.preprocessing}
    declared = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    if declared.get("key", "") is None:
        del declared["key"]  # found by itself, whatever its name
    return declared


def _preprocessing_of(env: gym.Env) -> Preprocess | None:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, Preprocess):
            return env
        env = env.env
    return None
