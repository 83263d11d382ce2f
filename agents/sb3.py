"""A Stable-Baselines3 model as a policy."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from neuralsim.agents.policies import Policy
from neuralsim.extras import require

# A model file does not name its algorithm, but each algorithm has a setting that the others lack.
_TELLTALE = (("clip_range", "PPO"), ("exploration_fraction", "DQN"), ("target_entropy", "SAC"),
             ("target_policy_noise", "TD3"), ("normalize_advantage", "A2C"))  # fmt: skip


class StableBaselinesPolicy(Policy):
    """Plays as a model that Stable-Baselines3 has saved.

    The model must have been trained on frames preprocessed as they are recorded (or on a stack of the last few).
    Loading a model runs code that its file contains: load only files that you trust.

    Args:
        path: The model's zip file.
        action_space: Of the environment it is to play.
        deterministic: Always the most likely action; by default actions are drawn, which records more variety.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no model, or does not fit.
        ModuleNotFoundError: Without the extra ``rl``.
    """

    def __init__(self, path: str, action_space: spaces.Space, deterministic: bool = False) -> None:
        sb3 = require("stable_baselines3", extra="rl", why="playing a Stable-Baselines3 model")
        self.model = getattr(sb3, algorithm(path)).load(path, device="cpu")
        self.name = f"sb3={Path(path).name}"
        self.deterministic = deterministic
        if self.model.action_space != action_space:
            raise ValueError(f"{path} plays {self.model.action_space}, and this environment has {action_space}")
        self.space = self.model.observation_space
        if not isinstance(self.space, spaces.Box) or len(self.space.shape) != 3 or self.space.dtype != np.uint8:
            raise ValueError(f"{path} sees {self.space}; a recording offers it frames, Box uint8 (H, W, 3)")
        self.frames: list[np.ndarray] = []

    def reset(self, seed: int | None = None) -> None:
        """Forgets earlier frames; a seed restarts torch's global random stream, which the model draws from."""
        self.frames = []
        if seed is not None:
            import torch

            torch.manual_seed(seed)

    def act(self, frame: np.ndarray, info: dict[str, Any]) -> Any:
        """The model's action.

        Raises:
            ValueError: If the frame is not what the model was trained on.
        """
        depth = self._depth(frame.shape)
        self.frames = [*(self.frames or [np.zeros_like(frame)] * depth), frame][-depth:]
        action, _ = self.model.predict(np.concatenate(self.frames, axis=-1), deterministic=self.deterministic)
        return int(action) if isinstance(self.model.action_space, spaces.Discrete) else action

    def _depth(self, shape: tuple[int, ...]) -> int:
        for height, width, channels in (self.space.shape, (*self.space.shape[1:], self.space.shape[0])):
            if (height, width) == shape[:2] and channels % 3 == 0:
                return channels // 3
        raise ValueError(
            f"the model sees observations of shape {self.space.shape}, and the frames are {shape}; record with the "
            "--size it was trained on (grey models cannot play: frames are in colour)"
        )


def algorithm(path: str) -> str:
    """Name of the algorithm whose model a file holds.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no model of a known algorithm.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no Stable-Baselines3 model {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            settings = json.loads(archive.read("data"))
    except (zipfile.BadZipFile, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no Stable-Baselines3 model ({type(error).__name__}: {error})") from None
    for setting, name in _TELLTALE:
        if setting in settings:
            return name
    raise ValueError(f"{path} holds no model of {', '.join(name for _, name in _TELLTALE)}")
