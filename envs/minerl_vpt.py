"""The joint actions of VPT: all buttons as one of 8,641 classes, and the camera as one of 121.

Baker et al. 2022, Video PreTraining (VPT), https://arxiv.org/abs/2206.11795, appendix on the action space. Buttons
that exclude each other form groups; every combination of one choice per group, and of whether the camera turns at all,
is a class: 10 * 3 * 3 * 3 * 2 * 2 * 2 * 2 * 2 = 8,640. One more opens or closes the inventory, and does nothing else.
The camera is hierarchical: its own class counts only where the class of the buttons says that it turns. Numbers are
those of the published models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuralsim.envs.minerl_camera import CameraBins, whole_numbers
from neuralsim.envs.minerl_spaces import BUTTONS, HOTBAR, check_keys

GROUPS: dict[str, tuple[str, ...]] = {
    "hotbar": HOTBAR,
    "fore_back": ("forward", "back"),
    "left_right": ("left", "right"),
    "sprint_sneak": ("sprint", "sneak"),
    "use": ("use",),
    "drop": ("drop",),
    "attack": ("attack",),
    "jump": ("jump",),
}
"""Buttons of which at most one is pressed. Where a person pressed several, the last counts; opposite directions
cancel each other."""

VPT_BUTTONS = (*(button for group in GROUPS.values() for button in group), "inventory")
"""The 20 buttons that VPT uses."""

UNUSED_BUTTONS = tuple(button for button in BUTTONS if button not in VPT_BUTTONS)
"""What the human interface has beside them: ESC, pickItem and swapHands, which VPT never presses."""

_OPPOSITES = ("fore_back", "left_right")
# The last group says whether the camera turns; the last varies fastest.
_SIZES = (*(len(group) + 1 for group in GROUPS.values()), 2)

INVENTORY = math.prod(_SIZES)
"""The class that presses the inventory key alone: 8640, the last."""

BUTTON_CLASSES = INVENTORY + 1
"""How many classes of buttons there are: 8641."""


@dataclass(frozen=True)
class VPTActions:
    """Turns actions of the human interface into VPT's two classes, and back.

    Not every action has a class of its own, see :meth:`is_exact`; those that do come back exactly. Nor is every pair
    of classes an action of its own: the camera's does not count where the buttons' says that it does not turn, and to
    turn by 0 is not to turn. :meth:`canonical` gives the one pair that :meth:`encode` uses, and that pair comes back
    exactly.

    Args:
        camera: Bins of the camera.
    """

    camera: CameraBins = field(default_factory=CameraBins)

    def encode(self, actions: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Classes of the buttons and of the camera, each ``(...)`` int64.

        Args:
            actions: Arrays ``(...)`` of 0 and 1 for each of :data:`VPT_BUTTONS`, and ``camera`` ``(..., 2)`` in
                degrees. The unused buttons may be there, and are left out.

        Raises:
            ValueError: For unknown or missing keys, values other than 0 and 1, and turns beyond 180 degrees.
        """
        check_keys(actions, [*VPT_BUTTONS, "camera"], UNUSED_BUTTONS)
        camera = self.camera.to_class(actions["camera"])
        pressed = {name: _pressed(name, actions[name], camera.shape) for name in VPT_BUTTONS}
        choices = [self._choice(name, np.stack([pressed[b] for b in group])) for name, group in GROUPS.items()]
        buttons = np.ravel_multi_index((*choices, (camera != self.camera.null).astype(np.int64)), _SIZES)
        opens = pressed["inventory"]
        return np.where(opens, INVENTORY, buttons), np.where(opens, self.camera.null, camera)

    @staticmethod
    def _choice(group: str, pressed: np.ndarray) -> np.ndarray:
        """What was chosen in a group, 0 for nothing, of ``(buttons, ...)`` pressed or not."""
        numbers = np.arange(1, len(pressed) + 1).reshape(-1, *[1] * (pressed.ndim - 1))
        last = (pressed * numbers).max(axis=0)
        return np.where(pressed.all(axis=0), 0, last) if group in _OPPOSITES else last

    def decode(self, buttons: Any, camera: Any) -> dict[str, np.ndarray]:
        """Actions of the full human interface: int64 ``(...)`` per button, and ``camera`` ``(..., 2)`` in degrees.

        Args:
            buttons: Classes ``(...)``, 0 to 8640.
            camera: Classes ``(...)``, 0 to 120 with the usual bins.

        Raises:
            ValueError: For a number that is no class, or shapes that differ.
        """
        buttons, camera = self.canonical(buttons, camera)
        opens = buttons == INVENTORY
        *choices, _ = np.unravel_index(np.where(opens, 0, buttons), _SIZES)
        actions = {name: np.zeros(buttons.shape, np.int64) for name in BUTTONS}
        for chosen, group in zip(choices, GROUPS.values(), strict=True):
            for i, name in enumerate(group, start=1):
                actions[name] = (chosen == i).astype(np.int64)
        actions["inventory"] = opens.astype(np.int64)
        actions["camera"] = self.camera.from_class(camera)
        return dict(sorted(actions.items()))

    def canonical(self, buttons: Any, camera: Any) -> tuple[np.ndarray, np.ndarray]:
        """The pair of classes that stands for the same action and that :meth:`encode` would give.

        Raises:
            ValueError: For a number that is no class, or shapes that differ.
        """
        buttons, camera = (
            whole_numbers(buttons, BUTTON_CLASSES, "button class"),
            whole_numbers(camera, self.camera.classes, "camera class"),
        )
        if buttons.shape != camera.shape:
            raise ValueError(f"classes of buttons {buttons.shape} and of the camera {camera.shape} differ in shape")
        turns = (buttons % 2 == 1) & (camera != self.camera.null)  # 8640, the inventory, is even
        return np.where(buttons == INVENTORY, INVENTORY, buttons // 2 * 2 + turns), np.where(
            turns, camera, self.camera.null
        )

    def is_exact(self, actions: Mapping[str, Any]) -> np.ndarray:
        """Whether actions ``(...)`` come back as they were: one button per group, a turn that is a bin's centre, ...

        Raises:
            ValueError: See :meth:`encode`.
        """
        back = self.decode(*self.encode(actions))
        same = (np.asarray(actions["camera"], np.float32) == back["camera"]).all(axis=-1)
        for name in (*VPT_BUTTONS, *(button for button in UNUSED_BUTTONS if button in actions)):
            same &= np.asarray(actions[name]) == back[name]
        return same


def _pressed(name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(values)
    if array.shape != shape:
        raise ValueError(f"button {name!r} has shape {array.shape} where the camera has {shape} and 2 turns each")
    if array.dtype.kind not in "biuf" or not ((array == 0) | (array == 1)).all():
        raise ValueError(f"button {name!r} is {values!r}; it must be 0 (up) or 1 (pressed)")
    return array.astype(bool)
