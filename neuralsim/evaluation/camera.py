"""Does a first-person dream turn as far as it is told? How the picture moves, dreamed beside real."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from neuralsim.actions import ActionCodec, has_camera
from neuralsim.evaluation.held_out import Clips
from neuralsim.evaluation.intervals import ratio

TURNING = 4
"""Steps over which a turn is looked at."""
TURN = (10.0, 20.0)
"""Least and most degrees of the turns that count."""
STEADY = 4.0
"""Most degrees about the other axis meanwhile."""
LEAST_FLOW = 1.5
"""Pixels by which the real picture must move: before a bare wall nothing is seen to."""
STILL = 0.25
"""Pixels below which a dreamed picture stands still."""
WITHIN = 0.25
"""Part of the real movement by which the dreamed one may differ."""
EARLY = 16
"""A clip is one of a camera in motion if it looks :data:`TURN`'s least away from where it began within so many steps of
the dream."""
FINEST = 0.15
"""Cycles per pixel at which detail begins to count for less: a decoder leaves a faint texture of its own on all
frames, which stays where it is while a blurred picture moves."""
SEEN_ROWS = 0.75
"""Upper part of a picture that is looked at: below it are hotbar and hand, which stay where they are."""
DIRECTIONS = {"left": (1, -1), "right": (1, 1), "up": (0, -1), "down": (0, 1)}
"""Direction -> index in ``camera`` (pitch, yaw) and sign of the turn."""


def picture_shift(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """By how many pixels pictures have moved as a whole.

    Phase correlation (Kuglin and Hines 1975) of grey pictures under a Hann window, without their finest detail, with a
    parabola through the peak.

    Args:
        before: ``(N, H, W, 3)`` uint8.
        after: The same pictures later.

    Returns:
        ``(N, 2)``: down and right, between minus and plus half the size.
    """
    height, width = before.shape[1:3]
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[None, 1:-1]
    first, second = (x.astype(np.float64).mean(-1) for x in (before, after))
    first, second = ((x - x.mean((1, 2), keepdims=True)) * window for x in (first, second))
    cross = np.fft.fft2(second) * np.fft.fft2(first).conj()
    down, right = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)
    coarse = np.exp(-(down**2 + right**2) / (2 * FINEST**2))
    peaks = np.fft.ifft2(coarse * cross / np.maximum(np.abs(cross), 1e-9)).real
    shifts = np.zeros((len(before), 2))
    for n, peak in enumerate(peaks):
        at = np.unravel_index(peak.argmax(), peak.shape)
        for axis, size in enumerate(peak.shape):
            around = [np.roll(peak, -step, axis)[at] for step in (-1, 0, 1)]
            bend = around[0] - 2 * around[1] + around[2]
            whole = at[axis] if at[axis] <= size // 2 else at[axis] - size
            shifts[n, axis] = whole + (0.5 * (around[0] - around[2]) / bend if bend < 0 else 0.0)
    return shifts


class CameraReader:
    """Observer of an open loop: looks for turns in the recorded actions, and how far each moves the picture.

    Args:
        codec: Of the world's actions.

    Raises:
        ValueError: If they turn no camera.
    """

    def __init__(self, codec: ActionCodec) -> None:
        if not has_camera(codec.space):
            raise ValueError(f"no camera is turned by the actions {codec.space}")
        self.codec = codec
        self.moves: dict[str, list[tuple[int, float, float]]] = {name: [] for name in DIRECTIONS}
        self.in_motion: list[bool] = []

    def see(self, dreamed: np.ndarray, clips: Clips) -> None:
        """Takes in films of a batch of clips; the last real frame is the first of each."""
        first = clips.context - 1
        film = dreamed.shape[1]
        seen = len(self.in_motion)
        camera = np.asarray(self.codec.decode(clips.actions[:, first : first + film])["camera"], np.float64)
        self.in_motion += list(np.abs(camera[:, :EARLY].cumsum(1)).max((1, 2), initial=0) >= TURN[0])
        real = clips.frames[:, first : first + film + 1]
        dream = np.concatenate([real[:, :1], dreamed], axis=1)
        rows = slice(round(SEEN_ROWS * real.shape[2]))
        for begin in range(0, film - TURNING + 1, TURNING):
            turned = camera[:, begin : begin + TURNING].sum(1)
            for name, (axis, sign) in DIRECTIONS.items():
                far = sign * turned[:, axis]
                (chosen,) = np.nonzero((far >= TURN[0]) & (far <= TURN[1]) & (np.abs(turned[:, 1 - axis]) <= STEADY))
                if not len(chosen):
                    continue
                shifts = [
                    picture_shift(x[chosen, begin][:, rows], x[chosen, begin + TURNING][:, rows])[:, axis]
                    for x in (real, dream)
                ]
                self.moves[name] += list(zip(seen + chosen, *shifts, strict=True))

    def moving(self) -> np.ndarray:
        """Which of the clips seen are of a camera in motion, ``(clips,)`` bool."""
        return np.array(self.in_motion, bool)

    def figures(self) -> dict[str, Any]:
        """What was found.

        Returns:
            By direction ``turns``, how many there were that move the real picture at least :data:`LEAST_FLOW` pixels
            against the turn; and of these the share in which the dreamed picture moves the same way (``same_way``), and
            by the same amount within :data:`WITHIN` (``as_far``), with 95 % bootstrap intervals over clips.
        """
        told: dict[str, Any] = {}
        for name, (_, sign) in DIRECTIONS.items():
            clips, real, dream = np.array(self.moves[name] or np.zeros((0, 3))).T
            seen = -sign * real >= LEAST_FLOW
            per_clip = partial(np.bincount, clips[seen].astype(int), minlength=len(self.in_motion))
            hits = {
                "same_way": (dream * real > 0) & (np.abs(dream) >= STILL),
                "as_far": np.abs(dream - real) <= WITHIN * np.abs(real),
            }
            turns = int(seen.sum())
            told[name] = {"turns": turns} | {
                figure: {**ratio(per_clip(weights=hit[seen]), per_clip()), "n": turns} for figure, hit in hits.items()
            }
        return told
