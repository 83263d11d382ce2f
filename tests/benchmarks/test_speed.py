"""Speed of the bundled Pong: ``make bench`` prints steps/s by lanes and K, and how much of the machine that uses.

    OMP_NUM_THREADS=2 pytest tests/benchmarks

The share is floating-point operations per second of a step over those of a large matrix product, measured in the
same run: what the machine can do is what it does for a matrix product, whatever else is running on it.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from neuralsim import World
from neuralsim.envs.dream_lanes import DreamLanes

LANES, STEPS = (1, 8, 64), (1, 2, 4)


@pytest.fixture(scope="module")
def world() -> World:
    return World.load("pong", device="cpu")


@pytest.fixture(scope="module")
def matmul_rate(world) -> float:
    """FLOP/s of a 1024 x 1024 product in the world's number format: the best of many, as it is the yardstick."""
    a = torch.randn(1024, 1024).to(world.dtype)
    best = float("inf")
    for _ in range(20):
        began = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - began)
    return 2 * 1024**3 / best


@pytest.mark.parametrize("decode", [True, False], ids=["pictures", "latents"])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("lanes", LANES)
def test_dream_steps(benchmark, capsys, world, matmul_rate, lanes, steps, decode):
    state = type(world.start_at(0)).stack([world.start_at(0, seed=i) for i in range(lanes)])
    actions = np.zeros(lanes, np.int64)

    def step() -> None:
        _, said = world.step(state, actions, steps=steps)
        if decode:
            world.decode(said.latent)

    with FlopCounterMode(display=False) as counter:
        step()
    benchmark.pedantic(step, rounds=5 if lanes > 8 else 15, iterations=1, warmup_rounds=3)
    seconds = benchmark.stats.stats.median
    share = counter.get_total_flops() / seconds / matmul_rate
    benchmark.extra_info |= {"steps_per_second": lanes / seconds, "share_of_matmul": share}
    with capsys.disabled():
        print(
            f"\nlanes {lanes:3d}  K {steps}  {'pictures' if decode else 'latents '}  {lanes / seconds:7.1f} steps/s  "
            f"{seconds * 1000:7.1f} ms  {100 * share:4.1f} % of a matrix product ({torch.get_num_threads()} threads)",
            end="",
        )


@pytest.mark.parametrize("lanes", LANES)
def test_trust_per_step(capsys, world, lanes):
    """What a step's trust costs, as a share of the step."""
    dreams = DreamLanes(lanes, world, 4, "rgb", "any", "cpu", "auto", None)
    dreams.reset(np.arange(lanes), [np.random.default_rng(i) for i in range(lanes)], None)
    actions = np.zeros(lanes, np.int64)
    doubt, steps = np.linspace(0, 5, lanes), np.arange(lanes)

    def median(call: Callable[[], object]) -> float:
        times = []
        for _ in range(7):
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        return sorted(times)[3]

    whole, trust = median(lambda: (dreams.step(actions), dreams.frames())), median(lambda: dreams._trust(doubt, steps))
    with capsys.disabled():
        print(f"\nlanes {lanes:3d}  trust takes {trust * 1e6:5.0f} us, {100 * trust / whole:.2f} % of a step", end="")


def test_memory_per_lane(capsys, world):
    """A lane's state, and what the process grows by when 64 lanes dream."""
    one = world.start_at(0)
    size = one.nbytes
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    state = type(one).stack([world.start_at(0, seed=i) for i in range(64)])
    for _ in range(3):
        state, said = world.step(state, np.zeros(64, np.int64), steps=4)
        world.decode(said.latent)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    with capsys.disabled():
        print(
            f"\nstate {size / 1024:.0f} KiB per lane; peak memory grew by {grown / 64:.0f} KiB per lane over 64 lanes"
        )
    assert size < 1024 * 1024
