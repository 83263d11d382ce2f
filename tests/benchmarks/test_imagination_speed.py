"""Speed of learning in imagination: ``make bench`` prints latent steps/s of the whole PMPO loop, by K.

    OMP_NUM_THREADS=2 pytest tests/benchmarks/test_imagination_speed.py -s --benchmark-quiet

A round is what the loop does with one batch of dreams: 64 dreams of 24 steps in the bundled Pong, from one of its
starts on, their returns, and 8 steps of the optimiser on them. Compiled, as ``--loop.compile`` does, and in the number
format that ``neuralsim agent train`` chooses on this machine.
"""

from __future__ import annotations

import pytest
import torch

from neuralsim import World
from neuralsim.agents.actor import ActorConfig, PolicyNet, ValueNet
from neuralsim.agents.imagination_training import ImaginationConfig, ImaginationTraining, Moments
from neuralsim.devices import autocast, fast_dream_dtype


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_latent_steps_per_second(benchmark, capsys, steps: int):
    dtype = fast_dream_dtype("auto", torch.device("cpu"))
    world = World.load("pong", "cpu", dtype)
    actor = ActorConfig(*world.latent_shape)
    config = ImaginationConfig(sampling_steps=steps)
    model = ImaginationTraining(world, PolicyNet(actor, world.actions.size), ValueNet(actor), actor.frames, config)
    model.compile_parts()
    optimizer = torch.optim.AdamW([p for part in model.separate_parts() for p in part.parameters()], 1e-4)
    start = world.starts[0]
    latents = world.encode(start.frames[None])
    actions = torch.from_numpy(world.actions.encode(start.actions))[None]
    moments = Moments(*(x.expand(config.dreams, *x.shape[1:]).clone() for x in (latents, actions)))

    def round_of_learning() -> None:
        for _ in range(config.updates):
            with autocast(world.device, "auto"):
                loss, _ = model(moments)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    benchmark.pedantic(round_of_learning, rounds=5, iterations=1, warmup_rounds=2)
    rate = config.dreams * config.horizon / benchmark.stats.stats.median
    benchmark.extra_info["latent_steps_per_second"] = rate
    with capsys.disabled():
        threads = torch.get_num_threads()
        print(f"\nK {steps}  {rate:6.0f} latent steps/s in the PMPO loop ({dtype}, {threads} threads)", end="")
