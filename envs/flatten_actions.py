"""Any action space as MultiDiscrete or Discrete, for libraries without Dict actions, mixed ones or floats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorActionWrapper, VectorEnv
from gymnasium.vector.utils import batch_space

from neuralsim.actions import add_lane, slice_actions, space_to_json

LARGEST_DISCRETE = 10_000
"""So many actions a single choice may have; a policy has one output for each."""


class ActionFlattener:
    """Actions of any space as rows of whole numbers, and back.

    Every number is one choice, from 0 on: the value of a Discrete space, one dimension of a MultiDiscrete or
    MultiBinary one, or one of the evenly spaced values (bounds included) that stand for one dimension of a Box. Parts
    of Dict and Tuple spaces follow each other in the order of the space.

    ``unflatten`` then ``flatten`` gives the numbers back, exactly; so does ``flatten`` then ``unflatten`` the action,
    but for values of a Box, which become the nearest of those that can be chosen.

    Args:
        space: Discrete, MultiDiscrete, MultiBinary, bounded Box, Dict or Tuple of these, nested at will.
        bins: Into how many values to cut the dimensions of Boxes: a number for all, an array that broadcasts to the
            shape of a Box, or, for a Dict (Tuple), a dict (sequence) of such for its parts, of which those without a
            Box may be left out (be None). Integer Boxes need none: each of their values is a choice then.

    Attributes:
        space: The space.
        nvec: How many choices each number has, int64 ``(n,)``.

    Raises:
        ValueError: For an unsupported or empty space, a Box without bounds or bins, or bins that do not fit.
    """

    def __init__(self, space: spaces.Space, bins: Any = None) -> None:
        space_to_json(space)  # refuses unsupported spaces
        self.space = space
        self.nvec: np.ndarray
        self.parts: list[tuple[Any, ActionFlattener]] = []
        self.shape: tuple[int, ...] = space.shape or ()
        self._starts = np.zeros(0, np.int64)
        self._levels: list[np.ndarray] = []
        if isinstance(space, (spaces.Dict, spaces.Tuple)):
            self.parts = self._parts(space, bins)
            sizes = [size for _, part in self.parts for size in part.nvec]
        elif isinstance(space, spaces.Box):
            self._levels = _levels(space, bins)
            sizes = [len(values) for values in self._levels]
        else:
            if bins is not None and not isinstance(bins, (int, np.integer)):  # one number may be meant for other parts
                raise ValueError(f"bins {bins!r} for {space}, which is no Box: leave them out")
            if isinstance(space, spaces.Discrete):
                sizes, starts = [int(space.n)], [int(space.start)]
            elif isinstance(space, spaces.MultiDiscrete):
                sizes, starts = space.nvec.ravel().tolist(), np.ravel(space.start).tolist()
            else:
                sizes = [2] * math.prod(self.shape)
                starts = [0] * len(sizes)
            self._starts = np.array(starts, np.int64)
        if not sizes:
            raise ValueError(f"{space} holds no actions to choose from")
        self.nvec = np.array(sizes, np.int64)

    @staticmethod
    def _parts(space: spaces.Dict | spaces.Tuple, bins: Any) -> list[tuple[Any, ActionFlattener]]:
        named = isinstance(space, spaces.Dict)
        keys: list[Any] = list(space.spaces) if named else list(range(len(space.spaces)))
        if isinstance(bins, Mapping if named else Sequence):
            unknown = sorted(set(bins) - set(keys)) if named else []
            if unknown or (not named and len(bins) != len(keys)):
                raise ValueError(f"bins {bins!r} do not fit {space}, which has the parts {keys}")
            given = [bins.get(key) if isinstance(bins, Mapping) else bins[key] for key in keys]
        elif bins is None or isinstance(bins, (int, np.integer)):
            given = [bins] * len(keys)
        else:
            raise ValueError(
                f"bins {bins!r} for {space}: use a number, or a {'dict' if named else 'list'} of its parts"
            )
        found = []
        for key, part_bins in zip(keys, given, strict=True):
            try:
                found.append((key, ActionFlattener(space[key], part_bins)))
            except ValueError as error:
                raise ValueError(f"action part {key!r}: {error}") from error
        return found

    def unflatten(self, choices: np.ndarray) -> Any:
        """The actions that rows of choices stand for.

        Args:
            choices: ``(..., n)`` integers, each from 0 to its ``nvec`` less 1.

        Returns:
            A batch of actions: arrays with the leading dimensions of ``choices`` before the space's shape; dicts and
            tuples of these for Dict and Tuple.

        Raises:
            ValueError: If the shape or a number is out of range; the message names it.
        """
        choices = np.asarray(choices)
        if choices.dtype.kind not in "iu" or choices.shape[-1:] != (len(self.nvec),):
            raise ValueError(
                f"choices of shape {choices.shape} and type {choices.dtype}; they must be rows of {len(self.nvec)} "
                "whole numbers"
            )
        outside = (choices < 0) | (choices >= self.nvec)
        if outside.any():
            at = tuple(np.argwhere(outside)[0])
            raise ValueError(f"choice {choices[at]} at position {at[-1]} is outside 0 to {self.nvec[at[-1]] - 1}")
        return self._unflatten(choices)

    def _unflatten(self, choices: np.ndarray) -> Any:
        lead = choices.shape[:-1]
        if self.parts:
            cuts = np.cumsum([len(part.nvec) for _, part in self.parts])[:-1]
            pieces = np.split(choices, cuts, axis=-1)
            actions = [part._unflatten(piece) for (_, part), piece in zip(self.parts, pieces, strict=True)]
            if isinstance(self.space, spaces.Dict):
                return {key: action for (key, _), action in zip(self.parts, actions, strict=True)}
            return tuple(actions)
        if self._levels:
            columns = [values[choices[..., i]] for i, values in enumerate(self._levels)]
            return np.stack(columns, axis=-1).reshape((*lead, *self.shape))
        return (choices + self._starts).astype(self.space.dtype).reshape((*lead, *self.shape))

    def flatten(self, actions: Any) -> np.ndarray:
        """The choices ``(..., n)`` int64 that stand for a batch of actions (see :meth:`unflatten`).

        Raises:
            ValueError: For actions outside the space; the message names one.
        """
        if self.parts:
            fits = set(actions) == {key for key, _ in self.parts} if isinstance(actions, dict) else (
                isinstance(actions, (tuple, list)) and len(actions) == len(self.parts)
            )  # fmt: skip
            if not fits or isinstance(self.space, spaces.Dict) != isinstance(actions, dict):
                raise ValueError(f"actions {actions!r} do not fit {self.space}")
            return np.concatenate([part.flatten(actions[key]) for key, part in self.parts], axis=-1)
        values = np.asarray(actions)
        lead = values.shape[: values.ndim - len(self.shape)]
        if values.shape != (*lead, *self.shape):
            raise ValueError(f"actions of shape {values.shape} do not end in {self.shape}, the shape of {self.space}")
        columns = values.reshape((*lead, len(self.nvec)))
        if self._levels:
            box = self.space
            assert isinstance(box, spaces.Box)
            # At the space's own precision, as 0.1 is below the float32 bound 0.1; this way round, NaN is outside.
            columns = columns.astype(box.dtype)
            self._refuse(columns, ~((columns >= box.low.ravel()) & (columns <= box.high.ravel())))
            nearest = [
                np.abs(columns[..., i, None].astype(np.float64) - table.astype(np.float64)).argmin(-1)
                for i, table in enumerate(self._levels)
            ]
            return np.stack(nearest, axis=-1)
        if columns.dtype.kind not in "biu":
            raise ValueError(f"actions of {self.space} are whole numbers, got {columns.dtype} {columns.tolist()}")
        choices = columns.astype(np.int64) - self._starts
        self._refuse(columns, (choices < 0) | (choices >= self.nvec))
        return choices

    def _refuse(self, values: np.ndarray, wrong: np.ndarray) -> None:
        if wrong.any():
            raise ValueError(f"action {values[wrong].ravel()[0]} is outside {self.space}")


def _levels(box: spaces.Box, bins: Any) -> list[np.ndarray]:
    """The values that can be chosen for each dimension of a Box, at its own precision."""
    if not box.is_bounded():
        raise ValueError(f"{box} has no finite bounds; rescale it, e.g. by gymnasium.wrappers.RescaleAction")
    low, high = box.low.ravel(), box.high.ravel()
    whole = np.issubdtype(box.dtype, np.integer)
    if bins is None:
        if not whole:
            raise ValueError(f"{box} is continuous: say into how many values to cut it, bins=...")
        counts = [int(last) - int(first) + 1 for first, last in zip(low, high, strict=True)]
        if max(counts, default=0) > LARGEST_DISCRETE:
            raise ValueError(f"{box} has up to {max(counts)} values: say into how many to cut it, bins=...")
    else:
        try:
            given = np.broadcast_to(np.asarray(bins), box.shape).ravel()
        except ValueError:
            raise ValueError(f"bins {bins!r} do not broadcast to {box.shape}, the shape of {box}") from None
        if given.dtype.kind not in "iu" or (given < 2).any():
            raise ValueError(f"bins are {bins!r}; they must be whole numbers from 2 on")
        counts = given.tolist()
    tables = []
    for first, last, count in zip(low, high, counts, strict=True):
        if first == last:
            tables.append(np.array([first], box.dtype))  # nothing to choose
            continue
        part = np.linspace(0.0, 1.0, count)
        values = float(first) * (1 - part) + float(last) * part  # no overflow, where last - first would
        values = np.clip((values.round() if whole else values).astype(box.dtype), first, last)
        values[0], values[-1] = first, last
        if (np.diff(values) <= 0).any():
            raise ValueError(f"there are no {count} different values of {box.dtype} from {first} to {last}: fewer bins")
        tables.append(values)
    return tables


def _flat_space(flattener: ActionFlattener, to: str) -> spaces.MultiDiscrete | spaces.Discrete:
    if to == "multi_discrete":
        return spaces.MultiDiscrete(flattener.nvec)
    if to != "discrete":
        raise ValueError(f"to is {to!r}; it must be 'multi_discrete' or 'discrete'")
    count = math.prod(flattener.nvec.tolist())
    if count > LARGEST_DISCRETE:
        raise ValueError(
            f"{flattener.space} has {count} combinations, too many for one Discrete choice (at most "
            f"{LARGEST_DISCRETE}): use fewer bins, or to='multi_discrete'"
        )
    return spaces.Discrete(count)


class FlattenActions(gym.ActionWrapper, RecordConstructorArgs):
    """Gives an environment MultiDiscrete or Discrete actions; see :class:`ActionFlattener` for what they mean.

    Args:
        env: An environment with actions that :class:`ActionFlattener` knows.
        to: ``"multi_discrete"``: one number per choice. ``"discrete"``: one number for all, which counts through their
            combinations (the last choice fastest); for small spaces.
        bins: Into how many values to cut the dimensions of Boxes, see :class:`ActionFlattener`.

    Raises:
        ValueError: If the space does not allow it.
    """

    def __init__(self, env: gym.Env, to: str = "multi_discrete", bins: Any = None) -> None:
        RecordConstructorArgs.__init__(self, to=to, bins=bins)
        gym.ActionWrapper.__init__(self, env)
        self.flattener = ActionFlattener(env.action_space, bins)
        self.action_space = _flat_space(self.flattener, to)

    def action(self, action: Any) -> Any:
        """The environment's action that a flat one stands for."""
        batch = self.flattener.unflatten(_as_rows(action, self.action_space, self.flattener)[None])
        return _plain(slice_actions(batch, 0), self.env.action_space)

    def reverse_action(self, action: Any) -> Any:
        """The flat action that stands for one of the environment's (for values of a Box, the nearest)."""
        row = self.flattener.flatten(add_lane(action))[0]
        return int(_as_numbers(row, self.flattener)) if isinstance(self.action_space, spaces.Discrete) else row


class FlattenVectorActions(VectorActionWrapper):
    """:class:`FlattenActions` for a vector environment, such as the natively batched dream.

    Args:
        envs: A vector environment.
        to: See :class:`FlattenActions`.
        bins: See :class:`FlattenActions`.

    Raises:
        ValueError: If the space does not allow it.
    """

    def __init__(self, envs: VectorEnv, to: str = "multi_discrete", bins: Any = None) -> None:
        super().__init__(envs)
        self.flattener = ActionFlattener(envs.single_action_space, bins)
        self.single_action_space = _flat_space(self.flattener, to)
        self.action_space = batch_space(self.single_action_space, envs.num_envs)

    def actions(self, actions: Any) -> Any:
        """The environments' actions that a batch of flat ones stands for."""
        batch = self.flattener.unflatten(_as_rows(actions, self.single_action_space, self.flattener))
        space = self.env.single_action_space
        # Gymnasium's batches of Tuple and Dict spaces look as ours do, batches of scalars are int64 arrays.
        return batch if not isinstance(space, spaces.Discrete) else batch.astype(np.int64)

    def reverse_actions(self, actions: Any) -> np.ndarray:
        """The flat actions that stand for a batch of the environments' (for values of a Box, the nearest)."""
        rows = self.flattener.flatten(actions)
        return _as_numbers(rows, self.flattener) if isinstance(self.single_action_space, spaces.Discrete) else rows


def _as_rows(flat: Any, space: spaces.Space, flattener: ActionFlattener) -> np.ndarray:
    if not isinstance(space, spaces.Discrete):
        return np.asarray(flat)
    numbers = np.asarray(flat)
    if numbers.dtype.kind not in "iu" or (numbers < 0).any() or (numbers >= space.n).any():
        raise ValueError(f"action {flat!r} is outside {space}")
    return np.stack(np.unravel_index(numbers, flattener.nvec.tolist()), axis=-1)


def _as_numbers(rows: np.ndarray, flattener: ActionFlattener) -> np.ndarray:
    return np.ravel_multi_index(tuple(np.moveaxis(rows, -1, 0)), flattener.nvec.tolist())


def _plain(action: Any, space: spaces.Space) -> Any:
    """An action as the space's ``sample`` would give it: Discrete values are scalars, all others arrays."""
    if isinstance(space, spaces.Dict):
        return {key: _plain(action[key], part) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_plain(value, part) for value, part in zip(action, space.spaces, strict=True))
    return space.dtype.type(action) if isinstance(space, spaces.Discrete) else np.asarray(action)  # type: ignore[union-attr]
