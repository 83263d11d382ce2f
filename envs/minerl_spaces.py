"""Spaces of MineRL, with Gymnasium alone: what a Minecraft player sees and does in one game tick, a 20th of a second.

An action is a dict: keys and mouse buttons that are 0 or 1, ``camera``, the turn (pitch, yaw) in degrees, and in some
v0 tasks a choice of an item. The full human interface is that of MineRL 1.0 and of OpenAI's VPT recordings; the v0
tasks are those of MineRL 0.4.4 and of the MineRL-v0 data set. Keys are in alphabetical order, as MineRL has them.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

TICKS_PER_SECOND = 20
"""Observations, and actions, per second of play."""

CAMERA_LIMIT = 180.0
"""Degrees that MineRL lets a player turn in one tick, up or down and left or right."""

HOTBAR = tuple(f"hotbar.{i}" for i in range(1, 10))

BUTTONS = (
    "ESC", "attack", "back", "drop", "forward", *HOTBAR, "inventory", "jump", "left", "pickItem", "right", "sneak",
    "sprint", "swapHands", "use",
)  # fmt: skip
"""The 23 keys and mouse buttons of the full human interface."""

V0_BUTTONS = ("attack", "back", "forward", "jump", "left", "right", "sneak", "sprint")
"""The keys and mouse buttons of the v0 tasks."""

_OBTAIN: dict[str, tuple[str, ...]] = {
    "craft": ("none", "crafting_table", "planks", "stick", "torch"),
    "equip": (
        "none", "air", "iron_axe", "iron_pickaxe", "stone_axe", "stone_pickaxe", "wooden_axe", "wooden_pickaxe",
    ),
    "nearbyCraft": (
        "none", "furnace", "iron_axe", "iron_pickaxe", "stone_axe", "stone_pickaxe", "wooden_axe", "wooden_pickaxe",
    ),
    "nearbySmelt": ("none", "coal", "iron_ingot"),
    "place": ("none", "cobblestone", "crafting_table", "dirt", "furnace", "stone", "torch"),
}  # fmt: skip
_NAVIGATE: dict[str, tuple[str, ...]] = {"place": ("none", "dirt")}

V0_CHOICES: dict[str, dict[str, tuple[str, ...]]] = {
    "MineRLTreechop-v0": {},
    "MineRLNavigate-v0": _NAVIGATE,
    "MineRLNavigateDense-v0": _NAVIGATE,
    "MineRLNavigateExtreme-v0": _NAVIGATE,
    "MineRLNavigateExtremeDense-v0": _NAVIGATE,
    "MineRLObtainIronPickaxe-v0": _OBTAIN,
    "MineRLObtainIronPickaxeDense-v0": _OBTAIN,
    "MineRLObtainDiamond-v0": _OBTAIN,
    "MineRLObtainDiamondDense-v0": _OBTAIN,
}
"""The v0 tasks, and the items that each of their choices offers: number i is the i-th name, and 0 is always "none"."""


def action_space(
    buttons: Sequence[str] = BUTTONS,
    choices: Mapping[str, Sequence[str]] | None = None,
    camera_limit: float = CAMERA_LIMIT,
) -> spaces.Dict:
    """Actions with these buttons, a camera and these choices.

    Args:
        buttons: Names of the keys and mouse buttons, each Discrete(2).
        choices: Names of further parts and what each offers, "none" first; each becomes a Discrete.
        camera_limit: Most degrees per tick that the camera turns about each axis.

    Raises:
        ValueError: For a name that stands twice, or a limit that is not above 0 and at most 180.
    """
    if not 0 < camera_limit <= CAMERA_LIMIT:
        raise ValueError(f"camera_limit {camera_limit} must be above 0 and at most {CAMERA_LIMIT:g} degrees")
    parts: dict[str, spaces.Space] = {"camera": spaces.Box(-camera_limit, camera_limit, (2,), np.float32)}
    for name, size in [*((name, 2) for name in buttons), *((n, len(items)) for n, items in (choices or {}).items())]:
        if name in parts:
            raise ValueError(f"{name!r} stands twice among the parts of the action")
        parts[name] = spaces.Discrete(size)
    return spaces.Dict(dict(sorted(parts.items())))


def human_action_space(camera_limit: float = CAMERA_LIMIT) -> spaces.Dict:
    """The full human interface: 23 buttons and the camera."""
    return action_space(BUTTONS, camera_limit=camera_limit)


def limit_camera(space: spaces.Dict, limit: float) -> spaces.Dict:
    """The same actions with a camera that turns by at most ``limit`` degrees per tick about each axis.

    Raises:
        ValueError: If the limit is not above 0, or beyond the camera that there is.
    """
    camera = space.spaces["camera"]
    assert isinstance(camera, spaces.Box)
    if not 0 < limit <= camera.high.min():
        raise ValueError(f"camera limit {limit} must be above 0 and at most {camera.high.min():g} degrees")
    return spaces.Dict({**space.spaces, "camera": spaces.Box(-limit, limit, (2,), np.float32)})


def v0_action_space(task: str = "MineRLTreechop-v0", camera_limit: float = CAMERA_LIMIT) -> spaces.Dict:
    """Actions of a v0 task (a key of :data:`V0_CHOICES`).

    Raises:
        ValueError: For an unknown task.
    """
    if task not in V0_CHOICES:
        near = difflib.get_close_matches(task, V0_CHOICES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(V0_CHOICES)}"
        raise ValueError(f"unknown v0 task {task!r}; {hint}")
    return action_space(V0_BUTTONS, V0_CHOICES[task], camera_limit)


def observation_space(height: int = 64, width: int = 64) -> spaces.Dict:
    """Observations with the player's view alone: ``pov`` ``(height, width, 3)`` uint8.

    v0 tasks have 64x64 pixels, the human interface 360x640 (height before width, as in every array).

    Raises:
        ValueError: If a side is shorter than a pixel.
    """
    if min(height, width) < 1:
        raise ValueError(f"a picture of {height}x{width} pixels: height and width must be at least 1")
    return spaces.Dict({"pov": spaces.Box(0, 255, (int(height), int(width), 3), np.uint8)})


def noop_action(space: spaces.Dict) -> dict[str, Any]:
    """The action that does nothing: no button, no turn, "none" of every choice."""
    action: dict[str, Any] = {}
    for name, part in space.spaces.items():
        if isinstance(part, spaces.Discrete):
            action[name] = part.dtype.type(0 if part.contains(0) else part.start)  # type: ignore[union-attr]
        else:
            action[name] = np.zeros(part.shape or (), part.dtype)
    return action


def check_action(action: Any, space: spaces.Dict) -> dict[str, Any]:
    """Checks one action and gives its parts the types of the space.

    Args:
        action: One value for each part; anything that turns into the right numbers will do.
        space: Of the environment.

    Returns:
        The action, in the order of the space.

    Raises:
        ValueError: For unknown or missing keys and values outside their part; the message names and explains them.
    """
    if not isinstance(action, Mapping):
        raise ValueError(f"an action of MineRL is a dict with the keys {_names(space)}, got {action!r}")
    check_keys(action, list(space.spaces))
    return {name: _check_part(name, action[name], part) for name, part in space.spaces.items()}


def check_keys(action: Mapping[str, Any], wanted: Sequence[str], optional: Sequence[str] = ()) -> None:
    """Refuses actions with unknown or missing keys.

    Raises:
        ValueError: Naming the keys, and what may have been meant.
    """
    known = [*wanted, *optional]
    unknown = [key for key in action if key not in known]
    if unknown:
        near = difflib.get_close_matches(str(unknown[0]), known, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
        raise ValueError(f"unknown key {', '.join(map(repr, unknown))} in the action; {hint}")
    missing = [key for key in wanted if key not in action]
    if missing:
        raise ValueError(
            f"the action lacks {', '.join(map(repr, missing))}: an action names every part; begin with "
            "neuralsim.envs.minerl_spaces.noop_action(env.action_space) and change what you need"
        )


def check_camera(camera: Any, limit: float = CAMERA_LIMIT) -> np.ndarray:
    """Camera turns ``(..., 2)`` as float64: pitch (down is positive) and yaw (right is positive) in degrees per tick.

    Raises:
        ValueError: If they are no such numbers, or a turn is larger than ``limit``; the message names it.
    """
    try:
        turns = np.asarray(camera, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"the camera turns by (pitch, yaw) in degrees, got {camera!r}") from None
    if turns.shape[-1:] != (2,):
        raise ValueError(f"the camera turns by (pitch, yaw) in degrees, got shape {turns.shape}: {camera!r}")
    # At float32, the precision of the space; this way round, NaN is outside.
    outside = ~(np.abs(turns.astype(np.float32)) <= np.float32(limit))
    if outside.any():
        at = tuple(np.argwhere(outside)[0])
        raise ValueError(
            f"camera {('pitch', 'yaw')[at[-1]]} {turns[at]:g} is outside -{limit:g} to {limit:g}: the camera is "
            "(pitch, yaw), the degrees to turn in this tick"
        )
    return turns


def check_pov(pov: Any, space: spaces.Box) -> np.ndarray:
    """The player's view as the space has it.

    Raises:
        ValueError: If its size or type differs; the message says both.
    """
    frame = np.asarray(pov)
    if frame.shape != space.shape or frame.dtype != space.dtype:
        raise ValueError(
            f"a frame of {_size(frame.shape)} and type {frame.dtype} where the environment promises "
            f"{_size(space.shape)} and {space.dtype}: make the environment with the resolution it really has, and "
            "change the size of its frames by neuralsim.envs.preprocessing.Preprocess"
        )
    return np.ascontiguousarray(frame)  # MineRL gives a view that is upside down in memory


def _check_part(name: str, value: Any, part: spaces.Space) -> Any:
    if name == "camera" and isinstance(part, spaces.Box):
        return check_camera(value, float(part.high.max())).astype(np.float32).reshape(part.shape)
    if isinstance(part, spaces.Discrete):
        number = np.asarray(value)
        first, last = int(part.start), int(part.start + part.n - 1)
        # Recordings hold 1.0 and True where they mean 1.
        fits = number.size == 1 and number.dtype.kind in "biuf" and float(number.item()) in range(first, last + 1)
        if not fits:
            meaning = "0 (up) or 1 (pressed)" if (first, last) == (0, 1) else f"a whole number from {first} to {last}"
            raise ValueError(f"action {name!r} is {value!r}; it must be {meaning}")
        return part.dtype.type(number.item())  # type: ignore[union-attr]
    try:
        array = np.asarray(value, part.dtype)
    except (TypeError, ValueError):
        array = value
    if not part.contains(array):
        raise ValueError(f"action {name!r} is {value!r}, outside {part}")
    return array


def _names(space: spaces.Dict) -> str:
    return ", ".join(space.spaces)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]} pixels" if len(shape) == 3 and shape[2] == 3 else f"shape {shape}"
