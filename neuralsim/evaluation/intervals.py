"""Ratios, shares and means over clips, and their uncertainty."""

from __future__ import annotations

import numpy as np

NOTHING = {"value": float("nan"), "low": float("nan"), "high": float("nan"), "n": 0}
"""What is said where nothing counts."""


def ratio(a: np.ndarray, b: np.ndarray, resamples: int = 1000, seed: int = 0) -> dict[str, float]:
    """Sum of ``a`` over sum of ``b``, one number each per clip ``(clips,)``, with a 95 % bootstrap interval over clips.

    Args:
        a: Any numbers.
        b: Numbers of at least 0; resamples in which they sum to 0 are left out.
        resamples: Bootstrap resamples.
        seed: Of the resampling.

    Returns:
        ``value``, ``low``, ``high`` and ``n`` (clips); NaN if ``b`` sums to 0.
    """
    if b.sum() == 0:
        return dict(NOTHING)
    draws = np.random.default_rng(seed).integers(len(a), size=(resamples, len(a)))
    totals = b[draws].sum(1)
    low, high = np.quantile(a[draws].sum(1)[totals > 0] / totals[totals > 0], [0.025, 0.975])
    return {"value": float(a.sum() / b.sum()), "low": float(low), "high": float(high), "n": len(a)}


def share(hits: np.ndarray, of: np.ndarray) -> dict[str, float]:
    """Hits over chances, see :func:`ratio`.

    Frames of one clip go wrong together, so that whole clips are resampled, not frames.

    Args:
        hits: ``(clips, ...)`` bool.
        of: Same shape, bool: which entries count.

    Returns:
        As :func:`ratio`, but ``n`` is the number of entries that count.
    """
    axes = tuple(range(1, hits.ndim))
    good, all_ = (hits & of).sum(axes, dtype=float), of.sum(axes, dtype=float)
    return {**ratio(good, all_), "n": int(all_.sum())}


def mean(values: np.ndarray) -> dict[str, float]:
    """Mean of one number per clip ``(clips,)``, see :func:`ratio`; NaN without any."""
    values = np.asarray(values, float)
    return ratio(values, np.ones(len(values)))


def resampled_means(scores: np.ndarray, rng: np.random.Generator, resamples: int = 1000) -> np.ndarray:
    """Bootstrap of means: ``(resamples, rows)``; in each the lanes of every row ``(rows, lanes)`` are drawn anew."""
    picks = rng.integers(scores.shape[1], size=(resamples, *scores.shape))
    return np.take_along_axis(np.broadcast_to(scores, picks.shape), picks, axis=2).mean(2)
