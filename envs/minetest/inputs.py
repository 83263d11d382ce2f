"""From MineRL's actions to what Minetest hears: keys that go down or up, and pixels of the mouse.

Every button is a key of the keyboard, bound in the instance's configuration, the mouse's buttons included. The mouse
only turns the camera, by exactly :data:`DEGREES_PER_PIXEL`, so that a turn is right to half of that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from neuralsim.envs.minerl_spaces import HOTBAR

KEYS = {
    "attack": "f",
    "back": "s",
    "drop": "q",
    "forward": "w",
    **{slot: slot[-1] for slot in HOTBAR},
    "jump": " ",
    "left": "a",
    "right": "d",
    "sneak": "x",
    "sprint": "e",
    "use": "g",
}
"""Button -> key. Those of the human interface that are not here have no counterpart: ``inventory`` would open a window
that needs a pointer, ``pickItem`` and ``swapHands`` are unknown to Minetest, and ``ESC`` ends the episode."""

SETTINGS = {
    "attack": "dig",
    "back": "backward",
    "drop": "drop",
    "forward": "forward",
    **{slot: f"slot{slot[-1]}" for slot in HOTBAR},
    "jump": "jump",
    "left": "left",
    "right": "right",
    "sneak": "sneak",
    "sprint": "aux1",
    "use": "place",
}
"""Button -> name of its setting in Minetest, after ``keymap_``."""

DEGREES_PER_PIXEL = 0.01
"""The camera's turn for one pixel of the mouse."""

FIELD_OF_VIEW = 70.0
"""Vertical, in degrees; Minecraft's."""

_KEY_UP = 0x80000000


def key_settings() -> dict[str, str]:
    """The bindings as lines of Minetest's configuration."""
    names = {button: "KEY_SPACE" if key == " " else f"KEY_KEY_{key.upper()}" for button, key in KEYS.items()}
    return {f"keymap_{SETTINGS[button]}": name for button, name in names.items()}


def mouse_sensitivity() -> float:
    """The setting with which one pixel turns by :data:`DEGREES_PER_PIXEL`.

    Minetest turns by the setting in degrees per pixel at a field of view of 72 degrees, and in proportion to the
    tangent of half the field of view at others (``Game::getSensitivityScaleFactor``).
    """
    return DEGREES_PER_PIXEL * math.tan(math.radians(72 / 2)) / math.tan(math.radians(FIELD_OF_VIEW / 2))


def camera_pixels(camera: Any) -> tuple[int, int]:
    """Movement of the mouse (right, down) in pixels for a turn (pitch, yaw) in degrees."""
    pitch, yaw = (int(n) for n in np.rint(np.asarray(camera, np.float64) / DEGREES_PER_PIXEL))
    return yaw, pitch


class Keyboard:
    """Which keys are down, and what has to change for the next action."""

    def __init__(self) -> None:
        self.down: set[str] = set()

    def changes(self, action: Mapping[str, Any]) -> list[int]:
        """X keysyms of the keys to press and to release (highest bit set) for an action.

        Keys go up before others go down, as from one finger to the next.
        """
        wanted = {KEYS[button] for button in KEYS if int(action.get(button, 0))}
        up, down = sorted(self.down - wanted), sorted(wanted - self.down)
        self.down = wanted
        return [*(ord(key) | _KEY_UP for key in up), *map(ord, down)]  # a keysym of Latin-1 is its character's code
