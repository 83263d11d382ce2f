"""Fixtures for everybody: a small but real world of random parts."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import settings

# Machines are shared: an example that takes long is no failure.
settings.register_profile("neuralsim", deadline=None)
settings.load_profile("neuralsim")

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # windows that nobody sees
os.environ.setdefault("SDL_AUDIODRIVER", "dummy")


def build_tiny_world(
    action_space: spaces.Space | None = None,
    frame_size: tuple[int, int] = (48, 64),
    starts: bool = True,
    seed: int = 0,
    **changes,
):
    """A world of random parts in float32 on the CPU; frames are not square, to catch swapped axes."""
    from neuralsim.actions import ActionCodec, space_to_json
    from neuralsim.dynamics.convolutional import ConvolutionalDynamics, ConvolutionalDynamicsConfig
    from neuralsim.heads import Heads, HeadsConfig
    from neuralsim.starts import Start
    from neuralsim.tokenizers.convolutional import ConvolutionalTokenizer, ConvolutionalTokenizerConfig
    from neuralsim.world import World, WorldConfig

    action_space = action_space or spaces.Discrete(6)
    codec = ActionCodec(action_space)
    size, turn = codec.size, codec.camera()
    camera = {"camera": turn[0], "camera_degrees": turn[1]} if turn else {}
    height, width = frame_size
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        tokenizer = ConvolutionalTokenizer(
            ConvolutionalTokenizerConfig(height, width, latent_channels=2, channels=8, blocks=1)
        )
        grid = dict(zip(("height", "width", "latent_channels"), tokenizer.latent_shape, strict=True))
        dynamics = ConvolutionalDynamics(
            ConvolutionalDynamicsConfig(
                **grid, action_size=size, history=(1, 2, 4), past_actions=2, channels=8, embedding=16,
                denoiser_blocks=1, max_steps=8, rollout=2, **camera,
            )
        )  # fmt: skip
        heads = Heads(HeadsConfig(**grid, action_size=size, channels=4, hidden=16))
        # Untrained models copy the last frame and pay nothing; random last layers make dreams eventful.
        torch.nn.init.normal_(dynamics.denoiser.conv_out.weight, std=0.1)
        if dynamics.view is not None:
            for layer in (
                dynamics.view.latent_out,
                dynamics.view.flow_out,
                dynamics.view.read,
                dynamics.view.read_moved,
            ):
                torch.nn.init.normal_(layer.weight, std=0.1)
        for layer in (heads.trunk[0], heads.trunk[2]):
            layer.weight.mul_(3)
        torch.nn.init.normal_(heads.hidden.weight, std=0.15)
        torch.nn.init.normal_(heads.action.weight, std=0.5)
        torch.nn.init.normal_(heads.out_reward.weight, std=1.0)
        heads.out_reward.bias.copy_(-6 * torch.linspace(-20, 20, heads.config.bins).abs())
        torch.nn.init.normal_(heads.out_continue.weight, std=1.0)
        torch.nn.init.constant_(heads.out_continue.bias, 3.0)
        torch.nn.init.normal_(tokenizer.decoder[-2].weight, std=0.1)
        torch.nn.init.constant_(tokenizer.background, 0.4)
    rng = np.random.default_rng(seed)
    contexts = []
    for i, length in enumerate((1, 6, 3, 9) if starts else ()):
        frames = rng.integers(0, 256, (length, height, width, 3), dtype=np.uint8)
        actions = None
        if length > 1:
            chosen = [action_space.sample() for _ in range(length - 1)]
            codec = ActionCodec(action_space)
            actions = codec.decode(np.stack([codec.encode(a) for a in chosen]))
        contexts.append(Start(frames, actions, "beginning" if i < 2 else "middle", episode=i, frame=10 * (i // 2)))
    config = WorldConfig(
        name="tiny",
        frame_shape=(height, width, 3),
        action_space=space_to_json(action_space),
        tokenizer={"type": "convolutional", "config": dataclasses.asdict(tokenizer.config)},
        dynamics={"type": "convolutional", "config": dataclasses.asdict(dynamics.config)},
        heads={"config": dataclasses.asdict(heads.config)},
        fps=15.0,
        **{
            "env_id": "Tiny-v0",
            "reward_values": [-1.0, 0.0, 1.0],
            "reward_range": (-1.0, 1.0),
            "keys_to_action": [[["w"], 2], [["s"], 3], [[], 0]] if size == 6 else None,
            "sampling_steps": 2,
            "trained_on": {"note": "random weights"},
            **changes,
        },
    )
    return World(config, tokenizer, dynamics, heads, contexts, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny world, for ``World.load`` and ``gym.make("Dream-v0", world=str(tiny_world))``."""
    return build_tiny_world().save(tmp_path_factory.mktemp("worlds") / "tiny")


@pytest.fixture(scope="session")
def minerl_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world with MineRL's actions, learned from observations under "pov"."""
    from neuralsim.envs.minerl_spaces import v0_action_space

    world = build_tiny_world(
        v0_action_space(camera_limit=10.0), preprocessing={"size": [48, 64], "source": "observation", "key": "pov"}
    )
    return world.save(tmp_path_factory.mktemp("worlds") / "voxels")
