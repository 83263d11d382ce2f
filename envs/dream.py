"""Dreams as an ordinary Gymnasium environment."""

from __future__ import annotations

import os
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded

from neuralsim.actions import add_lane, keys_from_json, slice_actions
from neuralsim.envs.dream_lanes import DreamLanes, DreamState, PickledByArguments
from neuralsim.extras import require
from neuralsim.world import World

_WINDOW = 640  # pixels: the window of render_mode "human" is enlarged by whole factors up to about this


class DreamEnv(PickledByArguments, gym.Env):
    """A learned world, stepped like the environment it was learned from.

    ## Observation space
    ``obs_type="rgb"``: ``Box(0, 255, (H, W, 3), uint8)``, the dreamed frame. ``obs_type="latent"``: a float32
    Box ``(h, w, c)``, the world's own code of that frame with its true bounds; nothing is decoded unless
    rendered. With ``obs_key="pov"`` frames come as MineRL shows them: ``Dict("pov": Box(0, 255, (H, W, 3), uint8))``;
    latents remain a Box.

    ## Action space
    That of the real environment.

    ## Rewards
    The world's prediction, snapped to the rewards that the real environment has.

    ## Starting state
    A real context, drawn from the world's starts; the observation is the world's reconstruction of its last
    frame. ``reset(options=...)`` takes

    - ``{"start": i}``: the i-th start of the world (``env.unwrapped.world.starts``);
    - ``{"frames": frames, "actions": actions}``: your own frames, ``(T, H, W, 3)`` or a single ``(H, W, 3)``,
      uint8, preprocessed as ``world.config.preprocessing`` says, and the T-1 actions between them (none for
      one frame).

    All randomness derives from ``np_random``: ``reset(seed=s)`` fixes this dream and all later ones.

    ## Episode end
    ``terminated`` when the world predicts the end; ``truncated`` after ``max_episode_steps``, or when the trust in
    the dream falls below ``min_trust``. Stepping on after that raises ``ResetNeeded``.

    ## Info
    - ``uncertainty`` (float): the error to expect of this frame, from how unsure the sampling of all frames since the
      reset was, calibrated on held-out recordings: 0 is exact, 1 is as far from reality as any other frame of the game.
      Where the card has no such measurement, or one with other sampling steps, the root of the summed squared
      distances between first guess and sample, in latent units.
    - ``horizon_trust`` (float): 1 less the mean error, in the same unit, of dreams of this length (of longer ones than
      were measured: of the longest, see the card); 1 where there is no such measurement.
    - ``step`` (int): steps since the reset.
    - ``start`` (int): index of the start, -1 for your own frames.

    Args:
        world: Name of a bundled world, folder, or Hugging Face hub id; or a loaded world (not through
            ``gymnasium.make``, which copies its arguments).
        sampling_steps: Sampling steps K per frame (1, 2, 4, ...); None for the world's own default.
        obs_type: ``"rgb"`` or ``"latent"``.
        starts: Resets begin at the ``"beginning"`` of episodes, or at ``"any"`` start of the world.
        device: ``"auto"`` (CUDA, else MPS, else CPU), ``"cpu"``, ``"cuda"`` or ``"mps"``.
        dtype: ``"auto"`` (bfloat16 on CUDA, float32 elsewhere), ``"float32"`` or ``"bfloat16"``.
        max_episode_steps: Truncate after so many steps, if that is sooner than the time limit of the world
            (which is that of the real environment); None for the world's limit, -1 for none.
        min_trust: Truncate when ``horizon_trust`` or 1 less ``uncertainty`` falls below this, from 0 (never) to 1.
        pessimism: Subtract this times what a step adds to the ``uncertainty`` from its reward, so that agents keep to
            what the dream knows well. An episode loses at most this times its last uncertainty.
        obs_key: Name under which a dict holds the frame, for code that was written for an environment with such
            observations; None for the frame itself, whatever the real environment has.
        render_mode: ``"rgb_array"``, ``"human"`` (a window, extra "play") or None.
        render_scale: Whole factor by which rendered frames are enlarged; None for 1, and for a window of
            handy size.

    Raises:
        FileNotFoundError: If there is no such world.
        ValueError: If an argument makes no sense, or the world is damaged.
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 15}  # noqa: RUF012

    def __init__(
        self,
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
        render_mode: str | None = None,
        render_scale: int | None = None,
    ) -> None:
        dream: dict[str, Any] = {
            "world": world, "sampling_steps": sampling_steps, "obs_type": obs_type, "starts": starts,
            "device": device, "dtype": dtype, "max_episode_steps": max_episode_steps,
            "min_trust": min_trust, "pessimism": pessimism, "obs_key": obs_key,
        }  # fmt: skip
        self._arguments = {**dream, "render_mode": render_mode, "render_scale": render_scale}
        self._lanes = DreamLanes(1, **dream)
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(
                f"render_mode is {render_mode!r}; it must be one of {self.metadata['render_modes']} or None"
            )
        if render_scale is not None and (not isinstance(render_scale, int) or render_scale < 1):
            raise ValueError(f"render_scale is {render_scale!r}; it must be a whole number from 1 on, or None")
        self.render_mode = render_mode
        self.render_scale = render_scale
        self.metadata = {**self.metadata, "render_fps": max(1, round(self.world.fps))}
        self.action_space = self._lanes.action_space
        self.observation_space = self._lanes.observation_space
        self._window: Any = None
        self._clock: Any = None

    @property
    def world(self) -> World:
        """The world that is dreamed; other environments may share it."""
        return self._lanes.world

    @property
    def sampling_steps(self) -> int:
        """Sampling steps K per frame; may be changed at any time, to a value that the world can do."""
        return self._lanes.sampling_steps

    @sampling_steps.setter
    def sampling_steps(self, steps: int) -> None:
        self._lanes.set_sampling_steps(steps)
        self._arguments["sampling_steps"] = steps

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins a new dream; see the class for ``options``.

        Raises:
            ValueError: For unknown options, a start that is not there, or frames and actions that do not fit.
        """
        super().reset(seed=seed)
        self._lanes.reset(np.zeros(1, np.int64), [self.np_random], options)
        if self.render_mode == "human":
            self.render()
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Dreams one step.

        Raises:
            ValueError: For an action outside the space; the message names it.
            ResetNeeded: Before the first reset, and after the end of an episode.
        """
        if self._lanes.ended[0]:
            raise ResetNeeded("This episode has ended (terminated or truncated was True): call env.reset() first")
        result = self._lanes.step(add_lane(action))
        if self.render_mode == "human":
            self.render()
        return (
            self._observation(),
            float(result.reward[0]),
            bool(result.terminated[0]),
            bool(result.truncated[0]),
            self._info(),
        )

    def _observation(self) -> Any:
        return slice_actions(self._lanes.observations(), 0)

    def _info(self) -> dict[str, Any]:
        return {name: values[0].item() for name, values in self._lanes.info().items()}

    def clone_state(self, include_rng: bool = False) -> DreamState:
        """This moment as a plain value: restored, the same actions lead to the same future, bit for bit.

        Args:
            include_rng: Also keep the generator that later resets draw from. (The noise of this dream is a
                function of its seed and step, and always included.)

        Raises:
            ResetNeeded: Before the first reset.
        """
        return self._lanes.save([self.np_random] if include_rng else None)

    def restore_state(self, state: DreamState) -> None:
        """Goes back, or over from another environment of the same world, to a cloned moment.

        Raises:
            ValueError: If it is of another world or of several lanes.
        """
        self._lanes.restore(state, [self.np_random])

    def get_keys_to_action(self) -> dict[tuple[str | int, ...], Any]:
        """Pressed keys and the actions they mean, for :mod:`gymnasium.utils.play`.

        Raises:
            ValueError: If the world does not say.
        """
        pairs = self.world.config.keys_to_action
        if pairs is None:
            raise ValueError(
                f"the world {self.world.config.name!r} does not say which keys mean which action: give "
                "keys_to_action=... to play()"
            )
        return keys_from_json(pairs, self.action_space)

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """Draws the current frame: an array ``(H, W, 3)`` uint8, enlarged by ``render_scale``, or a window.

        Raises:
            ResetNeeded: Before the first reset.
        """
        if self.render_mode is None:
            gym.logger.warn(
                "You are calling render() without a render mode: make the environment with "
                "render_mode='rgb_array' or 'human'."
            )
            return None
        frame = self._lanes.frames()[0]
        scale = self.render_scale or 1
        if self.render_mode == "human":
            if self.render_scale is None:
                scale = max(1, _WINDOW // max(frame.shape[:2]))
            self._show(frame.repeat(scale, axis=0).repeat(scale, axis=1))
            return None
        return frame.repeat(scale, axis=0).repeat(scale, axis=1) if scale > 1 else frame.copy()

    def _show(self, frame: np.ndarray) -> None:
        pygame = require("pygame", extra="play", why="render_mode='human'")
        if self._window is None:
            pygame.init()
            self._window = pygame.display.set_mode((frame.shape[1], frame.shape[0]))
            config = self.world.config
            pygame.display.set_caption(f"Dream of {config.name}" + (f" - {config.notice}" if config.notice else ""))
            self._clock = pygame.time.Clock()
        pygame.surfarray.blit_array(self._window, frame.swapaxes(0, 1))
        pygame.event.pump()
        pygame.display.flip()
        self._clock.tick(self.metadata["render_fps"])

    def close(self) -> None:
        """Closes the window, if there is one."""
        if self._window is not None:
            pygame = require("pygame", extra="play", why="render_mode='human'")
            pygame.display.quit()
            self._window = None
