"""Does the dream listen? What it loses when it is given other actions than those that were taken."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuralsim.evaluation.intervals import mean, ratio
from neuralsim.evaluation.open_loop import WRONG_ACTIONS, OpenLoop

DELTA_HORIZON = 4
"""The t of Delta_t PSNR (Genie, Bruce et al. 2024)."""


def controllability(measured: OpenLoop) -> dict[str, Any]:
    """How much worse dreams of wrong actions are.

    Returns:
        ``delta_psnr`` (where horizon 4 was measured): PSNR with the actions taken less PSNR with random ones, in dB;
        about 0 for a world that is blind to actions (Genie's Delta_t PSNR with t = 4, but for recorded instead of
        inferred actions). ``error_ratio``: by kind of wrong actions and horizon, squared error with them over squared
        error with those taken; 1 for a blind world. With 95 % bootstrap intervals over clips.
    """
    psnr = {source: measured.values[f"psnr/{source}"] for source in ("dream", *WRONG_ACTIONS)}
    result: dict[str, Any] = {}
    if DELTA_HORIZON in measured.horizons:
        column = measured.horizons.index(DELTA_HORIZON)
        result["delta_psnr"] = mean(psnr["dream"][:, column] - psnr["random"][:, column])
    error = {source: np.power(10, -values / 10) for source, values in psnr.items()}
    result["error_ratio"] = {
        wrong: {
            str(horizon): ratio(error[wrong][:, column], error["dream"][:, column])
            for column, horizon in enumerate(measured.horizons)
        }
        for wrong in WRONG_ACTIONS
    }
    return result
