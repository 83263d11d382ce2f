"""A frame as a block of tokens, and back: the ends of the transformer dynamics.

The block of frame t: [action a_{t-1}, noise level and step size, latents (row-major), registers, agents].

Legend: B lanes, T frames, N tokens of a frame, D channels, A encoded action, h w c latent grid (channels
last), p side of a patch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor, nn


@dataclass
class Conditions:
    """All that a prediction is told beside the noisy latent, aligned with its frames.

    Attributes:
        actions: ``(B, T, A)``, of frame t the action that led to it.
        known: ``(B, T)`` False where that action is unknown, as it is for a first frame.
        previous: ``(B, T, h, w, c)`` the latent before, 0 where there is none.
    """

    actions: Tensor
    known: Tensor
    previous: Tensor

    def lanes(self, which: slice) -> Conditions:
        """Those of some lanes."""
        return Conditions(self.actions[which], self.known[which], self.previous[which])


class FrameTokens(nn.Module):
    """Embeds frames and reads clean predictions from features.

    An action is a linear layer of its encoding (a lookup for one-hot parts) plus one learned embedding; an
    unknown action is that embedding alone. Noise level and step size are two lookups, joined. The output
    layer is 0 at first: the untrained model predicts 0, or with ``residual`` the latent before.

    Args:
        latent_shape: ``(h, w, c)``.
        action_size: A.
        channels: D.
        patch: p, the side of the square of latents that makes one token.
        registers: Learned tokens per frame.
        agents: Agent tokens per frame; they come last.
        levels: How many noise levels there are.
        sizes: How many step sizes there are.
        residual: Whether a frame also sees the latent before it and predicts the change.
        action_everywhere: Whether the action is also added to every latent token.

    Attributes:
        positions: ``(N, 2)`` row and column; without a place (0, 0), so that adding agents moves none.

    Raises:
        ValueError: If the grid cannot be cut into patches.
    """

    def __init__(
        self,
        latent_shape: tuple[int, int, int],
        action_size: int,
        channels: int,
        patch: int,
        registers: int,
        agents: int,
        levels: int,
        sizes: int,
        residual: bool,
        action_everywhere: bool,
    ) -> None:
        super().__init__()
        height, width, latent_channels = latent_shape
        if height % patch or width % patch:
            raise ValueError(f"latents of {height}x{width} cannot be cut into squares of {patch}: choose another patch")
        self.patch, self.rows = patch, height // patch
        self.residual, self.action_everywhere = residual, action_everywhere
        grid = torch.cartesian_prod(torch.arange(height // patch), torch.arange(width // patch))
        placeless = torch.zeros(2 + registers + agents, 2, dtype=torch.long)
        self.positions = torch.cat([placeless[:2], grid, placeless[2:]])
        self.spatial = slice(2, 2 + len(grid))
        self.action_in = nn.Linear(action_size, channels)
        self.action_base = nn.Parameter(0.02 * torch.randn(channels))
        self.level = nn.Embedding(levels, channels // 2)
        self.size = nn.Embedding(sizes, channels - channels // 2)
        patch_size = latent_channels * patch**2
        self.latent_in = nn.Linear(patch_size * (2 if residual else 1), channels)
        self.learned = nn.Parameter(0.02 * torch.randn(registers + agents, channels))
        self.latent_out = nn.Linear(channels, patch_size)
        # All step sizes begin as one: those trained later start from what the finest has learned.
        nn.init.zeros_(self.size.weight)
        nn.init.zeros_(self.latent_out.weight)
        nn.init.zeros_(self.latent_out.bias)

    def forward(self, z: Tensor, level: Tensor, size: Tensor, given: Conditions) -> Tensor:
        """Tokens ``(B, T, N, D)`` of noisy latents ``(B, T, h, w, c)``; ``level``, ``size``: ``(B, T)``.

        They come in the dtype of the weights, also under autocast: the residual stream keeps its precision.
        """
        dtype = self.latent_in.weight.dtype
        if self.residual:
            z = torch.cat([z, given.previous.to(z.dtype)], dim=-1)
        patches = rearrange(z.to(dtype), "b t (h p) (w q) c -> b t (h w) (p q c)", p=self.patch, q=self.patch)
        action = self.action_in(given.actions.to(dtype)) * given.known[..., None] + self.action_base
        noise = torch.cat([self.level(level), self.size(size)], dim=-1)
        learned = repeat(self.learned, "n d -> b t n d", b=z.shape[0], t=z.shape[1])
        spatial = self.latent_in(patches)
        if self.action_everywhere:
            spatial = spatial + action[:, :, None]
        block = [action[:, :, None], noise[:, :, None], spatial, learned]
        return torch.cat([part.to(dtype) for part in block], dim=2)

    def read_out(self, features: Tensor, z: Tensor, given: Conditions) -> Tensor:
        """Clean predictions ``(B, T, h, w, c)``, in the dtype of ``z``, from features ``(B, T, N, D)``."""
        patches = self.latent_out(features[:, :, self.spatial])
        out = rearrange(
            patches.to(z.dtype),
            "b t (h w) (p q c) -> b t (h p) (w q) c",
            p=self.patch,
            q=self.patch,
            h=self.rows,
        )
        return out + given.previous.to(z.dtype) if self.residual else out
