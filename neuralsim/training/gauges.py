"""What the training loop measures beside what the model reports.

Nothing here draws random numbers or waits for a device between two lines of the log: a run with gauges is the run
without them, and takes as long.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import torch
from torch import Tensor, nn

from neuralsim.training.memory import device_memory_share, memory_share

WINDOW = 100
"""Steps over which shares are taken; there is no share before so many are done."""
LOOKED_AT = 20
"""Batches that are looked into, from the start of the run or its resumption."""
_LANES = 8  # of a batch, for the latents' standard deviation: enough, and quick


class Gauges:
    """Measures a run.

    Args:
        model: What is trained; ``separate_parts()`` and ``frozen_parts()`` are asked if they exist. All parameters of
            what the latter names must stay as they are.
        gradient_clip: Largest gradient norm of a part.
        device: Where the model is.
    """

    def __init__(self, model: nn.Module, gradient_clip: float, device: torch.device) -> None:
        self.model, self.device = model, device
        separate = getattr(model, "separate_parts", None)
        # A norm of all parts above this is certain to have been cut in one of them.
        self._clip = gradient_clip * math.sqrt(len(separate()) if callable(separate) else 1)
        self._norms: deque[Tensor] = deque(maxlen=WINDOW)
        self._seconds: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self._batches = 0
        self._rewards: dict[float, int] = {}
        self._latent_std: Tensor | None = None

    def saw_batch(self, batch: Any) -> None:
        """Looks into the first batches, before the model gets them.

        Raises:
            ValueError: If the clips are not of the shape that the dynamics was built for.
        """
        if self._batches == 0:
            check_clips(self.model, batch)
        if self._batches < LOOKED_AT:
            self._count_rewards(batch)
            self._measure_latents(batch)
        self._batches += 1

    def saw_step(self, norm: Tensor, waited: float, seconds: float) -> None:
        """Takes note of a step.

        Args:
            norm: Gradient norm of all parts before clipping, a scalar; it is not read before the next :meth:`read`.
            waited: Seconds until the batch was there and on its device.
            seconds: Seconds of the whole step.
        """
        self._norms.append(norm)
        self._seconds.append((waited, seconds))

    def read(self) -> dict[str, float]:
        """The figures that can be told now; see :mod:`neuralsim.training.diagnostic_rules` for what they are.

        What was seen in the first batches is told once.
        """
        figures: dict[str, float | None] = {
            "memory": memory_share(),
            "device_memory": device_memory_share(self.device),
            "frozen_gradients": frozen_gradients(self.model),
        }
        if len(self._norms) == WINDOW:
            figures["clipped"] = float((torch.stack(list(self._norms)) > self._clip).float().mean())
            waited, seconds = (sum(column) for column in zip(*self._seconds, strict=True))
            figures["waiting"] = waited / max(seconds, 1e-9)
        if self._batches >= LOOKED_AT:
            if self._rewards:
                figures["reward_majority"] = max(self._rewards.values()) / sum(self._rewards.values())
            if self._latent_std is not None:
                figures["latent_std"] = float(self._latent_std.min())
            self._rewards, self._latent_std = {}, None
        return {name: float(value) for name, value in figures.items() if value is not None}

    def _count_rewards(self, batch: Any) -> None:
        rewards = getattr(batch, "rewards", None)
        if rewards is None:
            return
        valid = getattr(batch, "valid", None)
        # Before an episode begins there are no rewards, only zeros in their place.
        known = rewards if valid is None else rewards[valid[:, :-1]]
        for value, count in zip(*(part.tolist() for part in known.unique(return_counts=True)), strict=True):
            self._rewards[value] = self._rewards.get(value, 0) + count

    def _measure_latents(self, batch: Any) -> None:
        latents = getattr(batch, "latents", None)
        if latents is None:
            return
        std = latents[:_LANES].float().flatten(0, -2).std(0).cpu()
        # A channel that comes alive in any batch is not dead.
        self._latent_std = std if self._latent_std is None else self._latent_std.maximum(std)


def check_clips(model: nn.Module, batch: Any) -> None:
    """Compares a batch of clips with what a world model's dynamics was built for; other batches are left alone.

    Raises:
        ValueError: If the latents' grid or the number of frames is another.
    """
    latents, dynamics = getattr(batch, "latents", None), getattr(model, "dynamics", None)
    if latents is None or dynamics is None:
        return
    grid, length = tuple(latents.shape[2:]), latents.shape[1]
    if grid != tuple(dynamics.latent_shape):
        raise ValueError(
            f"the clips hold latents of shape {grid}, the dynamics was built for {tuple(dynamics.latent_shape)}: "
            "build it for the tokenizer that these latents come from"
        )
    if length != dynamics.clip_length:
        raise ValueError(
            f"the clips have {length} frames, the dynamics needs {dynamics.clip_length} (context, lead and rollout): "
            "cut them by its clip_length"
        )


def frozen_gradients(model: nn.Module) -> int:
    """How many parameters got a gradient that must have none: frozen ones, and all of ``model.frozen_parts()``."""
    name_frozen = getattr(model, "frozen_parts", None)
    parts: list[nn.Module] = name_frozen() if callable(name_frozen) else []
    frozen = {id(parameter): parameter for part in parts for parameter in part.parameters()}
    # What is frozen need not be part of the model: an agent in training holds a world.
    every = {id(parameter): parameter for parameter in model.parameters()} | frozen
    return sum(
        parameter.grad is not None and (not parameter.requires_grad or key in frozen)
        for key, parameter in every.items()
    )
