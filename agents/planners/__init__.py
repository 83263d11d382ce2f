"""Planners: they look ahead in a world instead of learning a policy, and act as players like any other.

    mpc = MPC(world, CEM(candidates=32, iterations=2), horizon=4, repeat=4)
    mpc.reset(lanes=1, seed=0)
    action = mpc.act(frames)             # (1, H, W, 3) uint8 -> a batch of one action

The algorithms know nothing of worlds: they improve plans of which a function says what each is worth.
"""

from neuralsim.agents.planners.branching import BranchingMPC, BranchingReturn
from neuralsim.agents.planners.cem import CEM
from neuralsim.agents.planners.icem import ICEM
from neuralsim.agents.planners.model import DreamedReturn, Present
from neuralsim.agents.planners.mpc import MPC
from neuralsim.agents.planners.mppi import MPPI
from neuralsim.agents.planners.options import PLANNERS, MPCOptions, make_mpc
from neuralsim.agents.planners.plan_space import PlanSpace
from neuralsim.agents.planners.planner import Planner, Search, search
from neuralsim.agents.planners.rewards import RewardFunction
from neuralsim.agents.planners.shooting import RandomShooting

__all__ = [
    "CEM",
    "ICEM",
    "MPC",
    "MPPI",
    "PLANNERS",
    "BranchingMPC",
    "BranchingReturn",
    "DreamedReturn",
    "MPCOptions",
    "PlanSpace",
    "Planner",
    "Present",
    "RandomShooting",
    "RewardFunction",
    "Search",
    "make_mpc",
    "search",
]
