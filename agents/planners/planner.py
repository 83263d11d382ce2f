"""What planners have in common: they propose plans, are told what each is worth, and propose better ones.

    found = search(CEM(), space, objective, [rng])               # objective: plans (1, N, H, A) -> returns (1, N)
    found[0].plan                                                # (H, A)

Legend: B searches side by side, N plans, H actions of a plan, A size of an encoded action.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neuralsim.agents.planners.coloured_noise import coloured_noise
from neuralsim.agents.planners.plan_space import PlanSpace

Objective = Callable[[Tensor], Tensor]
"""Plans ``(B, N, H, A)`` to what each is worth, ``(B, N)``."""
GAMMA = 0.99
"""Discount per step of the environment where nothing says otherwise."""


@dataclass(frozen=True)
class Search:
    """How far a search has come.

    Attributes:
        mean: ``(H, A)`` of the distribution that plans are drawn from.
        std: ``(H, A)``, of its continuous numbers.
        plan: ``(H, A)`` to be executed; None before the first improvement of a search that begins cold.
        best: ``(H, A)`` best plan so far, or None.
        best_return: What it is worth.
        elites: ``(E, H, A)`` best plans of the last iteration, best first.
    """

    mean: Tensor
    std: Tensor
    plan: Tensor | None
    best: Tensor | None
    best_return: float
    elites: Tensor


@dataclass(frozen=True)
class Planner(ABC):
    """Base class of all planners: their settings and one iteration; whoever plans keeps the :class:`Search`.

    Raises:
        ValueError: For settings that make no sense.
    """

    candidates: int = 64
    """Plans of an iteration, those of a policy prior and of the last search included."""
    iterations: int = 3
    """How often they are improved."""
    colour: float = 0.0
    """Noise of the plans: 0 is white, 2 red; more is steadier."""
    std: float = 0.5
    """Of continuous numbers, in which actions range from -1 to 1, when a search begins."""
    refresh: float = 0.3
    """Share of the chances that a warm start or a prior leaves to all actions alike, when a search begins."""

    def __post_init__(self) -> None:
        for name in ("candidates", "iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not (self.colour >= 0 and self.std > 0):
            raise ValueError(f"colour is {self.colour} and std {self.std}; they must be at least 0, and above 0")
        self.check_shares("refresh")

    def check_shares(self, *names: str) -> None:
        """Refuses settings that are no shares.

        Raises:
            ValueError: If one of these settings is not from 0 to 1; the message names it.
        """
        for name in names:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be from 0 to 1")

    def begin(
        self, space: PlanSpace, warm: Search | None = None, shift: int = 0, proposed: Tensor | None = None
    ) -> Search:
        """A search that knows what was found before.

        Args:
            space: Of the plans.
            warm: The search for the last plan, or None.
            shift: Steps of the environment taken since.
            proposed: ``(M, H, A)`` plans of a policy prior, or None.
        """
        sources, plan, elites = [], None, space.even.new_zeros(0, space.horizon, space.size)
        if warm is not None and warm.plan is not None:
            sources.append(space.shift(warm.mean, shift, space.even[-1]))
            plan = space.likeliest(space.shift(warm.plan, shift))
            elites = space.likeliest(space.shift(warm.elites, shift))
        if proposed is not None and len(proposed):
            sources.append(proposed.mean(0))
        mean = space.open_up(torch.stack(sources).mean(0), self.refresh) if sources else space.even
        return Search(mean, torch.full_like(mean, self.std), plan, None, -float("inf"), elites)

    def population(self, iteration: int) -> int:
        """How many plans the iteration looks at."""
        return self.candidates

    def propose(
        self, space: PlanSpace, search: Search, iteration: int, count: int, rng: torch.Generator | None = None
    ) -> Tensor:
        """Draws the plans ``(count, H, A)`` of an iteration; those that are kept come first, and win a draw."""
        kept = self.kept(space, search, iteration)[:count]
        noise = coloured_noise(count - len(kept), space.horizon, space.size, self.colour, rng)
        return torch.cat([kept, self.drawn(space, search, noise)])

    def kept(self, space: PlanSpace, search: Search, iteration: int) -> Tensor:
        """Plans ``(n, H, A)`` that are looked at again: at first the one that was being executed."""
        return search.elites[:0] if iteration or search.plan is None else search.plan[None]

    def drawn(self, space: PlanSpace, search: Search, noise: Tensor) -> Tensor:
        """Plans of standard normal noise, each ``(n, H, A)``."""
        return space.draw(search.mean, search.std, noise)

    def improve(self, space: PlanSpace, search: Search, plans: Tensor, returns: Tensor) -> Search:
        """Learns from the plans ``(N, H, A)`` of an iteration, and what they are worth ``(N,)``."""
        order = returns.sort(descending=True, stable=True).indices
        top = int(order[0])
        if search.best is None or float(returns[top]) > search.best_return:
            search = replace(search, best=plans[top], best_return=float(returns[top]))
        return self.learn(space, search, plans[order], returns[order])

    @abstractmethod
    def learn(self, space: PlanSpace, search: Search, plans: Tensor, returns: Tensor) -> Search:
        """As :meth:`improve`, with the plans ordered, best first, and the best one known."""


def search(
    planner: Planner,
    space: PlanSpace,
    objective: Objective,
    generators: Sequence[torch.Generator],
    warm: Sequence[Search | None] | None = None,
    shift: int = 0,
    proposed: tuple[Tensor, Tensor] | None = None,
) -> list[Search]:
    """Searches for B plans side by side: their candidates are judged together, in one call per iteration.

    Args:
        planner: The algorithm.
        space: Of the plans.
        objective: What plans are worth.
        generators: B, each draws the plans of its search alone; so a search finds the same among others.
        warm: B searches before, where there are any.
        shift: Steps of the environment taken since those.
        proposed: Plans ``(B, M, H, A)`` of a policy prior and what they are worth ``(B, M)``: candidates of the first
            iteration.

    Raises:
        ValueError: If the objective is not B x N finite numbers, or if the prior leaves no candidate to the planner.
    """
    before = [None] * len(generators) if warm is None else warm
    theirs = 0 if proposed is None else proposed[0].shape[1]
    if theirs >= planner.population(0):
        raise ValueError(
            f"the prior proposes {theirs} of {planner.population(0)} candidates, which leaves none to the planner: "
            "choose more candidates or fewer proposals"
        )
    found = [
        planner.begin(space, last, shift, None if proposed is None else proposed[0][lane])
        for lane, last in enumerate(before)
    ]
    for iteration in range(planner.iterations):
        count = planner.population(iteration) - (0 if iteration else theirs)
        plans = torch.stack(
            [planner.propose(space, s, iteration, count, rng) for s, rng in zip(found, generators, strict=True)]
        )
        returns = check_returns(objective(plans), plans)
        if iteration == 0 and proposed is not None:
            plans, returns = torch.cat([proposed[0], plans], dim=1), torch.cat([proposed[1], returns], dim=1)
        found = [planner.improve(space, *lane) for lane in zip(found, plans, returns, strict=True)]
    return found


def check_gamma(gamma: float) -> float:
    """Returns ``gamma``, if it is a discount.

    Raises:
        ValueError: If it is not above 0 and at most 1.
    """
    if not 0 < gamma <= 1:
        raise ValueError(f"gamma is {gamma}; it must be above 0 and at most 1")
    return gamma


def check_returns(returns: Tensor, plans: Tensor) -> Tensor:
    """Returns ``returns``, if they are one finite number for each of the plans ``(B, N, H, A)``.

    Raises:
        ValueError: If they are not.
    """
    if returns.shape != plans.shape[:2]:
        raise ValueError(
            f"an objective returns one number per plan, {tuple(plans.shape[:2])}, got {tuple(returns.shape)}"
        )
    wrong = returns[~returns.isfinite()]
    if len(wrong):
        raise ValueError(f"{len(wrong)} of {returns.numel()} plans are worth {wrong[0]}: make the reward finite")
    return returns
