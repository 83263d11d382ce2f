"""Any vector environment as transitions: what the three autoreset modes of Gymnasium have in common.

| mode        | the step that ends an episode returns        | the next episode begins with               |
|-------------|----------------------------------------------|--------------------------------------------|
| ``NEXT_STEP`` | the last observation                       | the next step, which is no transition      |
| ``SAME_STEP`` | the first one; the last is in ``final_obs`` | the same step                              |
| ``DISABLED``  | the last observation                       | a reset of some lanes, done here at once   |

An agent that takes the step of ``NEXT_STEP`` that only resets for a transition learns that its action led from the end
of one episode to the beginning of another, and one that takes the first frame of ``SAME_STEP`` for the last one learns
what a time limit cuts off from the wrong frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from neuralsim.envs.preprocessing import HOW_TO_SHOW_FRAMES


@dataclass(frozen=True)
class Transition:
    """What one step brought to N lanes.

    Attributes:
        frames: ``(N, H, W, 3)`` uint8, what is seen now and acted on next.
        last: ``(N, H, W, 3)`` uint8, what the step led to; differs from ``frames`` where a new episode has begun.
        rewards: ``(N,)`` float64; 0 where nothing counts.
        terminated: ``(N,)`` bool, the episode came to its end: nothing follows.
        truncated: ``(N,)`` bool, it was cut off: something would have followed.
        counted: ``(N,)`` bool, False where the step was none and only began an episode.
        begun: ``(N,)`` bool, where ``frames`` is the first of an episode.
    """

    frames: np.ndarray
    last: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    counted: np.ndarray
    begun: np.ndarray


class Transitions:
    """Steps a vector environment.

    Args:
        envs: Its observations are frames ``(H, W, 3)`` uint8.
        name: What it is called in errors.

    Attributes:
        ended: ``(N,)`` bool, lanes whose next step is none (``NEXT_STEP``).
        steps: Steps taken so far.

    Raises:
        ValueError: If the observations are no frames, or the autoreset mode is unknown.
    """

    def __init__(self, envs: VectorEnv, name: str) -> None:
        check_frames(envs, name)
        self.envs, self.name = envs, name
        self.mode = autoreset_mode(envs)
        self.ended = np.zeros(envs.num_envs, np.bool_)
        self.steps = 0

    def reset(self, seed: int) -> np.ndarray:
        """Begins an episode in every lane; lane i has seed + i. Returns the first frames ``(N, H, W, 3)``."""
        frames, _ = self.envs.reset(seed=seed)
        self.ended = np.zeros(self.envs.num_envs, np.bool_)
        return np.array(frames)

    def step(self, actions: Any) -> Transition:
        """Takes a step in every lane.

        Raises:
            ValueError: If a reward is not finite, or the last observation is missing; the message names the lane.
        """
        counted = ~self.ended
        seen, rewards, terminated, truncated, info = self.envs.step(actions)
        frames = np.array(seen)  # some environments hand out the same memory at every step
        rewards = np.where(counted, np.asarray(rewards, np.float64), 0.0)
        terminated, truncated = (np.asarray(flags, np.bool_) & counted for flags in (terminated, truncated))
        if not np.isfinite(rewards).all():
            lane = int(np.flatnonzero(~np.isfinite(rewards))[0])
            raise ValueError(
                f"{self.name} pays {rewards[lane]} in lane {lane} at step {self.steps}: nothing can be learned from a "
                "reward that is no finite number; see what the environment does there"
            )
        self.steps += 1
        over, last, begun = terminated | truncated, frames, ~counted
        if self.mode is AutoresetMode.NEXT_STEP:
            self.ended = over
        elif over.any():
            last, begun = frames.copy(), over
            if self.mode is AutoresetMode.SAME_STEP:
                for ended in np.flatnonzero(over).tolist():
                    last[ended] = self._final(info, ended)
            else:
                # The rows of other lanes may be anything: only what was asked for is looked at.
                frames[over] = np.asarray(self.envs.reset(options={"reset_mask": over})[0])[over]
        return Transition(frames, last, rewards, terminated, truncated, counted, begun)

    def _final(self, info: dict[str, Any], lane: int) -> np.ndarray:
        final = info.get("final_obs")
        if final is None or final[lane] is None:
            raise ValueError(
                f"{self.name} says autoreset_mode {self.mode.value!r}, but lane {lane} ended at step {self.steps - 1} "
                'without info["final_obs"]'
            )
        return np.asarray(final[lane])


def check_frames(envs: VectorEnv, name: str) -> tuple[int, int]:
    """Height and width of the frames that environments show.

    Raises:
        ValueError: If their observations are no frames ``(H, W, 3)`` uint8; the message says what to do.
    """
    space = envs.single_observation_space
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8 or space.shape[2:] != (3,):
        raise ValueError(
            f"{name} shows {space}; frames are (H, W, 3) uint8: {HOW_TO_SHOW_FRAMES} or made by "
            "neuralsim.envs.real.make_real"
        )
    return space.shape[0], space.shape[1]


def autoreset_mode(envs: VectorEnv) -> AutoresetMode:
    """What a vector environment does at the end of an episode; one that does not say is taken for ``NEXT_STEP``.

    Raises:
        ValueError: If it says something unknown.
    """
    mode = getattr(envs, "autoreset_mode", None) or envs.metadata.get("autoreset_mode")
    if mode is None:
        gym.logger.warn(f"{envs} does not tell its autoreset_mode; it is taken for NextStep, Gymnasium's default")
        return AutoresetMode.NEXT_STEP
    try:
        return AutoresetMode(mode)
    except ValueError:
        modes = ", ".join(repr(known.value) for known in AutoresetMode)
        raise ValueError(f"{envs} has the autoreset_mode {mode!r}; it must be one of {modes}") from None


def as_vector(envs: gym.Env | VectorEnv) -> VectorEnv:
    """A single environment as a vector of one; a vector environment as it is."""
    return envs if isinstance(envs, VectorEnv) else SyncVectorEnv([lambda: envs])
