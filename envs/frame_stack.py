"""The last few frames as one observation, for many lanes at once: a single frame does not show where things move."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from neuralsim.envs.preprocessing import HOW_TO_SHOW_FRAMES


class VectorFrameStack(VectorWrapper):
    """Stacks the last frames of every lane along the channels: ``(n, H, W, C)`` becomes ``(n, H, W, depth * C)``.

    The newest frame comes last. An episode begins with its first frame repeated, as with Gymnasium's
    ``FrameStackObservation``, which does this for a single environment. All autoreset modes are followed, and
    ``info["final_obs"]`` is stacked too.

    Args:
        envs: A vector environment with observations ``(H, W, C)``.
        depth: How many frames.

    Raises:
        ValueError: For observations of another kind, or a depth below 1.
    """

    def __init__(self, envs: VectorEnv, depth: int = 4) -> None:
        super().__init__(envs)
        space = envs.single_observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) != 3:
            raise ValueError(f"{envs} shows {space}; frames to stack are a Box (H, W, C): {HOW_TO_SHOW_FRAMES}")
        if depth < 1:
            raise ValueError(f"depth is {depth}; it must be at least 1")
        self.depth = depth
        self._mode = AutoresetMode(envs.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        low, high = (np.tile(bound, (1, 1, depth)) for bound in (space.low, space.high))
        self.single_observation_space = spaces.Box(low, high, dtype=space.dtype.type)
        self.observation_space = batch_space(self.single_observation_space, envs.num_envs)
        self._channels = space.shape[2]
        self._stack = np.zeros((envs.num_envs, *self.single_observation_space.shape), space.dtype)
        self._over = np.zeros(envs.num_envs, np.bool_)

    def reset(  # type: ignore[override]
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins new episodes, in the lanes of ``options["reset_mask"]`` or in all."""
        mask = (options or {}).get("reset_mask")
        lanes = np.ones(self.num_envs, np.bool_) if mask is None else mask
        frames, info = self.env.reset(seed=seed, options=options)
        self._begin(lanes, frames)
        self._over[lanes] = False
        return self._stack.copy(), info

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:  # type: ignore[override]
        """Takes one step in every lane."""
        frames, rewards, terminated, truncated, info = self.env.step(actions)
        before, over = self._stack, terminated | truncated
        self._stack = np.concatenate([before[..., self._channels :], frames], axis=-1)
        if self._mode is AutoresetMode.SAME_STEP:
            for lane in np.flatnonzero(over):
                last = info["final_obs"][lane]
                info["final_obs"][lane] = np.concatenate([before[lane, ..., self._channels :], last], axis=-1)
            self._begin(over, frames)
        elif self._mode is AutoresetMode.NEXT_STEP:
            self._begin(self._over, frames)
        self._over = over
        return self._stack.copy(), rewards, terminated, truncated, info

    def _begin(self, lanes: np.ndarray, frames: np.ndarray) -> None:
        self._stack[lanes] = np.tile(frames[lanes], (1, 1, 1, self.depth))
