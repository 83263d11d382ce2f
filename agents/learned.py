"""A learned agent as a policy: one lane of :class:`neuralsim.agents.agent.Agent`."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from neuralsim.actions import slice_actions
from neuralsim.agents.agent import Agent, find_agent
from neuralsim.agents.policies import Policy


class LearnedPolicy(Policy):
    """Plays as an agent that was trained here.

    Args:
        path: The agent's file, or the folder of its run.
        env: What it is to play.

    Raises:
        FileNotFoundError: If there is no such agent.
        ValueError: If it plays other actions, or sees other frames.
    """

    def __init__(self, path: str, env: gym.Env) -> None:
        file = find_agent(path)
        self.agent = copy.copy(
            _loaded(file, file.stat().st_mtime_ns)
        )  # the weights are shared, what it has seen is its own
        self.name = f"agent={Path(path).name}"
        self.agent.check_fits(path, env.action_space, env.observation_space)
        self.seed = 0

    def reset(self, seed: int | None = None) -> None:
        """Forgets earlier frames; a seed restarts the stream that actions are drawn from."""
        if seed is None and self.agent.generators:
            self.agent.begin(np.ones(1, np.bool_))
        else:
            self.agent.reset(1, seed or 0)

    def act(self, frame: np.ndarray, info: dict[str, Any]) -> Any:
        """The agent's action."""
        action = slice_actions(self.agent.act(frame[None]), 0)
        return int(action) if isinstance(self.agent.action_space, spaces.Discrete) else action


@functools.lru_cache(maxsize=32)
def _loaded(path: Path, written: int) -> Agent:
    return Agent.load(path)  # read anew when it was written anew
