"""Noise whose power falls with the frequency: plans that hold a direction, where white noise trembles on the spot."""

from __future__ import annotations

import torch
from torch import Tensor


def coloured_noise(count: int, horizon: int, size: int, colour: float, rng: torch.Generator | None = None) -> Tensor:
    """Normal noise with power spectrum 1 / f^colour along the horizon (Timmer & Koenig 1995; iCEM, equation 2).

    The constant part has the power of the lowest frequency, so plans may lean to one side as a whole. Every number has
    variance 1 for itself.

    Args:
        count: N.
        horizon: H.
        size: A; each number of an action has noise of its own.
        colour: 0 is white, 1 pink, 2 red.
        rng: Draws it.

    Returns:
        ``(N, H, A)`` float32.
    """
    if colour == 0 or horizon == 1 or count == 0:
        return torch.randn(count, horizon, size, generator=rng)
    scale = torch.fft.rfftfreq(horizon).clamp_min(1 / horizon) ** (-colour / 2)
    # A frequency counts twice in a real signal, the constant and (if H is even) the highest one once, but these two
    # have no imaginary part, which leaves them half the power that the others have of each count.
    alone = torch.zeros(len(scale), dtype=torch.bool)
    alone[0] = True
    alone[-1] |= horizon % 2 == 0
    parts = torch.randn(2, count, size, len(scale), generator=rng)
    real = torch.where(alone, 2**0.5 * parts[0], parts[0]) * scale
    imaginary = torch.where(alone, torch.zeros(()), parts[1]) * scale
    variance = torch.where(alone, 2 * scale**2, 4 * scale**2).sum() / horizon**2
    signal = torch.fft.irfft(torch.complex(real, imaginary), n=horizon)
    return (signal / variance.sqrt()).transpose(1, 2).contiguous()
