"""Actor-critic: policy gradient with lambda-returns on a scale of their own, and an entropy bonus (Dreamer 3).

Hafner et al. 2023 ("Mastering diverse domains through world models"): advantages are divided by the spread of returns
(5th to 95th percentile, a running mean of it), but never by less than 1, so that one entropy bonus serves games that
pay much and games that hardly ever pay. Imagined steps may be used several times: the ratio of the probabilities now
and then is clipped, as in PPO (Schulman et al. 2017), so that the second look does not run away with the policy.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuralsim.agents.masked import masked_mean


class ReturnRange(nn.Module):
    """Running spread of returns, from the 5th to the 95th percentile; part of the weights, moves in training only.

    Args:
        decay: How slowly it follows.
        least: Smaller spreads count as this.
    """

    spread: Tensor
    count: Tensor

    def __init__(self, decay: float = 0.99, least: float = 1.0) -> None:
        super().__init__()
        self.decay, self.least = decay, least
        self.register_buffer("spread", torch.zeros(()))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, returns: Tensor) -> Tensor:
        """The scale, a number of at least ``least``, after a look at returns of any shape."""
        if self.training:
            low, high = torch.quantile(returns.detach().float(), torch.tensor([0.05, 0.95], device=returns.device))
            self.count += 1
            rate = torch.clamp(1.0 / self.count, min=1 - self.decay)
            self.spread += rate * (high - low - self.spread)
        return self.spread.clamp(min=self.least)


def actor_critic_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    entropy: Tensor,
    entropy_weight: float = 3e-3,
    clip: float = 0.2,
    weight: Tensor | None = None,
) -> Tensor:
    """-(min(ratio A, clipped ratio A) + entropy_weight entropy), averaged over N entries of any shape.

    Args:
        log_prob: ln pi of the action taken, now.
        old_log_prob: The same when it was taken. Where they are equal the gradient is REINFORCE's.
        advantage: Scaled advantage; no gradient flows into it.
        entropy: Of the policy.
        entropy_weight: What a nat of entropy is worth.
        clip: How far the ratio may leave 1 before it no longer counts.
        weight: 1 where an entry counts, 0 where it does not (after the end of an episode).
    """
    counts = torch.ones_like(log_prob) if weight is None else weight.to(log_prob)
    ratio = (log_prob - old_log_prob.detach()).exp()
    gain = torch.minimum(ratio * advantage.detach(), ratio.clamp(1 - clip, 1 + clip) * advantage.detach())
    return -masked_mean(gain + entropy_weight * entropy, counts)
