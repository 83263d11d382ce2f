"""Distributions over the actions of any space, on their encoded form (:class:`neuralsim.actions.ActionCodec`).

A one-hot block is a categorical distribution, a binary number a Bernoulli one, and a continuous number a categorical
one over bins that are fine near the middle of its range and coarse far from it (mu-law, as VPT and Dreamer 4 bin the
camera of Minecraft). A point and its neighbours in a bin count as one action: probabilities, entropies and divergences
are those of bins.

Legend: B rows, A size of an encoded action, P size of the parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from neuralsim.actions import ActionCodec

BINS, MU = 11, 10.0
"""Bins of a continuous number, and how much finer they are near 0."""


class ActionDistribution:
    """Factorised distribution over one action space.

    Args:
        codec: Of the space.

    Attributes:
        parameters: P, how many logits describe one distribution.
        size: A, length of an encoded action.
        parts: Where each block lies in an action and in the parameters, and its kind.
        centers: ``(BINS,)`` what the bins of a continuous number stand for.
    """

    def __init__(self, codec: ActionCodec) -> None:
        self.size = codec.size
        # (where in the action, where in the parameters, how many of each, kind); every number of a binary or
        # continuous block stands by itself.
        self.parts: list[tuple[slice, slice, str]] = []
        count = 0
        for begin, size, kind in codec.blocks():
            width = size * BINS if kind == "continuous" else size
            self.parts.append((slice(begin, begin + size), slice(count, count + width), kind))
            count += width
        self.parameters = count
        self.centers = mu_law_centers()

    def sample(self, logits: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Draws encoded actions ``(B, A)`` from parameters ``(B, P)``."""

        def toss(part: Tensor) -> Tensor:
            chance = torch.rand(part.shape, generator=rng, device=part.device if rng is None else rng.device)
            return chance.to(part.device) < part.sigmoid()

        return self._chosen(logits, lambda part: _draw(part, rng), toss)

    def mode(self, logits: Tensor) -> Tensor:
        """The most likely encoded actions ``(B, A)``."""
        return self._chosen(logits, lambda part: part.argmax(-1), lambda part: part > 0)

    def _chosen(self, logits: Tensor, choose: Callable[[Tensor], Tensor], toss: Callable[[Tensor], Tensor]) -> Tensor:
        """Encoded actions; ``choose`` picks one of the last dimension's logits, ``toss`` says yes or no to each."""
        # Actions are float32 whatever the logits are: NumPy, and the world behind it, know no bfloat16.
        action = torch.zeros(*logits.shape[:-1], self.size, device=logits.device)
        for here, there, kind in self.parts:
            part = logits[..., there].float()
            if kind == "choice":
                action[..., here] = F.one_hot(choose(part), part.shape[-1]).to(action)
            elif kind == "binary":
                action[..., here] = toss(part).to(action)
            else:
                action[..., here] = self.centers.to(action)[choose(part.unflatten(-1, (-1, BINS)))]
        return action

    def log_prob(self, logits: Tensor, action: Tensor) -> Tensor:
        """Log probability ``(B,)`` of encoded actions ``(B, A)`` under parameters ``(B, P)``."""
        total = logits.new_zeros(logits.shape[:-1])
        for here, there, kind in self.parts:
            part, taken = logits[..., there].float(), action[..., here].float()
            if kind == "choice":
                total = total + (part.log_softmax(-1) * taken).sum(-1)
            elif kind == "binary":
                total = total - F.binary_cross_entropy_with_logits(part, taken, reduction="none").sum(-1)
            else:
                logs = part.unflatten(-1, (-1, BINS)).log_softmax(-1)
                total = total + logs.gather(-1, self._bin(taken)[..., None])[..., 0].sum(-1)
        return total

    def nearest(self, action: Tensor) -> Tensor:
        """Encoded actions ``(B, A)`` as the distributions know them: continuous numbers become the centres of bins."""
        known = action.clone()
        for here, _, kind in self.parts:
            if kind == "continuous":
                known[..., here] = self.centers.to(action)[self._bin(action[..., here])]
        return known

    def entropy(self, logits: Tensor) -> Tensor:
        """Entropy ``(B,)`` in nats."""
        return -self._expect(logits, logits)

    def kl(self, logits: Tensor, prior: Tensor) -> Tensor:
        """KL divergence ``(B,)`` from the distribution ``prior`` to the one of ``logits``: KL[pi || prior], exact."""
        return self._expect(logits, logits) - self._expect(logits, prior)

    def _bin(self, numbers: Tensor) -> Tensor:
        return (numbers[..., None] - self.centers.to(numbers)).abs().argmin(-1)

    def _expect(self, logits: Tensor, of: Tensor) -> Tensor:
        """Mean under ``logits`` of the log probability under ``of``."""
        total = logits.new_zeros(logits.shape[:-1])
        for _, there, kind in self.parts:
            p, q = logits[..., there].float(), of[..., there].float()
            if kind == "binary":
                total = total + (p.sigmoid() * F.logsigmoid(q) + (-p).sigmoid() * F.logsigmoid(-q)).sum(-1)
                continue
            if kind == "continuous":
                p, q = p.unflatten(-1, (-1, BINS)), q.unflatten(-1, (-1, BINS))
            total = total + (p.softmax(-1) * q.log_softmax(-1)).flatten(logits.ndim - 1).sum(-1)
        return total


def mu_law_centers(bins: int = BINS, mu: float = MU) -> Tensor:
    """Centres ``(bins,)`` of mu-law bins over [-1, 1]: sign(x) ((1 + mu)^|x| - 1) / mu of evenly spaced x."""
    x = torch.linspace(-1, 1, bins)
    return x.sign() * ((1 + mu) ** x.abs() - 1) / mu


def _draw(logits: Tensor, rng: torch.Generator | None) -> Tensor:
    """Indices ``(...)`` drawn from ``(..., n)`` logits."""
    flat = logits.softmax(-1).flatten(0, -2)
    if rng is not None:
        flat = flat.to(rng.device)
    return torch.multinomial(flat, 1, generator=rng)[:, 0].reshape(logits.shape[:-1]).to(logits.device)
