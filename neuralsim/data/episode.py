"""An episode, what a dataset holds, and how to check that one fits the other.

An episode of T actions holds T+1 frames and T rewards; action t leads from frame t to frame t+1.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces

FORMAT = 1
"""Version of the layout on disk; readers refuse a newer one."""

TIME_ARRAYS = {"rewards": np.float32, "terminated": np.bool_, "truncated": np.bool_}
"""Arrays ``(T,)`` that every episode has, and their types."""


@dataclass
class Episode:
    """One episode, or the part of it that was recorded.

    Attributes:
        frames: ``(T+1, H, W, 3)`` uint8.
        actions: ``(T, ...)``; for Dict and Tuple action spaces a dict or tuple of such arrays.
        rewards: ``(T,)`` float32.
        terminated: ``(T,)`` bool; the environment's own end, only ever True at the last step.
        truncated: ``(T,)`` bool; cut short from outside (time limit), only ever True at the last step.
        labels: Ground truth by name, each ``(T+1, ...)``: what a probe should find in the frames.
        policy: Who played.
        seed: Seed of the environment's reset and of the policy; below 0 if nobody knows.
    """

    frames: np.ndarray
    actions: Any
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    policy: str = ""
    seed: int = -1

    def __len__(self) -> int:
        """Number of actions T."""
        return len(self.rewards)


@dataclass
class DatasetInfo:
    """What a dataset holds; everything is JSON.

    Attributes:
        env_id: Gymnasium id of the recorded environment, e.g. ``"ALE/Pong-v5"``.
        action_space: As :func:`neuralsim.actions.space_to_json` describes it.
        frame_shape: ``(H, W, 3)`` of the stored frames.
        fps: Stored frames per second of play.
        env_kwargs: Arguments of ``gymnasium.make``.
        preprocessing: From screen to stored frame: ``neuralsim.envs.preprocessing.Preprocess(env, **preprocessing)``.
        keys_to_action: Pairs of pressed keys and the action they mean, or None.
        action_meanings: Names of a Discrete space's actions, or None.
        command: The command that recorded it.
        source: More about how it was made (policies, seed, or where it was imported from).
        format: Version of the layout.
    """

    env_id: str
    action_space: dict[str, Any]
    frame_shape: tuple[int, int, int]
    fps: float
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    keys_to_action: list[Any] | None = None
    action_meanings: list[str] | None = None
    command: str = ""
    source: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.frame_shape)
        if len(shape) != 3 or shape[2] != 3 or min(shape) < 1:
            raise ValueError(f"frame_shape {shape} is not (height, width, 3)")
        self.frame_shape = shape
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps {self.fps} must be a positive number of frames per second")


def check_episode(episode: Episode, info: DatasetInfo, space: spaces.Space) -> None:
    """Raises ValueError, naming the value, if an episode does not fit a dataset."""
    frames, steps = episode.frames, len(episode.rewards)
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
        raise ValueError(f"frames are {getattr(frames, 'dtype', type(frames).__name__)}; they must be uint8, 0 to 255")
    if frames.shape[1:] != tuple(info.frame_shape):
        raise ValueError(
            f"frames of shape {frames.shape} in a dataset of frames {tuple(info.frame_shape)}; "
            "apply the dataset's preprocessing (neuralsim.envs.preprocessing) first"
        )
    if steps < 1:
        raise ValueError("an episode needs at least one action")
    if len(frames) != steps + 1:
        raise ValueError(
            f"{len(frames)} frames and {steps} rewards: there must be one frame more than rewards, "
            "the first being the frame of the reset"
        )
    for name, dtype in TIME_ARRAYS.items():
        values = getattr(episode, name)
        if values.shape != (steps,) or values.dtype != dtype:
            raise ValueError(f"{name} are {values.dtype} {values.shape}; they must be {np.dtype(dtype)} ({steps},)")
    if not np.isfinite(episode.rewards).all():
        raise ValueError(f"reward {episode.rewards[~np.isfinite(episode.rewards)][0]} is not a finite number")
    if (episode.terminated | episode.truncated)[:-1].any():
        raise ValueError("terminated or truncated is True before the last step; split the recording there")
    for name, values in episode.labels.items():
        if "/" in name or len(values) != steps + 1:
            raise ValueError(f"label {name!r} has {len(values)} values; it needs one per frame ({steps + 1})")
    for name, values in flat_actions(space, episode.actions):
        part = _part(space, name)
        if values.shape != (steps, *(part.shape or ())):
            raise ValueError(f"actions{name} of shape {values.shape}; {part} and {steps} steps ask for "
                             f"{(steps, *(part.shape or ()))}")  # fmt: skip
        low, high = _bounds(part)
        bad = ~((values >= low) & (values <= high))
        if bad.any():
            raise ValueError(f"action{name} {values[bad].ravel()[0]} lies outside the action space {part}")


def content_hash(episode: Episode) -> str:
    """SHA-256 of frames, actions, rewards and ends: equal for equal play, whoever recorded it."""
    digest = hashlib.sha256()
    leaves = [episode.frames, *_leaves(episode.actions), episode.rewards, episode.terminated, episode.truncated]
    for array in leaves:
        array = np.ascontiguousarray(array)
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def stack_actions(space: spaces.Space, actions: list[Any]) -> Any:
    """Single actions of a space as one array ``(T, ...)``, or a dict or tuple of such arrays."""
    if isinstance(space, spaces.Dict):
        return {key: stack_actions(part, [a[key] for a in actions]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(stack_actions(part, [a[i] for a in actions]) for i, part in enumerate(space.spaces))
    return np.asarray(actions, dtype=space.dtype).reshape(len(actions), *(space.shape or ()))


def nested_actions(space: spaces.Space, read: Callable[[str], Any], name: str = "") -> Any:
    """Builds what has the structure of a space's actions from its parts, named "" or "/key/0"."""
    if isinstance(space, spaces.Dict):
        return {key: nested_actions(part, read, f"{name}/{key}") for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(nested_actions(part, read, f"{name}/{i}") for i, part in enumerate(space.spaces))
    return read(name)


def flat_actions(space: spaces.Space, actions: Any) -> list[tuple[str, np.ndarray]]:
    """(name below "actions", array) of every leaf of a batch of actions."""
    found: list[tuple[str, np.ndarray]] = []

    def leaf(name: str) -> None:
        part = actions
        for key in name.split("/")[1:]:
            try:
                part = part[int(key) if isinstance(part, tuple) else key]
            except (KeyError, IndexError, TypeError):
                raise ValueError(f"the actions have no part {name!r}, which {space} asks for") from None
        found.append((name, np.asarray(part)))

    nested_actions(space, leaf)
    return found


def _part(space: spaces.Space, name: str) -> spaces.Space:
    for key in name.split("/")[1:]:
        space = space.spaces[int(key) if isinstance(space, spaces.Tuple) else key]  # type: ignore[attr-defined]
    return space


def _bounds(space: spaces.Space) -> tuple[Any, Any]:
    if isinstance(space, spaces.Discrete):
        return space.start, space.start + space.n - 1
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    if isinstance(space, spaces.Box):
        return space.low, space.high
    return 0, 1


def _leaves(actions: Any) -> list[np.ndarray]:
    if isinstance(actions, dict):
        return [leaf for key in sorted(actions) for leaf in _leaves(actions[key])]
    if isinstance(actions, tuple):
        return [leaf for part in actions for leaf in _leaves(part)]
    return [np.asarray(actions)]
