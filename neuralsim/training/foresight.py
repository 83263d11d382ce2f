"""Foresight: an extra task for the past, to tell where things will be some frames from now.

A generative loss asks for the next frame alone, where a ball that leaves a paddle at one angle is half a pixel off the
same ball at another: what decides the angle is learned last. Asked where the ball will be in seven frames, a network
learns it at once. So features of the past are made to tell where the things of the game's probes will be, as a
distribution over the pixels of the frame, while the dynamics trains on them; the readout itself is of no use in dreams
and is not packed. It needs recordings that know where things are.

Auxiliary predictions of the future as training signal: Jaderberg et al. 2017 (UNREAL); Gelada et al. 2019 (DeepMDP).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from neuralsim.dynamics.base import Rollout
from neuralsim.evaluation.probes import Thing


@dataclass
class ForesightConfig:
    """Whether things are to be foreseen."""

    weight: float = 2.0
    """Of its loss, beside a loss of the dynamics of about 1; 0 does without. Needs recordings with ground truth and
    convolutional dynamics; without, it counts for nothing."""
    channels: int = 96
    """Width of the readout."""

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ValueError(f"foresight.weight is {self.weight}; it must be 0 or more")


def places(things: tuple[Thing, ...], labels: dict[str, np.ndarray]) -> Tensor | None:
    """Where things are on every frame of an episode.

    Args:
        things: What to look for.
        labels: Ground truth ``(T + 1,)`` by the keys of the things' probe.

    Returns:
        ``(T + 1, P)`` float32, a column for each coordinate of each thing in turn, in pixels, NaN where it is not
        there; None if the labels do not know all of them.
    """
    columns = []
    for thing in things:
        if any(key not in labels for key in (thing.present, *thing.position)):
            return None
        there = np.asarray(labels[thing.present]) > 0.5
        columns += [np.where(there, np.asarray(labels[key], np.float32), np.nan) for key in thing.position]
    return torch.from_numpy(np.stack(columns, axis=1).astype(np.float32)) if columns else None


class Foresight(nn.Module):
    """Tells from features of the past where things will be.

    A thing with two coordinates has a map of the frame's pixels, one with a single coordinate a line of them; one
    entry more says that it will not be there.

    Args:
        config: Size.
        things: What to foresee, and how far ahead; their coordinates' names end in ``x`` or ``y``.
        features: Channels of the features, a multiple of 8.
        grid: ``(h, w)`` of the features.
        frame: ``(H, W)`` of the frames, a multiple of it.

    Raises:
        ValueError: If a coordinate is neither, or grid and frame do not fit.
    """

    def __init__(
        self,
        config: ForesightConfig,
        things: tuple[Thing, ...],
        features: int,
        grid: tuple[int, int],
        frame: tuple[int, int],
    ) -> None:
        super().__init__()
        self.config, self.things, self.frame = config, things, frame
        self.cell = (frame[0] // grid[0], frame[1] // grid[1])
        if (grid[0] * self.cell[0], grid[1] * self.cell[1]) != tuple(frame):
            raise ValueError(f"frames of {frame} pixels are no multiple of a grid of {grid}")
        self.beyond = max(max(thing.foreseen) for thing in things) - 1
        width = config.channels
        self.norm = nn.GroupNorm(8, features)
        self.conv = nn.Conv2d(features, width, 3, padding=1)
        # A position of the grid says where within its cell a thing will be.
        cells = [int(np.prod([self.cell["yx".index(axis)] for axis in axes_of(thing)])) for thing in things]
        looks = [len(thing.foreseen) for thing in things]
        self.there_out = nn.ModuleList(nn.Conv2d(width, n * cell, 1) for n, cell in zip(looks, cells, strict=True))
        self.gone_out = nn.ModuleList(nn.Linear(width, n) for n in looks)
        for layer in (*self.there_out, *self.gone_out):
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> list[Tensor]:
        """Features ``(N, C, h, w)`` to log-probabilities by thing.

        Each is ``(N, looks, entries)``: pixels, row by row (or along the one axis), and last that it will be gone.
        """
        x = F.silu(self.conv(F.silu(self.norm(features))))
        told = []
        for thing, there_out, gone_out in zip(self.things, self.there_out, self.gone_out, strict=True):
            y, axes, looks = there_out(x), axes_of(thing), len(thing.foreseen)
            if len(axes) == 2:
                there = rearrange(y, "n (l a b) h w -> n l (h a w b)", l=looks, a=self.cell[0])
            elif axes == ("y",):
                there = rearrange(y.mean(3), "n (l a) h -> n l (h a)", l=looks)
            else:
                there = rearrange(y.mean(2), "n (l b) w -> n l (w b)", l=looks)
            gone = gone_out(x.mean((2, 3)))
            told.append(torch.cat([there, gone[..., None]], dim=2).float().log_softmax(-1))
        return told

    def loss(self, rollout: Rollout, places: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy, the mean over the looks of a thing, summed over things; and its parts by thing and look.

        Args:
            rollout: With features of the past; what cannot be foreseen from a past is left out.
            places: ``(B, T + L, P)`` as in :class:`neuralsim.dynamics.base.ClipBatch`; L is ``beyond``.
        """
        assert rollout.features is not None
        count = rollout.features.shape[1]
        first = places.shape[1] - self.beyond - count  # index of the first predicted frame
        told = self(rearrange(rollout.features, "b t ... -> (b t) ..."))
        trusted = torch.ones(rollout.features.shape[:2], dtype=torch.bool, device=places.device)
        trusted = rearrange(trusted if rollout.trusted is None else rollout.trusted, "b t -> (b t) 1")
        losses: list[Tensor] = []
        metrics: dict[str, Tensor] = {}
        column = 0
        for thing, logs in zip(self.things, told, strict=True):
            axes = axes_of(thing)
            looks = [places[:, first + n - 1 :][:, :count, column : column + len(axes)] for n in thing.foreseen]
            where = rearrange(torch.stack(looks, dim=2), "b t l p -> (b t) l p")
            column += len(axes)
            known = trusted & ~where[..., 0].isposinf()
            entropy = torch.where(known, self._cross_entropy(logs, where, axes), 0)
            values = entropy.sum(0) / known.sum(0).clamp(min=1)
            losses.append(values.mean())
            metrics |= {f"{thing.name}_in_{n}": v for n, v in zip(thing.foreseen, values.detach(), strict=True)}
        return torch.stack(losses).sum(), metrics

    def _cross_entropy(self, logs: Tensor, where: Tensor, axes: tuple[str, ...]) -> Tensor:
        """Against the pixels around a place, each in proportion to its nearness, ``(N, looks)``."""
        sizes = [self.frame["yx".index(axis)] for axis in axes]
        place = where.nan_to_num(0.0, 0.0, 0.0)
        corners = [(torch.ones_like(place[..., 0]), torch.zeros_like(place[..., 0], dtype=torch.long))]
        for axis in ("y", "x"):
            if axis not in axes:
                continue
            k = axes.index(axis)
            value = place[..., k].clamp(0, sizes[k] - 1)
            low = value.floor().clamp(max=sizes[k] - 2).long()
            share = value - low
            corners = [
                (weight * part, index * sizes[k] + low + step)
                for weight, index in corners
                for part, step in ((1 - share, 0), (share, 1))
            ]
        entropy = torch.stack([-weight * logs.gather(2, index[..., None])[..., 0] for weight, index in corners]).sum(0)
        return torch.where(where[..., 0].isnan(), -logs[..., -1], entropy)


def axes_of(thing: Thing) -> tuple[str, ...]:
    """``"x"`` or ``"y"`` for each coordinate of a thing, by the last letter of its name.

    Raises:
        ValueError: If it ends otherwise.
    """
    for key in thing.position:
        if key[-1:] not in ("x", "y"):
            raise ValueError(f"the coordinate {key!r} must be named ...x or ...y to be foreseen")
    return tuple(key[-1] for key in thing.position)
