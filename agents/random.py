"""Policies that look at nothing."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from gymnasium import spaces

from neuralsim.agents.policies import Policy
from neuralsim.envs.keyboard import idle_action


class RandomPolicy(Policy):
    """Draws every action from the whole space."""

    name = "random"

    def __init__(self, space: spaces.Space) -> None:
        self.space = copy.deepcopy(space)  # an own random stream

    def reset(self, seed: int | None = None) -> None:
        """Restarts the stream."""
        self.space.seed(seed)

    def act(self, frame: np.ndarray, info: dict[str, Any]) -> Any:
        """A random action."""
        return self.space.sample()


class StickyRandomPolicy(RandomPolicy):
    """Holds a random action for 1 to ``longest`` steps: it gets further from where it started than pure noise."""

    name = "sticky-random"

    def __init__(self, space: spaces.Space, longest: int = 12) -> None:
        super().__init__(space)
        if longest < 1:
            raise ValueError(f"longest {longest} must be at least 1 step")
        self.longest = longest
        self.left = 0
        self.action: Any = None

    def reset(self, seed: int | None = None) -> None:
        """Restarts the stream."""
        super().reset(seed)
        self.left = 0

    def act(self, frame: np.ndarray, info: dict[str, Any]) -> Any:
        """The held action, or a new one."""
        if self.left == 0:
            self.left = int(self.space.np_random.integers(1, self.longest + 1))
            self.action = self.space.sample()
        self.left -= 1
        return self.action


class NoopPolicy(Policy):
    """Does nothing: the first action of a discrete space, zeros elsewhere."""

    name = "noop"

    def __init__(self, space: spaces.Space) -> None:
        self.action = idle_action(space)

    def reset(self, seed: int | None = None) -> None:
        """Nothing to begin."""

    def act(self, frame: np.ndarray, info: dict[str, Any]) -> Any:
        """The one action."""
        return self.action
