"""A game for tests that pays the number of the action, and can be set back: ``gym.make("paying_game:Paying-v0")``."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Paying(gym.Env):
    """A white dot moves right by the number of the action, from 0 to 5; ends after ``length`` steps."""

    metadata = {"render_modes": [], "render_fps": 15}  # noqa: RUF012

    def __init__(self, length: int = 10**6, render_mode: str | None = None) -> None:
        self.length = length
        self.action_space = spaces.Discrete(6)
        self.observation_space = spaces.Box(0, 255, (48, 64, 3), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = self.x = 0
        return self.picture(), {}

    def step(self, action):
        self.t += 1
        self.x += int(action)
        return self.picture(), float(action), self.t >= self.length, False, {}

    def picture(self):
        frame = np.zeros((48, 64, 3), np.uint8)
        frame[3, self.x % 64] = 255
        return frame

    def clone_state(self, include_rng=False):
        return self.t, self.x

    def restore_state(self, state):
        self.t, self.x = state


gym.register("Paying-v0", entry_point=Paying)
