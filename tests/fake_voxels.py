"""A tiny first-person game for tests of playing: a checkered plain under a sky, with MineRL's spaces."""

import gymnasium as gym
import numpy as np

from neuralsim.envs.minerl_spaces import V0_BUTTONS, action_space, check_action, observation_space

SIZE = 64
DEGREES = (np.arange(SIZE) - (SIZE - 1) / 2) * 70 / SIZE  # of a column, or row, from the middle of the view


class FakeVoxels(gym.Env):
    """Walks and looks as MineRL does; attack paints the crosshair red and pays 1, jump lifts the eye."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(
        self, buttons=V0_BUTTONS, camera_limit: float = 10.0, choices=None, render_mode: str | None = None
    ) -> None:
        self.render_mode = render_mode
        self.observation_space = observation_space(SIZE, SIZE)
        self.action_space = action_space(buttons, choices, camera_limit)
        self.actions: list[dict] = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.pitch, self.yaw, self.last = np.zeros(2), 10.0, 0.0, {}
        return {"pov": self.picture()}, {}

    def step(self, action):
        self.last = check_action(action, self.action_space)
        self.actions.append(self.last)
        pitch, yaw = self.last["camera"]
        self.pitch, self.yaw = float(np.clip(self.pitch + pitch, -89, 89)), (self.yaw + float(yaw)) % 360
        ahead = self.last.get("forward", 0) - self.last.get("back", 0)
        aside = self.last.get("right", 0) - self.last.get("left", 0)
        angle = np.radians(self.yaw)
        self.at += 0.2 * (ahead * np.array([np.sin(angle), np.cos(angle)]))
        self.at += 0.2 * (aside * np.array([np.cos(angle), -np.sin(angle)]))
        return {"pov": self.picture()}, float(self.last.get("attack", 0)), False, False, {}

    def picture(self):
        down, across = np.radians(self.pitch + DEGREES)[:, None], np.radians(self.yaw + DEGREES)[None]
        eye = 1.6 + self.last.get("jump", 0) - 0.3 * self.last.get("sneak", 0)
        far = eye / np.maximum(np.tan(np.clip(down, 1e-3, 1.5)), 1e-3)
        x, z = self.at[0] + far * np.sin(across), self.at[1] + far * np.cos(across)
        light = (np.floor(x) + np.floor(z)) % 2
        ground = np.stack([60 + 30 * light, 130 + 50 * light, 40 + 20 * light], -1)
        sky = np.stack(np.broadcast_arrays(110 + 60 * np.cos(across), 170 + 0 * across, 235 + 0 * across), -1)
        frame = np.where((down > 0)[..., None], ground, sky).astype(np.uint8)
        middle = slice(SIZE // 2 - 1, SIZE // 2 + 1)
        frame[middle, middle] = (230, 40, 30) if self.last.get("attack") else (240, 240, 240)
        return frame

    def render(self):
        return self.picture()
