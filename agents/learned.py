"""A learned agent as a policy: one lane of :class:`neuralsim.agents.agent.Agent`."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from neuralsim.actions import slice_actions
from neuralsim.agents.agent import Agent, find_agent
from neuralsim.agents.policies import Policy


class LearnedPolicy(Policy):
    """Plays as an agent that was trained here.

    Args:
        path: The agent's file, or the folder of its run.
        action_space: Of the environment it is to play.

    Raises:
        FileNotFoundError: If there is no such agent.
        ValueError: If it plays other actions.
    """

    def __init__(self, path: str, action_space: spaces.Space) -> None:
        file = find_agent(path)
        self.agent = copy.copy(
            _loaded(file, file.stat().st_mtime_ns)
        )  # the weights are shared, what it has seen is its own
        self.name = f"agent={Path(path).name}"
        if self.agent.action_space != action_space:
            raise ValueError(f"{path} plays {self.agent.action_space}, and this environment has {action_space}")
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
