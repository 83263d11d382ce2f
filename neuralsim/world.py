"""A world: tokenizer, dynamics and heads behind one interface that everything else uses.

    world = World.load("pong")                                   # a bundled name, a folder or a hub id
    state = world.start(frames, actions, seed=[0])               # real context -> state
    state, prediction = world.step(state, actions)               # one new frame, no pixels drawn
    frames = world.decode(prediction.latent)                     # (B, H, W, 3) uint8

A state is a plain value (:class:`WorldState`): keep it to branch a dream, stack states to batch dreams.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralsim.actions import ActionCodec, add_lane, space_from_json
from neuralsim.devices import choose_device, choose_dream_dtype, choose_dtype
from neuralsim.dynamics import Dynamics, build_dynamics
from neuralsim.dynamics.shortcut import check_power_of_two
from neuralsim.heads import Heads, HeadsConfig
from neuralsim.json_parts import dump_parts
from neuralsim.noise import lane_noise
from neuralsim.starts import Start, load_starts, save_starts
from neuralsim.tokenizers import Tokenizer, build_tokenizer
from neuralsim.world_config import WorldConfig
from neuralsim.world_files import (
    CARD,
    CARD_TEXT,
    CONFIG,
    STARTS,
    WEIGHTS,
    find_world,
    read_weights,
    replacing_folder,
    write_weights,
)
from neuralsim.world_state import Prediction, WorldState, seed_tensor

__all__ = ["Prediction", "Start", "World", "WorldConfig", "WorldState"]

_ENCODE_CHUNK = 256  # frames encoded at once: bounds the memory of long contexts in many lanes
_START_CACHE_BYTES = 256 * 2**20

if hasattr(os, "register_at_fork"):
    # GNU OpenMP does not survive a fork: a child that computes in several threads, as every worker of Gymnasium's
    # AsyncVectorEnv would, waits forever once its parent did. With one thread per worker it works, and is faster.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class World:
    """A learned simulator, for inference.

    The parts are taken over: moved to the device and dtype, put in eval mode and frozen. Pass copies of
    models that are still in training. The heads are small and always run in float32.

    Args:
        config: What the world is.
        tokenizer: Frames to latents and back.
        dynamics: The next latent.
        heads: Reward and end of an episode.
        starts: Real contexts to begin from; may be empty.
        device: ``"auto"`` (CUDA, else MPS, else CPU), ``"cpu"``, ``"cuda"``, ``"mps"`` or a torch device.
        dtype: ``"auto"`` (bfloat16 on CUDA, float32 elsewhere), ``"float32"`` or ``"bfloat16"``.

    Attributes:
        actions: Codec of the action space.
        action_space: The recorded environment's action space.
        frame_shape: ``(H, W, 3)``.
        latent_shape: ``(h, w, c)``.
        fps: Steps per second of the real environment.
        starts: Real contexts to begin from.
        card: Content of ``card.json``, or None.
        card_text: Content of ``card.md``, or None.
        source: The folder it was loaded from, or None.

    Raises:
        ValueError: If the parts do not fit each other or the config.
    """

    def __init__(
        self,
        config: WorldConfig,
        tokenizer: Tokenizer,
        dynamics: Dynamics,
        heads: Heads,
        starts: Sequence[Start] = (),
        device: str | torch.device = "auto",
        dtype: str = "auto",
    ) -> None:
        self.config = config
        self.action_space = space_from_json(config.action_space)
        self.actions = ActionCodec(self.action_space)
        for ours, theirs, what in (
            (config.frame_shape, tuple(tokenizer.frame_shape), "frame shapes of config and tokenizer"),
            (
                tuple(tokenizer.latent_shape),
                tuple(dynamics.latent_shape),
                "latent shapes of tokenizer and dynamics",
            ),
            (self.actions.size, dynamics.action_size, "encoded action sizes of config and dynamics"),
        ):
            if ours != theirs:
                raise ValueError(f"the {what} differ: {ours} and {theirs}")
        for start in starts:
            if start.frames.shape[1:] != config.frame_shape:
                raise ValueError(f"a start has frames of {start.frames.shape[1:]}, the world {config.frame_shape}")
        self.device = choose_device(str(device))
        self.dtype = choose_dream_dtype(dtype, self.device)
        self.tokenizer = tokenizer.to(self.device, self.dtype).eval().requires_grad_(False)
        self.dynamics = dynamics.to(self.device, self.dtype).eval().requires_grad_(False)
        self.heads = heads.to(self.device, torch.float32).eval().requires_grad_(False)
        for part in self.parts.values():
            # Latents come with their channels last; kernels laid out alike are not reordered at every call.
            part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.starts = list(starts)
        self.frame_shape = config.frame_shape
        self.latent_shape = tuple(tokenizer.latent_shape)
        self.fps = config.fps
        self.card: dict[str, Any] | None = None
        self.card_text: str | None = None
        self.source: Path | None = None
        self.check_steps(config.sampling_steps)
        with torch.inference_mode():
            self._bounds = self.tokenizer.latent_bounds()
            values = config.reward_values
            self._reward_values = None if values is None else torch.tensor(values, device=self.device).float()
        self._start_states: dict[int, WorldState] = {}

    def __repr__(self) -> str:
        height, width, _ = self.frame_shape
        dtype = str(self.dtype).removeprefix("torch.")
        return (
            f"World({self.config.name!r}, {width}x{height}, {self.action_space}, {len(self.starts)} starts, "
            f"{self.device}, {dtype})"
        )

    # -- dreaming

    def start(self, frames: Any, actions: Any = None, seed: int | Sequence[int] = 0) -> WorldState:
        """Reads real context: the dream goes on after its last frame.

        Args:
            frames: ``(B, T, H, W, 3)`` uint8, array or tensor, T >= 1; of a long context the last frames
                count.
            actions: The actions between them, a batch ``(B, T-1, ...)`` in the format of the action space
                (for Dict spaces a dict of batches). May be None if T is 1.
            seed: One seed per lane in [0, 2**63); a single number s gives s, s + 1, ...

        Raises:
            ValueError: For frames or actions of the wrong type, shape or range; the message names them.
        """
        images = self._check_frames(frames)
        lanes, length = images.shape[:2]
        if actions is None:
            if length > 1:
                raise ValueError(f"a context of {length} frames needs the {length - 1} actions between them")
            encoded = np.zeros((lanes, 0, self.actions.size), np.float32)
        else:
            encoded = self.actions.encode(actions)
            if encoded.shape != (lanes, length - 1, self.actions.size):
                raise ValueError(
                    f"{lanes} contexts of {length} frames need actions ({lanes}, {length - 1}, ...), got "
                    f"{encoded.shape[:-1]}: one action fewer than frames"
                )
        keep = min(length, self.dynamics.context_length)
        with torch.inference_mode():
            latents = self._encode(images[:, length - keep :])
        return self.start_from_latents(latents, torch.from_numpy(encoded[:, length - keep :]), seed)

    def start_from_latents(self, latents: Tensor, encoded: Tensor, seed: int | Sequence[int] = 0) -> WorldState:
        """As :meth:`start`, from what has been encoded before: recordings whose latents lie on disk.

        Args:
            latents: ``(B, T, h, w, c)`` of this world's tokenizer, taken as they are (:meth:`start` clamps them to the
                tokenizer's bounds); of a long context the last frames count.
            encoded: ``(B, T-1, A)`` actions between them, encoded by :attr:`actions`.
            seed: See :meth:`start`.

        Raises:
            ValueError: If the shapes do not fit.
        """
        lanes, length = latents.shape[:2]
        if latents.shape[2:] != self.latent_shape or encoded.shape != (lanes, length - 1, self.actions.size):
            raise ValueError(
                f"a context is latents (B, T, {', '.join(map(str, self.latent_shape))}) and actions (B, T-1, "
                f"{self.actions.size}), got {tuple(latents.shape)} and {tuple(encoded.shape)}"
            )
        keep = min(length, self.dynamics.context_length)
        latents, encoded = latents[:, length - keep :], encoded[:, length - keep :]
        step, seeds = torch.zeros(lanes, dtype=torch.long), seed_tensor(seed, lanes)
        with torch.inference_mode():
            latents = latents.to(self.device, self.dtype)
            state = self.dynamics.start(latents, encoded.to(self.device, self.dtype))
            recent = self.heads.look_back(latents)[:, -1]
        doubt = torch.zeros(lanes, device=self.device)
        return WorldState(state, recent.clone(), step, seeds, doubt)

    def start_at(self, index: int, seed: int = 0) -> WorldState:
        """The state of one lane after one of the world's own :attr:`starts`; computed once and remembered.

        Raises:
            ValueError: If there is no such start.
        """
        if not 0 <= index < len(self.starts):
            raise ValueError(
                f"start {index} is not there; this world has starts 0 to {len(self.starts) - 1}"
                if self.starts
                else "this world has no starts: begin from frames of your own"
            )
        state = self._start_states.get(index)
        if state is None:
            chosen = self.starts[index]
            actions = None if len(chosen) == 1 else add_lane(chosen.actions)
            state = self.start(chosen.frames[None], actions)
            if state.nbytes * len(self.starts) <= _START_CACHE_BYTES:
                self._start_states[index] = state
        return dataclasses.replace(state, seed=seed_tensor([seed], 1))

    def step(
        self,
        state: WorldState,
        actions: Any,
        rng: torch.Generator | None = None,
        steps: int | None = None,
    ) -> tuple[WorldState, Prediction]:
        """Dreams one frame in every lane; ``state`` is not changed.

        The noise of a lane depends on its seed and step count alone, so that a lane dreams the same alone as
        among others (up to the rounding of batched arithmetic).

        Args:
            state: Where the B dreams are.
            actions: ``(B, ...)`` in the format of the action space (for Dict spaces a dict of batches).
            rng: Draws the noise from this generator instead, for all lanes together.
            steps: Sampling steps K, a power of two; the config's by default.

        Raises:
            ValueError: For actions outside the space, or a K the dynamics was not trained for.
        """
        lanes = state.lanes
        encoded = self.actions.encode(actions)
        if encoded.shape != (lanes, self.actions.size):
            raise ValueError(
                f"{lanes} dreams need {lanes} actions of {self.action_space}, got a batch of shape {encoded.shape[:-1]}"
            )
        shape = (self.dynamics.noise_slots, *self.latent_shape)
        steps = self.config.sampling_steps if steps is None else steps
        with torch.inference_mode():
            action = torch.from_numpy(encoded).to(self.device)
            if rng is None:
                drawn = torch.from_numpy(lane_noise(state.seed.tolist(), state.step.tolist(), shape))
            else:
                drawn = torch.randn(lanes, *shape, generator=rng, device=rng.device)
            latent, dynamics, uncertainty = self.dynamics.step(
                state.dynamics, action.to(self.dtype), drawn.to(self.device, self.dtype), steps, self._bounds
            )
            heads = self.heads(state.recent.float(), latent.float(), action)
            reward = self.real_reward(heads.reward.float())
            terminated = heads.continue_logit < 0
        # Copies made out here are ordinary tensors, which a policy in training may use.
        latent = latent.clone()
        recent = torch.cat([state.recent[:, 1:], latent[:, None]], dim=1)
        uncertainty = uncertainty.float().clone()
        following = WorldState(dynamics, recent, state.step + 1, state.seed, state.doubt + uncertainty.square())
        return following, Prediction(latent, reward.clone(), terminated.clone(), uncertainty)

    def decode(self, latent: Any) -> Tensor:
        """Latents ``(..., h, w, c)``, array or tensor, to frames ``(..., H, W, 3)`` uint8 on its device.

        Raises:
            ValueError: For latents of another shape.
        """
        latent = torch.as_tensor(latent)
        if tuple(latent.shape[-3:]) != self.latent_shape:
            raise ValueError(f"latents have shape {tuple(latent.shape)}, this world's end in {self.latent_shape}")
        with torch.inference_mode():
            frames = self.tokenizer.decode(latent.to(self.device, self.dtype))
        return frames.clone()

    def encode(self, frames: Any) -> Tensor:
        """Frames ``(B, T, H, W, 3)`` uint8, array or tensor, to latents ``(B, T, h, w, c)``.

        Raises:
            ValueError: For frames of the wrong type or shape.
        """
        with torch.inference_mode():
            latents = self._encode(self._check_frames(frames))
        return latents.clone()

    def check_steps(self, steps: int) -> int:
        """Returns ``steps`` if the dynamics can sample in so many.

        Raises:
            ValueError: If it is no power of two, or more than the dynamics was trained for.
        """
        check_power_of_two(steps, "sampling_steps")
        if steps > self.dynamics.max_steps:
            raise ValueError(
                f"sampling_steps is {steps}, but this world was trained for at most {self.dynamics.max_steps}"
            )
        return steps

    def latent_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest value of every latent, each ``(h, w, c)`` float32."""
        low, high = self._bounds
        return low.float().cpu().numpy(), high.float().cpu().numpy()

    def _check_frames(self, frames: Any) -> Tensor:
        images = torch.as_tensor(frames)
        if images.dtype != torch.uint8:
            raise ValueError(
                f"frames have type {images.dtype}; they must be uint8, 0 to 255 (floats in [0, 1]: "
                "multiply by 255, round and convert)"
            )
        if images.ndim != 5 or tuple(images.shape[2:]) != self.frame_shape:
            raise ValueError(
                f"frames have shape {tuple(images.shape)}; this world reads (lanes, frames, "
                f"{', '.join(map(str, self.frame_shape))}): preprocess them as config.preprocessing says"
            )
        if images.shape[0] < 1 or images.shape[1] < 1:
            raise ValueError(f"frames have shape {tuple(images.shape)}: a context is at least one frame")
        return images

    def _encode(self, images: Tensor) -> Tensor:
        chunks = images.flatten(0, 1).split(_ENCODE_CHUNK)
        latents = torch.cat([self.tokenizer.encode(chunk.to(self.device)) for chunk in chunks])
        latents = torch.minimum(torch.maximum(latents, self._bounds[0]), self._bounds[1])
        return latents.reshape(*images.shape[:2], *self.latent_shape)

    def real_reward(self, reward: Tensor) -> Tensor:
        """The nearest reward that the real environment gives: agents see exact points, not 0.98."""
        if self._reward_values is not None:
            reward = self._reward_values[(reward[:, None] - self._reward_values).abs().argmin(1)]
        if self.config.reward_range is not None:
            reward = reward.clamp(*self.config.reward_range)
        return reward

    # -- files

    def save(self, folder: str | os.PathLike[str], weights_dtype: str = "float32") -> Path:
        """Writes the world as a folder, all of it or nothing; an older world in its place is kept until then.

        Args:
            folder: Where to. Other files in it are kept.
            weights_dtype: ``"float32"`` or ``"bfloat16"`` (half the size; loads to any dtype). The tokenizer keeps
                its precision, so that latents and agents of its run fit the world.

        Returns:
            The folder.

        Raises:
            ValueError: If the folder holds files named like a world's that are not a world's.
            OSError: If it cannot be written.
        """
        folder = Path(folder)
        stored = choose_dtype(weights_dtype if weights_dtype != "auto" else "float32", torch.device("cpu"))
        with replacing_folder(folder) as fresh:
            checksum = write_weights(fresh / WEIGHTS, self.parts, stored)
            self.config = dataclasses.replace(self.config, weights_sha256=checksum)
            if self.starts:
                save_starts(fresh / STARTS, self.starts)
            if self.card is not None:
                (fresh / CARD).write_text(dump_parts(self.card), encoding="utf-8")
            if self.card_text is not None:
                (fresh / CARD_TEXT).write_text(self.card_text, encoding="utf-8")
            (fresh / CONFIG).write_text(self.config.to_json(), encoding="utf-8")
        self.source = folder.absolute()
        return folder

    @classmethod
    def load(cls, source: str | os.PathLike[str], device: str | torch.device = "auto", dtype: str = "auto") -> World:
        """Reads a world.

        Args:
            source: A bundled name (``"pong"``), a folder, or a Hugging Face hub id ``user/name[@revision]``.
            device: See :class:`World`.
            dtype: See :class:`World`.

        Raises:
            FileNotFoundError: If there is no such world, or a file of it is missing.
            ValueError: If it is damaged, written by a newer version, or its weights do not fit; the message
                says which file and what to do.
            ModuleNotFoundError: For a hub id without the extra "hub".
        """
        folder = find_world(source)
        try:
            config = WorldConfig.from_json((folder / CONFIG).read_text(encoding="utf-8"))
            tokenizer = build_tokenizer(config.tokenizer["type"], config.tokenizer["config"])
            dynamics = build_dynamics(config.dynamics["type"], config.dynamics["config"])
            heads = Heads(HeadsConfig(**config.heads["config"]))
            space = space_from_json(config.action_space)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{folder / CONFIG} cannot be used: {error}") from error
        read_weights(
            folder / WEIGHTS,
            {"tokenizer": tokenizer, "dynamics": dynamics, "heads": heads},
            config.weights_sha256,
        )
        world = cls(
            config,
            tokenizer,
            dynamics,
            heads,
            load_starts(folder / STARTS, config.frame_shape, space),
            device,
            dtype,
        )
        if (folder / CARD).is_file():
            try:
                world.card = json.loads((folder / CARD).read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(f"{folder / CARD} is damaged: {error}; delete it to use the world without") from error
        if (folder / CARD_TEXT).is_file():
            world.card_text = (folder / CARD_TEXT).read_text(encoding="utf-8")
        world.source = folder.absolute()
        return world

    @property
    def parts(self) -> dict[str, torch.nn.Module]:
        """Tokenizer, dynamics and heads by name."""
        return {"tokenizer": self.tokenizer, "dynamics": self.dynamics, "heads": self.heads}
