"""The cross-entropy method: draw plans, fit their distribution to the best of them, draw again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from neuralsim.agents.planners.plan_space import PlanSpace
from neuralsim.agents.planners.planner import Planner, Search


@dataclass(frozen=True)
class CEM(Planner):
    """CEM as in PlaNet (Hafner et al. 2019), for categorical, binary and Gaussian actions (Rubinstein 1999).

    PlaNet takes 1,000 candidates, of which 100 are elites, and 10 iterations; these defaults are for a CPU.
    """

    elite_share: float = 0.2
    """Share of the plans that the distribution is fitted to; at least 2 plans."""
    momentum: float = 0.0
    """Share of the old distribution that stays."""
    least_chance: float = 0.05
    """Share of the chances that stays evenly spread: what no elite did may still be drawn."""
    least_std: float = 0.05
    """Of continuous numbers."""
    executes: Literal["mean", "best"] = "mean"
    """The likeliest plan of the last distribution, as in PlaNet, or the best one that was drawn: steadier and bolder
    where plans are few, as a mixture of two good plans may be a bad one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_shares("elite_share", "momentum", "least_chance", "least_std")
        if self.executes not in ("mean", "best"):
            raise ValueError(f"executes is {self.executes!r}; it must be 'mean' or 'best'")

    def elite_count(self, plans: int) -> int:
        """How many of so many plans are elites."""
        return min(plans, max(2, round(self.elite_share * plans)))

    def learn(self, space: PlanSpace, search: Search, plans: Tensor, returns: Tensor) -> Search:
        """Fits the distribution to the elites."""
        elites = plans[: self.elite_count(len(plans))]
        fitted = self.momentum * search.mean + (1 - self.momentum) * elites.mean(0)
        std = self.momentum * search.std + (1 - self.momentum) * elites.std(0, correction=0)
        mean = space.open_up(fitted, self.least_chance)
        plan = search.best if self.executes == "best" else space.likeliest(mean)
        return replace(search, mean=mean, std=std.clamp_min(self.least_std), plan=plan, elites=elites)
