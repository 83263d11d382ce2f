"""The state of one or many dreams: a plain value that is copied to branch and stacked to batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from neuralsim.dynamics.base import State

Indices = int | Sequence[int] | Tensor
_OWN = ("recent", "step", "seed", "doubt")  # a state's tensors beside those of the dynamics, in order


@dataclass(frozen=True, eq=False)
class WorldState:
    """All that B dreams remember. Nothing changes it in place: keeping a reference is keeping the moment.

    It can be pickled (as safetensors bytes, on the CPU).

    Attributes:
        dynamics: The dynamics model's memory; every tensor's first dimension is the lane.
        recent: ``(B, n, h, w, c)`` latents of the last frames, oldest first: what the heads look back on.
        step: ``(B,)`` int64 on the CPU, steps since the start.
        seed: ``(B,)`` int64 on the CPU, the key of each lane's noise, in [0, 2**63).
        doubt: ``(B,)`` float32, squared uncertainty of all steps since the start: errors add up as variances do.
    """

    dynamics: State
    recent: Tensor
    step: Tensor
    seed: Tensor
    doubt: Tensor

    @property
    def latent(self) -> Tensor:
        """``(B, h, w, c)`` the last frame's latent."""
        return self.recent[:, -1]

    @property
    def lanes(self) -> int:
        """How many dreams this is."""
        return self.recent.shape[0]

    @property
    def nbytes(self) -> int:
        """Memory of all tensors."""
        return sum(t.numel() * t.element_size() for t in (*self._own(), *self.dynamics.values()))

    def _own(self) -> list[Tensor]:
        return [getattr(self, name) for name in _OWN]

    def _map(self, change: Callable[[Tensor], Tensor]) -> WorldState:
        return WorldState({name: change(tensor) for name, tensor in self.dynamics.items()}, *map(change, self._own()))

    def clone(self) -> WorldState:
        """A copy that shares no memory."""
        return self._map(torch.clone)

    def select(self, indices: Indices) -> WorldState:
        """The dreams of some lanes, in the order given; a lane may be taken several times.

        Raises:
            IndexError: For a lane that is not there.
        """
        index = torch.atleast_1d(torch.as_tensor(indices, dtype=torch.long))
        return self._map(lambda tensor: tensor.index_select(0, index.to(tensor.device)))

    @staticmethod
    def stack(states: Sequence[WorldState]) -> WorldState:
        """All lanes of several states, one after the other.

        Raises:
            ValueError: If there is none, or they are of different worlds.
        """
        if not states:
            raise ValueError("there is no state to stack")
        first = states[0]
        if len(states) == 1:
            return first
        try:
            return WorldState(
                {name: torch.cat([s.dynamics[name] for s in states]) for name in first.dynamics},
                *(torch.cat(parts) for parts in zip(*(s._own() for s in states), strict=True)),
            )
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"states of different worlds or devices cannot be stacked: {error}") from error

    def replace(self, indices: Indices, other: WorldState) -> WorldState:
        """A new state in which the lanes ``indices`` dream what ``other``'s lanes dream.

        Raises:
            ValueError: If there are not as many indices as lanes in ``other``.
        """
        index = torch.atleast_1d(torch.as_tensor(indices, dtype=torch.long))
        if len(index) != other.lanes:
            raise ValueError(f"{len(index)} lanes cannot be replaced by {other.lanes}")

        def put(mine: Tensor, theirs: Tensor) -> Tensor:
            return mine.index_copy(0, index.to(mine.device), theirs.to(mine.device, mine.dtype))

        return WorldState(
            {name: put(tensor, other.dynamics[name]) for name, tensor in self.dynamics.items()},
            *map(put, self._own(), other._own()),
        )

    def reseed(self, seeds: int | Sequence[int]) -> WorldState:
        """The same dreams with other noise from here on: several seeds for one past give several futures.

        Raises:
            ValueError: If there are not as many seeds as lanes, or one is outside [0, 2**63).
        """
        return dataclasses.replace(self, seed=seed_tensor(seeds, self.lanes))

    def to(self, device: torch.device | str) -> WorldState:
        """The same dreams on another device; step and seed stay on the CPU."""
        dynamics = {name: tensor.to(device) for name, tensor in self.dynamics.items()}
        return dataclasses.replace(self, dynamics=dynamics, recent=self.recent.to(device), doubt=self.doubt.to(device))

    def to_bytes(self) -> bytes:
        """The state in the safetensors format."""
        tensors = {f"dynamics.{name}": tensor for name, tensor in self.dynamics.items()}
        tensors |= dict(zip(_OWN, self._own(), strict=True))
        return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()})

    @staticmethod
    def from_bytes(data: bytes) -> WorldState:
        """The state that :meth:`to_bytes` wrote, on the CPU.

        Raises:
            ValueError: If the bytes are no such state.
        """
        try:
            tensors = load(data)
            fixed = {name: tensors.pop(name) for name in _OWN}
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"these {len(data)} bytes hold no state of a world: {error}") from error
        return WorldState(dynamics={name.removeprefix("dynamics."): t for name, t in tensors.items()}, **fixed)

    def __reduce__(self) -> tuple[Callable[[bytes], WorldState], tuple[bytes]]:
        return WorldState.from_bytes, (self.to_bytes(),)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What one step of B dreams brought.

    Attributes:
        latent: ``(B, h, w, c)`` latent of the new frame, in the world's dtype.
        reward: ``(B,)`` float32.
        terminated: ``(B,)`` bool, whether the episode ended with this step.
        uncertainty: ``(B,)`` float32 >= 0, how far sampling moved from the first guess (RMS over the latent).
    """

    latent: Tensor
    reward: Tensor
    terminated: Tensor
    uncertainty: Tensor


def seed_tensor(seeds: int | Sequence[int], lanes: int) -> Tensor:
    """Seeds of ``lanes`` lanes as ``(B,)`` int64; a single number s gives s, s + 1, ...

    Raises:
        ValueError: If there are not as many seeds as lanes, or one is outside [0, 2**63).
    """
    values = [int(seeds) + i for i in range(lanes)] if isinstance(seeds, (int, np.integer)) else [int(s) for s in seeds]
    if len(values) != lanes:
        raise ValueError(f"{len(values)} seeds for {lanes} lanes")
    wrong = [s for s in values if not 0 <= s < 2**63]
    if wrong:
        raise ValueError(f"seed {wrong[0]} is outside [0, 2**63)")
    return torch.tensor(values, dtype=torch.long)
