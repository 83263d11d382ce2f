"""What a dream costs: steps per second by lanes and sampling steps, latency, memory, arithmetic."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from neuralsim.world import World
from neuralsim.world_state import WorldState

LANES = (1, 8, 64)
SAMPLING_STEPS = (1, 2, 4)
LATENCIES = 200
"""Steps whose latency is measured."""
SECONDS = 3.0
"""How long each pair of lanes and sampling steps is timed."""


def cost(world: World, sampling_steps: int, progress: Callable[[], None] | None = None) -> dict[str, Any]:
    """Measures on the machine at hand; frames are decoded and brought to the CPU, as a player gets them.

    Args:
        world: The world.
        sampling_steps: Sampling steps K of the latencies.
        progress: Called after each pair of lanes and sampling steps.

    Returns:
        ``steps_per_second`` by lanes and K (as strings); ``latency_ms`` of one dream, ``p50`` and ``p99``;
        ``bytes_per_lane`` of a state; ``flops`` of one step of one lane with its picture, at K; ``device``,
        ``machine`` (its kind), ``threads`` and ``matmul_share``: the share of the arithmetic rate of a large matrix
        product that 64 lanes reach.
    """
    table: dict[str, dict[str, float]] = {}
    allowed = [steps for steps in SAMPLING_STEPS if steps <= world.dynamics.max_steps]
    for lanes in LANES:
        table[str(lanes)] = {}
        for steps in allowed:
            table[str(lanes)][str(steps)] = lanes / float(np.median(_times(world, lanes, steps, SECONDS)))
            if progress is not None:
                progress()
    latencies = 1000 * _times(world, 1, sampling_steps, count=LATENCIES)
    per_step = flops(world, sampling_steps)
    largest = table[str(LANES[-1])].get(str(sampling_steps))
    return {
        "steps_per_second": table,
        "latency_ms": {"p50": float(np.quantile(latencies, 0.5)), "p99": float(np.quantile(latencies, 0.99))},
        "bytes_per_lane": _state(world, 1).nbytes,
        "flops": per_step,
        "matmul_share": largest * per_step / matmul_rate(world) if largest else float("nan"),
        "device": world.device.type,
        "machine": f"{platform.machine()} {world.device.type}",
        "threads": torch.get_num_threads(),
    }


def flops(world: World, sampling_steps: int) -> int:
    """Arithmetic of one step of one lane and its picture: multiplications and additions of products."""
    state, action = _state(world, 1), _actions(world, 1)
    with FlopCounterMode(display=False) as counter:
        _, said = world.step(state, action, steps=sampling_steps)
        world.decode(said.latent)
    return int(counter.get_total_flops())


def matmul_rate(world: World, size: int = 1024, seconds: float = 1.0) -> float:
    """Multiplications and additions per second of a large matrix product, on the world's device and in its dtype."""
    a = torch.randn(size, size, device=world.device, dtype=world.dtype)
    times: list[float] = []
    while sum(times) < seconds:
        began = time.perf_counter()
        (a @ a).sum().item()
        times.append(time.perf_counter() - began)
    return 2 * size**3 / float(np.median(times))


def _times(world: World, lanes: int, steps: int, seconds: float | None = None, count: int | None = None) -> np.ndarray:
    """Seconds of single steps of all lanes, after a few to warm up."""
    state, action = _state(world, lanes), _actions(world, lanes)
    times: list[float] = []
    for i in range(10**9):
        began = time.perf_counter()
        state, said = world.step(state, action, steps=steps)
        world.decode(said.latent).cpu()  # waits for a GPU as well
        if i >= 3:
            times.append(time.perf_counter() - began)
        if len(times) >= (count or 5) and (seconds is None or sum(times) >= seconds):
            break
    return np.array(times)


def _state(world: World, lanes: int) -> WorldState:
    one = world.start_at(0) if world.starts else world.start(np.zeros((1, 1, *world.frame_shape), np.uint8))
    return one.select([0] * lanes).reseed(0)


def _actions(world: World, lanes: int) -> Any:
    return world.actions.decode(np.zeros((lanes, world.actions.size), np.float32))
