"""How the convolutional dynamics is trained: clips are unrolled on the model's own frames.

The last frames of a clip are predicted from a context of the model's own frames, each of which is the context of the
next. That is what keeps long dreams alive.

Legend: B lanes, T frames, S frames of its own, h w c latent grid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from neuralsim.dynamics.base import ClipBatch, Rollout
from neuralsim.dynamics.shortcut import Predict, mix, sample, share_of, shortcut_loss

if TYPE_CHECKING:
    from neuralsim.dynamics.convolutional import ConvolutionalDynamics


def unroll(model: ConvolutionalDynamics, batch: ClipBatch) -> Rollout:
    """Shortcut-forcing loss over the last ``rollout`` frames of each clip.

    Args:
        model: The dynamics, in training or not.
        batch: Clips of its ``clip_length``.

    Returns:
        Loss and more; own frames, once the model makes some, are those of the lead and the rollout.
    """
    config = model.config
    lanes, device = len(batch.latents), batch.latents.device
    begin = model.context_length + config.lead
    own_share = share_of_own_frames(model)
    lead = int(torch.randint(config.lead + 1, ())) if own_share > 0 else 0
    latents, actions = cut_history(model, batch, begin - lead)
    frames, own_frames = list(latents.unbind(1)), []
    on_own = torch.rand(lanes, device=device) < own_share
    strength = torch.rand(lanes, 1, device=device) * (config.context_noise if model.training else 0.0)
    stains = draw_stains(model, batch) if model.training and config.context_stain else None
    shortcuts = model.progress >= config.bootstrap_start or not model.training

    # The first lanes train the shortcut, all along: clips are in random order, and the teacher sees these alone.
    taught = share_of(lanes, config.bootstrap_fraction) if shortcuts else 0

    def read_past(t: int) -> tuple[Tensor, Tensor]:
        context = torch.stack([frames[t - offset] for offset in model.history], dim=1)
        if stains is not None:
            stain, amount = stains
            context = mix(context, stain[:, None], 1 - amount)
        noisy = mix(context, torch.randn_like(context), (1 - strength).expand(-1, context.shape[1]))
        last = (noisy if model.view is None else context)[:, 0]
        return model.features(noisy, actions[:, t - model.known_actions : t], last)

    def on(past: tuple[Tensor, Tensor], draw: Callable[..., Tensor]) -> Predict:
        features, base = past
        return lambda z, level, size: draw(features[: len(z)], base[: len(z)], z, level, size)

    @torch.no_grad()
    def dream(t: int, past: tuple[Tensor, Tensor]) -> None:
        clean = batch.latents[:, t]
        noise = config.noise_scale * torch.randn_like(clean)
        own, _ = sample(on(past, model.draw), noise, config.self_steps, model.schedule)
        # Before an episode's first frame there is nothing to dream: a clip repeats that frame until then.
        begun = batch.valid[:, t - 1, None, None, None]
        own_frames.append(torch.where(begun, own, clean))
        frames[t] = torch.where(begun & on_own[:, None, None, None], own, clean)

    for t in range(begin - lead, begin):
        with torch.no_grad():
            dream(t, read_past(t))
    flow, bootstrap, errors, copies, spreads, pasts, trusted, moved = [], [], [], [], [], [], [], []
    for t in range(begin, begin + config.rollout):
        past = features, base = read_past(t)
        clean = batch.latents[:, t]
        if own_share > 0:
            dream(t, past)
        rows = torch.arange(lanes, device=device) < taught
        level, size = model.schedule.draw(rows, config.zero_fraction)
        noise = config.noise_scale * torch.randn_like(clean)
        weight = agreement(frames[t - 1], latents[:, t - 1], config.contradiction)
        copy = (clean - batch.latents[:, t - 1]).square().mean((1, 2, 3))
        if config.copy_floor:
            weight = weight * count_by_change(copy, config.copy_floor)[:, None, None, None]
        predict = on(past, model.predict)
        terms = shortcut_loss(predict, clean, noise, level, size, model.schedule, config.ramp, weight, taught=taught)
        pasts.append(features)
        if model.view is not None:
            moved.append(((base.permute(0, 2, 3, 1).float() - clean).square() * weight).mean())
        trusted.append((weight > 0).flatten(1).all(1))
        flow.append(terms.flow)
        bootstrap.append(terms.bootstrap)
        spreads.append(terms.spread)
        first = (level == 0) & (size == model.schedule.finest)
        errors.append(torch.where(first, terms.error, torch.nan))
        copies.append(copy)
    flow_loss, bootstrap_loss = torch.stack(flow).mean(), torch.stack(bootstrap).mean()
    # Both terms share the scale of the flow term. In a nearly deterministic world the bootstrap term is
    # thousands of times smaller; brought to the same size it drowns the data, and the model only agrees with
    # itself.
    loss = model.scale(flow_loss)
    scale = (loss / flow_loss.clamp(min=1e-12)).detach()
    if shortcuts:
        # A model that is its own teacher can run away with itself: two steps of a bad answer make a worse one. Its
        # part of the loss is never larger than that of the data.
        loss = loss + bootstrap_loss * scale * (flow_loss / bootstrap_loss.clamp(min=1e-12)).clamp(max=1).detach()
    error, copy = torch.stack(errors), torch.stack(copies)
    metrics = {
        "flow": flow_loss.detach(),
        "relative_to_copy": error.nanmean() / copy.mean(),
        "relative_last_frame": error[-1].nanmean() / copy[-1].mean(),
        "prediction_std": torch.stack(spreads).mean(),
    }
    if moved:
        # The network undoes in what it adds whatever is moved wrongly: flows are learned only where they are asked for.
        moved_loss = torch.stack(moved).mean()
        loss = loss + moved_loss * scale
        metrics["moved"] = moved_loss.detach()
    if shortcuts:
        metrics["bootstrap"] = bootstrap_loss.detach()
    own = torch.stack(own_frames, dim=1) if own_frames else None
    alike = None if own is None else alike_with(model, own, latents[:, -own.shape[1] :])
    return Rollout(loss, metrics, own, torch.stack(pasts, dim=1), torch.stack(trusted, dim=1), alike)


def count_by_change(copy: Tensor, floor: float) -> Tensor:
    """Weights ``(B,)`` of clips, 1 in the mean, by what copying gets wrong ``(B,)``."""
    weight = 1 / (copy + floor)
    return weight / weight.mean()


def alike_with(model: ConvolutionalDynamics, own: Tensor, real: Tensor) -> Tensor:
    """:attr:`Rollout.alike` of own frames ``(B, S, h, w, c)`` beside the real ones."""
    weight = agreement(own.flatten(0, 1), real.flatten(0, 1), model.config.contradiction)
    return (weight > 0).flatten(1).all(1).view(own.shape[:2])


def share_of_own_frames(model: ConvolutionalDynamics) -> float:
    """Share of lanes that go on from the model's own frames: 0, then rising over a fifth of the run."""
    if not model.training:
        return 1.0
    return model.config.self_context * min(max((model.progress - model.config.self_start) / 0.2, 0.0), 1.0)


def draw_stains(model: ConvolutionalDynamics, batch: ClipBatch) -> tuple[Tensor, Tensor]:
    """What stains the history of each lane ``(B, h, w, c)``, and how much of it there is ``(B, 1)``."""
    lanes, device = len(batch.latents), batch.latents.device
    # Clips are in random order: their neighbours are any others. A lone one has none.
    other = batch.latents[:, 0].roll(1, 0)
    noise = torch.rand(lanes, 1, 1, 1, device=device) < (0.5 if lanes > 1 else 1.0)
    stained = torch.rand(lanes, 1, device=device) < 0.5
    amount = model.config.context_stain * torch.rand(lanes, 1, device=device) * stained
    return torch.where(noise, torch.randn_like(other), other), amount


def cut_history(model: ConvolutionalDynamics, batch: ClipBatch, begin: int) -> tuple[Tensor, Tensor]:
    """Latents and actions; some lanes forget what lies before a random frame, as after a start from few frames.

    That frame is one of the last that a dream which starts at ``begin`` sees.

    What is forgotten is what a start from few frames fills in: the frame itself again, and unknown actions.
    """
    if not model.training or not model.config.short_history:
        return batch.latents, batch.actions
    lanes, device = len(batch.latents), batch.latents.device
    cut = torch.rand(lanes, device=device) < model.config.short_history
    keep = torch.randint(begin - model.context_length, begin, (lanes,), device=device)
    index = torch.arange(batch.latents.shape[1], device=device).expand(lanes, -1)
    index = torch.where(cut[:, None], index.maximum(keep[:, None]), index)
    known = ~cut[:, None] | (torch.arange(batch.actions.shape[1], device=device) >= keep[:, None])
    return batch.latents[torch.arange(lanes, device=device)[:, None], index], batch.actions * known[..., None]


def agreement(dreamed: Tensor, real: Tensor, contradiction: float) -> Tensor:
    """Where what really comes next is also what should come next in the dream.

    It is not where the dream has misplaced something: told to put it right, a model learns that things jump, or to
    hedge by drawing them faintly. What is merely faint or missing should come back, and noise should go.

    Args:
        dreamed: ``(B, h, w, c)`` last frame of the dream.
        real: ``(B, h, w, c)`` the real one at that time.
        contradiction: Mean square of a latent from which on it counts as a thing.

    Returns:
        ``(B, h, w, 1)``: 0 within two positions of whatever is amiss in dreams that have misplaced something, else 1.
    """
    strength = dreamed.square().mean(-1)
    misplaced = (strength > contradiction) & ((dreamed * real).mean(-1) < strength / 2)
    amiss = ((dreamed - real).square().mean(-1) > contradiction) & misplaced.any(2).any(1)[:, None, None]
    return 1 - F.max_pool2d(amiss.float()[:, None], 5, stride=1, padding=2)[:, 0, :, :, None]
