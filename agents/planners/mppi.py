"""Model predictive path integral control: every plan counts, the better the more."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neuralsim.agents.planners.plan_space import PlanSpace
from neuralsim.agents.planners.planner import Planner, Search


@dataclass(frozen=True)
class MPPI(Planner):
    """MPPI (Williams et al. 2017), with a policy's proposals and elites as in TD-MPC2 (Hansen et al. 2024).

    TD-MPC2 takes 512 candidates, of which 64 are elites and 24 come from the policy, 6 iterations, horizon 3, a std
    from 0.05 to 2 and weights exp(0.5 x return), which is a temperature of 2 here; these defaults are for a CPU and
    for rewards of about 1.
    """

    temperature: float = 0.1
    """Lambda of the paper: a plan that is worth so much less than the best weighs 1/e of it."""
    normalise: bool = False
    """Divides returns by their standard deviation among the plans that count: for rewards whose scale means nothing,
    as those learned from preferences, which are known up to scale and shift."""
    elite_share: float = 1.0
    """Share of the plans that count at all; at least 2 plans."""
    least_chance: float = 0.05
    """Share of the chances that stays evenly spread."""
    least_std: float = 0.05
    """Of continuous numbers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_shares("elite_share", "least_chance", "least_std")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}; it must be above 0 (random shooting takes the best)")

    def learn(self, space: PlanSpace, search: Search, plans: Tensor, returns: Tensor) -> Search:
        """Weighs the plans; the mean is executed."""
        count = min(len(plans), max(2, round(self.elite_share * len(plans))))
        plans, returns = plans[:count], returns[:count]
        weights = path_weights(returns, self.temperature, self.normalise)[:, None, None]
        fitted = (weights * plans).sum(0)
        std = (weights * (plans - fitted).square()).sum(0).sqrt().clamp_min(self.least_std)
        mean = space.open_up(fitted, self.least_chance)
        return replace(search, mean=mean, std=std, plan=space.likeliest(mean), elites=plans)


def path_weights(returns: Tensor, temperature: float, normalise: bool = False) -> Tensor:
    """What plans weigh: exp((R - max R) / temperature), divided by their sum.

    These are the weights of Williams et al. 2017 without their cost of control, as in TD-MPC2.

    Args:
        returns: ``(N,)``.
        temperature: Lambda.
        normalise: Divide the returns by their standard deviation first, unless they are all alike.

    Returns:
        ``(N,)``, positive, of sum 1.
    """
    differences = returns - returns.max()
    if normalise:
        differences = differences / returns.std(correction=0).clamp_min(torch.finfo(returns.dtype).eps)
    return (differences / temperature).softmax(0)
