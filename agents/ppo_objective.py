"""What PPO learns from the steps it has collected: advantages that know why an episode ended, and the value's loss.

The policy's part, min(ratio A, clipped ratio A) with an entropy bonus (Schulman et al. 2017, "Proximal policy
optimization algorithms", equations 7 and 9), is :func:`neuralsim.agents.actor_critic.actor_critic_loss`.

Legend: N lanes, T steps, B rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuralsim.agents.lambda_returns import lambda_returns
from neuralsim.agents.masked import masked_mean, masked_std


def advantages_and_returns(
    rewards: Tensor, terminated: Tensor, truncated: Tensor, values: Tensor, beyond: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, equation 16): A_t = R_t - v_t with lambda-returns R.

    Where an episode was cut off (Pardo et al. 2018, "Time limits in reinforcement learning") its return is continued by
    the value of the state that was not played on from; where it came to its end nothing follows.

    Args:
        rewards: ``(N, T)``.
        terminated: ``(N, T)`` bool, the step was the last of the episode; it counts also where both are True.
        truncated: ``(N, T)`` bool, the episode was cut off after the step.
        values: ``(N, T + 1)``, of the states before, between and after the steps; after an end that of any state.
        beyond: ``(N, T)``, value of the state that the step led to; looked at only where it was cut off.
        gamma: Discount per step.
        lam: Lambda: 0 trusts values alone, 1 rewards and the last value.

    Returns:
        Advantages and returns ``(N, T)``.
    """
    cut = truncated & ~terminated
    # A cut step pays what is expected beyond it: for all steps before, an end with the right reward.
    paid = rewards + gamma * torch.where(cut, beyond, torch.zeros_like(beyond))
    returns = lambda_returns(paid, (~(terminated | truncated)).to(rewards), values, gamma, lam)
    return returns - values[:, :-1], returns


def normalised(advantages: Tensor, weight: Tensor) -> Tensor:
    """Advantages ``(B,)`` with mean 0 and standard deviation 1 among those that count."""
    return (advantages - masked_mean(advantages, weight)) / (masked_std(advantages, weight) + 1e-8)


def value_loss(values: Tensor, old: Tensor, returns: Tensor, weight: Tensor, clip: float = 0.0) -> Tensor:
    """Half the mean squared error of values.

    Args:
        values: ``(B,)``, now.
        old: ``(B,)``, when the steps were collected.
        returns: ``(B,)``.
        weight: ``(B,)``, 1 where a row counts.
        clip: A value that has left ``old`` by more counts as if it had not, where that is worse; 0 for none.
    """
    error = (values - returns).square()
    if clip > 0:
        held = old + (values - old).clamp(-clip, clip)
        error = torch.maximum(error, (held - returns).square())
    return 0.5 * masked_mean(error, weight)
