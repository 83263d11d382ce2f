"""Policy and value on a world's latents: what an agent that learns in dreams is made of.

They see what a world tells of the present: the last few latents of the tokenizer (how things move) and nothing else,
so that the same agent plays in a dream, where latents are all there is, and in the real game, whose frames the
tokenizer encodes.

Legend: B rows, n latents seen, h w c latent grid, L distances, P parameters of an action distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
import tyro
from einops import rearrange
from torch import Tensor, nn

from neuralsim.heads import TwoHot, strided_trunk, trunk_size


@dataclass
class ActorConfig:
    """Size of policy and value network."""

    height: tyro.conf.Suppress[int] = 16  # these three follow the tokenizer
    """Latent rows."""
    width: tyro.conf.Suppress[int] = 16
    """Latent columns."""
    latent_channels: tyro.conf.Suppress[int] = 8
    """Latent channels."""
    frames: int = 4
    """Latents that are seen, the present one included."""
    channels: int = 32
    """Width of the first convolution."""
    hidden: int = 128
    """Width of the layer above the convolutions."""
    ahead: int = 8
    """Actions that cloning predicts at once, L in Dreamer 4 (multi-token prediction); an agent plays the first."""
    bins: int = 255
    """Bins of the two-hot value."""

    def __post_init__(self) -> None:
        for name in ("frames", "channels", "hidden", "ahead"):
            if getattr(self, name) < 1:
                raise ValueError(f"the actor's {name} is {getattr(self, name)}; it must be at least 1")


class Trunk(nn.Module):
    """The last n latents as one vector: two strided convolutions, one layer."""

    def __init__(self, config: ActorConfig) -> None:
        super().__init__()
        self.convolutions = strided_trunk(config.frames * config.latent_channels, config.channels)
        self.hidden = nn.Linear(trunk_size(config.height, config.width, config.channels), config.hidden)

    def forward(self, recent: Tensor) -> Tensor:
        """Maps ``(B, n, h, w, c)`` to ``(B, hidden)``."""
        x = self.convolutions(rearrange(recent, "b n h w c -> b (n c) h w"))
        return F.silu(self.hidden(x.flatten(1)))


class PolicyNet(nn.Module):
    """Parameters of the distributions of the next L actions; an untrained one is uniform.

    Args:
        config: Sizes.
        parameters: P, see :class:`~neuralsim.agents.action_distribution.ActionDistribution`.
    """

    def __init__(self, config: ActorConfig, parameters: int) -> None:
        super().__init__()
        self.ahead = config.ahead
        self.trunk = Trunk(config)
        self.out = nn.Linear(config.hidden, config.ahead * parameters)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, recent: Tensor) -> Tensor:
        """Maps latents ``(B, n, h, w, c)``, oldest first, to logits ``(B, L, P)``; the first of L is the action now."""
        return self.out(self.trunk(recent)).unflatten(-1, (self.ahead, -1))


class ValueNet(nn.Module):
    """Expected return of a state, symexp two-hot; an untrained one says 0."""

    def __init__(self, config: ActorConfig) -> None:
        super().__init__()
        self.two_hot = TwoHot(config.bins)
        self.trunk = Trunk(config)
        self.out = nn.Linear(config.hidden, config.bins)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, recent: Tensor) -> Tensor:
        """Maps latents ``(B, n, h, w, c)``, oldest first, to logits over bins ``(B, bins)``."""
        return self.out(self.trunk(recent))

    def value(self, recent: Tensor) -> Tensor:
        """Expected return ``(B,)``."""
        return self.two_hot.decode(self(recent))
