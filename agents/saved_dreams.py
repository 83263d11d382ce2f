"""The moment of many dreams as one tensor of bytes, so that a training run in a dream goes on exactly where it stopped.

All of it has a fixed length for a world and a number of lanes: it lies among the weights of a checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from neuralsim.envs.dream_lanes import DreamState
from neuralsim.envs.dream_vector import DreamVectorEnv
from neuralsim.world_state import WorldState

_HALF = 2**64 - 1


def save_dreams(envs: DreamVectorEnv) -> Tensor:
    """This moment of all lanes, with the generators of coming resets: ``(bytes,)`` uint8 on the CPU."""
    moment = envs.clone_state(include_rng=True)
    assert moment.generators is not None
    tensors = {
        "dreams": _bytes(moment.state.to_bytes()),
        "start": torch.from_numpy(moment.start.copy()),
        "ended": torch.from_numpy(moment.ended.copy()),
        "generators": torch.from_numpy(np.array([_numbers(state) for state in moment.generators], np.uint64)).view(
            torch.int64
        ),
    }
    return _bytes(save(tensors))


def restore_dreams(envs: DreamVectorEnv, saved: Tensor) -> None:
    """Goes on from a moment of the same world.

    Raises:
        ValueError: If it has another number of lanes or another dtype.
    """
    tensors = load(saved.cpu().numpy().tobytes())
    numbers = tensors["generators"].numpy().view(np.uint64).tolist()
    envs.restore_state(
        DreamState(
            world=envs.world.config.weights_sha256,
            state=WorldState.from_bytes(tensors["dreams"].numpy().tobytes()),
            start=tensors["start"].numpy(),
            ended=tensors["ended"].numpy(),
            generators=tuple(_generator(row) for row in numbers),
        )
    )


def _bytes(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _numbers(state: Mapping[str, Any]) -> list[int]:
    """NumPy's PCG64, Gymnasium's only generator, as six numbers below 2**64."""
    assert state["bit_generator"] == "PCG64", state["bit_generator"]
    both = (state["state"]["state"], state["state"]["inc"])
    return [half for whole in both for half in (whole >> 64, whole & _HALF)] + [state["has_uint32"], state["uinteger"]]


def _generator(numbers: list[int]) -> dict[str, Any]:
    high, low, inc_high, inc_low, has_uint32, uinteger = numbers
    return {
        "bit_generator": "PCG64",
        "state": {"state": (high << 64) | low, "inc": (inc_high << 64) | inc_low},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
