"""Random numbers of dreams: one stream per lane, addressed by (seed, step).

The noise of a lane's step is a function of the lane's seed and step count alone. So a lane dreams the same
alone or among 64 others, on every device, and a restored or branched dream needs no generator to be saved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def lane_noise(seeds: Sequence[int], steps: Sequence[int], shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal noise of B lanes, each from the counter-based generator Philox keyed on (seed, step).

    Args:
        seeds: B seeds in [0, 2**64).
        steps: B step counts, likewise.
        shape: Shape of one lane's noise.

    Returns:
        ``(B, *shape)`` float32.
    """
    noise = np.empty((len(seeds), math.prod(shape)), np.float32)
    bits = np.random.Philox(key=0)
    generator = np.random.Generator(bits)
    # Setting the key of one generator costs a third less than making a new one per lane.
    state = bits.state
    for row, seed, step in zip(noise, seeds, steps, strict=True):
        state["state"]["key"] = np.array([seed, step], np.uint64)
        bits.state = state
        generator.standard_normal(dtype=np.float32, out=row)
    return noise.reshape(len(seeds), *shape)
