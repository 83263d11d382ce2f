"""From keys and mouse to actions in a first-person game: any environment with a Dict of buttons and a camera.

Such are MineRL, Minetest and dreams of them. Every button is a part of the action with a key of its own, so that all of
them can be held at once; games with a list of combinations are for :class:`~neuralsim.envs.keyboard.KeyMap`. What the
mouse moves between two steps is summed. The camera turns by that, at most as far as its bounds allow in one step, and
by the rest in the steps after.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from neuralsim.actions import has_camera
from neuralsim.envs.keyboard import (
    CTRL,
    DOWN,
    LEFT,
    MOUSE_LEFT,
    MOUSE_MIDDLE,
    MOUSE_RIGHT,
    RIGHT,
    SHIFT,
    SPACE,
    UP,
    KeyMap,
    idle_action,
    key_name,
)

SENSITIVITY = 0.15
"""Degrees that the view turns when the mouse moves by a pixel; Minecraft's own in the middle position."""

ARROW_DEGREES = 3.0
"""Degrees per step that an arrow key turns the view, where there is no mouse."""

ROWS: tuple[tuple[str, dict[str, int]], ...] = (
    ("walk", {"forward": ord("w"), "left": ord("a"), "back": ord("s"), "right": ord("d")}),
    ("", {"jump": SPACE}),
    ("", {"sneak": SHIFT, "sprint": CTRL}),
    ("", {"attack": MOUSE_LEFT}),
    ("", {"use": MOUSE_RIGHT}),
    ("", {"pickItem": MOUSE_MIDDLE}),
    ("take in hand", {f"hotbar.{i}": ord(str(i)) for i in range(1, 10)}),
    ("", {"inventory": ord("e"), "drop": ord("q"), "swapHands": ord("f")}),
)
"""Rows of the legend: what they are called (by default the names of the buttons), and the key of each button.

``ESC`` has none: the escape key frees the mouse.
"""

_WORDS = {"pickItem": "pick", "swapHands": "swap"}  # shorter than the names of the buttons
_ARROWS = {UP: (-1, 0), DOWN: (1, 0), LEFT: (0, -1), RIGHT: (0, 1)}  # (pitch, yaw), down and right positive


def is_first_person(space: spaces.Space) -> bool:
    """Whether actions are a Dict with a ``camera`` ``(pitch, yaw)`` and at least one of the buttons of :data:`ROWS`."""
    return has_camera(space) and bool(_buttons(space))  # type: ignore[arg-type]


def keys_of(env: gym.Env, sensitivity: float = SENSITIVITY) -> KeyMap:
    """What plays an environment: keys and mouse in a first-person game, else the keys that it lists itself.

    Raises:
        ValueError: If it lists none, or the sensitivity is not positive.
    """
    space = env.action_space
    if is_first_person(space):
        assert isinstance(space, spaces.Dict)
        return FirstPersonKeys(space, sensitivity)
    return KeyMap.for_env(env)


class FirstPersonKeys(KeyMap):
    """Keys and mouse of a first-person game. Parts of the action without a key stay idle.

    Args:
        space: Actions for which :func:`is_first_person` holds.
        sensitivity: Degrees per pixel that the mouse moves.

    Raises:
        ValueError: If the sensitivity is not positive.
    """

    def __init__(self, space: spaces.Dict, sensitivity: float = SENSITIVITY) -> None:
        super().__init__({}, idle_action(space))
        if not 0 < sensitivity < float("inf"):
            raise ValueError(f"sensitivity {sensitivity} must be a positive number of degrees per pixel")
        camera = space.spaces["camera"]
        assert isinstance(camera, spaces.Box)
        self.sensitivity, self.camera = float(sensitivity), camera
        self.buttons = _buttons(space)
        self.codes = frozenset(self.buttons.keys() | _ARROWS.keys())
        self.legend = _legend(self.buttons)
        self._turn = np.zeros(2)  # degrees (pitch, yaw) that the mouse has moved and the camera has not turned yet

    def look(self, dx: float, dy: float) -> None:
        """Takes note of a movement of the mouse, in pixels to the right and down."""
        self._turn += (dy * self.sensitivity, dx * self.sensitivity)

    def forget(self) -> None:
        """Forgets the movements that were not played yet."""
        self._turn = np.zeros(2)

    def action(self, held: Sequence[int]) -> dict[str, Any]:
        """The action of the buttons held down, and of what the mouse has moved since the last one."""
        low, high = self.camera.low, self.camera.high
        turn = np.clip(self._turn, low, high)
        self._turn = self._turn - turn
        for key in set(held) & _ARROWS.keys():
            turn = turn + ARROW_DEGREES * np.array(_ARROWS[key])
        camera = np.clip(turn, low, high).astype(self.camera.dtype)
        return {**self.idle, **{self.buttons[key]: 1 for key in held if key in self.buttons}, "camera": camera}

    def describe(self, action: Any) -> str:
        """An action in a few words: "forward, jump, look 0 2.5"."""
        words = [name for name in self.buttons.values() if action[name]]
        if np.any(action["camera"]):
            words.append("look " + " ".join(f"{degrees:.3g}" for degrees in action["camera"]))
        return ", ".join(words) or "-"


def _buttons(space: spaces.Dict) -> dict[int, str]:
    """Key -> button, of the buttons that there are."""
    there = {name for name, part in space.spaces.items() if part == spaces.Discrete(2)}
    return {key: name for _, row in ROWS for name, key in row.items() if name in there}


def _legend(buttons: dict[int, str]) -> list[tuple[list[str], str]]:
    legend = [(["mouse", "arrows"], "look around")]
    for meaning, row in ROWS:
        there = {name: key for name, key in row.items() if key in buttons}
        names = [key_name(key) for key in there.values()]
        if names:
            words = meaning or ", ".join(_WORDS.get(name, name) for name in there)
            legend.append(([f"{names[0]} - {names[-1]}"] if len(names) > 4 else names, words))
    return legend
