"""Model predictive control: an agent that looks ahead in a world at what its actions would lead to.

mpc = MPC(World.load("pong"), ICEM(candidates=24, iterations=2), horizon=4, repeat=4, replan_every=4)
mpc.reset(lanes=1, seed=0)
action = mpc.act(frames)                     # in the real environment, (1, H, W, 3) uint8
action = mpc.act_in_dream(env)               # or in a DreamEnv, from its very state
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from neuralsim.actions import slice_actions
from neuralsim.agents.agent import Agent
from neuralsim.agents.planners.history import History
from neuralsim.agents.planners.model import DreamedReturn, Present
from neuralsim.agents.planners.plan_space import PlanSpace
from neuralsim.agents.planners.planner import Planner
from neuralsim.agents.planners.receding_horizon import RecedingHorizon
from neuralsim.agents.planners.rewards import RewardFunction
from neuralsim.envs.dream import DreamEnv
from neuralsim.envs.dream_vector import DreamVectorEnv
from neuralsim.envs.preprocessing import HOW_TO_SHOW_FRAMES
from neuralsim.world import World, WorldState


class MPC:
    """Plans in a world, plays in the real environment or in the dream itself.

    Every real frame enters the context that the next plan is dreamed on from, whether a plan is due or not: the world
    never goes on from a frame of its own.

    Args:
        world: The world to plan in.
        planner: The algorithm.
        horizon: Actions of a plan.
        repeat: Steps for which each is held: a long look ahead for few actions.
        replan_every: Steps taken of a plan before the next is made; by default one action of it.
        reward: What to make much of instead of what the world learned to pay: a function of frames ``(B, H, W, 3)``
            uint8, or a :class:`RewardFunction` of frames, latents or transitions.
        prior: An agent that proposes plans, and whose value counts at their end.
        proposals: Plans that it proposes; they are among the planner's candidates.
        terminal_value: Whether the prior's value counts; by default where no reward is given.
        gamma: Discount per step; by default the prior's, or 0.99.
        sampling_steps: K, per frame of what is looked ahead at.
        warm_start: Begin each search from what the last one found.

    Attributes:
        horizon: The plans of all games (:class:`RecedingHorizon`), with how many were made in what time.
        model: What plans are worth (:class:`DreamedReturn`).

    Raises:
        ValueError: If the world has no rewards to plan by, the prior does not fit it, or a number makes no sense.
    """

    def __init__(
        self,
        world: World,
        planner: Planner,
        horizon: int = 4,
        repeat: int = 4,
        replan_every: int | None = None,
        reward: RewardFunction | Callable[[Tensor], Any] | None = None,
        prior: Agent | None = None,
        proposals: int = 4,
        terminal_value: bool | None = None,
        gamma: float | None = None,
        sampling_steps: int = 1,
        warm_start: bool = True,
    ) -> None:
        self.world, self.action_space = world, world.action_space
        space = PlanSpace(world.actions, horizon, repeat)
        self.model = DreamedReturn(world, space, reward, prior, terminal_value, gamma, sampling_steps)
        self.horizon = RecedingHorizon(planner, space, repeat if replan_every is None else replan_every, warm_start)
        if prior is not None and not 0 <= proposals < planner.candidates:
            raise ValueError(
                f"proposals is {proposals}; the prior can make from 0 to {planner.candidates - 1} of "
                f"{planner.candidates} candidates"
            )
        self.proposals = proposals if prior is not None else 0
        self.history = History(world, 0)

    def reset(self, lanes: int = 1, seed: int | Sequence[int] = 0) -> None:
        """Forgets all it has seen and planned.

        Args:
            lanes: How many games it plays side by side.
            seed: One per lane; a single number s gives s, s + 1, ...

        Raises:
            ValueError: If there are not as many seeds as lanes, or one is outside [0, 2**63).
        """
        self.horizon.reset(lanes, seed)
        self.history = History(self.world, lanes, self.model.frames)

    def begin(self, lanes: np.ndarray) -> None:
        """Tells in which lanes ``(n,)`` bool a new episode begins with the next frame."""
        self.history.forget(lanes)
        self.horizon.begin(lanes)

    def retire(self, lanes: np.ndarray) -> None:
        """Tells in which lanes ``(n,)`` bool nothing counts any more; no plan is made there until they begin anew."""
        self.horizon.retire(lanes)

    def check_fits(self, name: str, action_space: spaces.Space, observation_space: spaces.Space) -> None:
        """Compares the world with the environment that is to be played; ``name`` names the world.

        Raises:
            ValueError: If it knows other actions, or other frames.
        """
        if self.action_space != action_space:
            raise ValueError(
                f"the world {name} plays {self.action_space}, and this environment has {action_space}: plan in a world "
                "that was learned from it"
            )
        if observation_space.shape != self.world.frame_shape:
            raise ValueError(
                f"the world {name} reads frames {self.world.frame_shape}, and this environment shows observations of "
                f"shape {observation_space.shape}: preprocess them as world.config.preprocessing says; "
                f"{HOW_TO_SHOW_FRAMES}"
            )

    def act(self, frames: np.ndarray) -> Any:
        """Chooses an action in every lane of the real environment.

        Args:
            frames: ``(n, H, W, 3)`` uint8, preprocessed as the recordings were.

        Returns:
            A batch of n actions in the format of the action space.

        Raises:
            ValueError: If these are not n such frames, or a reward is no finite number.
        """
        frames = np.asarray(frames)
        lanes = len(self.horizon.games) or len(frames)
        if frames.shape != (lanes, *self.world.frame_shape) or frames.dtype != np.uint8:
            raise ValueError(
                f"the planner plays {lanes if self.horizon.games else 'n'} lanes and sees frames (lanes, "
                f"{', '.join(map(str, self.world.frame_shape))}) uint8, got {frames.shape} {frames.dtype}: give a "
                "single frame as frame[None], and call reset(lanes) for another number of lanes"
            )
        if not self.horizon.games:
            self.reset(lanes)
        self.history.saw(self.world.encode(frames[:, None])[:, 0])
        return self._act(None)

    def act_in_dream(self, env: Any, foresee: bool = False) -> Any:
        """Chooses an action in a dream of the same world, which is looked ahead of from its cloned state.

        Nothing of the environment changes: a state is a value, and candidates are dreamed on from copies of it.

        Args:
            env: A :class:`DreamEnv` or :class:`DreamVectorEnv` of this world, wrapped or not.
            foresee: Plan with the noise that the dream is going to have. By default the planner draws noise of its own,
                as it has to in reality.

        Returns:
            An action, or for a vector environment a batch of n.

        Raises:
            ValueError: If it is no such environment, or a reward is no finite number.
        """
        dream = env.unwrapped
        if not isinstance(dream, (DreamEnv, DreamVectorEnv)):
            raise ValueError(
                f"{env} is no dream: play it by its frames (act), or by BranchingMPC if it can be set back"
            )
        saved = dream.clone_state()
        if saved.world != self.world.config.weights_sha256:
            raise ValueError(f"{env} dreams another world than {self.world.config.name!r}, in which this planner plans")
        lanes = saved.state.lanes
        if len(self.horizon.games) != lanes:
            if self.horizon.games:
                raise ValueError(
                    f"the planner plays {len(self.horizon.games)} lanes, the environment {lanes}: call reset({lanes})"
                )
            self.reset(lanes)
        # A dream that was reset has taken no step yet.
        if (fresh := (saved.state.step == 0).numpy()).any():
            self.begin(fresh)
        self.history.saw(saved.state.latent)
        actions = self._act(saved.state, foresee)
        if isinstance(dream, DreamVectorEnv):
            return actions
        action = slice_actions(actions, 0)
        return int(action) if isinstance(self.action_space, spaces.Discrete) else action

    def _act(self, dreams: WorldState | None, foresee: bool = False) -> Any:
        """Actions after what was seen; ``dreams`` are the states of all games where these are dreams themselves."""
        known: list[Present] = []

        def present(due: np.ndarray) -> Present:
            if not known:
                seeds = [int(torch.randint(2**62, (1,), generator=self.horizon.games[i].generator)) for i in due]
                if dreams is None:
                    state = self.history.state(due, seeds)
                else:
                    state = dreams.select(due.tolist())
                    state = state if foresee else state.reseed(seeds)
                known.append(Present(state, self.history.recent(due)))
            return known[0]

        def judge(due: np.ndarray, plans: Tensor) -> Tensor:
            return self.model(present(due), plans)

        def propose(due: np.ndarray, generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
            return self.model.propose(present(due), self.proposals, generators)

        actions = self.world.actions.decode(self.horizon.act(judge, propose if self.proposals else None))
        self.history.did(self.world.actions.encode(actions))  # anew: whole numbers are rounded when they are played
        return actions
