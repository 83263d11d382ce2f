"""Shares and their uncertainty."""

from __future__ import annotations

import numpy as np


def share(hits: np.ndarray, of: np.ndarray, resamples: int = 1000, seed: int = 0) -> dict[str, float]:
    """Hits over chances, with a 95 % bootstrap interval over clips.

    Frames of one clip go wrong together, so that whole clips are resampled, not frames.

    Args:
        hits: ``(clips, ...)`` bool.
        of: Same shape, bool: which entries count.
        resamples: Bootstrap resamples.
        seed: Of the resampling.

    Returns:
        ``value``, ``low``, ``high`` and ``n`` (entries that count); NaN where nothing counts.
    """
    axes = tuple(range(1, hits.ndim))
    good, all_ = (hits & of).sum(axes, dtype=float), of.sum(axes, dtype=float)
    if all_.sum() == 0:
        return {"value": float("nan"), "low": float("nan"), "high": float("nan"), "n": 0}
    draws = np.random.default_rng(seed).integers(len(good), size=(resamples, len(good)))
    totals = all_[draws].sum(1)
    rates = good[draws].sum(1)[totals > 0] / totals[totals > 0]
    low, high = np.quantile(rates, [0.025, 0.975])
    return {
        "value": float(good.sum() / all_.sum()),
        "low": float(low),
        "high": float(high),
        "n": int(all_.sum()),
    }


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB per frame, of uint8 frames ``(..., H, W, 3)``."""
    squared = (a.astype(np.float32) - b.astype(np.float32)) ** 2
    return -10 * np.log10(squared.mean((-3, -2, -1)) / 255**2 + 1e-10)
