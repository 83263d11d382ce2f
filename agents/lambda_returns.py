"""Lambda-returns: what an imagined future is worth, seen from each of its steps (Dreamer 4, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor


def lambda_returns(rewards: Tensor, continues: Tensor, values: Tensor, gamma: float, lam: float) -> Tensor:
    """R_t = r_t + gamma c_t ((1 - lambda) v_{t+1} + lambda R_{t+1}), R_H = v_H.

    Args:
        rewards: ``(B, H)``, what the step from state t to state t + 1 paid.
        continues: ``(B, H)``, 0 where the episode ended with that step, else 1.
        values: ``(B, H + 1)``, of the states before, between and after the steps.
        gamma: Discount per step.
        lam: 0 trusts the next value alone, 1 the rewards and the last value.

    Returns:
        ``(B, H)``, the return of each state but the last.

    Raises:
        ValueError: If the shapes do not belong together.
    """
    if (
        rewards.ndim != 2
        or rewards.shape != continues.shape
        or values.shape != (rewards.shape[0], rewards.shape[1] + 1)
    ):
        raise ValueError(
            f"rewards {tuple(rewards.shape)} and continues {tuple(continues.shape)} of H steps need values of H + 1 "
            f"states, got {tuple(values.shape)}"
        )
    following, returns = values[:, -1], []
    for t in reversed(range(rewards.shape[1])):
        following = rewards[:, t] + gamma * continues[:, t] * ((1 - lam) * values[:, t + 1] + lam * following)
        returns.append(following)
    return torch.stack(returns[::-1], dim=1)
