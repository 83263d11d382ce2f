"""Receding horizon control: plan, take the first steps of the plan, plan again from where that led."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from neuralsim.agents.planners.plan_space import PlanSpace
from neuralsim.agents.planners.planner import Planner, Search, search
from neuralsim.world_state import seed_tensor

Judge = Callable[[np.ndarray, Tensor], Tensor]
"""Which games ``(B,)``, and plans ``(B, N, H, A)`` of these, to what they are worth ``(B, N)``."""
Propose = Callable[[np.ndarray, Sequence[torch.Generator]], tuple[Tensor, Tensor]]
"""Which games, and their generators, to plans ``(B, M, H, A)`` of a prior and what they are worth ``(B, M)``."""


@dataclass
class _Game:
    generator: torch.Generator
    search: Search | None = None
    taken: int = 0  # steps of its plan
    resting: bool = False


@dataclass
class RecedingHorizon:
    """The plans of several games, and where in them each game is.

    A search begins from what the last one found, shifted by the steps taken since (a warm start). Games of which a plan
    is due are planned together.

    Args:
        planner: The algorithm.
        space: Of the plans.
        replan_every: Steps of the environment taken of each plan.
        warm_start: Whether a search knows the one before.

    Attributes:
        plans: Plans made so far, in all games.
        seconds: Time it took.

    Raises:
        ValueError: If a plan is shorter than what is to be taken of it.
    """

    planner: Planner
    space: PlanSpace
    replan_every: int = 1
    warm_start: bool = True
    plans: int = field(default=0, init=False)
    seconds: float = field(default=0.0, init=False)
    games: list[_Game] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if not 1 <= self.replan_every <= self.space.steps:
            raise ValueError(
                f"replan_every is {self.replan_every}; it must be from 1 to the {self.space.steps} steps of a plan "
                f"({self.space.horizon} actions held for {self.space.repeat})"
            )

    def reset(self, lanes: int = 1, seed: int | Sequence[int] = 0) -> None:
        """Forgets all plans; the draws of each game come from a stream of its own.

        Raises:
            ValueError: If there are not as many seeds as lanes, or one is outside [0, 2**63).
        """
        self.games = [_Game(torch.Generator().manual_seed(s)) for s in seed_tensor(seed, lanes).tolist()]
        self.plans, self.seconds = 0, 0.0

    def begin(self, lanes: np.ndarray) -> None:
        """Tells in which games ``(n,)`` bool a new episode begins: their plans are forgotten."""
        for game, fresh in zip(self.games, lanes, strict=True):
            if fresh:
                game.search, game.taken, game.resting = None, 0, False

    def retire(self, lanes: np.ndarray) -> None:
        """Tells in which games ``(n,)`` bool nothing counts any more: no plan is made there until they begin anew."""
        for game, over in zip(self.games, lanes, strict=True):
            game.resting |= bool(over)

    def act(self, judge: Judge, propose: Propose | None = None) -> np.ndarray:
        """Encoded actions ``(n, A)`` of all games; those whose plan is used up are planned for first.

        Raises:
            ValueError: If plans are not worth finite numbers.
        """
        due = [i for i, game in enumerate(self.games) if not game.resting and self._is_due(game)]
        if due:
            began = time.perf_counter()
            self._plan(np.array(due), judge, propose)
            self.plans += len(due)
            self.seconds += time.perf_counter() - began
        return np.stack([self._next(game) for game in self.games])

    def _is_due(self, game: _Game) -> bool:
        return game.search is None or game.taken >= self.replan_every

    def _plan(self, due: np.ndarray, judge: Judge, propose: Propose | None) -> None:
        games = [self.games[i] for i in due]
        generators = [game.generator for game in games]
        found = search(
            self.planner,
            self.space,
            lambda plans: judge(due, plans),
            generators,
            [game.search if self.warm_start else None for game in games],
            self.replan_every,
            None if propose is None else propose(due, generators),
        )
        for game, result in zip(games, found, strict=True):
            game.search, game.taken = result, 0

    def _next(self, game: _Game) -> np.ndarray:
        plan = None if game.search is None else game.search.plan
        if plan is None:  # a game that rests from its first step on
            plan = self.space.likeliest(self.space.even)
        at = min(game.taken // self.space.repeat, self.space.horizon - 1)
        game.taken += 1
        return plan[at].numpy()
