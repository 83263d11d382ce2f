"""A small convolutional autoencoder for small frames: the default tokenizer at CPU scale.

Notable here:
- the encoder sees one patch at a time, so that a one-pixel ball changes the latents where it is and nowhere else: the
  dynamics has one thing to move and not a halo of them (what it cannot see of its neighbours, the decoder can);
- the network codes the deviation from a background frame (the per-pixel median of the training frames);
- pixels are weighted by the inverse frequency of foreground at their position: with plain MSE the ball of Pong is
  lost, with these weights it is kept;
- uniform latent noise in training makes the code robust to the errors of a dynamics model.

Legend: N frames, H W frame size, h w latent grid, c latent channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from neuralsim.group_norm import GroupNorm
from neuralsim.tokenizers.base import Tokenizer

FOREGROUND_THRESHOLD = 0.04
"""A pixel is foreground where it differs from the background by more than this (10 of 255 levels)."""


@dataclass
class ConvolutionalTokenizerConfig:
    """Size of the autoencoder and shape of its loss."""

    height: int = 64
    """Frame height in pixels; a multiple of patch."""
    width: int = 64
    """Frame width in pixels; a multiple of patch."""
    patch: int = 4
    """Pixels per latent position along each side: 64x64 frames and patch 4 give 16x16 latents."""
    latent_channels: int = 8
    """Channels per latent position."""
    channels: int = 64
    """Width of the convolutions; a multiple of 8."""
    blocks: int = 2
    """Residual blocks in the encoder, and as many in the decoder."""
    encoder_kernel: int = 1
    """Kernel of the encoder's convolutions: 1 sees its own patch only, 3 the neighbouring ones too (and can do with
    fewer channels, but smears small things over many latents)."""
    latent_noise: float = 0.1
    """Training adds Gaussian noise of a standard deviation drawn from U(0, this) to the raw latents."""
    foreground_weight: float = 15.0
    """Extra weight of foreground pixels."""
    rare_weight: float = 0.7
    """Strength of the inverse-frequency weights; 0 turns them off."""
    rare_floor: float = 0.0015
    """Added to the foreground frequency before it is inverted."""
    rare_budget: float = 0.6
    """Cap on a frame's inverse-frequency weights, as a mean per pixel. Without it the frame after a reset, which
    differs everywhere, makes the loss spike a hundredfold."""


class ResidualBlock(nn.Module):
    """x + conv(gelu(conv(norm(x))))."""

    def __init__(self, channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.norm = GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)
        self.conv2 = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Shape is kept: ``(N, channels, h, w)``."""
        return x + self.conv2(F.gelu(self.conv1(self.norm(x))))


class ConvolutionalTokenizer(Tokenizer):
    """Frames to an ``(H / patch, W / patch, latent_channels)`` grid with tanh bottleneck, and back.

    Raises:
        ValueError: If the frame size is no multiple of the patch, or the kernel is even.
    """

    type_name = "convolutional"
    background: Tensor
    rarity: Tensor

    def __init__(self, config: ConvolutionalTokenizerConfig | None = None) -> None:
        config = config or ConvolutionalTokenizerConfig()
        p, width = config.patch, config.channels
        if config.height % p or config.width % p:
            raise ValueError(f"frames of {config.height}x{config.width} cannot be cut into patches of {p}")
        if config.encoder_kernel < 1 or config.encoder_kernel % 2 == 0:
            raise ValueError(f"encoder_kernel is {config.encoder_kernel}; it must be odd (1, 3, ...)")
        super().__init__(
            (config.height, config.width, 3), (config.height // p, config.width // p, config.latent_channels)
        )
        self.config = config
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(p),
            nn.Conv2d(3 * p * p, width, config.encoder_kernel, padding=config.encoder_kernel // 2),
            *[ResidualBlock(width, config.encoder_kernel) for _ in range(config.blocks)],
            GroupNorm(8, width),
            nn.GELU(),
            nn.Conv2d(width, config.latent_channels, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(config.latent_channels, width, 3, padding=1),
            *[ResidualBlock(width) for _ in range(config.blocks)],
            nn.Conv2d(width, 3 * p * p, 3, padding=1),
            nn.PixelShuffle(p),
        )
        self.register_buffer("background", torch.zeros(3, config.height, config.width))
        self.register_buffer("rarity", torch.ones(config.height, config.width))

    @torch.no_grad()
    def fit_background(self, frames: Tensor) -> None:
        """Measures the background and how often each pixel is foreground, on uint8 frames ``(N, H, W, 3)``."""
        median = frames.median(dim=0).values
        difference = (frames.short() - median.short()).abs().amax(-1)
        frequency = (difference > FOREGROUND_THRESHOLD * 255).float().mean(0)
        self.background.copy_(rearrange(median.float() / 255, "h w c -> c h w"))
        self.rarity.copy_(1 / (frequency + self.config.rare_floor))

    def encode_raw(self, frames: Tensor) -> Tensor:
        """Float frames ``(N, H, W, 3)`` to raw latents ``(N, h, w, c)`` in (-1, 1)."""
        # Doubled, so that deviations from the background have about unit scale.
        x = (rearrange(frames, "n h w c -> n c h w") - self.background) * 2
        return rearrange(torch.tanh(self.encoder(x)), "n c h w -> n h w c")

    def decode_raw(self, latents: Tensor) -> Tensor:
        """Raw latents ``(N, h, w, c)`` to float frames ``(N, H, W, 3)``."""
        x = self.decoder(rearrange(latents, "n h w c -> n c h w")) + self.background
        return rearrange(x, "n c h w -> n h w c")

    def pixel_weights(self, frames_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Loss weights ``(N, 1, H, W)``, and the mask of rare foreground pixels (the ball, not the paddles)."""
        foreground = (frames_NCHW - self.background).abs().amax(1, keepdim=True) > FOREGROUND_THRESHOLD
        mask = foreground.to(frames_NCHW.dtype)
        # A frame that differs all over (a reset, a flash) has no small things worth a weight.
        usual = (mask.mean((1, 2, 3), keepdim=True) < 0.2).to(mask.dtype)
        rare = mask * self.rarity * self.config.rare_weight
        rare = rare * (self.config.rare_budget / rare.mean((1, 2, 3), keepdim=True).clamp(min=1e-6)).clamp(max=1)
        weights = 1 + self.config.foreground_weight * mask * usual + rare
        return weights, mask * usual * (self.rarity > 1 / (0.02 + self.config.rare_floor))

    def forward(self, frames: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstruction loss on uint8 frames ``(N, H, W, 3)``.

        Returns:
            The weighted mean squared error, and metrics: ``psnr`` and, where such pixels have a weight, ``rare_psnr``
            in dB (of all pixels, and of foreground pixels at positions that are rarely foreground), and ``latent_std``
            of the quietest channel.
        """
        x = frames.to(self.background.dtype) / 255
        raw = self.encode_raw(x)
        if self.training and self.config.latent_noise:
            strength = torch.rand(len(raw), 1, 1, 1, device=raw.device) * self.config.latent_noise
            raw = raw + strength * torch.randn_like(raw)
        squared = rearrange((self.decode_raw(raw) - x).float().square(), "n h w c -> n c h w")
        weights, rare = self.pixel_weights(rearrange(x, "n h w c -> n c h w"))
        with torch.no_grad():
            metrics = {"psnr": -10 * squared.mean().log10(), "latent_std": raw.float().std((0, 1, 2)).min()}
            if self.config.rare_weight:
                rare_error = (squared * rare).sum() / (3 * rare.sum() + 1e-6)
                metrics["rare_psnr"] = -10 * (rare_error + 1e-10).log10()
        return (weights * squared).mean(), metrics
