"""Frechet distances: how far apart two sets are, not pair by pair but as distributions of features."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from neuralsim.evaluation.held_out import Clips

FVD_FRAMES = 16
"""Frames of a clip that FVD looks at."""


class Moments:
    """Mean and covariance of features that come in batches; memory does not grow with their number."""

    def __init__(self) -> None:
        self.count = 0
        self._sum: np.ndarray = np.zeros(1)
        self._products: np.ndarray = np.zeros((1, 1))

    def add(self, features: np.ndarray) -> None:
        """Takes in features ``(n, d)``."""
        features = np.asarray(features, np.float64)
        if self.count == 0:
            self._shift = features.mean(0)  # products of large numbers would lose the small differences
            self._sum, self._products = np.zeros(features.shape[1]), np.zeros((features.shape[1],) * 2)
        features = features - self._shift
        self.count += len(features)
        self._sum += features.sum(0)
        self._products += features.T @ features

    @property
    def mean(self) -> np.ndarray:
        """``(d,)``."""
        return self._shift + self._sum / self.count

    @property
    def covariance(self) -> np.ndarray:
        """``(d, d)``, unbiased."""
        outer = np.outer(self._sum, self._sum) / self.count
        return (self._products - outer) / (self.count - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Distance of two Gaussians fitted to features: ``|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))``.

    Source: Heusel et al. 2017 (FID), equation 6. The trace of the root is summed from the eigenvalues of ``S_a S_b``,
    which are real and not negative; so it stays finite when there are fewer samples than features.

    Returns:
        The distance, at least 0.

    Raises:
        ValueError: For fewer than two samples, or features of different length.
    """
    if a.count < 2 or b.count < 2 or a.mean.shape != b.mean.shape:
        raise ValueError(
            f"there are {a.count} and {b.count} samples of {len(a.mean) if a.count else 0} and "
            f"{len(b.mean) if b.count else 0} features; both must be at least 2 of as many features"
        )
    eigenvalues = np.linalg.eigvals(a.covariance @ b.covariance).real
    root_trace = np.sqrt(np.clip(eigenvalues, 0, None)).sum()
    distance = np.square(a.mean - b.mean).sum() + np.trace(a.covariance) + np.trace(b.covariance)
    return float(max(distance - 2 * root_trace, 0.0))


class VideoFeatures:
    """Features of clips from the I3D network that FVD is defined by.

    Args:
        weights: ``i3d_torchscript.pt``, the TorchScript file that the FVD of StyleGAN-V and later papers uses.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no such network.
    """

    def __init__(self, weights: str | os.PathLike[str]) -> None:
        if not Path(weights).is_file():
            raise FileNotFoundError(f"{weights} is not there; FVD needs the I3D network as i3d_torchscript.pt")
        try:
            self.network = torch.jit.load(str(weights), map_location="cpu").eval()
        except RuntimeError as error:
            raise ValueError(f"{weights} is no TorchScript file: {error}") from error

    @torch.inference_mode()
    def __call__(self, clips: np.ndarray) -> np.ndarray:
        """Features ``(N, d)`` of clips ``(N, T, H, W, 3)`` uint8; their first 16 frames, at 224x224 pixels.

        Raises:
            ValueError: For shorter clips.
        """
        if clips.shape[1] < FVD_FRAMES:
            raise ValueError(f"clips have {clips.shape[1]} frames; FVD is measured on {FVD_FRAMES}")
        rows = []
        for clip in clips[:, :FVD_FRAMES]:  # one at a time: 16 frames of 224x224 are large
            frames = torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2).float() / 127.5 - 1
            frames = F.interpolate(frames, (224, 224), mode="bilinear", align_corners=False)
            video = frames.permute(1, 0, 2, 3)[None]
            rows.append(self.network(video, rescale=False, resize=False, return_features=True)[0].numpy())
        return np.stack(rows)


class VideoDistance:
    """Observer of an open loop: FVD of dreamed films to the real ones (Unterthiner et al. 2018).

    Args:
        weights: See :class:`VideoFeatures`.
    """

    def __init__(self, weights: str | os.PathLike[str]) -> None:
        self.features = VideoFeatures(weights)
        self.moments = {name: Moments() for name in ("dream", "copy", "real")}

    def see(self, dreamed: np.ndarray, clips: Clips) -> None:
        """Takes in the films of a batch of clips."""
        still = np.repeat(clips.frames[:, clips.context - 1][:, None], FVD_FRAMES, axis=1)
        for name, films in (("dream", dreamed), ("copy", still), ("real", clips.future)):
            self.moments[name].add(self.features(films))

    def figures(self) -> dict[str, float]:
        """``dream`` and ``copy``: distance of those films to the real ones; ``clips``: how many of each."""
        distances = {name: frechet_distance(self.moments[name], self.moments["real"]) for name in ("dream", "copy")}
        return {**distances, "clips": self.moments["real"].count}
