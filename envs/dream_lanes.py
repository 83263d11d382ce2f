"""What :class:`DreamEnv` and :class:`DreamVectorEnv` have in common: n dreams that go on side by side.

The single environment is one lane, the vector environment n of them in one batch; so lane i of n dreams what
a single environment with the same seed dreams.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from neuralsim.actions import add_lane, map_actions, space_from_json
from neuralsim.envs.preprocessing import as_observation
from neuralsim.envs.shared_worlds import shared_world
from neuralsim.trust import Trust
from neuralsim.world import World, WorldState

OWN_FRAMES = -1
"""``info["start"]`` of a dream that began from frames the user gave."""


@dataclass(frozen=True, eq=False)
class DreamState:
    """A moment of n dreams, as ``clone_state`` returns it: a value that can be kept, copied and pickled.

    Attributes:
        world: Checksum of the world it belongs to.
        state: Where the dreams are, noise streams included.
        start: ``(n,)`` int64, which start each began from.
        ended: ``(n,)`` bool.
        generators: With ``include_rng``, the states of the generators that draw the next resets, else None.
    """

    world: str
    state: WorldState
    start: np.ndarray
    ended: np.ndarray
    generators: tuple[Mapping[str, Any], ...] | None = None


@dataclass(frozen=True)
class LaneSteps:
    """What one step brought to n lanes; arrays ``(n,)``, rewards float64."""

    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


class DreamLanes:
    """n dreams of one world, with spaces, starts and time limit.

    Args:
        lanes: n.
        world: Name, folder or hub id of a world, or a loaded world.
        sampling_steps: Sampling steps K per frame; None for the world's own default.
        obs_type: ``"rgb"`` frames or ``"latent"`` grids.
        obs_key: Name under which frames lie in a dict; None for frames as they are.
        starts: Where resets begin: ``"beginning"`` of episodes, or ``"any"`` start of the world.
        device: See :class:`neuralsim.world.World`; a loaded world stays where it is.
        dtype: Likewise.
        max_episode_steps: Truncate after so many steps if that is sooner than the world's own limit; -1:
            never.
        min_trust: Truncate when the trust in a dream, ``horizon_trust`` or 1 less ``uncertainty``, falls below this.
        pessimism: Subtract this times what a step adds to the ``uncertainty`` from its reward.

    Raises:
        ValueError: For an argument that makes no sense; the message names it.
        FileNotFoundError: If there is no such world.
    """

    def __init__(
        self,
        lanes: int,
        world: str | os.PathLike[str] | World | None,
        sampling_steps: int | None,
        obs_type: str,
        starts: str,
        device: str,
        dtype: str,
        max_episode_steps: int | None,
        min_trust: float = 0.0,
        pessimism: float = 0.0,
        obs_key: str | None = None,
    ) -> None:
        if lanes < 1:
            raise ValueError(f"num_envs is {lanes}; it must be at least 1")
        if world is None:
            raise ValueError(
                "which world? Give world=..., a folder or a Hugging Face hub id, for example "
                'gymnasium.make("Dream-v0", world="path/to/world")'
            )
        if obs_type not in ("rgb", "latent"):
            raise ValueError(f"obs_type is {obs_type!r}; it must be 'rgb' or 'latent'")
        if obs_key is not None and (not isinstance(obs_key, str) or not obs_key):
            raise ValueError(f"obs_key is {obs_key!r}; it must be a name such as 'pov', or None for frames as they are")
        if starts not in ("beginning", "any"):
            raise ValueError(f"starts is {starts!r}; it must be 'beginning' or 'any'")
        if max_episode_steps is not None and max_episode_steps != -1 and max_episode_steps < 1:
            raise ValueError(f"max_episode_steps is {max_episode_steps}; it must be positive, -1 for no limit, or None")
        self.world = world if isinstance(world, World) else shared_world(world, device, dtype)
        self.trust = Trust.from_card(self.world.card)
        for name, value, highest in (("min_trust", min_trust, 1.0), ("pessimism", pessimism, float("inf"))):
            if not 0 <= value <= highest or value == float("inf"):
                raise ValueError(f"{name} is {value}; it must be a number from 0 to {highest:g}")
        self.min_trust, self.pessimism = min_trust, pessimism
        self.lanes = lanes
        self.obs_type = obs_type
        # Never the key that the world's preprocessing names: that is how its recordings were made, and recordings of
        # Dict observations show players plain frames, so that all players expect these unless somebody asks. Latents
        # are the world's own, which no real environment has under a key.
        self.obs_key = obs_key if obs_type == "rgb" else None
        config = self.world.config
        self.set_sampling_steps(config.sampling_steps if sampling_steps is None else sampling_steps)
        limits = [limit for limit in (max_episode_steps, config.max_episode_steps) if limit is not None]
        self.limit = min(limits) if limits and max_episode_steps != -1 else None
        self.start_choices = [
            i for i, start in enumerate(self.world.starts) if starts == "any" or start.kind == "beginning"
        ]
        if self.world.starts and not self.start_choices:
            raise ValueError("none of this world's starts is the beginning of an episode; use starts='any'")
        # Spaces of one's own: a space carries a generator, which must not be shared with other environments.
        self.action_space = space_from_json(config.action_space)
        self.observation_space: spaces.Space
        if obs_type == "rgb":
            frames = spaces.Box(0, 255, self.world.frame_shape, np.uint8)
            self.observation_space = frames if obs_key is None else spaces.Dict({obs_key: frames})
        else:
            low, high = self.world.latent_bounds()
            self.observation_space = spaces.Box(low, high, dtype=np.float32)
        self.state: WorldState | None = None
        self.start = np.full(lanes, OWN_FRAMES, np.int64)
        self.ended = np.zeros(lanes, np.bool_)
        self.uncertainty, self.horizon_trust = np.zeros(lanes), np.ones(lanes)
        self._frames: np.ndarray | None = None  # of the current moment, once somebody looked

    def set_sampling_steps(self, steps: int) -> None:
        """Dreams with so many sampling steps per frame from now on.

        Raises:
            ValueError: If the world cannot, or if ``min_trust`` or ``pessimism`` need what was never measured with so
                many.
        """
        self.world.check_steps(steps)
        measured = self.trust is not None and self.trust.sampling_steps == steps
        for name, value in (("min_trust", self.min_trust), ("pessimism", self.pessimism)):
            if value and not measured:
                raise ValueError(
                    f"{name} is {value}, but nobody has measured how far the world {self.world.config.name!r} can be "
                    f"trusted with {steps} sampling steps"
                    + (f" (only with {self.trust.sampling_steps})" if self.trust else "")
                    + f": neuralsim evaluate WORLD --sampling-steps {steps} --save"
                )
        if self.trust is not None and 0 < self.min_trust <= self.trust.lowest:
            raise ValueError(
                f"min_trust is {self.min_trust}, but this world was not judged where trust is below "
                f"{self.trust.lowest:.2f}: no dream would ever end by it"
            )
        self.sampling_steps, self.calibration = steps, self.trust if measured else None

    def reset(
        self, lanes: np.ndarray, generators: Sequence[np.random.Generator], options: Mapping[str, Any] | None
    ) -> None:
        """Begins new dreams in some lanes.

        Args:
            lanes: Indices of the lanes.
            generators: One per lane of ``lanes``; each draws its lane's noise seed and start.
            options: ``{"start": i}`` (or one i per lane) or ``{"frames": ..., "actions": ...}``.

        Raises:
            ValueError: For options that make no sense.
            ResetNeeded: If some lanes are to begin before all have begun once.
        """
        options = dict(options or {})
        unknown = sorted(set(options) - {"start", "frames", "actions"})
        if unknown:
            raise ValueError(
                f"unknown reset options {', '.join(map(repr, unknown))}; there are 'start', 'frames' and 'actions'"
            )
        if self.state is None and len(lanes) < self.lanes:
            raise ResetNeeded("The first reset must reset all lanes: call env.reset() without a reset_mask")
        # Both are always drawn, so that the noise of a seed does not depend on how the dream began.
        seeds = [int(generator.integers(2**63)) for generator in generators]
        choices = [int(generator.integers(max(1, len(self.start_choices)))) for generator in generators]
        if options.get("frames") is not None:
            if options.get("start") is not None:
                raise ValueError("a dream begins from a 'start' or from 'frames', not both")
            fresh = self._begin_from_frames(lanes, options["frames"], options.get("actions"), seeds)
            indices = np.full(len(lanes), OWN_FRAMES, np.int64)
        else:
            if options.get("actions") is not None:
                raise ValueError("reset options have 'actions' but no 'frames'")
            indices = self._chosen_starts(lanes, options.get("start"), choices)
            fresh = WorldState.stack(
                [self.world.start_at(int(i), seed) for i, seed in zip(indices, seeds, strict=True)]
            )
        if len(lanes) == self.lanes:
            self.state, self._frames = fresh, None
        else:
            assert self.state is not None
            self.state = self.state.replace(lanes.tolist(), fresh)
            if self._frames is not None:
                self._frames = self._frames.copy()
                self._frames[lanes] = self.world.decode(fresh.latent).cpu().numpy()
        self.start[lanes] = indices
        self.ended[lanes] = False
        self.uncertainty[lanes] = 0.0
        self.horizon_trust[lanes] = 1.0

    def _chosen_starts(self, lanes: np.ndarray, asked: Any, choices: list[int]) -> np.ndarray:
        if asked is None:
            if not self.start_choices:
                raise ValueError(
                    "this world has no starts of its own; begin from a real frame: reset(options={'frames': frame})"
                )
            return np.array([self.start_choices[i] for i in choices], np.int64)
        indices = np.asarray(asked)
        if not np.issubdtype(indices.dtype, np.integer) or indices.shape not in ((), (self.lanes,)):
            raise ValueError(
                f"option 'start' is {asked!r}; it must be an index"
                + (f", or {self.lanes} of them" if self.lanes > 1 else "")
            )
        return np.broadcast_to(indices, (self.lanes,))[lanes].astype(np.int64)

    def _begin_from_frames(self, lanes: np.ndarray, frames: Any, actions: Any, seeds: list[int]) -> WorldState:
        images = np.asarray(frames)
        if images.ndim == 3:
            images = images[None]
        if images.ndim == 4:  # one context for all lanes: read it once
            state = self.world.start(images[None], None if actions is None else add_lane(actions))
            return state.select([0] * len(lanes)).reseed(seeds)
        if images.ndim != 5 or len(images) != self.lanes:
            one = f"(H, W, 3) or (T, H, W, 3){f' or ({self.lanes}, T, H, W, 3)' if self.lanes > 1 else ''}"
            raise ValueError(f"option 'frames' has shape {images.shape}; it must be {one}")
        return self.world.start(
            images[lanes],
            None if actions is None else map_actions(lambda array: array[lanes], actions),
            seeds,
        )

    def step(self, actions: Any) -> LaneSteps:
        """Takes one step in all lanes; ``actions`` is a batch of n.

        Raises:
            ResetNeeded: Before the first reset.
            ValueError: For actions outside the space.
        """
        if self.state is None:
            raise ResetNeeded("Cannot call env.step() before calling env.reset()")
        self.state, prediction = self.world.step(self.state, actions, steps=self.sampling_steps)
        self._frames = None
        # One transfer from the device for all numbers.
        numbers = torch.stack([prediction.reward, prediction.terminated.float(), self.state.doubt])
        reward, ends, doubt = numbers.cpu().numpy().astype(np.float64)
        steps, before = self.steps, self.uncertainty
        self.uncertainty, self.horizon_trust = self._trust(doubt, steps)
        terminated = ends > 0.5
        truncated = np.zeros_like(terminated)
        if self.min_trust:
            truncated |= np.minimum(self.horizon_trust, 1 - self.uncertainty) < self.min_trust
        if self.limit is not None:
            truncated |= steps >= self.limit
        self.ended = terminated | truncated
        return LaneSteps(reward - self.pessimism * (self.uncertainty - before), terminated, truncated)

    def _trust(self, doubt: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Uncertainty and horizon trust ``(n,)`` of lanes with these doubts after so many steps."""
        if self.calibration is None:
            return np.sqrt(doubt), np.ones_like(doubt)
        return self.calibration.expected_error(doubt), self.calibration.horizon_trust(steps)

    def info(self) -> dict[str, np.ndarray]:
        """What ``info`` tells of every lane, arrays ``(n,)``."""
        return {
            "uncertainty": self.uncertainty,
            "horizon_trust": self.horizon_trust,
            "step": self.steps,
            "start": self.start,
        }

    @property
    def steps(self) -> np.ndarray:
        """``(n,)`` int64, steps since each lane's reset."""
        assert self.state is not None
        return self.state.step.numpy().copy()

    def observations(self) -> Any:
        """``(n, ...)``, or a dict of that with ``obs_key``; a new array on every call."""
        if self.obs_type == "rgb":
            return as_observation(self.frames().copy(), self.obs_key)
        assert self.state is not None
        return self.state.latent.float().cpu().numpy().copy()

    def frames(self) -> np.ndarray:
        """``(n, H, W, 3)`` uint8, decoded when first asked for; not to be changed.

        Raises:
            ResetNeeded: Before the first reset.
        """
        if self.state is None:
            raise ResetNeeded("Cannot call env.render() before calling env.reset()")
        if self._frames is None:
            self._frames = self.world.decode(self.state.latent).cpu().numpy()
        return self._frames

    def save(self, generators: Sequence[np.random.Generator] | None) -> DreamState:
        """This moment.

        Raises:
            ResetNeeded: Before the first reset.
        """
        if self.state is None:
            raise ResetNeeded("Cannot clone the state before calling env.reset()")
        states = None if generators is None else tuple(g.bit_generator.state for g in generators)
        return DreamState(self.world.config.weights_sha256, self.state, self.start.copy(), self.ended.copy(), states)

    def restore(self, saved: DreamState, generators: Sequence[np.random.Generator]) -> None:
        """Goes on from a moment; ``generators`` are set too if it holds their states.

        Raises:
            ValueError: If the moment is of another world, another number of lanes or another dtype, or no such thing.
        """
        if not isinstance(saved, DreamState):
            raise ValueError(f"a state to restore comes from clone_state(), got {type(saved).__name__}")
        if saved.state.lanes != self.lanes:
            raise ValueError(f"the state holds {saved.state.lanes} dreams, this environment {self.lanes}")
        if saved.world != self.world.config.weights_sha256:
            raise ValueError("the state belongs to a world with other weights")
        if saved.state.latent.dtype != self.world.dtype:
            raise ValueError(
                f"the state was dreamed in {saved.state.latent.dtype}, this environment dreams in {self.world.dtype}: "
                "make both with the same dtype"
            )
        self.state, self._frames = saved.state.to(self.world.device), None
        self.start, self.ended = saved.start.copy(), saved.ended.copy()
        doubt = saved.state.doubt.cpu().numpy().astype(np.float64)
        self.uncertainty, self.horizon_trust = self._trust(doubt, self.steps)
        for generator, state in zip(generators, saved.generators or (), strict=False):
            generator.bit_generator.state = state


class PickledByArguments:
    """Pickles and copies an environment as its arguments and the moment it is in, never with weights."""

    _arguments: dict[str, Any]
    _lanes: DreamLanes
    _carried = ("spec", "action_space", "_np_random", "_np_random_seed", "_generators", "_seeds")

    def __getstate__(self) -> dict[str, Any]:
        arguments = dict(self._arguments)
        if isinstance(arguments["world"], World):
            if arguments["world"].source is None:
                raise ValueError(
                    "this environment dreams a world that was never saved, so it cannot be pickled or "
                    "copied: world.save(folder) first"
                )
            arguments["world"] = str(arguments["world"].source)
        moment = None if self._lanes.state is None else self._lanes.save(None)
        carried = {name: vars(self)[name] for name in self._carried if name in vars(self)}
        return {"arguments": arguments, "moment": moment, "carried": carried}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state["arguments"])  # type: ignore[misc]
        vars(self).update(state["carried"])
        if state["moment"] is not None:
            self._lanes.restore(state["moment"], [])
