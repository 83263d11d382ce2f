"""Batched dreams as the vector environment that Stable-Baselines3 knows: all lanes in one forward pass.

Importing this module needs the extra ``rl``.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from neuralsim.agents.transitions import autoreset_mode
from neuralsim.extras import require

require("stable_baselines3", extra="rl", why="SB3VecEnv")

from stable_baselines3.common.monitor import Monitor  # noqa: E402
from stable_baselines3.common.vec_env.base_vec_env import VecEnv  # noqa: E402

_OF_ONE_LANE = {"action_space": "single_action_space", "observation_space": "single_observation_space"}


class SB3VecEnv(VecEnv):
    """A Gymnasium vector environment behind Stable-Baselines3's own interface.

    Example::

        envs = gym.make_vec("Dream-Pong-v0", num_envs=16, autoreset_mode="SameStep")
        model = PPO("CnnPolicy", VecFrameStack(SB3VecEnv(envs), 4)).learn(100_000)

    Frames stay ``(H, W, 3)`` uint8; Stable-Baselines3 moves their channels to the front by itself. Infos hold what its
    own ``DummyVecEnv`` and ``Monitor`` put there: ``terminal_observation``, ``TimeLimit.truncated``, and ``episode``
    with return ``r``, length ``l`` and seconds ``t`` at an episode's end, so that it logs ``ep_rew_mean``.

    Args:
        envs: :class:`~neuralsim.envs.dream_vector.DreamVectorEnv`, or any other vector environment, that begins a new
            episode in the step that ends one (``SAME_STEP``).

    Raises:
        ValueError: If it resets in another way.
        ModuleNotFoundError: Without the extra ``rl`` (when this module is imported).
    """

    def __init__(self, envs: VectorEnv) -> None:
        mode = autoreset_mode(envs)
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(
                f"{envs} has the autoreset mode {mode.value}, and Stable-Baselines3 wants a new episode in the step "
                'that ends one: make it with autoreset_mode="SameStep"'
            )
        self.envs = envs
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        self._actions: Any = None
        self._returns, self._lengths = np.zeros(self.num_envs), np.zeros(self.num_envs, np.int64)
        self._begun = time.monotonic()

    def reset(self) -> np.ndarray:  # type: ignore[override]
        """Begins new episodes in all lanes, with what :meth:`seed` and :meth:`set_options` said before."""
        seeds: Any = None if all(seed is None for seed in self._seeds) else list(self._seeds)
        observations, info = self.envs.reset(seed=seeds, options=self._options[0] or None)
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = lane_infos(info, self.num_envs)
        self._returns[:], self._lengths[:] = 0, 0
        self._begun = time.monotonic()
        return observations

    def set_options(self, options: list[dict] | dict | None = None) -> None:
        """Keeps options for the next reset.

        Args:
            options: One dict, as the batched environment takes it: where lanes differ, its values hold an entry per
                lane (``{"start": [0, 1, 2, 3]}``).

        Raises:
            ValueError: For a list of dicts.
        """
        if isinstance(options, list):
            raise ValueError(
                "one dict for all lanes, please: they are reset in one batch, and its values may hold an entry per "
                "lane, e.g. {'start': [0, 1]}"
            )
        self._options = [copy.deepcopy(options or {})] * self.num_envs

    def step_async(self, actions: np.ndarray) -> None:
        """Keeps the actions ``(n, ...)`` for :meth:`step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:  # type: ignore[override]
        """Takes the step.

        Returns:
            Observations ``(n, ...)`` (of a new episode where one ended), rewards ``(n,)`` float32, dones ``(n,)`` bool
            and one info per lane (of the episode that ended, where one did).
        """
        observations, rewards, terminated, truncated, info = self.envs.step(self._actions)
        dones = terminated | truncated
        self._returns += rewards
        self._lengths += 1
        infos = lane_infos(info, self.num_envs)
        for lane in map(int, np.flatnonzero(dones)):
            begun = infos[lane]
            infos[lane] = {**begun.pop("final_info", {}), "terminal_observation": begun.pop("final_obs")}
            infos[lane]["episode"] = {
                "r": round(float(self._returns[lane]), 6),
                "l": int(self._lengths[lane]),
                "t": round(time.monotonic() - self._begun, 6),
            }
            self.reset_infos[lane] = begun
        for lane, (end, cut) in enumerate(zip(terminated, truncated, strict=True)):
            infos[lane]["TimeLimit.truncated"] = bool(cut and not end)
        self._returns[dones], self._lengths[dones] = 0, 0
        return observations, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """Closes the batched environment."""
        self.envs.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """One picture ``(H, W, 3)`` uint8 per lane; None without ``render_mode="rgb_array"``."""
        return [None] * self.num_envs if self.render_mode is None else self.envs.render()  # type: ignore[return-value]

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The batched environment's attribute, once per lane asked for; the spaces are those of one lane.

        Raises:
            AttributeError: If it has none of this name.
        """
        value = getattr(self.envs, _OF_ONE_LANE.get(attr_name, attr_name))
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Sets an attribute of the batched environment.

        Raises:
            ValueError: If it is not for all lanes: they share it.
        """
        self._need_all(indices, f"the attribute {attr_name!r}")
        setattr(self.envs.unwrapped, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Calls a method of the batched environment, once for all lanes.

        Returns:
            Its result for each lane: its entries, if it is a tuple or list of one per lane, else the same for all.

        Raises:
            ValueError: If it is not for all lanes.
        """
        self._need_all(indices, f"the method {method_name!r}")
        result = getattr(self.envs, method_name)(*method_args, **method_kwargs)
        if isinstance(result, (tuple, list)) and len(result) == self.num_envs:
            return list(result)
        return [result] * self.num_envs

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: Any = None) -> list[bool]:
        """Whether lanes are wrapped; true for ``Monitor`` only, whose episode statistics the infos hold."""
        return [issubclass(wrapper_class, Monitor) for _ in self._get_indices(indices)]

    def _need_all(self, indices: Any, what: str) -> None:
        asked = set(self._get_indices(indices))
        if asked != set(range(self.num_envs)):
            raise ValueError(f"{what} is one for all {self.num_envs} lanes, but it was asked for {sorted(asked)}")


def lane_infos(info: dict[str, Any], lanes: int) -> list[dict[str, Any]]:
    """Gymnasium's batched info, a dict of arrays with masks ``_key``, as one dict of plain values per lane."""
    infos: list[dict[str, Any]] = [{} for _ in range(lanes)]
    for key, values in info.items():
        if key.startswith("_") and key[1:] in info:
            continue
        mask = info.get(f"_{key}", np.ones(lanes, np.bool_))
        rows: Iterable[Any] = lane_infos(values, lanes) if isinstance(values, dict) else values
        for lane, value in enumerate(rows):
            if mask[lane]:
                infos[lane][key] = value.item() if isinstance(value, np.generic) else value
    return infos
