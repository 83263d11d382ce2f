"""A game of a few pixels for tests: ``gym.make("tiny_game:Tiny-v0")``."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

ACTIONS = {
    "discrete": spaces.Discrete(3),
    "multi": spaces.MultiDiscrete([2, 3]),
    "box": spaces.Box(-1.0, 1.0, (2,), np.float32),
    "dict": spaces.Dict({"jump": spaces.Discrete(2), "camera": spaces.Box(-5.0, 5.0, (2,), np.float32)}),
}


class Tiny(gym.Env):
    """Noise that depends on the seed and the step. Ends after ``length`` steps; pays 1 every fifth."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(
        self,
        pixels: str = "rgb",
        actions: str = "discrete",
        length: int = 20,
        fail_at: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.render_mode, self.pixels, self.length, self.fail_at = render_mode, pixels, length, fail_at
        self.action_space = ACTIONS[actions]
        rgb = spaces.Box(0, 255, (10, 12, 3), np.uint8)
        self.observation_space = {
            "rgb": rgb,
            "grey": spaces.Box(0, 255, (10, 12), np.uint8),
            "dict": spaces.Dict({"pov": rgb, "health": spaces.Box(0, 20, (1,), np.float32)}),
            "two": spaces.Dict({"left": rgb, "right": rgb}),
            "vector": spaces.Box(-1, 1, (4,), np.float32),
        }[pixels]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.t = 0
        self._draw()
        return self._observe(), self._info()

    def step(self, action):
        assert self.action_space.contains(action), action
        self.t += 1
        if self.t == self.fail_at:
            raise RuntimeError("the game crashed")
        self._draw()
        return self._observe(), float(self.t % 5 == 0), self.t >= self.length, False, self._info()

    def render(self):
        return self.screen

    def get_action_meanings(self):
        return ["STAY", "UP", "DOWN"]

    def get_keys_to_action(self):
        return {("w",): 1, ("s",): 2}

    def _draw(self) -> None:
        self.screen = self.np_random.integers(0, 256, (10, 12, 3)).astype(np.uint8)
        self.screen[0, 0] = self.t

    def _observe(self):
        screen = self.screen
        return {
            "rgb": screen,
            "grey": screen[..., 0],
            "dict": {"pov": screen, "health": np.ones(1, np.float32)},
            "two": {"left": screen, "right": screen},
            "vector": np.zeros(4, np.float32),
        }[self.pixels]

    def _info(self) -> dict[str, Any]:
        return {"labels": {"time": float(self.t)}, "lives": 3, "anything": {"lives"}}


gym.register("Tiny-v0", entry_point=Tiny)
