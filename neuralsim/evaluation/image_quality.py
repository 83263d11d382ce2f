"""How alike two frames look: PSNR, SSIM, and LPIPS where the user has the weights of its network."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralsim.extras import require

SMALLEST_LPIPS = 32
"""Sides of frames below which AlexNet has nothing left to look at."""


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB per frame, of uint8 frames ``(..., H, W, 3)``; 100 dB for equal ones."""
    squared = (a.astype(np.float32) - b.astype(np.float32)) ** 2
    return -10 * np.log10(squared.mean((-3, -2, -1)) / 255**2 + 1e-10)


def sharpness(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Gradient energy of frames over that of real ones ``b``, ``(N,)``: 1 is as sharp, less is blurred.

    The energy is the mean squared difference of neighbouring pixels, of uint8 frames ``(N, H, W, 3)``; 1 is added to
    both, so that a frame of hardly anything (the sky) is as sharp as another.
    """
    return (1 + _gradient_energy(a)) / (1 + _gradient_energy(b))


def _gradient_energy(frames: np.ndarray) -> np.ndarray:
    values = frames.astype(np.float32)
    return sum((np.diff(values, axis=axis) ** 2).mean((-3, -2, -1)) for axis in (-3, -2))  # type: ignore[return-value]


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity ``(N,)`` of uint8 frames ``(N, H, W, 3)``, 1 for equal ones.

    Source: Wang et al. 2004, with their Gaussian window of 11 pixels and sigma 1.5.

    Raises:
        ModuleNotFoundError: Without the extra "evaluation".
    """
    metrics = require("torchmetrics.functional.image", "evaluation", "SSIM")
    first, second = (_planes(x) / 255 for x in (a, b))
    result = metrics.structural_similarity_index_measure(first, second, data_range=1.0, reduction="none")
    return result.reshape(len(a)).numpy()


class Lpips:
    """Learned perceptual distance of frames (Zhang et al. 2018), on AlexNet.

    The network's weights are not shipped here; the five layers' linear weights come with torchmetrics.

    Args:
        backbone: torchvision's AlexNet weights, ``alexnet-owt-7be5be79.pth``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds other weights.
        ModuleNotFoundError: Without the extra "evaluation".
    """

    layers = ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1))
    """In and out channels, kernel, stride and padding of AlexNet's convolutions."""
    indices = (0, 3, 6, 8, 10)
    """Where they are among torchvision's ``features``."""
    pooled = (1, 2)
    """Before which of them a 3x3 maximum of stride 2 is taken."""

    def __init__(self, backbone: str | os.PathLike[str]) -> None:
        if not Path(backbone).is_file():
            raise FileNotFoundError(
                f"{backbone} is not there; LPIPS needs torchvision's AlexNet weights, alexnet-owt-7be5be79.pth"
            )
        package = require("torchmetrics", "evaluation", "LPIPS").__path__[0]
        linear = Path(package) / "functional/image/lpips_models/alex.pth"
        try:
            weights = torch.load(backbone, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"{backbone} is no file of weights: {error}") from error
        self.linear = [w.flatten() for w in torch.load(linear, map_location="cpu", weights_only=True).values()]
        self.convolutions = nn.ModuleList(nn.Conv2d(i, o, k, s, p) for i, o, k, s, p in self.layers)
        try:
            for index, convolution in zip(self.indices, self.convolutions, strict=True):
                names = ("weight", "bias")
                convolution.load_state_dict({name: weights[f"features.{index}.{name}"] for name in names})
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"{backbone} does not hold AlexNet's weights: {error}") from error

    @torch.inference_mode()
    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Distance ``(N,)``, 0 for equal ones, of uint8 frames ``(N, H, W, 3)``, each side at least 32 pixels."""
        distance = torch.zeros(len(a))
        for first, second, weight in zip(self._features(a), self._features(b), self.linear, strict=True):
            distance += ((first - second).square() * weight[:, None, None]).sum(1).mean((1, 2))
        return distance.numpy()

    def _features(self, frames: np.ndarray) -> list[Tensor]:
        """Each layer's features, of unit length at every position."""
        shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
        scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
        x = (_planes(frames) / 127.5 - 1 - shift) / scale
        found = []
        for i, convolution in enumerate(self.convolutions):
            if i in self.pooled:
                x = F.max_pool2d(x, 3, 2)
            x = F.relu(convolution(x))
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found


def _planes(frames: np.ndarray) -> Tensor:
    """``(N, H, W, 3)`` uint8 to ``(N, 3, H, W)`` float32, 0 to 255."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
