"""Mean and spread over the entries that count: steps of an episode, and not those after its end."""

from __future__ import annotations

from torch import Tensor


def masked_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of ``values``, weighted by ``weight`` of the same shape; 0 where nothing counts, with the graph intact."""
    return (values * weight).sum() / weight.sum().clamp(min=1)


def masked_std(values: Tensor, weight: Tensor) -> Tensor:
    """Standard deviation, likewise."""
    return masked_mean((values - masked_mean(values, weight)).square(), weight).sqrt()
