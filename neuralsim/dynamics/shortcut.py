"""Shortcut forcing: the objective and the sampler of every continuous dynamics, written once.

Dreamer 4 (arXiv 2509.24527, section 3; shortcut models: Frans et al. 2024), in x-prediction:

    z~ = (1 - tau) z0 + tau z1           z0 noise, z1 clean latent, tau = 1 is clean
    f(z~, tau, d) predicts z1            d is the size of the sampling step that the prediction serves
    d = d_min: |f - z1|^2                d > d_min: |f - x_tgt|^2, x_tgt from two half steps of the model itself

The bootstrap target is used in its division-free form (``bootstrap_target``), which is the same as the paper's
velocity form and safe in low precision. Noise levels and step sizes are integers throughout: level m stands for
tau = m / max_steps, and size i for d = 2^-i, so nothing is ever asked that was not trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(z~, level, size) -> clean prediction; level and size are integer tensors of z~'s leading dimensions."""


@dataclass(frozen=True)
class Schedule:
    """The grid of noise levels and step sizes.

    Args:
        max_steps: K_max, a power of two: the smallest step is d_min = 1 / max_steps.

    Raises:
        ValueError: If ``max_steps`` is no power of two.
    """

    max_steps: int

    def __post_init__(self) -> None:
        check_power_of_two(self.max_steps, "max_steps")

    @property
    def finest(self) -> int:
        """Size index of d_min: log2(max_steps)."""
        return int(math.log2(self.max_steps))

    def tau(self, level: Tensor) -> Tensor:
        """Noise level index to tau in [0, 1], float."""
        return level.float() / self.max_steps

    def step_size(self, size: Tensor) -> Tensor:
        """Size index to d in (0, 1], float."""
        return torch.exp2(-size.float())

    def draw(self, bootstrap: Tensor, zero_fraction: float = 0.0) -> tuple[Tensor, Tensor]:
        """Draws (level, size) for every entry.

        Args:
            bootstrap: Boolean tensor; True entries draw d > d_min uniformly over the sizes, False ones use d_min.
                tau is uniform over the multiples of d below 1.
            zero_fraction: Share of False entries that get tau = 0, pure noise, whatever the draw: the first
                sampling step is the hardest one.

        Returns:
            ``level`` and ``size``, integer tensors of the same shape.
        """
        device, shape = bootstrap.device, bootstrap.shape
        if self.finest == 0:
            return torch.zeros(shape, dtype=torch.long, device=device), torch.zeros(
                shape, dtype=torch.long, device=device
            )
        coarse = torch.randint(0, self.finest, shape, device=device)
        size = torch.where(bootstrap, coarse, self.finest)
        count = 2**size
        index = (torch.rand(shape, device=device) * count).long().clamp(max=count - 1)
        level = index * (self.max_steps // count)
        first = (torch.rand(shape, device=device) < zero_fraction) & ~bootstrap
        return torch.where(first, 0, level), size


def check_power_of_two(value: int, name: str) -> None:
    """Raises ValueError unless ``value`` is a positive power of two."""
    if value < 1 or value & (value - 1):
        raise ValueError(f"{name} is {value}; it must be a power of two (1, 2, 4, 8, ...)")


def share_of(lanes: int, share: float) -> int:
    """A whole number of lanes that is right on average, also where the share is a fraction of one lane."""
    return int(lanes * share + float(torch.rand(())))


def expand_to(value: Tensor, like: Tensor) -> Tensor:
    """Appends singleton dimensions until ``value`` broadcasts over ``like``."""
    return value.reshape(*value.shape, *[1] * (like.ndim - value.ndim))


def mix(clean: Tensor, noise: Tensor, tau: Tensor) -> Tensor:
    """(1 - tau) noise + tau clean; a lerp keeps the variance bounded, also for context noise."""
    tau = expand_to(tau, clean).to(clean.dtype)
    return (1 - tau) * noise + tau * clean


def ramp_weight(tau: Tensor, slope: float = 0.9) -> Tensor:
    """Dreamer 4's loss weight w(tau) = 0.9 tau + 0.1; slope 0 weighs all noise levels alike."""
    return slope * tau + (1 - slope)


def half_step(z: Tensor, first: Tensor, tau: Tensor, d: Tensor) -> Tensor:
    """Half a step of size d from z towards the prediction ``first``: z + a (f1 - z), a = d / (2 (1 - tau))."""
    a = expand_to(d / (2 * (1 - tau)), z).to(z.dtype)
    return z + a * (first - z)


def bootstrap_target(first: Tensor, second: Tensor, tau: Tensor, d: Tensor) -> Tensor:
    """The clean prediction whose single step of size d ends where two half steps end.

    ((1 - 2a) f1 + f2) / (2 (1 - a)) with a = d / (2 (1 - tau)) <= 1/2: a convex combination of both
    half-step predictions; at tau = 1 - d it is the second one.
    """
    a = expand_to(d / (2 * (1 - tau)), first).to(first.dtype)
    return ((1 - 2 * a) * first + second) / (2 * (1 - a))


@dataclass
class ShortcutLoss:
    """Both terms, each the mean over its own entries (0 where there are none), and the raw error.

    Attributes:
        flow: Weighted mean squared error to the data, entries with d = d_min.
        bootstrap: Weighted mean squared error to the model's own two half steps, entries with d > d_min.
        error: Unweighted mean squared error per entry, detached.
        spread: Standard deviation of the predictions over all entries, RMS over the latents, detached: 0 for a model
            that has collapsed and always says the same, NaN for a single entry.
    """

    flow: Tensor
    bootstrap: Tensor
    error: Tensor
    spread: Tensor


def shortcut_loss(
    predict: Predict,
    clean: Tensor,
    noise: Tensor,
    level: Tensor,
    size: Tensor,
    schedule: Schedule,
    ramp: float = 0.9,
    weight: Tensor | None = None,
    teacher: Predict | None = None,
    taught: int | None = None,
) -> ShortcutLoss:
    """Shortcut forcing on a batch.

    Entries are the leading dimensions that ``level`` and ``size`` have (lanes, or lanes and frames).

    Args:
        predict: The model.
        clean: z1, ``(entries..., h, w, c)``.
        noise: z0, like ``clean``.
        level: Noise level indices.
        size: Step size indices; the finest makes an entry a flow entry.
        schedule: The grid.
        ramp: Slope of the loss weight (:func:`ramp_weight`).
        weight: Optional weight per element, broadcast over ``clean``.
        teacher: The model that makes bootstrap targets, by default ``predict``; no gradient flows through it.
        taught: All but the first so many (along the first dimension) are flow entries: the teacher is called with those
            alone, and must know which they are. By default it is called with all.
    """
    tau, d = schedule.tau(level), schedule.step_size(size)
    z = mix(clean, noise, tau)
    is_flow = size == schedule.finest
    target = clean
    if not bool(is_flow.all()):
        with torch.no_grad():
            teach = teacher or predict
            values = (z, level, size, tau, d, is_flow, clean)
            z_t, level_t, size_t, tau_t, d_t, flow_t, clean_t = (value[:taught] for value in values)
            # Entries at d_min keep their label and stay where they are in both passes.
            finer = torch.where(flow_t, size_t, size_t + 1)
            first = teach(z_t, level_t, finer)
            moved = torch.where(expand_to(flow_t, z_t), z_t, half_step(z_t, first, tau_t, d_t))
            halfway = level_t + schedule.max_steps // 2 ** (size_t + 1).clamp(max=schedule.finest)
            second = teach(moved, torch.where(flow_t, level_t, halfway), finer)
            made = bootstrap_target(first, second, tau_t, d_t)
            target = clean.to(torch.promote_types(clean.dtype, made.dtype), copy=True)
            target[:taught] = torch.where(expand_to(flow_t, clean_t), clean_t, made)
    prediction = predict(z, level, size)
    squared = (prediction.float() - target.float()).square()
    inner = tuple(range(level.ndim, squared.ndim))
    error = squared.mean(inner)
    weighted = error if weight is None else (squared * weight).mean(inner)
    weighted = weighted * ramp_weight(tau, ramp)
    spread = prediction.detach().float().flatten(0, level.ndim - 1).var(0, correction=0).mean().sqrt()
    if level.numel() == 1:
        spread = torch.full_like(spread, torch.nan)
    return ShortcutLoss(mean_where(weighted, is_flow), mean_where(weighted, ~is_flow), error.detach(), spread)


def mean_where(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the entries of the mask; 0 for none, with the graph intact."""
    return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)


def sample(predict: Predict, noise: Tensor, steps: int, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """Draws a clean latent in K steps of size 1/K.

    z <- z + (f - z) / (K - i) for i = 0 .. K-1; the last step lands on the prediction itself.

    Args:
        predict: The model; entries are the first dimension.
        noise: ``(B, ...)`` standard normal.
        steps: K, a power of two up to ``schedule.max_steps``.
        schedule: The grid the model was trained on.

    Returns:
        The sample, and the first clean prediction (that of pure noise).

    Raises:
        ValueError: If K is no power of two or above ``schedule.max_steps``.
    """
    check_power_of_two(steps, "sampling steps")
    if steps > schedule.max_steps:
        raise ValueError(f"sampling steps are {steps}, but this model was trained for at most {schedule.max_steps}")
    lanes = noise.shape[0]
    size = torch.full((lanes,), int(math.log2(steps)), dtype=torch.long, device=noise.device)
    z, first = noise, noise
    for i in range(steps):
        level = torch.full_like(size, i * (schedule.max_steps // steps))
        prediction = predict(z, level, size)
        first = prediction if i == 0 else first
        z = z + (prediction - z) / (steps - i)
    return z, first
