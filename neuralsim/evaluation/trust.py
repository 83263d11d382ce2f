"""Calibrates what a dream says of its own errors, and measures how much that is worth."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuralsim.evaluation.open_loop import OpenLoop
from neuralsim.evaluation.ranking import spearman
from neuralsim.trust import Trust

BINS = 16
"""Groups of equally many frames, by doubt, whose mean errors are the calibration."""


def calibrate(measured: OpenLoop) -> dict[str, Any]:
    """Learns from one half of the clips what error a doubt means, and judges that by the other half.

    Args:
        measured: Of dreams with recorded actions: ``doubt``, ``error`` and ``unrelated`` by clip and horizon.

    Returns:
        ``curve`` and ``calibration``, which :meth:`neuralsim.trust.Trust.from_card` reads, and ``judged``:
        ``rank_correlation`` (Spearman) of doubt and true error over all frames, ``clock``, that of the mere number of
        steps, and ``by_horizon``, that of doubt among clips; ``off``, mean gap between expected and true error in
        groups of frames of equal size (0: calibrated); ``error``, the mean true error, to compare with.
    """
    doubt, error = measured.values["doubt"], measured.values["error"] / np.nanmean(measured.values["unrelated"])
    learn, judge = np.arange(len(doubt)) % 2 == 0, np.arange(len(doubt)) % 2 == 1
    doubts, expected = _groups(doubt[learn].ravel(), error[learn].ravel())
    curve = {
        "steps": list(measured.horizons),
        "errors": np.maximum.accumulate(error.mean(axis=0)).tolist(),
    }
    calibration = {"doubts": doubts.tolist(), "expected": np.maximum.accumulate(expected).tolist()}
    trust = Trust.from_card({"trust": {"curve": curve, "calibration": calibration}, "sampling_steps": 1})
    assert trust is not None
    said, true = _groups(trust.expected_error(doubt[judge]).ravel(), error[judge].ravel())
    clock = np.broadcast_to(np.array(measured.horizons, float), error[judge].shape)
    return {
        "curve": curve,
        "calibration": calibration,
        "judged": {
            "rank_correlation": spearman(doubt[judge].ravel(), error[judge].ravel()),
            "clock": spearman(clock.ravel(), error[judge].ravel()),
            "by_horizon": {
                str(horizon): spearman(doubt[judge, column], error[judge, column])
                for column, horizon in enumerate(measured.horizons)
            },
            "off": float(np.abs(said - true).mean()),
            "error": float(error[judge].mean()),
        },
    }


def _groups(by: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of both in groups of equally many, by the first; groups that would have the same mean are one."""
    order = np.argsort(by, kind="stable")
    groups = [group for group in np.array_split(order, BINS) if len(group)]
    means = np.array([by[group].mean() for group in groups])
    distinct, index = np.unique(means, return_inverse=True)
    sizes = np.array([len(group) for group in groups], float)
    sums = np.array([values[group].sum() for group in groups])
    return distinct, np.bincount(index, sums) / np.bincount(index, sizes)
