"""Cost of a dream: arithmetic by hand, and figures that belong together."""

import pytest
import torch
from conftest import build_tiny_world

from neuralsim.evaluation import cost as module
from neuralsim.evaluation.cost import cost, flops, matmul_rate


def test_sampling_steps_add_the_denoiser_each():
    world = build_tiny_world()
    one, two, four = (flops(world, steps) for steps in (1, 2, 4))
    assert one > 0
    assert four - two == 2 * (two - one)
    denoiser = world.dynamics.denoiser
    features = torch.zeros(1, world.dynamics.config.channels, *world.latent_shape[:2])
    z = torch.zeros(1, world.latent_shape[2], *world.latent_shape[:2])
    index = torch.zeros(1, dtype=torch.long)
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        denoiser(features, z, index, index)
    assert two - one == counter.get_total_flops()


def test_a_matrix_product_takes_time():
    assert 0 < matmul_rate(build_tiny_world(), size=64, seconds=0.01) < 1e15


def test_the_table_holds_every_pair(monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.01)
    monkeypatch.setattr(module, "LATENCIES", 10)
    world, ticks = build_tiny_world(), []
    figures = cost(world, 2, progress=lambda: ticks.append(1))
    assert {lanes: set(row) for lanes, row in figures["steps_per_second"].items()} == {
        lanes: {"1", "2", "4"} for lanes in ("1", "8", "64")
    }
    assert len(ticks) == 9
    assert 0 < figures["latency_ms"]["p50"] <= figures["latency_ms"]["p99"]
    assert figures["bytes_per_lane"] == world.start_at(0).nbytes
    assert figures["matmul_share"] > 0


@pytest.mark.parametrize("lanes", [1, 8])
def test_lanes_dream_with_noise_of_their_own(lanes):
    assert module._state(build_tiny_world(), lanes).seed.tolist() == list(range(lanes))
