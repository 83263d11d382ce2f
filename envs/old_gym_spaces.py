"""Spaces of the old gym (0.26 and before) and of MineRL, and their values, in Gymnasium's terms.

The old package is not imported: it may be absent, and spaces tell what they are by the names of their classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces


@dataclass(frozen=True)
class TranslatedSpace:
    """A space of Gymnasium, with what turns values of an old space into its own, and back.

    Attributes:
        space: The space.
        to_new: A value of the old space as one of ``space``.
        to_old: The reverse.
        names: What the numbers of a Discrete stand for, where MineRL has names instead (its Enum); by the key of the
            part, with dots, where the space is a Dict.
    """

    space: spaces.Space
    to_new: Callable[[Any], Any]
    to_old: Callable[[Any], Any]
    names: dict[str, tuple[str, ...]]


def translate_space(old: Any, skip_unknown: bool = False) -> TranslatedSpace:
    """Translates an old Discrete, MultiDiscrete, MultiBinary, Box, Dict, Tuple or MineRL's Enum.

    An Enum becomes a Discrete: 0 is what it says by default ("none"), the others follow in alphabetical order.

    Args:
        old: The old space.
        skip_unknown: Leaves parts of a Dict out that cannot be translated, with a warning.

    Raises:
        ValueError: For another space.
    """
    kinds = {kind.__name__ for kind in type(old).__mro__}
    if "Dict" in kinds:
        return _dict(old, skip_unknown)
    if "Tuple" in kinds:
        parts = [translate_space(part) for part in old.spaces]
        return TranslatedSpace(
            spaces.Tuple([part.space for part in parts]),
            lambda values: tuple(part.to_new(value) for part, value in zip(parts, values, strict=True)),
            lambda values: tuple(part.to_old(value) for part, value in zip(parts, values, strict=True)),
            {},
        )
    if "Enum" in kinds:
        return _enum(old)
    if "Discrete" in kinds:
        start = int(getattr(old, "begin", getattr(old, "start", 0)))
        discrete = spaces.Discrete(int(old.n), start=start)
        return TranslatedSpace(discrete, lambda value: np.int64(np.asarray(value).item()), int, {})
    if "MultiDiscrete" in kinds:
        return _array(spaces.MultiDiscrete(np.asarray(old.nvec, np.int64)))
    if "MultiBinary" in kinds:
        return _array(spaces.MultiBinary(old.n if isinstance(old.n, int) else tuple(old.n)))
    if "Box" in kinds:
        dtype = np.dtype(old.dtype)
        low, high = np.asarray(old.low, dtype), np.asarray(old.high, dtype)
        return _array(spaces.Box(low, high, tuple(old.shape), dtype.type))
    raise ValueError(f"cannot translate the space {old!r} of type {type(old).__name__} to Gymnasium")


def _array(space: spaces.Space) -> TranslatedSpace:
    def convert(value: Any) -> np.ndarray:
        # MineRL gives floats where its spaces say whole numbers, and Python's numbers for arrays without dimensions.
        array = np.asarray(value)
        if array.shape != space.shape:
            raise ValueError(f"a value of shape {array.shape} where {space} is promised")
        return np.ascontiguousarray(array.astype(space.dtype)).reshape(array.shape)

    return TranslatedSpace(space, convert, convert, {})


def _enum(old: Any) -> TranslatedSpace:
    default = str(old.default)
    names = (default, *sorted(str(name) for name in old.values if str(name) != default))
    numbers = {name: number for number, name in enumerate(names)}

    def to_new(value: Any) -> np.int64:
        name = str(np.asarray(value).item())
        if name not in numbers:
            raise ValueError(f"{name!r} is none of {', '.join(names)}")
        return np.int64(numbers[name])

    return TranslatedSpace(spaces.Discrete(len(names)), to_new, lambda value: names[int(value)], {"": names})


def _dict(old: Any, skip_unknown: bool) -> TranslatedSpace:
    parts: dict[str, TranslatedSpace] = {}
    for name, part in sorted(old.spaces.items()):
        try:
            parts[name] = translate_space(part, skip_unknown)
        except ValueError as error:
            if not skip_unknown:
                raise ValueError(f"{name!r}: {error}") from error
            warnings.warn(f"{name!r} is left out: {error}", stacklevel=2)

    def to_new(values: Mapping[str, Any]) -> dict[str, Any]:
        missing = [name for name in parts if name not in values]
        if missing:
            raise ValueError(f"{', '.join(map(repr, missing))} missing among {', '.join(map(repr, values))}")
        return {name: _named(name, part.to_new, values[name]) for name, part in parts.items()}

    def to_old(values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: _named(name, part.to_old, values[name]) for name, part in parts.items()}

    names = {
        f"{name}.{below}" if below else name: items
        for name, part in parts.items()
        for below, items in part.names.items()
    }
    return TranslatedSpace(spaces.Dict({name: part.space for name, part in parts.items()}), to_new, to_old, names)


def _named(name: str, convert: Callable[[Any], Any], value: Any) -> Any:
    try:
        return convert(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name!r}: {error}") from error
