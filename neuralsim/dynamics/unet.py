"""Networks of the convolutional dynamics: a U-Net that reads the past once, and a light denoiser.

Legend: B lanes, h w c latent grid, n frames of history, A encoded action, C channels, E embedding.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralsim.group_norm import GroupNorm

if TYPE_CHECKING:
    from neuralsim.dynamics.convolutional import ConvolutionalDynamicsConfig


class FilmBlock(nn.Module):
    """Residual block of two 3x3 convolutions; an embedding scales and shifts the normalised middle (FiLM)."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = GroupNorm(8, channels, affine=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * channels)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Maps ``(B, C, h, w)`` and ``(B, E)`` to ``(B, C, h, w)``."""
        scale, shift = self.film(e).chunk(2, dim=1)
        in_place = not torch.is_grad_enabled()
        y = self.conv1(F.silu(self.norm1(x), inplace=in_place))
        return x + self.conv2(F.silu(self.norm2(y, scale, shift), inplace=in_place))


class HistoryNet(nn.Module):
    """U-Net over stacked history, three resolutions, modulated by the actions."""

    def __init__(self, config: ConvolutionalDynamicsConfig) -> None:
        super().__init__()
        low, high, e = config.channels, config.inner_channels or 2 * config.channels, config.embedding
        self.action = nn.Linear(config.past_actions * config.action_size, e)
        self.action_mlp = nn.Sequential(nn.SiLU(), nn.Linear(e, e), nn.SiLU())
        self.conv_in = nn.Conv2d(len(config.history) * config.latent_channels, low, 3, padding=1)
        self.position = nn.Parameter(torch.zeros(1, low, config.height, config.width))
        down_1, down_2, bottom, up_2, up_1 = config.blocks
        self.blocks_in = nn.ModuleList(FilmBlock(low, e) for _ in range(down_1))
        self.down1 = nn.Conv2d(low, high, 4, stride=2, padding=1)
        self.blocks_down = nn.ModuleList(FilmBlock(high, e) for _ in range(down_2))
        self.down2 = nn.Conv2d(high, high, 4, stride=2, padding=1)
        self.blocks_bottom = nn.ModuleList(FilmBlock(high, e) for _ in range(bottom))
        self.up2 = nn.Conv2d(high, 4 * high, 1)
        self.blocks_up = nn.ModuleList(FilmBlock(high, e) for _ in range(up_2))
        self.up1 = nn.Conv2d(high, 4 * low, 1)
        self.blocks_out = nn.ModuleList(FilmBlock(low, e) for _ in range(up_1))

    def forward(self, history: Tensor, actions: Tensor, seen: Tensor | None = None) -> Tensor:
        """Reads the past.

        Args:
            history: ``(B, n * c, h, w)``.
            actions: ``(B, past_actions * A)``.
            seen: ``(B, C, h, w)``, what else is known of it.

        Returns:
            Features ``(B, C, h, w)``.
        """
        e = self.action_mlp(self.action(actions))
        x = self.conv_in(history) + self.position
        if seen is not None:
            x = x + seen
        for block in self.blocks_in:
            x = block(x, e)
        y = self.down1(x)
        for block in self.blocks_down:
            y = block(y, e)
        z = self.down2(y)
        for block in self.blocks_bottom:
            z = block(z, e)
        y = y + F.pixel_shuffle(self.up2(z), 2)
        for block in self.blocks_up:
            y = block(y, e)
        x = x + F.pixel_shuffle(self.up1(y), 2)
        for block in self.blocks_out:
            x = block(x, e)
        return x


class Denoiser(nn.Module):
    """Clean prediction from a noisy latent and the features of the past, at one noise level and step size."""

    waves: Tensor
    input_scale: Tensor

    def __init__(self, config: ConvolutionalDynamicsConfig) -> None:
        super().__init__()
        width, e = config.channels, config.embedding
        self.max_steps = config.max_steps
        # Brings a noisy latent to the size that it has with noise of 1.
        tau = torch.arange(self.max_steps) / self.max_steps
        size = torch.hypot(1 - tau, tau) / torch.hypot(config.noise_scale * (1 - tau), tau)
        self.register_buffer("input_scale", size, persistent=False)
        # A table, so that low precision rounds the sines and not their angles.
        angle = torch.arange(self.max_steps)[:, None] / self.max_steps * torch.linspace(0, math.log(60.0), 16).exp()
        self.register_buffer("waves", torch.cat([angle.sin(), angle.cos()], dim=1), persistent=False)
        self.level = nn.Linear(32, e)
        self.size = nn.Embedding(int(math.log2(config.max_steps)) + 1, e)
        # All step sizes begin as one: those that come into training later start from what the finest has learned.
        nn.init.zeros_(self.size.weight)
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(e, e), nn.SiLU())
        self.conv_in = nn.Conv2d(config.latent_channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(FilmBlock(width, e) for _ in range(config.denoiser_blocks))
        self.norm = GroupNorm(8, width)
        self.conv_out = nn.Conv2d(width, config.latent_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor, z: Tensor, level: Tensor, size: Tensor) -> Tensor:
        """Residual ``(B, c, h, w)`` from features ``(B, C, h, w)``, z ``(B, c, h, w)``, level and size ``(B,)``."""
        e = self.mlp(self.level(self.waves[level]) + self.size(size))
        x = self.conv_in(z * self.input_scale[level].to(z.dtype)[:, None, None, None]) + features
        for block in self.blocks:
            x = block(x, e)
        return self.conv_out(F.silu(self.norm(x)))
