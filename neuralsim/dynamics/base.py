"""What every dynamics model offers: a loss on clips, and one new latent frame per action.

Time: a clip has T latents and T-1 actions; action t leads from latent t to latent t+1.
Legend: B lanes, T frames, h w c the latent grid, A the size of an encoded action, K sampling steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

State = dict[str, Tensor]
"""All a dynamics model remembers. Every tensor's first dimension is the lane: index, stack or copy at will."""


@dataclass
class ClipBatch:
    """Training clips.

    Attributes:
        latents: ``(B, T, h, w, c)`` normalised latents of real frames.
        actions: ``(B, T-1, A)`` encoded actions (see :class:`neuralsim.actions.ActionCodec`).
        rewards: ``(B, T-1)``.
        terminated: ``(B, T-1)`` 1.0 where the episode ended with that action.
        valid: ``(B, T)`` False for frames before the episode began (they repeat its first frame).
        places: ``(B, T + L, P)`` where things are on the clip's frames and on L frames after it, in pixels: a column
            for each coordinate of each thing of the game's probes. NaN where a thing is not there, infinite where
            nobody knows, as after the end of an episode. None for recordings without that ground truth.
        pitch: ``(B, T)`` how far down the camera looks, in degrees. None for recordings without that ground truth.
    """

    latents: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    valid: Tensor
    places: Tensor | None = None
    pitch: Tensor | None = None

    def to(self, device: torch.device | str) -> ClipBatch:
        """The same clips on another device."""
        moved: dict[str, Any] = {name: None if v is None else v.to(device) for name, v in vars(self).items()}
        return ClipBatch(**moved)


@dataclass
class Rollout:
    """What a dynamics model makes of training clips.

    Attributes:
        loss: Scalar.
        metrics: Detached scalars.
        own: The model's own predictions of the last S frames, detached, ``(B, S, h, w, c)``, S at least ``predicted``;
            None where it makes none.
        features: ``(B, predicted, C, h, w)`` what was read off the past for each predicted frame; None for models that
            do not read it apart from the frame itself.
        trusted: ``(B, predicted)`` bool, whether what really comes next can be foreseen from that past: not where a
            dream has misplaced something. None stands for everywhere.
        alike: ``(B, S)`` bool, which own frames show nothing in a place where the real ones do not. What they have lost
            does not count: it may have been faint. None stands for all.
    """

    loss: Tensor
    metrics: dict[str, Tensor]
    own: Tensor | None = None
    features: Tensor | None = None
    trusted: Tensor | None = None
    alike: Tensor | None = None


class Dynamics(nn.Module, ABC):
    """Base class of all dynamics models.

    Attributes:
        latent_shape: ``(h, w, c)``.
        action_size: ``A``.
        context_length: How many past frames the model can make use of (fewer are fine, at least one).
        clip_length: Frames T a training clip must have.
        predicted: How many frames at the end of a training clip are shown to the heads; clips are chosen to hold
            events among them.
        noise_slots: Independent noise grids that one step uses.
        max_steps: The most sampling steps K the model was trained for; K is a power of two up to it.
    """

    latent_shape: tuple[int, int, int]
    action_size: int
    context_length: int
    clip_length: int
    predicted: int
    noise_slots: int
    max_steps: int

    @abstractmethod
    def forward(self, batch: ClipBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss on a batch of clips, and its metrics (detached scalars)."""

    def set_progress(self, share: float) -> None:
        """Tells how much of the run is done, in [0, 1], for what comes in gradually."""

    def fitted(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a relative that sees less, so padded that this model begins by computing what that one computes.

        Weights that already fit, or cannot be made to, come back as they are.
        """
        return weights

    def compile_parts(self) -> None:
        """Compiles what is worth compiling: by default the whole forward pass."""
        self.compile()

    def rollout(self, batch: ClipBatch) -> Rollout:
        """As :meth:`forward`, plus the model's own frames and what it has read off the past, where it makes such."""
        return Rollout(*self(batch))

    @abstractmethod
    def start(self, latents: Tensor, actions: Tensor) -> State:
        """Reads a context.

        Args:
            latents: ``(B, T, h, w, c)``, T >= 1.
            actions: ``(B, T-1, A)``.
        """

    @abstractmethod
    def step(
        self, state: State, action: Tensor, noise: Tensor, steps: int, bounds: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, State, Tensor]:
        """Dreams one frame.

        Args:
            state: From :meth:`start` or an earlier step; it is not changed.
            action: ``(B, A)``, the action taken now.
            noise: ``(B, noise_slots, h, w, c)`` standard normal.
            steps: Sampling steps K.
            bounds: Lowest and highest latent, each ``(h, w, c)``; the sample is clamped to them.

        Returns:
            The new latent ``(B, h, w, c)``, the next state, and an uncertainty ``(B,)``: how far the final
            sample lies from the first clean prediction (RMS).
        """
