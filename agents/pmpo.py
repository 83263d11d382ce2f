"""PMPO: make what turned out better than expected likelier, and what turned out worse less likely.

Abdolmaleki et al. 2024 ("Preference optimization as probabilistic inference"), as Dreamer 4 uses it (section 3.3):

    (1 - alpha) / |D-| sum_{D-} ln pi  -  alpha / |D+| sum_{D+} ln pi  +  beta / N sum KL[pi || prior]

Only the sign of an advantage counts, so returns of any size need no normalisation; the prior, a frozen copy of the
cloned policy, takes the place of an entropy bonus.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuralsim.agents.masked import masked_mean


def pmpo_loss(
    log_prob: Tensor,
    advantage: Tensor,
    kl: Tensor,
    alpha: float = 0.5,
    beta: float = 0.3,
    weight: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The objective above, over N entries of any shape.

    Args:
        log_prob: ln pi of the action taken.
        advantage: Return less value; 0 counts as positive.
        kl: KL[pi || prior].
        alpha: Share of the positive set.
        beta: Weight of the prior.
        weight: 1 where an entry counts, 0 where it does not (after the end of an episode).

    Returns:
        The loss, and ``positive`` and ``negative``, how many entries each set has; an empty set counts nothing.
    """
    counts = torch.ones_like(log_prob) if weight is None else weight.to(log_prob)
    better = counts * (advantage.detach() >= 0)
    worse = counts - better
    good, bad = (masked_mean(log_prob, chosen) for chosen in (better, worse))
    loss = (1 - alpha) * bad - alpha * good + beta * masked_mean(kl, counts)
    return loss, {"positive": better.sum().detach(), "negative": worse.sum().detach()}
