"""From keys held down to actions, without a window: any environment with ``get_keys_to_action()``.

Notable:
- Several keys combine: of the listed combinations, the largest one that is held wins, and of two equally
  large ones the one pressed last, so that a thumb rolling from left to right never stands still.
- Arrow keys and W A S D mean the same where an environment lists only one kind. In Pong, where the joystick's
  right moves the paddle up, the keys for up and down do what the eye expects.
- Key codes are SDL's (a letter is its ASCII code), so nothing here imports pygame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

RIGHT, LEFT, DOWN, UP = 1073741903, 1073741904, 1073741905, 1073741906
RETURN, SPACE, TAB, BACKSPACE, ESCAPE = 13, 32, 9, 8, 27
CTRL, SHIFT = 1073742048, 1073742049
MOUSE_LEFT, MOUSE_MIDDLE, MOUSE_RIGHT = -1, -2, -3  # buttons of the mouse, as if they were keys

NAMES = {
    UP: "up", DOWN: "down", LEFT: "left", RIGHT: "right", SPACE: "space", RETURN: "return", TAB: "tab",
    BACKSPACE: "backspace", ESCAPE: "esc", CTRL: "ctrl", SHIFT: "shift", 1073742050: "alt",
    MOUSE_LEFT: "left click", MOUSE_MIDDLE: "middle click", MOUSE_RIGHT: "right click",
}  # fmt: skip
"""Key code -> name, for keys that are no characters."""

_CODES = {name: code for code, name in NAMES.items()}
_PAIRS = ((UP, ord("w")), (DOWN, ord("s")), (LEFT, ord("a")), (RIGHT, ord("d")))


def key_code(key: int | str) -> int:
    """The code of a key given by code, by character or by name ("up", "space").

    Raises:
        ValueError: For an unknown name.
    """
    if isinstance(key, str):
        if len(key) == 1:
            return ord(key.lower())
        if key.lower() in _CODES:
            return _CODES[key.lower()]
        raise ValueError(f"unknown key {key!r}: use one character, or one of {', '.join(sorted(_CODES))}")
    return int(key)


def key_name(code: int) -> str:
    """What to call a key on the screen: "W", "space", "up"."""
    return NAMES.get(code) or (chr(code).upper() if 32 < code < 0x110000 else f"key {code}")


def idle_action(space: spaces.Space, meanings: Sequence[str] | None = None) -> Any:
    """The action of hands off the keyboard: NOOP where the environment names one, else zero.

    Args:
        space: The action space.
        meanings: Names of the actions of a Discrete space, if known.

    Raises:
        ValueError: For a space without an idea of zero.
    """
    if isinstance(space, spaces.Discrete):
        noop = list(meanings).index("NOOP") if meanings and "NOOP" in meanings else 0
        return int(space.start) + noop
    if isinstance(space, spaces.MultiDiscrete):
        return np.array(space.start, space.dtype)
    if isinstance(space, spaces.MultiBinary):
        return np.zeros(space.shape, space.dtype)
    if isinstance(space, spaces.Box):
        return np.clip(np.zeros(space.shape), space.low, space.high).astype(space.dtype)
    if isinstance(space, spaces.Dict):
        return {key: idle_action(part) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(idle_action(part) for part in space.spaces)
    raise ValueError(f"no idle action is known for {space}; list one for no keys, (), in get_keys_to_action()")


class KeyMap:
    """Which keys do what.

    Args:
        keys_to_action: As Gymnasium's ``get_keys_to_action``: a tuple of keys (characters, names, codes) or a
            string of characters, to an action. The empty tuple is hands off.
        idle: The action of hands off, unless the mapping has one.
        meanings: Names of the actions of a Discrete space, in order.
        game: Name of the environment; one that contains "Pong" gets keys for up and down.

    Attributes:
        codes: All keys with a meaning.
        legend: Rows ``(names of keys, what they do)`` for the screen.
    """

    def __init__(
        self,
        keys_to_action: Mapping[Any, Any],
        idle: Any,
        meanings: Sequence[str] | None = None,
        game: str = "",
    ) -> None:
        self.idle = idle
        self.meanings = list(meanings or [])
        self._actions: dict[frozenset[int], Any] = {}
        for keys, action in keys_to_action.items():
            held = frozenset(map(key_code, keys if isinstance(keys, tuple | list | str) else (keys,)))
            if held:
                self._actions[held] = action
            else:
                self.idle = action
        used = frozenset().union(*self._actions) if self._actions else frozenset()
        self._same: dict[int, int] = {}  # a key that is not listed -> the listed one that it stands for
        for arrow, letter in _PAIRS:
            if (arrow in used) != (letter in used):
                known, other = (arrow, letter) if arrow in used else (letter, arrow)
                self._same[other] = known
        pong = "pong" in game.lower()
        if pong:
            for vertical, sideways in zip(_PAIRS[:2], (_PAIRS[3], _PAIRS[2]), strict=True):
                target = next((key for key in sideways if key in used), None)
                if target is not None and not used.intersection(vertical):
                    self._same.update(dict.fromkeys(vertical, target))
        self.codes = frozenset(used | self._same.keys())
        self.legend = self._make_legend(pong)

    @classmethod
    def for_env(cls, env: gym.Env) -> KeyMap:
        """The keys of an environment; digits 1, 2, ... for a small Discrete space that lists none.

        Raises:
            ValueError: If it has neither; the message says what to add.
        """
        raw = env.unwrapped
        meanings = action_meanings(env)
        space = env.action_space
        try:
            keys = raw.get_keys_to_action() if hasattr(raw, "get_keys_to_action") else None
        except ValueError:  # a world that does not know
            keys = None
        if not keys and isinstance(space, spaces.Discrete) and space.n <= 10:
            keys = {(str(i),): int(space.start) + i for i in range(1, int(space.n))}
        if not keys:
            raise ValueError(f"{env} does not say which keys play it: give it a method get_keys_to_action()")
        world = getattr(getattr(raw, "world", None), "config", None)
        names = [getattr(env.spec, "id", ""), getattr(world, "env_id", ""), getattr(world, "name", "")]
        idle = None if () in keys else idle_action(space, meanings)
        return cls(keys, idle, meanings, game=" ".join(map(str, names)))

    def action(self, held: Sequence[int]) -> Any:
        """The action of the keys held down, given in the order in which they were pressed."""
        order = {self._same.get(code, code): i for i, code in enumerate(held)}
        possible = [keys for keys in self._actions if keys <= order.keys()]
        if not possible:
            return self.idle
        return self._actions[
            max(possible, key=lambda keys: (len(keys), sorted((order[key] for key in keys), reverse=True)))
        ]

    def describe(self, action: Any) -> str:
        """An action in a few characters: "2 RIGHT"."""
        if isinstance(action, dict):
            busy = [f"{key} {self.describe(value)}" for key, value in action.items() if np.any(value)]
            return ", ".join(busy) or "-"
        if np.ndim(action) == 0 and np.issubdtype(np.asarray(action).dtype, np.integer):
            known = 0 <= int(action) < len(self.meanings)
            return f"{int(action)} {self.meanings[int(action)]}" if known else str(int(action))
        return " ".join(f"{value:.3g}" for value in np.ravel(action))

    def _make_legend(self, pong: bool) -> list[tuple[list[str], str]]:
        rows = []
        order = {code: i for i, code in enumerate(code for pair in _PAIRS for code in pair)}
        for keys, action in self._actions.items():
            if len(keys) != 1 or np.array_equal(np.asarray(action), np.asarray(self.idle)):
                continue  # combinations explain themselves
            (key,) = keys
            codes = [key, *(code for code, known in self._same.items() if known == key)]
            names = [
                key_name(code) for code in sorted(codes, key=lambda code: order.get(code, -1))
            ]  # up and down first
            meaning = self.describe(action).split(" ", 1)[-1].lower()
            meaning = f"action {meaning}" if meaning.isdigit() else meaning
            if pong:
                meaning = {"right": "up", "left": "down"}.get(meaning, meaning)
            rows.append((min(order.get(code, len(order)) for code in codes), names, meaning))
        return [(names, meaning) for _, names, meaning in sorted(rows)]


def action_meanings(env: gym.Env) -> list[str] | None:
    """Names of an environment's actions in order, if it tells them."""
    raw: Any = env.unwrapped
    if hasattr(raw, "get_action_meanings"):
        return list(raw.get_action_meanings())
    return getattr(getattr(getattr(raw, "world", None), "config", None), "action_meanings", None)
