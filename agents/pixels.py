"""Policy and value on the frames themselves: what an agent that learns without a world sees, and the network behind it.

The network is that of Mnih et al. 2015 ("Human-level control through deep reinforcement learning") with padding, so
that frames of any size from 8 x 8 on fit; policy and value share it, as in PPO on Atari (Schulman et al. 2017).

Legend: B rows, n frames seen, P parameters of an action distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import tyro
from einops import rearrange
from torch import Tensor, nn

from neuralsim.tokenizers.base import Tokenizer

SMALLEST = 8
"""Least height and width of a frame: the convolutions reduce both by as much."""


@dataclass
class PixelsConfig:
    """Size of the frames."""

    height: int = 64
    """Rows."""
    width: int = 64
    """Columns."""


class Pixels(Tokenizer):
    """The frame as its own latents, from -1 (black) to 1: eyes that have nothing to learn."""

    type_name = "pixels"

    def __init__(self, config: PixelsConfig) -> None:
        shape = (config.height, config.width, 3)
        super().__init__(shape, shape)
        self.config = config

    def encode_raw(self, frames: Tensor) -> Tensor:
        """Frames ``(N, H, W, 3)`` in [0, 1] to the same in [-1, 1]."""
        return 2 * frames - 1

    def decode_raw(self, latents: Tensor) -> Tensor:
        """The inverse."""
        return (latents + 1) / 2


@dataclass
class PixelActorConfig:
    """Size of the network."""

    height: tyro.conf.Suppress[int] = 64  # these two follow the environment
    """Rows of a frame."""
    width: tyro.conf.Suppress[int] = 64
    """Columns of a frame."""
    frames: int = 4
    """Frames that are seen, the present one included."""
    channels: int = 32
    """Width of the first convolution."""
    hidden: int = 256
    """Width of the layer above the convolutions."""

    def __post_init__(self) -> None:
        for name in ("frames", "channels", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"the actor's {name} is {getattr(self, name)}; it must be at least 1")
        if min(self.height, self.width) < SMALLEST:
            raise ValueError(
                f"frames are {self.height} x {self.width}; an agent of pixels needs at least {SMALLEST} x {SMALLEST}"
            )


class PixelActor(nn.Module):
    """Policy and value of the last n frames; they share the convolutions.

    Weights are orthogonal, those of the policy's last layer small (gain 0.01), so that an untrained policy is nearly
    uniform (Andrychowicz et al. 2021, "What matters for on-policy deep actor-critic methods?").

    Args:
        config: Sizes.
        parameters: P, see :class:`~neuralsim.agents.action_distribution.ActionDistribution`.
    """

    def __init__(self, config: PixelActorConfig, parameters: int) -> None:
        super().__init__()
        width = config.channels
        self.trunk = nn.Sequential(
            nn.Conv2d(3 * config.frames, width, 8, stride=4, padding=2),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * (config.height // 8) * (config.width // 8), config.hidden),
            nn.ReLU(),
        )
        self.out_policy = nn.Linear(config.hidden, parameters)
        self.out_value = nn.Linear(config.hidden, 1)
        for layer in self.trunk:
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                _orthogonal(layer, math.sqrt(2))
        _orthogonal(self.out_policy, 0.01)
        _orthogonal(self.out_value, 1.0)

    def judge(self, recent: Tensor) -> tuple[Tensor, Tensor]:
        """Maps frames ``(B, n, H, W, 3)`` in [-1, 1], oldest first, to logits ``(B, P)`` and values ``(B,)``."""
        x = self.trunk(rearrange(recent, "b n h w c -> b (n c) h w"))
        return self.out_policy(x), self.out_value(x)[:, 0]

    def forward(self, recent: Tensor) -> Tensor:
        """Logits ``(B, 1, P)``, as :class:`~neuralsim.agents.actor.PolicyNet` has them for several actions ahead."""
        return self.judge(recent)[0][:, None]


def _orthogonal(layer: nn.Conv2d | nn.Linear, gain: float) -> None:
    nn.init.orthogonal_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
