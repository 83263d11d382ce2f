"""What every tokenizer offers: frames to a grid of normalised latents and back.

A tokenizer turns one frame into a grid of continuous latents and a grid into a frame. Its latents are
*normalised*: shifted by their per-position median and divided by their per-channel scale, so that a still
background is zero and whatever moves stands out. The statistics are part of the weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Tokenizer(nn.Module, ABC):
    """Base class of all tokenizers.

    Shapes (B any leading dimensions): frames ``(B, H, W, 3)``, latents ``(B, h, w, c)``.

    Attributes:
        frame_shape: ``(H, W, 3)``.
        latent_shape: ``(h, w, c)``.
        latent_center: buffer ``(h, w, c)``, the median of the raw latents on training frames.
        latent_scale: buffer ``(c,)``, the RMS of the raw latents' deviation from the centre.
    """

    latent_center: Tensor
    latent_scale: Tensor

    def __init__(self, frame_shape: tuple[int, int, int], latent_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.frame_shape = frame_shape
        self.latent_shape = latent_shape
        self.register_buffer("latent_center", torch.zeros(latent_shape))
        self.register_buffer("latent_scale", torch.ones(latent_shape[-1]))

    @abstractmethod
    def encode_raw(self, frames: Tensor) -> Tensor:
        """Encodes float frames ``(N, H, W, 3)`` in [0, 1] to raw latents ``(N, h, w, c)`` in [-1, 1]."""

    @abstractmethod
    def decode_raw(self, latents: Tensor) -> Tensor:
        """Decodes raw latents ``(N, h, w, c)`` to float frames ``(N, H, W, 3)``, nominally in [0, 1]."""

    def encode(self, frames: Tensor) -> Tensor:
        """Encodes frames to normalised latents.

        Args:
            frames: ``(..., H, W, 3)``, uint8 in [0, 255] or float in [0, 1].

        Returns:
            Normalised latents ``(..., h, w, c)``, float.

        Raises:
            ValueError: If the frames have another shape than ``frame_shape``.
        """
        if tuple(frames.shape[-3:]) != self.frame_shape:
            raise ValueError(
                f"frames have shape {tuple(frames.shape)}, but this tokenizer reads (..., "
                f"{', '.join(map(str, self.frame_shape))}); resize them as the world's "
                "preprocessing says"
            )
        lead = frames.shape[:-3]
        flat = frames.reshape(-1, *self.frame_shape).to(self.latent_center.device)
        flat = flat.to(self.latent_center.dtype) / 255 if flat.dtype == torch.uint8 else flat
        raw = self.encode_raw(flat)
        return ((raw - self.latent_center) / self.latent_scale).reshape(*lead, *self.latent_shape)

    def decode(self, latents: Tensor) -> Tensor:
        """Decodes normalised latents ``(..., h, w, c)`` to uint8 frames ``(..., H, W, 3)``."""
        lead = latents.shape[:-3]
        flat = latents.reshape(-1, *self.latent_shape)
        frames = self.decode_raw(flat * self.latent_scale + self.latent_center)
        # Rounding, not truncation: truncation darkens every frame by half a level.
        return (frames.float().clamp(0, 1) * 255).round().to(torch.uint8).reshape(*lead, *self.frame_shape)

    def latent_bounds(self) -> tuple[Tensor, Tensor]:
        """Lowest and highest normalised latent the encoder can give, each ``(h, w, c)``.

        Sampled latents are clamped to this range (the raw range is that of tanh, [-1, 1]).
        """
        return (-1 - self.latent_center) / self.latent_scale, (1 - self.latent_center) / self.latent_scale

    @torch.no_grad()
    def fit_statistics(self, frames: Tensor, batch: int = 256) -> None:
        """Measures centre and scale of the raw latents on a sample of training frames ``(N, H, W, 3)``."""
        raws = []
        for chunk in frames.split(batch):
            chunk = chunk.to(self.latent_center.device)
            chunk = chunk.to(self.latent_center.dtype) / 255 if chunk.dtype == torch.uint8 else chunk
            raws.append(self.encode_raw(chunk).float().cpu())
        raw = torch.cat(raws)
        center = raw.median(dim=0).values
        scale = (raw - center).square().mean(dim=(0, 1, 2)).sqrt().clamp(min=1e-3)
        self.latent_center.copy_(center)
        self.latent_scale.copy_(scale)
