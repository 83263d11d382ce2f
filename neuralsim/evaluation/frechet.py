"""Frechet distances: how far apart two sets are, not pair by pair but as distributions of features."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from neuralsim.extras import require

FVD_FRAMES = 16
"""Frames of a clip that FVD looks at."""


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Distance of two Gaussians fitted to features: ``|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))``.

    Source: Heusel et al. 2017 (FID), equation 6. The trace of the root is summed from the eigenvalues of ``S_a S_b``,
    which are real and not negative; so it stays finite when there are fewer samples than features.

    Args:
        a: Features ``(n, d)``, n at least 2.
        b: Features ``(m, d)``.

    Returns:
        The distance, at least 0.

    Raises:
        ValueError: For fewer than two samples, or features of different length.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if len(a) < 2 or len(b) < 2 or a.shape[1:] != b.shape[1:]:
        raise ValueError(f"features have shapes {a.shape} and {b.shape}; both must be (2 or more, d) with one d")
    linalg = require("scipy.linalg", "evaluation", "the Frechet distance")
    covariance_a, covariance_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    root_trace = np.sqrt(np.clip(linalg.eigvals(covariance_a @ covariance_b).real, 0, None)).sum()
    distance = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(covariance_a) + np.trace(covariance_b)
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
