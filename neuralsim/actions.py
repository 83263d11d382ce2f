"""Gymnasium action spaces as flat vectors of numbers, and as JSON.

A categorical choice becomes a one-hot block and a continuous value is scaled to [-1, 1] by its bounds, so
that one linear layer is at once the table of learned embeddings (Dreamer 4: a lookup for categorical, a
linear layer for continuous parts, summed).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces


def space_to_json(space: spaces.Space) -> dict[str, Any]:
    """A space as a JSON-able dictionary.

    Raises:
        ValueError: For a space other than Discrete, MultiDiscrete, MultiBinary, Box, Dict or Tuple.
    """
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {
            "type": "MultiDiscrete",
            "nvec": space.nvec.tolist(),
            "start": np.asarray(space.start).tolist(),
        }
    if isinstance(space, spaces.MultiBinary):
        return {"type": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(map(int, space.n))}
    if isinstance(space, spaces.Box):
        return {
            "type": "Box",
            "low": space.low.tolist(),
            "high": space.high.tolist(),
            "shape": list(space.shape),
            "dtype": str(space.dtype),
        }
    if isinstance(space, spaces.Dict):
        return {"type": "Dict", "spaces": {key: space_to_json(part) for key, part in space.spaces.items()}}
    if isinstance(space, spaces.Tuple):
        return {"type": "Tuple", "spaces": [space_to_json(part) for part in space.spaces]}
    raise ValueError(
        f"cannot describe {space!r}; supported are Discrete, MultiDiscrete, MultiBinary, Box, Dict "
        "and Tuple: wrap the environment so that it uses one of them"
    )


def space_from_json(description: dict[str, Any]) -> spaces.Space:
    """The space that :func:`space_to_json` described.

    Raises:
        ValueError: If the description names an unknown type.
    """
    kind = description.get("type")
    if kind == "Discrete":
        return spaces.Discrete(description["n"], start=description["start"])
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(np.array(description["nvec"]), start=np.array(description["start"]))
    if kind == "MultiBinary":
        return spaces.MultiBinary(description["n"])
    if kind == "Box":
        dtype = np.dtype(description["dtype"])
        return spaces.Box(
            np.array(description["low"], dtype).reshape(description["shape"]),
            np.array(description["high"], dtype).reshape(description["shape"]),
            dtype=dtype.type,
        )
    if kind == "Dict":
        return spaces.Dict({key: space_from_json(part) for key, part in description["spaces"].items()})
    if kind == "Tuple":
        return spaces.Tuple([space_from_json(part) for part in description["spaces"]])
    raise ValueError(f"unknown space type {kind!r} in {description}; this file was written by a newer version")


def keys_from_json(pairs: list[Any], space: spaces.Space) -> dict[tuple[str | int, ...], Any]:
    """Pressed keys and the actions they mean, as :mod:`gymnasium.utils.play` wants them.

    Args:
        pairs: ``[[keys, action], ...]``, keys being a list of characters or key codes, as JSON holds them.
        space: The action space.

    Raises:
        ValueError: If they are no such pairs.
    """
    try:
        # Gymnasium's play refuses the empty combination; no key at all means its argument noop.
        return {tuple(keys): _action_from_json(action, space) for keys, action in pairs if keys}
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"keys_to_action must be pairs [[keys], action] of {space}, got {pairs}: {error}") from error


def _action_from_json(action: Any, space: spaces.Space) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _action_from_json(action[key], part) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_action_from_json(a, part) for a, part in zip(action, space.spaces, strict=True))
    if isinstance(space, spaces.Discrete):
        return int(action)
    return np.array(action, space.dtype).reshape(space.shape or ())


def map_actions(change: Callable[[np.ndarray], Any], actions: Any) -> Any:
    """Applies ``change`` to a batch of actions: to the array, or to every array inside dicts and tuples."""
    if isinstance(actions, dict):
        return {key: map_actions(change, value) for key, value in actions.items()}
    if isinstance(actions, tuple):
        return tuple(map_actions(change, value) for value in actions)
    return change(np.asarray(actions))


def slice_actions(actions: Any, index: Any) -> Any:
    """Indexes a batch of actions along its leading dimensions, as NumPy would index each array."""
    return map_actions(lambda array: array[index], actions)


def add_lane(actions: Any) -> Any:
    """An action as a batch of one, or a batch of actions with one more leading dimension."""
    return map_actions(lambda array: array[None], actions)


def has_camera(space: spaces.Space) -> bool:
    """Whether actions turn a camera by (pitch, yaw), as MineRL's do."""
    camera = space.spaces.get("camera") if isinstance(space, spaces.Dict) else None
    return isinstance(camera, spaces.Box) and camera.shape == (2,)


class ActionCodec:
    """Encodes batches of actions of one space as float vectors.

    A batch is an array with any leading dimensions before the space's own shape; for Dict and Tuple spaces, a
    dict or tuple of such arrays.

    Args:
        space: Discrete, MultiDiscrete, MultiBinary, bounded Box, Dict or Tuple of these.

    Attributes:
        size: Length of an encoded action.

    Raises:
        ValueError: For an unsupported or empty space, or a Box without finite bounds.
    """

    def __init__(self, space: spaces.Space) -> None:
        space_to_json(space)  # refuses unsupported spaces
        if isinstance(space, spaces.Box) and not space.is_bounded():
            raise ValueError(f"{space} has no finite bounds; rescale it, e.g. by gymnasium.wrappers.RescaleAction")
        self.space = space
        self.parts: list[tuple[Any, ActionCodec]] = []
        if isinstance(space, spaces.Dict):
            self.parts = [(key, ActionCodec(part)) for key, part in space.spaces.items()]
        elif isinstance(space, spaces.Tuple):
            self.parts = [(i, ActionCodec(part)) for i, part in enumerate(space.spaces)]
        self.shape: tuple[int, ...] = space.shape or ()
        self.size: int
        if self.parts:
            self.size = sum(codec.size for _, codec in self.parts)
        elif isinstance(space, spaces.Discrete):
            self.size = int(space.n)
        elif isinstance(space, spaces.MultiDiscrete):
            self.size = int(space.nvec.sum())
        elif isinstance(space, (spaces.Dict, spaces.Tuple)):
            self.size = 0
        else:
            self.size = math.prod(self.shape)
        if self.size == 0:
            raise ValueError(f"{space} holds no actions to choose from")

    def encode(self, actions: Any) -> np.ndarray:
        """Encodes a batch of actions to ``(..., size)`` float32.

        Raises:
            ValueError: If a value lies outside the space or the shape does not fit; the message names it.
        """
        if self.parts:
            return self._encode_parts(actions)
        values = np.asarray(actions)
        lead = values.shape[: max(0, values.ndim - len(self.shape))]
        if values.shape != (*lead, *self.shape):
            raise ValueError(f"actions of shape {values.shape} do not end in {self.shape}, the shape of {self.space}")
        if values.dtype.kind not in "biuf":
            raise ValueError(f"actions of {self.space} are numbers, got {actions!r}")
        if isinstance(self.space, spaces.Discrete):
            return self._one_hot(values, int(self.space.n), int(self.space.start))
        if isinstance(self.space, spaces.MultiDiscrete):
            columns = values.reshape((*lead, self.space.nvec.size))
            sizes, starts = self.space.nvec.ravel().tolist(), np.ravel(self.space.start).tolist()
            blocks = [
                self._one_hot(columns[..., i], n, start) for i, (n, start) in enumerate(zip(sizes, starts, strict=True))
            ]
            return np.concatenate(blocks, axis=-1)
        if isinstance(self.space, spaces.MultiBinary):
            self._refuse(values, (values != 0) & (values != 1), "use 0 or 1")
            return values.reshape((*lead, self.size)).astype(np.float32)
        assert isinstance(self.space, spaces.Box)
        if np.issubdtype(self.space.dtype, np.floating):
            # At the space's own precision, as 0.1 is below the float32 bound 0.1.
            values = values.astype(self.space.dtype)
        low, high = self.space.low.astype(np.float64), self.space.high.astype(np.float64)
        outside = ~((values >= low) & (values <= high))  # this way round, NaN is outside
        if np.issubdtype(self.space.dtype, np.integer):
            outside |= values != np.round(values)
        self._refuse(values, outside, f"use {self.space.low.min()} to {self.space.high.max()}")
        span = np.where(high > low, high - low, 1.0)
        return ((values - low) / span * 2 - 1).reshape((*lead, self.size)).astype(np.float32)

    def _encode_parts(self, actions: Any) -> np.ndarray:
        keys = [key for key, _ in self.parts]
        given = list(actions) if isinstance(actions, dict) else None
        if isinstance(self.space, spaces.Dict) and (given is None or set(given) != set(keys)):
            raise ValueError(f"actions of {self.space} are a dict with keys {keys}, got {given or actions!r}")
        if isinstance(self.space, spaces.Tuple) and (
            not isinstance(actions, (tuple, list)) or len(actions) != len(keys)
        ):
            raise ValueError(f"actions of {self.space} are a tuple of {len(keys)}, got {actions!r}")
        encoded = []
        for key, codec in self.parts:
            try:
                encoded.append(codec.encode(actions[key]))
            except ValueError as error:
                raise ValueError(f"action part {key!r}: {error}") from error
        if len({part.shape[:-1] for part in encoded}) > 1:
            raise ValueError(f"the parts of the actions are batches of {[part.shape[:-1] for part in encoded]}")
        return np.concatenate(encoded, axis=-1)

    def decode(self, vectors: np.ndarray) -> Any:
        """The actions that were encoded as ``vectors`` ``(..., size)``."""
        vectors = np.asarray(vectors)
        lead = vectors.shape[:-1]
        if self.parts:
            cuts = np.cumsum([codec.size for _, codec in self.parts])[:-1]
            decoded = [
                codec.decode(part)
                for (_, codec), part in zip(self.parts, np.split(vectors, cuts, axis=-1), strict=True)
            ]
            if isinstance(self.space, spaces.Dict):
                return {key: value for (key, _), value in zip(self.parts, decoded, strict=True)}
            return tuple(decoded)
        if isinstance(self.space, spaces.Discrete):
            return vectors.argmax(-1).astype(self.space.dtype) + self.space.start
        if isinstance(self.space, spaces.MultiDiscrete):
            blocks = np.split(vectors, np.cumsum(self.space.nvec.ravel())[:-1], axis=-1)
            chosen = np.stack([block.argmax(-1) for block in blocks], axis=-1).reshape((*lead, *self.shape))
            return (chosen + self.space.start).astype(self.space.dtype)
        if isinstance(self.space, spaces.MultiBinary):
            return (vectors > 0.5).astype(self.space.dtype).reshape((*lead, *self.shape))
        assert isinstance(self.space, spaces.Box)
        low, high = self.space.low.astype(np.float64), self.space.high.astype(np.float64)
        values = low + (vectors.reshape((*lead, *self.shape)).astype(np.float64) + 1) / 2 * (high - low)
        if np.issubdtype(self.space.dtype, np.integer):
            values = values.round()
        return np.clip(values, low, high).astype(self.space.dtype)

    def camera(self) -> tuple[tuple[int, int], float] | None:
        """Where pitch and yaw of a camera's turn stand in an encoded action, and how many degrees an encoded 1 means.

        None if no camera turns, or not by as much to either side.
        """
        if not has_camera(self.space):
            return None
        camera = self.space["camera"]  # type: ignore[index]
        degrees = float(camera.high[0])
        if not (np.all(camera.high == degrees) and np.all(camera.low == -degrees)):
            return None
        begin, _ = self.places()["camera"]
        return (begin, begin + 1), degrees

    def places(self) -> dict[Any, tuple[int, ActionCodec]]:
        """Where the parts of a Dict or Tuple action begin in an encoded action, and the codec of each, by its key."""
        begins = np.cumsum([0, *(codec.size for _, codec in self.parts)]).tolist()
        return {key: (begin, codec) for begin, (key, codec) in zip(begins, self.parts, strict=False)}

    def blocks(self) -> list[tuple[int, int, str]]:
        """What the numbers of an encoded action are: begin, size and kind of each block, in order.

        Kinds: ``"choice"``, a one-hot block; ``"binary"``, independent 0 or 1; ``"continuous"``, -1 to 1.
        """
        if self.parts:
            return [
                (begin + offset, size, kind)
                for begin, codec in self.places().values()
                for offset, size, kind in codec.blocks()
            ]
        if isinstance(self.space, spaces.Discrete):
            return [(0, self.size, "choice")]
        if isinstance(self.space, spaces.MultiDiscrete):
            sizes = self.space.nvec.ravel().tolist()
            return [(sum(sizes[:i]), size, "choice") for i, size in enumerate(sizes)]
        return [(0, self.size, "binary" if isinstance(self.space, spaces.MultiBinary) else "continuous")]

    def _one_hot(self, values: np.ndarray, n: int, start: int) -> np.ndarray:
        if values.dtype.kind not in "iu" and values.size:
            raise ValueError(f"actions of {self.space} are integers, got {values.dtype} {values.tolist()}")
        index = values.astype(np.int64) - start
        self._refuse(values, (index < 0) | (index >= n), f"use {start} to {start + n - 1}")
        return (index[..., None] == np.arange(n)).astype(np.float32)

    def _refuse(self, values: np.ndarray, wrong: np.ndarray, advice: str) -> None:
        if wrong.any():
            raise ValueError(f"action {values[wrong].ravel()[0]} is outside {self.space}: {advice}")
