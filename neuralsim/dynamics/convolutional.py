"""Convolutional dynamics: a U-Net that reads the past once, and a light denoiser that samples the next latent.

The default at CPU scale. Notable here:
- history is stacked in channels, recent frames densely and a few long skips, because things that come back (a
  serve) are announced long before;
- the heavy part, the U-Net over history and actions, does not see the noise: it runs once per frame, whatever the
  number of sampling steps K; only the denoiser runs K times;
- the prediction is a residual to the last latent, so an untrained model copies;
- training unrolls: the last frames of a clip are predicted from a context of the model's own frames, each of which is
  the context of the next. That is what keeps long dreams alive.

Legend: B lanes, T frames, S frames of its own, h w c latent grid, A encoded action, C channels, E embedding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from neuralsim.dynamics.base import ClipBatch, Dynamics, Rollout, State
from neuralsim.dynamics.shortcut import Predict, Schedule, check_power_of_two, mix, sample, share_of, shortcut_loss
from neuralsim.group_norm import GroupNorm
from neuralsim.running_rms import RunningRMS


@dataclass
class ConvolutionalDynamicsConfig:
    """Size of the network and shape of its training."""

    height: int = 16
    """Latent rows; a multiple of 4."""
    width: int = 16
    """Latent columns; a multiple of 4."""
    latent_channels: int = 8
    """Latent channels."""
    action_size: int = 6
    """Length of an encoded action."""
    history: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 28, 32)
    """Which past frames are seen: 1 is the last one. Must start with 1 and rise."""
    past_actions: int = 4
    """How many actions are seen, the one taken now included."""
    channels: int = 48
    """Width at full latent resolution, a multiple of 8."""
    inner_channels: int = 0
    """Width at half and quarter resolution, a multiple of 8; 0 is twice channels."""
    embedding: int = 96
    """Width of the embedding of actions, and of noise level and step size."""
    denoiser_blocks: int = 2
    """Residual blocks in the part that runs once per sampling step."""
    max_steps: int = 64
    """K_max: sampling takes 1, 2, 4, ... up to so many steps."""
    rollout: int = 8
    """Frames of a training clip that are predicted, one after the other."""
    lead: int = 0
    """Own frames dreamed before those, without a loss: up to so many, drawn anew for each step. Errors that come late
    in a dream are met, and learned from, only by dreams that have gone on for a while."""
    self_context: float = 0.75
    """Share of training lanes whose context is the model's own frames, in the later part of the run."""
    self_start: float = 0.45
    """Share of the run that trains on real context only: errors of a model that cannot predict yet teach nothing."""
    self_steps: int = 4
    """Sampling steps K of those frames; a dream lasts with the K that it was trained on."""
    contradiction: float = 2.0
    """Where a dream has put something that is not there in reality (latents of at least this mean square), the real
    next frame contradicts the dream's own past: it is no target there, nor around what is missing."""
    context_noise: float = 0.15
    """History is mixed with up to this much noise in training (1 - tau of the lerp, drawn per lane from U(0, this))."""
    dream_noise: float = 0.07
    """In a dream, a frame enters the history mixed with this much noise; at most context_noise. The model has learned
    to see through noise, but its own faint errors look like nothing it knows: without, they add up until the dream
    dissolves (Dreamer 4 does the same, tau_ctx)."""
    context_stain: float = 0.0
    """History of half of the training lanes is also mixed with up to this much (drawn per lane from U(0, this)) of a
    stain: noise, or a frame of another clip, the same in all frames of the past. Noise that is drawn anew for every
    frame teaches a model to average over the past, and to carry on whatever all of it shows; the errors of a dream are
    such, and a digit that stands for hundreds of frames wears away. What stains has no part in what comes next."""
    bootstrap_fraction: float = 0.25
    """Share of lanes that train the shortcut (d > d_min), after a start without."""
    bootstrap_start: float = 0.2
    """Share of the run that trains without shortcuts."""
    noise_scale: float = 1.0
    """Standard deviation of the noise that a frame is sampled from, in training and in dreams; latents have 1. What a
    sample becomes, where the past leaves several frames possible, is decided at the noise that just hides their
    differences. A ball, whose latents are large, shows through noise of 1 at once: all is decided near tau = 0, where
    few samples train and the first of four sampling steps leaps over."""
    zero_fraction: float = 0.3
    """Share of the other lanes that start from pure noise."""
    ramp: float = 0.0
    """Slope of the loss weight over tau; Dreamer 4 has 0.9. At this scale the first sampling step decides, so 0."""
    short_history: float = 0.1
    """Share of training lanes whose history is cut to a random length, as it is after a reset from few frames."""


class FilmBlock(nn.Module):
    """Residual block of two 3x3 convolutions; an embedding scales and shifts the normalised middle (FiLM)."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = GroupNorm(8, channels, affine=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * channels)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Maps ``(B, C, h, w)`` and ``(B, E)`` to ``(B, C, h, w)``."""
        scale, shift = self.film(e).chunk(2, dim=1)
        in_place = not torch.is_grad_enabled()
        y = self.conv1(F.silu(self.norm1(x), inplace=in_place))
        return x + self.conv2(F.silu(self.norm2(y, scale, shift), inplace=in_place))


class HistoryNet(nn.Module):
    """U-Net over stacked history, three resolutions, modulated by the actions."""

    def __init__(self, config: ConvolutionalDynamicsConfig) -> None:
        super().__init__()
        low, high, e = config.channels, config.inner_channels or 2 * config.channels, config.embedding
        self.action = nn.Linear(config.past_actions * config.action_size, e)
        self.action_mlp = nn.Sequential(nn.SiLU(), nn.Linear(e, e), nn.SiLU())
        self.conv_in = nn.Conv2d(len(config.history) * config.latent_channels, low, 3, padding=1)
        self.position = nn.Parameter(torch.zeros(1, low, config.height, config.width))
        self.blocks_in = nn.ModuleList(FilmBlock(low, e) for _ in range(2))
        self.down1 = nn.Conv2d(low, high, 4, stride=2, padding=1)
        self.blocks_down = nn.ModuleList(FilmBlock(high, e) for _ in range(2))
        self.down2 = nn.Conv2d(high, high, 4, stride=2, padding=1)
        self.blocks_bottom = nn.ModuleList(FilmBlock(high, e) for _ in range(2))
        self.up2 = nn.Conv2d(high, 4 * high, 1)
        self.blocks_up = nn.ModuleList(FilmBlock(high, e) for _ in range(1))
        self.up1 = nn.Conv2d(high, 4 * low, 1)
        self.blocks_out = nn.ModuleList(FilmBlock(low, e) for _ in range(1))

    def forward(self, history: Tensor, actions: Tensor) -> Tensor:
        """History ``(B, n * c, h, w)`` and actions ``(B, past_actions * A)`` to features ``(B, C, h, w)``."""
        e = self.action_mlp(self.action(actions))
        x = self.conv_in(history) + self.position
        for block in self.blocks_in:
            x = block(x, e)
        y = self.down1(x)
        for block in self.blocks_down:
            y = block(y, e)
        z = self.down2(y)
        for block in self.blocks_bottom:
            z = block(z, e)
        y = y + F.pixel_shuffle(self.up2(z), 2)
        for block in self.blocks_up:
            y = block(y, e)
        x = x + F.pixel_shuffle(self.up1(y), 2)
        for block in self.blocks_out:
            x = block(x, e)
        return x


class Denoiser(nn.Module):
    """Clean prediction from a noisy latent and the features of the past, at one noise level and step size."""

    waves: Tensor
    input_scale: Tensor

    def __init__(self, config: ConvolutionalDynamicsConfig) -> None:
        super().__init__()
        width, e = config.channels, config.embedding
        self.max_steps = config.max_steps
        # Brings a noisy latent to the size that it has with noise of 1.
        tau = torch.arange(self.max_steps) / self.max_steps
        size = torch.hypot(1 - tau, tau) / torch.hypot(config.noise_scale * (1 - tau), tau)
        self.register_buffer("input_scale", size, persistent=False)
        # A table, so that low precision rounds the sines and not their angles.
        angle = torch.arange(self.max_steps)[:, None] / self.max_steps * torch.linspace(0, math.log(60.0), 16).exp()
        self.register_buffer("waves", torch.cat([angle.sin(), angle.cos()], dim=1), persistent=False)
        self.level = nn.Linear(32, e)
        self.size = nn.Embedding(int(math.log2(config.max_steps)) + 1, e)
        # All step sizes begin as one: those that come into training later start from what the finest has learned.
        nn.init.zeros_(self.size.weight)
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(e, e), nn.SiLU())
        self.conv_in = nn.Conv2d(config.latent_channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(FilmBlock(width, e) for _ in range(config.denoiser_blocks))
        self.norm = GroupNorm(8, width)
        self.conv_out = nn.Conv2d(width, config.latent_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor, z: Tensor, level: Tensor, size: Tensor) -> Tensor:
        """Residual ``(B, c, h, w)`` from features ``(B, C, h, w)``, z ``(B, c, h, w)``, level and size ``(B,)``."""
        e = self.mlp(self.level(self.waves[level]) + self.size(size))
        x = self.conv_in(z * self.input_scale[level].to(z.dtype)[:, None, None, None]) + features
        for block in self.blocks:
            x = block(x, e)
        return self.conv_out(F.silu(self.norm(x)))


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


class ConvolutionalDynamics(Dynamics):
    """U-Net dynamics on local latents, trained by shortcut forcing on its own rollouts.

    Raises:
        ValueError: If history, sizes or K_max do not fit.
    """

    type_name = "convolutional"
    noise_slots = 2  # one for the frame itself, one for the frame in the history

    def __init__(self, config: ConvolutionalDynamicsConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ConvolutionalDynamicsConfig()
        history = tuple(config.history)
        if not history or history[0] != 1 or list(history) != sorted(set(history)):
            raise ValueError(f"history is {history}; it must start with 1 and rise")
        if config.height % 4 or config.width % 4:
            raise ValueError(f"a latent grid of {config.height}x{config.width} cannot be halved twice")
        check_power_of_two(config.self_steps, "self_steps")
        if config.self_steps > config.max_steps:
            raise ValueError(f"self_steps is {config.self_steps}; it must not exceed max_steps, {config.max_steps}")
        if not 0 < config.noise_scale < math.inf:
            raise ValueError(f"noise_scale is {config.noise_scale}; it must be a number above 0")
        if not 0 <= config.context_stain < 1:
            raise ValueError(f"context_stain is {config.context_stain}; it must be a share, 0 or more and less than 1")
        if not 0 <= config.dream_noise <= config.context_noise:
            raise ValueError(
                f"dream_noise is {config.dream_noise}; it must lie between 0 and context_noise, which is "
                f"{config.context_noise}: the model sees through no more noise than it was trained with"
            )
        self.schedule = Schedule(config.max_steps)
        self.latent_shape = (config.height, config.width, config.latent_channels)
        self.action_size = config.action_size
        self.history = history
        self.context_length = max(history[-1], config.past_actions)
        self.predicted = config.rollout
        self.clip_length = self.context_length + config.lead + config.rollout
        self.max_steps = config.max_steps
        self.past = HistoryNet(config)
        self.denoiser = Denoiser(config)
        self.scale = RunningRMS()
        self.progress = 0.0

    def set_progress(self, share: float) -> None:
        """Shortcuts and self-generated context come in with the share of the run that is done."""
        self.progress = share

    def fitted(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a model that sees fewer past actions; the older ones begin with no weight."""
        name = "past.action.weight"
        if name not in weights:
            return weights
        missing = self.past.action.in_features - weights[name].shape[1]
        if missing <= 0 or missing % self.action_size:
            return weights
        return {**weights, name: F.pad(weights[name], (missing, 0))}  # the oldest action comes first

    def compile_parts(self) -> None:
        """Compiles both networks; the unrolled loop around them would make one huge graph."""
        self.past.compile()
        self.denoiser.compile()

    def features(self, context: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Reads the past.

        Args:
            context: ``(B, n, h, w, c)`` the frames of ``history``, newest first.
            actions: ``(B, past_actions, A)``, oldest first; the last is the one taken now.

        Returns:
            Features ``(B, C, h, w)`` and the last latent ``(B, c, h, w)``.
        """
        # Written as channels-last memory, which is what CPU convolutions read fastest.
        stacked = rearrange(context, "b n h w c -> b h w (n c)").contiguous().permute(0, 3, 1, 2)
        return self.past(stacked, actions.flatten(1)), context[:, 0].permute(0, 3, 1, 2)

    def predict(self, features: Tensor, last: Tensor, z: Tensor, level: Tensor, size: Tensor) -> Tensor:
        """Clean prediction ``(B, h, w, c)`` for a noisy latent ``(B, h, w, c)``."""
        residual = self.denoiser(features, z.permute(0, 3, 1, 2).to(features.dtype), level, size)
        return (residual.float() + last.float()).permute(0, 2, 3, 1)

    def forward(self, batch: ClipBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Shortcut-forcing loss over the last ``rollout`` frames of each clip."""
        made = self.rollout(batch)
        return made.loss, made.metrics

    def rollout(self, batch: ClipBatch) -> Rollout:
        """As :meth:`forward`; own frames, once the model makes some, are those of the lead and the rollout."""
        config = self.config
        lanes, device = len(batch.latents), batch.latents.device
        begin = self.context_length + config.lead
        own_share = self._own_share()
        lead = int(torch.randint(config.lead + 1, ())) if own_share > 0 else 0
        latents, actions = self._cut_history(batch, begin - lead)
        frames, own_frames = list(latents.unbind(1)), []
        on_own = torch.rand(lanes, device=device) < own_share
        strength = torch.rand(lanes, 1, device=device) * (config.context_noise if self.training else 0.0)
        stains = self._draw_stains(batch) if self.training and config.context_stain else None
        shortcuts = self.progress >= config.bootstrap_start or not self.training

        # The first lanes train the shortcut, all along: clips are in random order, and the teacher sees these alone.
        taught = share_of(lanes, config.bootstrap_fraction) if shortcuts else 0

        def read_past(t: int) -> tuple[Predict, Tensor]:
            context = torch.stack([frames[t - offset] for offset in self.history], dim=1)
            if stains is not None:
                stain, amount = stains
                context = mix(context, stain[:, None], 1 - amount)
            context = mix(context, torch.randn_like(context), (1 - strength).expand(-1, context.shape[1]))
            features, last = self.features(context, actions[:, t - config.past_actions : t])

            def predict(z: Tensor, level: Tensor, size: Tensor) -> Tensor:
                return self.predict(features[: len(z)], last[: len(z)], z, level, size)

            return predict, features

        @torch.no_grad()
        def dream(t: int, predict: Predict) -> None:
            clean = batch.latents[:, t]
            noise = config.noise_scale * torch.randn_like(clean)
            own, _ = sample(predict, noise, config.self_steps, self.schedule)
            # Before an episode's first frame there is nothing to dream: a clip repeats that frame until then.
            begun = batch.valid[:, t - 1, None, None, None]
            own_frames.append(torch.where(begun, own, clean))
            frames[t] = torch.where(begun & on_own[:, None, None, None], own, clean)

        for t in range(begin - lead, begin):
            with torch.no_grad():
                dream(t, read_past(t)[0])
        flow, bootstrap, errors, copies, spreads, pasts, trusted = [], [], [], [], [], [], []
        for t in range(begin, begin + config.rollout):
            predict, features = read_past(t)
            clean = batch.latents[:, t]
            if own_share > 0:
                dream(t, predict)
            rows = torch.arange(lanes, device=device) < taught
            level, size = self.schedule.draw(rows, config.zero_fraction)
            noise = config.noise_scale * torch.randn_like(clean)
            weight = agreement(frames[t - 1], latents[:, t - 1], config.contradiction)
            terms = shortcut_loss(predict, clean, noise, level, size, self.schedule, config.ramp, weight, taught=taught)
            pasts.append(features)
            trusted.append((weight > 0).flatten(1).all(1))
            flow.append(terms.flow)
            bootstrap.append(terms.bootstrap)
            spreads.append(terms.spread)
            first = (level == 0) & (size == self.schedule.finest)
            errors.append(torch.where(first, terms.error, torch.nan))
            copies.append((clean - batch.latents[:, t - 1]).square().mean((1, 2, 3)))
        flow_loss, bootstrap_loss = torch.stack(flow).mean(), torch.stack(bootstrap).mean()
        # Both terms share the scale of the flow term. In a nearly deterministic world the bootstrap term is
        # thousands of times smaller; brought to the same size it drowns the data, and the model only agrees with
        # itself.
        loss = self.scale(flow_loss)
        if shortcuts:
            loss = loss + bootstrap_loss * (loss / flow_loss.clamp(min=1e-12)).detach()
        error, copy = torch.stack(errors), torch.stack(copies)
        metrics = {
            "flow": flow_loss.detach(),
            "relative_to_copy": error.nanmean() / copy.mean(),
            "relative_last_frame": error[-1].nanmean() / copy[-1].mean(),
            "prediction_std": torch.stack(spreads).mean(),
        }
        if shortcuts:
            metrics["bootstrap"] = bootstrap_loss.detach()
        own = torch.stack(own_frames, dim=1) if own_frames else None
        alike = None if own is None else self._alike(own, latents[:, -own.shape[1] :])
        return Rollout(loss, metrics, own, torch.stack(pasts, dim=1), torch.stack(trusted, dim=1), alike)

    def _alike(self, own: Tensor, real: Tensor) -> Tensor:
        """:attr:`Rollout.alike` of own frames ``(B, S, h, w, c)`` beside the real ones."""
        weight = agreement(own.flatten(0, 1), real.flatten(0, 1), self.config.contradiction)
        return (weight > 0).flatten(1).all(1).view(own.shape[:2])

    def _own_share(self) -> float:
        """Share of lanes that go on from the model's own frames: 0, then rising over a fifth of the run."""
        if not self.training:
            return 1.0
        return self.config.self_context * min(max((self.progress - self.config.self_start) / 0.2, 0.0), 1.0)

    def _draw_stains(self, batch: ClipBatch) -> tuple[Tensor, Tensor]:
        """What stains the history of each lane ``(B, h, w, c)``, and how much of it there is ``(B, 1)``."""
        lanes, device = len(batch.latents), batch.latents.device
        # Clips are in random order: their neighbours are any others. A lone one has none.
        other = batch.latents[:, 0].roll(1, 0)
        noise = torch.rand(lanes, 1, 1, 1, device=device) < (0.5 if lanes > 1 else 1.0)
        stained = torch.rand(lanes, 1, device=device) < 0.5
        amount = self.config.context_stain * torch.rand(lanes, 1, device=device) * stained
        return torch.where(noise, torch.randn_like(other), other), amount

    def _cut_history(self, batch: ClipBatch, begin: int) -> tuple[Tensor, Tensor]:
        """Latents and actions; some lanes forget what lies before a random frame, as after a start from few frames.

        That frame is one of the last that a dream which starts at ``begin`` sees.

        What is forgotten is what :meth:`start` would fill in: the frame itself again, and unknown actions.
        """
        if not self.training or not self.config.short_history:
            return batch.latents, batch.actions
        lanes, device = len(batch.latents), batch.latents.device
        cut = torch.rand(lanes, device=device) < self.config.short_history
        keep = torch.randint(begin - self.context_length, begin, (lanes,), device=device)
        index = torch.arange(batch.latents.shape[1], device=device).expand(lanes, -1)
        index = torch.where(cut[:, None], index.maximum(keep[:, None]), index)
        known = ~cut[:, None] | (torch.arange(batch.actions.shape[1], device=device) >= keep[:, None])
        return batch.latents[torch.arange(lanes, device=device)[:, None], index], batch.actions * known[..., None]

    def start(self, latents: Tensor, actions: Tensor) -> State:
        """Keeps the last ``context_length`` frames; a shorter context repeats its first."""
        missing = self.context_length - latents.shape[1]
        if missing > 0:
            latents = torch.cat([latents[:, :1].expand(-1, missing, -1, -1, -1), latents], dim=1)
        past = self.config.past_actions - 1
        unknown = past - actions.shape[1]
        if unknown > 0:
            actions = torch.cat([actions.new_zeros(len(actions), unknown, self.action_size), actions], dim=1)
        return {
            "latents": latents[:, -self.context_length :].contiguous(),
            "actions": actions[:, actions.shape[1] - past :].contiguous(),
        }

    def step(
        self, state: State, action: Tensor, noise: Tensor, steps: int, bounds: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, State, Tensor]:
        """One frame; see :meth:`Dynamics.step`."""
        latents = state["latents"]
        actions = torch.cat([state["actions"], action[:, None].to(state["actions"].dtype)], dim=1)
        context = latents[:, [-offset for offset in self.history]]
        features, last = self.features(context, actions)
        sampled, first = sample(
            lambda z, level, size: self.predict(features, last, z, level, size),
            self.config.noise_scale * noise[:, 0],
            steps,
            self.schedule,
        )
        latent = torch.minimum(torch.maximum(sampled, bounds[0]), bounds[1]).to(latents.dtype)
        uncertainty = (sampled - first).float().square().mean((1, 2, 3)).sqrt()
        remembered = torch.lerp(latent, noise[:, 1].to(latent), self.config.dream_noise)
        following = {
            "latents": torch.cat([latents[:, 1:], remembered[:, None]], dim=1),
            "actions": actions[:, 1:],
        }
        return latent, following, uncertainty
