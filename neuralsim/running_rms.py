"""Loss terms on one scale: each is divided by a running RMS of itself (Dreamer 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RunningRMS(nn.Module):
    """Divides a loss term by the running RMS of its own values.

    The divisor carries no gradient, so the gradient of the result is that of the raw term over the RMS. It moves in
    training only, where gradients are asked for, and is part of the weights, so a resumed run goes on with it. Use one
    instance per term.

    Args:
        decay: How slowly the mean square follows.
    """

    mean_square: Tensor
    count: Tensor

    def __init__(self, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("mean_square", torch.zeros(()))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, term: Tensor) -> Tensor:
        """The scaled term; a term that has been 0 throughout stays 0."""
        if self.training and torch.is_grad_enabled() and torch.isfinite(term.detach()):
            self.count += 1
            # Exact mean at first, exponential later: no bias from the initial zero.
            rate = torch.clamp(1.0 / self.count, min=1 - self.decay)
            self.mean_square += rate * (term.detach().float().square() - self.mean_square)
        return term / (self.mean_square.sqrt() + 1e-8)
