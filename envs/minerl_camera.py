"""The camera of MineRL in mu-law bins: fine for small turns, coarse for large ones, as VPT and Dreamer 4 have it.

Baker et al. 2022, Video PreTraining (VPT), https://arxiv.org/abs/2206.11795, appendix on the action space: the turn
about each axis is cut at 10 degrees, put on a mu-law scale with mu = 10, and rounded to 11 evenly spaced bins there.
Both axes together are one of 121 classes, with "no turn" in the middle, class 60.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neuralsim.envs.minerl_spaces import check_camera


@dataclass(frozen=True)
class CameraBins:
    """Camera turns as bins, and back: every centre becomes its bin and every bin its centre, exactly.

    With the defaults the centres are 0, 0.615, 1.609, 3.215, 5.809 and 10 degrees either way. A turn between two
    centres goes to the nearer one on the mu-law scale (not in degrees), as in VPT; turns beyond ``maxval`` go to the
    outermost bins.

    Args:
        maxval: Largest turn in degrees per tick.
        binsize: Mean size of a bin in degrees.
        mu: How much finer the bins are near 0; with 0 they are all of one size.

    Raises:
        ValueError: If the bins do not fit evenly around 0.
    """

    maxval: float = 10.0
    binsize: float = 2.0
    mu: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.maxval <= 180 or not 0 < self.binsize <= self.maxval or not 0 <= self.mu < float("inf"):
            raise ValueError(f"{self}: maxval must be above 0 and at most 180, binsize above 0 and at most maxval, "
                             "and mu 0 or more")  # fmt: skip
        if abs(self.maxval / self.binsize - round(self.maxval / self.binsize)) > 1e-9:
            raise ValueError(f"{self}: maxval must be a multiple of binsize, so that a bin has its centre at 0")

    @property
    def bins(self) -> int:
        """How many bins an axis has; odd, as the middle one stands for no turn."""
        return 2 * round(self.maxval / self.binsize) + 1

    @property
    def classes(self) -> int:
        """How many classes both axes have together."""
        return self.bins**2

    @property
    def null(self) -> int:
        """The class that stands for no turn."""
        return self.classes // 2

    @property
    def centers(self) -> np.ndarray:
        """``(bins,)`` float32, the degrees that each bin stands for."""
        return self.decode(np.arange(self.bins))

    def encode(self, degrees: Any) -> np.ndarray:
        """Bins, int64 from 0 to ``bins`` less 1, of turns in degrees, both of one shape.

        Raises:
            ValueError: For NaN.
        """
        turns = np.asarray(degrees, np.float64)
        if np.isnan(turns).any():
            raise ValueError(f"a camera turn is no number: {degrees!r}")
        share = np.clip(turns, -self.maxval, self.maxval) / self.maxval
        if self.mu:
            share = np.sign(share) * np.log1p(self.mu * np.abs(share)) / np.log1p(self.mu)
        return np.round((share + 1) * (self.maxval / self.binsize)).astype(np.int64)

    def decode(self, bins: Any) -> np.ndarray:
        """Degrees, float32, that bins stand for, both of one shape.

        Raises:
            ValueError: For a number that is no bin; the message names it.
        """
        index = whole_numbers(bins, self.bins, "camera bin")
        share = (index - self.bins // 2) / (self.bins // 2)
        if self.mu:
            share = np.sign(share) * np.expm1(np.abs(share) * np.log1p(self.mu)) / self.mu
        return (share * self.maxval).astype(np.float32)

    def to_class(self, camera: Any) -> np.ndarray:
        """Classes ``(...)`` int64 of turns ``(..., 2)``: bin of the pitch * ``bins`` + bin of the yaw.

        Raises:
            ValueError: If these are no turns of the camera (see :func:`~neuralsim.envs.minerl_spaces.check_camera`).
        """
        index = self.encode(check_camera(camera))
        return index[..., 0] * self.bins + index[..., 1]

    def from_class(self, classes: Any) -> np.ndarray:
        """Turns ``(..., 2)`` float32 in degrees, (pitch, yaw), of classes ``(...)``.

        Raises:
            ValueError: For a number that is no class; the message names it.
        """
        index = whole_numbers(classes, self.classes, "camera class")
        return self.decode(np.stack(np.divmod(index, self.bins), axis=-1))


def whole_numbers(numbers: Any, count: int, what: str) -> np.ndarray:
    """Numbers from 0 to ``count`` less 1 as int64.

    Raises:
        ValueError: For others; the message calls them ``what`` and names the first.
    """
    index = np.asarray(numbers)
    if index.dtype.kind not in "iu":
        raise ValueError(f"a {what} is a whole number from 0 to {count - 1}, got {numbers!r}")
    outside = (index < 0) | (index >= count)
    if outside.any():
        raise ValueError(f"{what} {index[outside].ravel()[0]} is outside 0 to {count - 1}")
    return index.astype(np.int64)
