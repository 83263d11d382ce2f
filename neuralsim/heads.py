"""Reward and continue heads: what a transition pays, and whether the episode goes on.

Both see the transition (the new latent and a few before it) and the action that made it: heads that do not see the
action are a known reason why agents could not be trained in open reproductions of Dreamer 4. A few frames, because a
pair shows where things are but not always where they were going: in Pong the score changes a frame after the point.

Reward is symexp two-hot (Dreamer 3 and 4): a distribution over bins that are evenly spaced in symlog.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from neuralsim.dynamics.shortcut import mean_where


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|)."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """The inverse of :func:`symlog`."""
    return x.sign() * x.abs().expm1()


class TwoHot(nn.Module):
    """Numbers as distributions over symexp-spaced bins.

    Args:
        bins: How many; odd, so that 0 is one of them.
        limit: The outermost bins stand for symexp(-limit) and symexp(limit).
    """

    centers: Tensor

    def __init__(self, bins: int = 255, limit: float = 20.0) -> None:
        super().__init__()
        if bins < 3 or bins % 2 == 0:
            raise ValueError(f"bins is {bins}; it must be odd and at least 3, so that 0 is a bin")
        half = symexp(torch.linspace(0, limit, bins // 2 + 1, dtype=torch.float64))
        # Mirrored, not computed twice: the bins must be exactly symmetric for uniform logits to decode to 0.
        self.register_buffer("centers", torch.cat([-half[1:].flip(0), half]).float(), persistent=False)

    def encode(self, values: Tensor) -> Tensor:
        """Values ``(...)`` to distributions ``(..., bins)``: weight on the two neighbours, mean preserved."""
        values = values.clamp(self.centers[0], self.centers[-1])
        above = torch.searchsorted(self.centers, values.contiguous()).clamp(1, len(self.centers) - 1)
        low, high = self.centers[above - 1], self.centers[above]
        share = (values - low) / (high - low)
        target = torch.zeros(*values.shape, len(self.centers), device=values.device, dtype=values.dtype)
        target.scatter_(-1, above[..., None], share[..., None])
        return target.scatter_(-1, (above - 1)[..., None], 1 - share[..., None])

    def decode(self, logits: Tensor) -> Tensor:
        """Logits ``(..., bins)`` to expected values ``(...)``: the arithmetic mean of the symexp bins."""
        weighted = logits.float().softmax(-1) * self.centers
        # Positive and negative halves are summed from the smallest magnitude out, so that they cancel exactly.
        middle = len(self.centers) // 2
        positive = weighted[..., middle + 1 :]
        negative = weighted[..., :middle].flip(-1)
        return (positive + negative).sum(-1)

    def loss(self, logits: Tensor, values: Tensor) -> Tensor:
        """Cross-entropy per value, ``(...)``."""
        return -(self.encode(values) * logits.float().log_softmax(-1)).sum(-1)


@dataclass
class HeadsConfig:
    """Size of the heads."""

    height: int = 16
    """Latent rows."""
    width: int = 16
    """Latent columns."""
    latent_channels: int = 8
    """Latent channels."""
    action_size: int = 6
    """Length of an encoded action."""
    frames: int = 4
    """Latents that are seen, the new one included; at least 2."""
    channels: int = 32
    """Width of the first convolution."""
    hidden: int = 128
    """Width of the layer above the convolutions."""
    bins: int = 255
    """Bins of the two-hot reward."""


class HeadsOutput(NamedTuple):
    """What the heads say of B transitions.

    Attributes:
        reward: ``(B,)`` expected reward.
        reward_logits: ``(B, bins)``.
        continue_logit: ``(B,)``; the episode goes on with probability sigmoid of it.
    """

    reward: Tensor
    reward_logits: Tensor
    continue_logit: Tensor


def strided_trunk(channels: int, width: int) -> nn.Sequential:
    """Two strided convolutions, ``(B, channels, h, w)`` to ``(B, 2 width, h / 4, w / 4)``, rounded up."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.SiLU(),
    )


def trunk_size(rows: int, columns: int, width: int) -> int:
    """How many numbers :func:`strided_trunk` makes of a grid."""
    return 2 * width * -(-rows // 4) * -(-columns // 4)


class Heads(nn.Module):
    """Reward and continue heads on a transition.

    Raises:
        ValueError: If ``frames`` is below 2.
    """

    def __init__(self, config: HeadsConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or HeadsConfig()
        if config.frames < 2:
            raise ValueError(f"frames is {config.frames}; a transition is at least 2 frames")
        self.two_hot = TwoHot(config.bins)
        self.trunk = strided_trunk((config.frames + 1) * config.latent_channels, config.channels)
        self.hidden = nn.Linear(trunk_size(config.height, config.width, config.channels), config.hidden)
        self.action = nn.Linear(config.action_size, config.hidden, bias=False)
        self.out_reward = nn.Linear(config.hidden, config.bins)
        self.out_continue = nn.Linear(config.hidden, 1)
        for layer in (self.out_reward, self.out_continue):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def look_back(self, latents: Tensor) -> Tensor:
        """What :meth:`forward` is to see as ``before`` when it judges the transition from each latent to the next.

        Args:
            latents: ``(B, T, h, w, c)``.

        Returns:
            ``(B, T, frames - 1, h, w, c)``: each latent with those before it, oldest first; the first one stands for
            those that would come before it.
        """
        count = self.config.frames - 1
        missing = latents[:, :1].expand(-1, count - 1, -1, -1, -1)
        return torch.cat([missing, latents], dim=1).unfold(1, count, 1).movedim(-1, 2)

    def forward(self, before: Tensor, latent: Tensor, action: Tensor) -> HeadsOutput:
        """Judges transitions.

        Args:
            before: ``(B, frames - 1, h, w, c)`` latents before, oldest first (see :meth:`look_back`).
            latent: ``(B, h, w, c)`` latent after.
            action: ``(B, A)`` encoded action taken between the last two.
        """
        seen = rearrange(before, "b n h w c -> b (n c) h w")
        after, change = (rearrange(x, "b h w c -> b c h w") for x in (latent, latent - before[:, -1]))
        x = self.trunk(torch.cat([seen, after, change], dim=1)).flatten(1)
        x = F.silu(self.hidden(x) + self.action(action.to(x.dtype)))
        logits = self.out_reward(x)
        return HeadsOutput(self.two_hot.decode(logits), logits, self.out_continue(x)[:, 0].float())

    def losses(
        self,
        before: Tensor,
        latent: Tensor,
        action: Tensor,
        reward: Tensor,
        terminated: Tensor,
        *,
        counts: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy of reward and of continuation, against ``reward`` and ``terminated`` ``(B,)``.

        The mean is over all transitions, or over those that ``counts`` ``(B,)`` bool names; 0 if it names none.
        """
        out = self(before, latent, action)
        ends = F.binary_cross_entropy_with_logits(out.continue_logit, 1 - terminated.float(), reduction="none")
        rewards = self.two_hot.loss(out.reward_logits, reward.float())
        if counts is None:
            return rewards.mean(), ends.mean()
        return mean_where(rewards, counts), mean_where(ends, counts)
