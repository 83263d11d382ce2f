"""Many dreams at once: one batched forward for all lanes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import logger
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from neuralsim.actions import slice_actions
from neuralsim.envs.dream_lanes import DreamLanes, DreamState, LaneSteps, PickledByArguments
from neuralsim.world import World


class DreamVectorEnv(PickledByArguments, VectorEnv):
    """``num_envs`` dreams of one world, each exactly what :class:`~neuralsim.envs.dream.DreamEnv` dreams.

    Spaces, rewards, reset options and info are those of :class:`~neuralsim.envs.dream.DreamEnv`, batched as
    Gymnasium batches them; lane i of ``reset(seed=s)`` is a single environment's ``reset(seed=s + i)``.
    Options ``"start"`` and ``"frames"``/``"actions"`` may also hold one entry per lane, and ``"reset_mask"``
    (bool array) resets some lanes.

    Autoreset: ``NEXT_STEP`` begins a new dream with the step after an episode's end (that step's action is ignored,
    its reward is 0); ``SAME_STEP`` at once, with the last observation and info in ``info["final_obs"]`` and
    ``info["final_info"]``; ``DISABLED`` never, and stepping an ended lane raises ``ResetNeeded``.

    Args:
        num_envs: Number of lanes.
        world: As in :class:`~neuralsim.envs.dream.DreamEnv`, like all others that are named alike.
        sampling_steps: Sampling steps K per frame.
        obs_type: ``"rgb"`` or ``"latent"``.
        starts: ``"beginning"`` or ``"any"``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        dtype: ``"auto"``, ``"float32"`` or ``"bfloat16"``.
        max_episode_steps: Time limit, enforced here for every lane; None for the world's own, -1 for none.
        min_trust: Trust below which a lane is truncated.
        pessimism: Factor of what a step adds to the uncertainty, which is subtracted from its reward.
        obs_key: Name under which a dict holds the frames; None for frames as they are.
        autoreset_mode: An :class:`gymnasium.vector.AutoresetMode` or its value, e.g. ``"SameStep"``.
        render_mode: ``"rgb_array"`` or None; ``render()`` returns one frame per lane.
        render_scale: Whole factor by which rendered frames are enlarged.

    Raises:
        FileNotFoundError: If there is no such world.
        ValueError: If an argument makes no sense, or the world is damaged.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["rgb_array"], "render_fps": 15, "autoreset_mode": AutoresetMode.NEXT_STEP,
    }  # fmt: skip

    def __init__(
        self,
        num_envs: int = 1,
        world: str | os.PathLike[str] | World | None = None,
        sampling_steps: int | None = None,
        obs_type: str = "rgb",
        starts: str = "beginning",
        device: str = "auto",
        dtype: str = "auto",
        max_episode_steps: int | None = None,
        min_trust: float = 0.0,
        pessimism: float = 0.0,
        obs_key: str | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        render_scale: int | None = None,
    ) -> None:
        dream: dict[str, Any] = {
            "world": world, "sampling_steps": sampling_steps, "obs_type": obs_type, "starts": starts,
            "device": device, "dtype": dtype, "max_episode_steps": max_episode_steps,
            "min_trust": min_trust, "pessimism": pessimism, "obs_key": obs_key,
        }  # fmt: skip
        self._arguments = {
            "num_envs": num_envs, **dream, "autoreset_mode": autoreset_mode, "render_mode": render_mode,
            "render_scale": render_scale,
        }  # fmt: skip
        try:
            self.autoreset_mode = AutoresetMode(autoreset_mode)
        except ValueError:
            modes = ", ".join(repr(mode.value) for mode in AutoresetMode)
            raise ValueError(f"autoreset_mode is {autoreset_mode!r}; it must be one of {modes}") from None
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode is {render_mode!r}; many dreams at once have 'rgb_array' or None")
        if render_scale is not None and (not isinstance(render_scale, int) or render_scale < 1):
            raise ValueError(f"render_scale is {render_scale!r}; it must be a whole number from 1 on, or None")
        self._lanes = DreamLanes(num_envs, **dream)
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.render_scale = render_scale or 1
        self.metadata = {
            **self.metadata,
            "render_fps": max(1, round(self.world.fps)),
            "autoreset_mode": self.autoreset_mode,
        }
        self.single_action_space = self._lanes.action_space
        self.single_observation_space = self._lanes.observation_space
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._generators: list[np.random.Generator] = []
        self._seeds: list[int] = []
        self._seed([None] * num_envs, np.arange(num_envs))

    @property
    def world(self) -> World:
        """The world that is dreamed; other environments may share it."""
        return self._lanes.world

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """One generator per lane."""
        return tuple(self._generators)

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The seed of each lane's generator."""
        return tuple(self._seeds)

    def _seed(self, seeds: Sequence[int | None], lanes: np.ndarray) -> None:
        made = [seeding.np_random(seeds[i]) for i in lanes]
        if not self._generators:
            self._generators, self._seeds = [g for g, _ in made], [s for _, s in made]
        for i, (generator, seed) in zip(lanes, made, strict=True):
            self._generators[i], self._seeds[i] = generator, seed

    def reset(  # type: ignore[override]
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins new dreams in all lanes, or in those of ``options["reset_mask"]``.

        Args:
            seed: s seeds the lanes s, s + 1, ...; or one per lane. None goes on with the lanes' generators.
            options: See the class.

        Raises:
            ValueError: For options or seeds that make no sense.
            ResetNeeded: If the first reset of all is partial.
        """
        options = dict(options or {})
        mask = options.pop("reset_mask", None)
        if mask is None:
            mask = np.ones(self.num_envs, np.bool_)
        if (
            not isinstance(mask, np.ndarray)
            or mask.dtype != np.bool_
            or mask.shape != (self.num_envs,)
            or not mask.any()
        ):
            raise ValueError(
                f"option 'reset_mask' is {mask!r}; it must be a boolean array of shape ({self.num_envs},) "
                "with at least one True"
            )
        lanes = np.flatnonzero(mask)
        if seed is not None:
            seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, (int, np.integer)) else list(seed)
            if len(seeds) != self.num_envs:
                raise ValueError(f"{len(seeds)} seeds for {self.num_envs} lanes")
            # As in Gymnasium's own vector environments, None for a lane leaves its generator as it is.
            self._seed(seeds, np.array([i for i in lanes if seeds[i] is not None], np.int64))
        self._restart(lanes, options)
        return self._lanes.observations(), self._info(mask)

    def _restart(self, lanes: np.ndarray, options: dict[str, Any] | None = None) -> None:
        self._lanes.reset(lanes, [self._generators[i] for i in lanes], options)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Dreams one step in every lane.

        Raises:
            ValueError: For an action outside the space; the message names it.
            ResetNeeded: Before the first reset; with ``DISABLED`` also if a lane has ended.
        """
        lanes = self._lanes
        ended = np.flatnonzero(lanes.ended)
        if len(ended) and self.autoreset_mode is AutoresetMode.DISABLED:
            raise ResetNeeded(
                f"The episodes of lanes {ended.tolist()} have ended: reset them by "
                "env.reset(options={'reset_mask': mask}) first"
            )
        if len(ended) == self.num_envs:
            nothing = np.zeros(self.num_envs)
            result = LaneSteps(nothing, nothing.astype(np.bool_), nothing.astype(np.bool_))
        else:
            result = lanes.step(actions)
        if len(ended):  # in NEXT_STEP mode; the batch stays whole, so these lanes were stepped in vain
            self._restart(ended)
            for values in (result.reward, result.terminated, result.truncated):
                values[ended] = 0
        info: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and lanes.ended.any():
            done = lanes.ended.copy()
            last = lanes.observations()
            final_obs = np.full(self.num_envs, None, dtype=object)
            for i in np.flatnonzero(done):
                final_obs[i] = slice_actions(last, i)
            info = {
                "final_obs": final_obs,
                "_final_obs": done.copy(),
                "final_info": self._info(done),
                "_final_info": done.copy(),
            }
            self._restart(np.flatnonzero(done))
        info |= self._info(np.ones(self.num_envs, np.bool_))
        return lanes.observations(), result.reward, result.terminated, result.truncated, info

    def _info(self, mask: np.ndarray) -> dict[str, Any]:
        """Gymnasium's vector format: an array per key, and a mask ``_key`` of the lanes that have it."""
        info: dict[str, Any] = {}
        for key, value in self._lanes.info().items():
            info[key] = np.where(mask, value, np.zeros_like(value))
            info[f"_{key}"] = mask.copy()
        return info

    def clone_state(self, include_rng: bool = False) -> DreamState:
        """This moment of all lanes; see :meth:`neuralsim.envs.dream.DreamEnv.clone_state`."""
        return self._lanes.save(self._generators if include_rng else None)

    def restore_state(self, state: DreamState) -> None:
        """Goes on from a cloned moment; see :meth:`neuralsim.envs.dream.DreamEnv.restore_state`."""
        self._lanes.restore(state, self._generators)

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The current frames ``(H, W, 3)`` uint8, one per lane.

        Raises:
            ResetNeeded: Before the first reset.
        """
        if self.render_mode is None:
            logger.warn(
                "You are calling render() without a render mode: make the environment with render_mode='rgb_array'."
            )
            return None
        frames = self._lanes.frames().repeat(self.render_scale, axis=1).repeat(self.render_scale, axis=2)
        return tuple(frame.copy() for frame in frames)
