"""What every dynamics model offers: a loss on clips, and one new latent frame per action.

Time: a clip has T latents and T-1 actions; action t leads from latent t to latent t+1.
Legend: B lanes, T frames, h w c the latent grid, A the size of an encoded action, K sampling steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

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
    """

    latents: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    valid: Tensor

    def to(self, device: torch.device | str) -> ClipBatch:
        """The same clips on another device."""
        return ClipBatch(**{name: value.to(device) for name, value in vars(self).items()})


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

    def compile_parts(self) -> None:
        """Compiles what is worth compiling: by default the whole forward pass."""
        self.compile()

    def rollout_loss(self, batch: ClipBatch) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
        """As :meth:`forward`, plus the model's own frames where it makes some.

        Returns:
            Loss, metrics, and None or the model's detached predictions of the last S frames ``(B, S, h, w, c)``, S at
            least ``predicted``.
        """
        return *self(batch), None

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
