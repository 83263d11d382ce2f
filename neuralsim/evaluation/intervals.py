"""Shares and means, and their uncertainty."""

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


def mean(values: np.ndarray, resamples: int = 1000, seed: int = 0) -> dict[str, float]:
    """Mean of one number per clip ``(clips,)``, with a 95 % bootstrap interval.

    Returns:
        ``value``, ``low``, ``high`` and ``n``; NaN without any.
    """
    values = np.asarray(values, float)
    if not len(values):
        return {"value": float("nan"), "low": float("nan"), "high": float("nan"), "n": 0}
    draws = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    low, high = np.quantile(values[draws].mean(1), [0.025, 0.975])
    return {"value": float(values.mean()), "low": float(low), "high": float(high), "n": len(values)}


def ratio(a: np.ndarray, b: np.ndarray, resamples: int = 1000, seed: int = 0) -> dict[str, float]:
    """Sum of ``a`` over sum of ``b``, one positive number each per clip ``(clips,)``, with a 95 % bootstrap interval.

    Returns:
        ``value``, ``low``, ``high`` and ``n``.
    """
    draws = np.random.default_rng(seed).integers(len(a), size=(resamples, len(a)))
    low, high = np.quantile(a[draws].sum(1) / b[draws].sum(1), [0.025, 0.975])
    return {"value": float(a.sum() / b.sum()), "low": float(low), "high": float(high), "n": len(a)}
