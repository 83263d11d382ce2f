"""iCEM: the cross-entropy method made to work with few plans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from neuralsim.agents.planners.cem import CEM
from neuralsim.agents.planners.plan_space import PlanSpace
from neuralsim.agents.planners.planner import Search


@dataclass(frozen=True)
class ICEM(CEM):
    """Improved CEM (Pinneri et al. 2020, https://arxiv.org/abs/2008.06389).

    Its parts: noise that is correlated in time, elites that are kept from one iteration to the next and, shifted, from
    one search to the next, fewer plans in later iterations, the mean among those of the last, and the best plan of all
    is executed. The paper's time-correlated noise is Gaussian; choices are drawn from the same noise (see
    :meth:`PlanSpace.draw`).
    """

    candidates: int = 40
    colour: float = 2.0
    elite_share: float = 0.25
    momentum: float = 0.1
    executes: Literal["mean", "best"] = "best"
    keep: float = 0.3
    """Share of the elites that is kept."""
    decay: float = 1.25
    """Each iteration looks at this factor fewer plans than the one before; never fewer than twice the elites."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_shares("keep")
        if not self.decay >= 1:
            raise ValueError(f"decay is {self.decay}; it must be at least 1")

    def population(self, iteration: int) -> int:
        """How many plans the iteration looks at."""
        fewest = min(self.candidates, 2 * self.elite_count(self.candidates))
        return max(fewest, round(self.candidates / self.decay**iteration))

    def elite_count(self, plans: int) -> int:
        """As many in every iteration."""
        return min(plans, super().elite_count(self.candidates))

    def kept(self, space: PlanSpace, search: Search, iteration: int) -> Tensor:
        """The best elites, at first those of the last search; and the mean in the last of several iterations."""
        elites = search.elites[: max(1, round(self.keep * len(search.elites)))]
        if iteration and iteration == self.iterations - 1:
            return torch.cat([elites, space.likeliest(search.mean)[None]])
        return elites
