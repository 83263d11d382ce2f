"""Planning without a model: in any environment that can be set back, candidates are simply tried.

For the emulator this is the planner that knows everything, which one that plans in a world can be held against; for a
dream it is the same planning as in :class:`~neuralsim.agents.planners.mpc.MPC`, one candidate after the other.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from neuralsim.actions import ActionCodec
from neuralsim.agents.planners.plan_space import PlanSpace
from neuralsim.agents.planners.planner import GAMMA, Planner, check_gamma
from neuralsim.agents.planners.receding_horizon import RecedingHorizon
from neuralsim.evaluation.counterfactuals import can_branch


class BranchingReturn:
    """The discounted return of plans, by playing each of them and setting the environment back.

    Wrappers are passed by: a time limit would go on counting through futures that are never played.

    Args:
        env: An environment with ``clone_state`` and ``restore_state``, reset.
        space: Of the plans.
        gamma: Discount per step.

    Raises:
        ValueError: If it cannot be set back, plays other actions than the plans have, or for a wrong discount.
    """

    def __init__(self, env: gym.Env, space: PlanSpace, gamma: float = GAMMA) -> None:
        if not can_branch(env):
            raise ValueError(f"{env} cannot be set back: it has no clone_state and restore_state")
        self.env: Any = env.unwrapped
        if self.env.action_space != space.actions.space:
            raise ValueError(
                f"the plans are of {space.actions.space}, and {env} plays {self.env.action_space} below its wrappers: "
                "plan for the environment without the wrapper that changes its actions"
            )
        self.space, self.gamma = space, check_gamma(gamma)

    def __call__(self, plans: Tensor) -> Tensor:
        """What plans ``(1, N, H, A)`` are worth, ``(1, N)``; nothing counts after the end of an episode."""
        saved = self.env.clone_state(include_rng=True)
        returns = []
        for plan in plans[0].numpy():
            total, discount = 0.0, 1.0
            for encoded in np.repeat(plan, self.space.repeat, axis=0):
                _, reward, terminated, truncated, _ = self.env.step(self.space.actions.decode(encoded))
                total += discount * float(reward)
                discount *= self.gamma
                if terminated or truncated:
                    break
            returns.append(total)
            self.env.restore_state(saved)
        return torch.tensor(returns)[None]


class BranchingMPC:
    """Receding horizon control of an environment that can be set back, with itself as the model.

    Args:
        env: The environment; call :meth:`begin` after each of its resets.
        planner: The algorithm.
        horizon: Actions of a plan.
        repeat: Steps for which each is held.
        replan_every: Steps taken of a plan; by default one action of it.
        gamma: Discount per step.
        seed: Of the plans.

    Raises:
        ValueError: If the environment cannot be set back, or a number makes no sense.
    """

    def __init__(
        self,
        env: gym.Env,
        planner: Planner,
        horizon: int = 4,
        repeat: int = 4,
        replan_every: int | None = None,
        gamma: float = GAMMA,
        seed: int = 0,
    ) -> None:
        self.codec = ActionCodec(env.action_space)
        space = PlanSpace(self.codec, horizon, repeat)
        self.objective = BranchingReturn(env, space, gamma)
        self.horizon = RecedingHorizon(planner, space, repeat if replan_every is None else replan_every)
        self.horizon.reset(1, seed)

    def begin(self) -> None:
        """Tells that the environment was reset: the last plan is forgotten."""
        self.horizon.begin(np.ones(1, np.bool_))

    def act(self) -> Any:
        """The action to take in the environment as it stands."""
        action = self.codec.decode(self.horizon.act(lambda _, plans: self.objective(plans))[0])
        return int(action) if isinstance(self.codec.space, spaces.Discrete) else action
