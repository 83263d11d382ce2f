"""A tiny game for tests of playing: a ball of one pixel that follows the joystick. No model, no emulator."""

from types import SimpleNamespace

import gymnasium as gym
import numpy as np
from gymnasium import spaces

MEANINGS = ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"]
KEYS = {("e",): 0, (" ",): 1, ("d",): 2, ("a",): 3, ("d", " "): 4, ("a", " "): 5}
"""Those of ALE's Pong, where the joystick's right moves the paddle up."""


class FakeGame(gym.Env):
    """RIGHT moves the ball up, LEFT down, noise sideways; rewards at the borders; over after ``length``."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(self, length: int = 50, size: int = 16, render_mode: str | None = "rgb_array") -> None:
        self.length, self.size, self.render_mode = length, size, render_mode
        self.observation_space = spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_space = spaces.Discrete(6)
        self.actions: list[int] = []
        self.resets: list[tuple[int | None, dict]] = []
        self.at = np.zeros(2, int)
        self.count = 0

    def get_keys_to_action(self):
        return KEYS

    def get_action_meanings(self):
        return MEANINGS

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.resets.append((seed, dict(options or {})))
        self.at = np.array([self.size // 2, (options or {}).get("start", 3)])
        self.count = 0
        return self.picture(), self.info()

    def step(self, action):
        self.actions.append(int(action))
        self.count += 1
        self.at[0] += {2: -1, 4: -1, 3: 1, 5: 1}.get(int(action), 0)
        self.at[1] = (self.at[1] + self.np_random.integers(-1, 2)) % self.size
        reward = -1.0 if self.at[0] < 0 else 1.0 if self.at[0] >= self.size else 0.0
        self.at[0] = np.clip(self.at[0], 0, self.size - 1)
        return self.picture(), reward, self.count == self.length, False, self.info()

    def info(self):
        """The ball as Pong's ground truth, with a paddle that stands still in the middle."""
        labels = {"ball_present": 1.0, "ball_y": self.at[0], "ball_x": self.at[1]}
        return {"labels": {**labels, "player_present": 1.0, "player_y": self.size / 2}}

    def picture(self):
        frame = np.full((self.size, self.size, 3), (90, 40, 10), np.uint8)
        frame[tuple(self.at)] = 236
        return frame

    def render(self):
        return self.picture()

    def clone_state(self, include_rng=False):
        return self.at.copy(), self.count, self.np_random.bit_generator.state

    def restore_state(self, state):
        self.at, self.count = state[0].copy(), state[1]
        self.np_random.bit_generator.state = state[2]


class FakeDream(FakeGame):
    """The same with what a dream has more: starts, sampling steps and a world."""

    def __init__(self, length: int = 50, size: int = 16, render_mode: str | None = "rgb_array") -> None:
        super().__init__(length, size, render_mode)
        config = SimpleNamespace(name="pong", env_id="ALE/Pong-v5", action_meanings=MEANINGS)
        self.world = SimpleNamespace(config=config, starts=[object()] * 3, fps=20.0)
        self.sampling_steps = 4
