"""Planners by name, and their settings as the command line knows them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from neuralsim.agents.agent import Agent
from neuralsim.agents.planners.cem import CEM
from neuralsim.agents.planners.icem import ICEM
from neuralsim.agents.planners.mpc import MPC
from neuralsim.agents.planners.mppi import MPPI
from neuralsim.agents.planners.planner import Planner
from neuralsim.agents.planners.rewards import RewardFunction
from neuralsim.agents.planners.shooting import RandomShooting
from neuralsim.agents.preferences.reward_model import PreferenceReward
from neuralsim.world import World

PLANNERS: dict[str, type[Planner]] = {"cem": CEM, "icem": ICEM, "mppi": MPPI, "shooting": RandomShooting}
"""Algorithms by name."""
DEFAULT_PLANNER = "icem"


@dataclass
class MPCOptions:
    """How far, how often and how thoroughly a planner looks ahead.

    With these defaults the bundled Pong is played at 7 to 9 steps a second on 2 CPU cores (half a second per plan);
    doubling the candidates, iterations or horizon about halves that, taking more steps of each plan makes up for it.
    """

    horizon: int = 4
    """Actions of a plan."""
    repeat: int = 4
    """Steps for which each action of a plan is held."""
    replan_every: int | None = None
    """Steps taken of a plan before the next is made; by default as many as an action is held. 1 reacts at once."""
    candidates: int = 16
    """Plans that are compared in an iteration."""
    iterations: int = 1
    """How often they are improved."""
    sampling_steps: int = 1
    """Sampling steps K of the frames that are looked ahead at."""
    reward: str | None = None
    """A reward learned from preferences (neuralsim agent train preference) in place of what the world learned to pay: a
    run's folder or a reward's file."""
    prior: str | None = None
    """An agent that proposes plans and says what their last moments are worth: a run's folder or an agent's file."""
    proposals: int = 4
    """Candidates that the prior proposes."""
    terminal_value: bool = True
    """Count what the prior says the last moment of a plan is worth. Agents kept to play alone cannot say, and beside
    another reward it does not count."""
    gamma: float | None = None
    """Discount per step; by default the prior's, or 0.99."""
    warm_start: bool = True
    """Begin each search from what the last one found."""


def make_mpc(world: World, options: MPCOptions | None = None, planner: str | None = None) -> MPC:
    """Makes a planner that plays.

    Args:
        world: The world to plan in.
        options: Settings.
        planner: A name of :data:`PLANNERS`; :data:`DEFAULT_PLANNER` if None.

    Raises:
        ValueError: For an unknown name, or settings that make no sense; the message names them.
        FileNotFoundError: If there is no such prior or reward.
    """
    told, name = options or MPCOptions(), planner or DEFAULT_PLANNER
    if name not in PLANNERS:
        near = difflib.get_close_matches(name, PLANNERS, n=1)
        raise ValueError(
            f"unknown planner {name!r}{f'; did you mean {near[0]}?' if near else ''}: there are "
            f"{', '.join(f'mpc={known}' for known in PLANNERS)}"
        )
    reward = None
    if told.reward is not None:
        preference = PreferenceReward.load(told.reward, world.device)
        preference.check_fits(world)
        reward = RewardFunction(preference, sees="transitions")
    return MPC(
        world,
        PLANNERS[name](candidates=told.candidates, iterations=told.iterations),
        horizon=told.horizon,
        repeat=told.repeat,
        replan_every=told.replan_every,
        reward=reward,
        prior=None if told.prior is None else Agent.load(told.prior),
        proposals=told.proposals,
        terminal_value=told.terminal_value and reward is None,
        gamma=told.gamma,
        sampling_steps=told.sampling_steps,
        warm_start=told.warm_start,
    )
