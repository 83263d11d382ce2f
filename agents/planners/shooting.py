"""Random shooting: draw plans, take the best."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from neuralsim.agents.planners.plan_space import PlanSpace
from neuralsim.agents.planners.planner import Planner, Search


@dataclass(frozen=True)
class RandomShooting(Planner):
    """Plans of which none is likelier than another, the best of which is executed (Nagabandi et al. 2018).

    Its distribution never changes; what the last search found competes as one of the candidates.
    """

    iterations: int = 1

    def drawn(self, space: PlanSpace, search: Search, noise: Tensor) -> Tensor:
        """Uniform plans."""
        return space.uniform(noise)

    def learn(self, space: PlanSpace, search: Search, plans: Tensor, returns: Tensor) -> Search:
        """Remembers the best plan."""
        return replace(search, plan=search.best, elites=plans[:1])
