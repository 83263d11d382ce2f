"""Atari games of the Arcade Learning Environment, and Pong's ground truth.

ale-py holds the games; it is GPL-2.0 and comes with the extra ``atari``.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from neuralsim.extras import require

SCREEN_RATE = 60
"""Screens per second of an Atari 2600 (NTSC)."""

# Addresses in the console's 128 bytes of memory, and the geometry of the 210x160 screen they are drawn on.
_BALL_X, _BALL_Y, _ENEMY_Y, _PLAYER_Y, _ENEMY_SCORE, _PLAYER_SCORE = 49, 54, 50, 51, 13, 14
_SCREEN = (210, 160)
_COURT = (34, 193)  # first and last row between the white borders
_BALL_HEIGHT, _PADDLE_HEIGHT = 4, 16

PONG_LABELS = (
    "ball_present",
    "ball_x",
    "ball_y",
    "player_present",
    "player_y",
    "enemy_present",
    "enemy_y",
    "player_score",
    "enemy_score",
)
"""What :func:`pong_labels` tells. The player is the green paddle on the right."""


def register_atari() -> None:
    """Registers ``ALE/...`` with Gymnasium.

    Raises:
        ModuleNotFoundError: Without the extra ``atari``.
    """
    ale_py = require("ale_py", extra="atari", why="playing Atari games")
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # its banner would break the progress bar
    if not any(name.startswith("ALE/") for name in gym.registry):
        gym.register_envs(ale_py)


def frame_rate(env: gym.Env) -> float:
    """Observations per second of play of an ALE environment.

    The metadata's ``render_fps`` says 30 whatever the frame skip, so this counts: 60 screens a second, one
    observation every ``frameskip`` screens (the mean, where that is a random range).
    """
    skip = (env.spec.kwargs if env.spec else {}).get("frameskip", 4)
    mean = skip if isinstance(skip, int) else (skip[0] + skip[1] - 1) / 2
    return SCREEN_RATE / mean


def pong_labels(ram: np.ndarray, size: tuple[int, int] = (64, 64)) -> dict[str, float]:
    """Reads where things are drawn on Pong's screen from the console's memory.

    Positions are centres of the visible part, in pixels of the whole screen resized to ``size``: 0 is the centre
    of the first pixel. Where something is not on the screen, its ``_present`` is 0 and its position NaN.

    Args:
        ram: ``(128,)`` uint8.
        size: Height and width of the frames.

    Returns:
        The values named in :data:`PONG_LABELS`.
    """
    scale_y, scale_x = size[0] / _SCREEN[0], size[1] / _SCREEN[1]

    def centre(top: int, height: int) -> float:
        first, last = max(top, _COURT[0]), min(top + height - 1, _COURT[1])
        return ((first + last + 1) / 2) * scale_y - 0.5 if last >= first else float("nan")

    # Measured on the screen: the ball is 2 pixels wide, the paddle's rows are even.
    ball_left = int(ram[_BALL_X]) - 49
    ball_y = centre(int(ram[_BALL_Y]) - 14, _BALL_HEIGHT) if 0 <= ball_left < _SCREEN[1] - 1 else float("nan")
    ball_x = (ball_left + 1) * scale_x - 0.5 if ball_y == ball_y else float("nan")
    drawn = int(ram[_BALL_X]) != 0 or int(ram[_BALL_Y]) != 60  # the very first screen shows no player yet
    player_y = centre((int(ram[_PLAYER_Y]) + 1) // 2 * 2 - 14, _PADDLE_HEIGHT) if drawn else float("nan")
    enemy_y = centre(int(ram[_ENEMY_Y]) - 15, _PADDLE_HEIGHT)
    return {
        "ball_present": float(ball_y == ball_y),
        "ball_x": ball_x,
        "ball_y": ball_y,
        "player_present": float(player_y == player_y),
        "player_y": player_y,
        "enemy_present": float(enemy_y == enemy_y),
        "enemy_y": enemy_y,
        "player_score": float(ram[_PLAYER_SCORE]),
        "enemy_score": float(ram[_ENEMY_SCORE]),
    }


class PongLabels(gym.Wrapper, RecordConstructorArgs):
    """Puts Pong's ground truth into ``info["labels"]`` (see :func:`pong_labels`).

    Args:
        env: ALE's Pong.
        size: Height and width of the frames in whose pixels positions are given.

    Raises:
        ValueError: If ``env`` is not ALE's Pong.
    """

    def __init__(self, env: gym.Env, size: tuple[int, int] = (64, 64)) -> None:
        RecordConstructorArgs.__init__(self, size=size)
        gym.Wrapper.__init__(self, env)
        if not is_pong(env):
            raise ValueError(f"{env} is not ALE's Pong: its memory holds no ball and paddles where Pong's does")
        self.size = (int(size[0]), int(size[1]))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets, with labels."""
        observation, info = self.env.reset(seed=seed, options=options)
        return observation, self._labelled(info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps, with labels."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated, self._labelled(info)

    def _labelled(self, info: dict[str, Any]) -> dict[str, Any]:
        return {**info, "labels": pong_labels(self.unwrapped.ale.getRAM(), self.size)}  # type: ignore[attr-defined]


def is_pong(env: gym.Env) -> bool:
    """Whether this is ALE's Pong (whichever version and frame skip)."""
    spec = env.spec
    return hasattr(env.unwrapped, "ale") and spec is not None and spec.kwargs.get("game") == "pong"
