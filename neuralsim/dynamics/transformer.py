"""Dreamer 4's dynamics: a space-time transformer, diffusion forcing with shortcuts (arXiv 2509.24527).

Notable here:
- every frame of a clip has its own noise level and step size, so one network is denoiser and memory at once;
- clips are cut into segments that cannot see each other in time: single images, short pieces, whole clips;
- a dream keeps keys and values of its last C frames in a ring; the K denoising passes read it, and one commit
  pass per frame, at the context's noise level, adds to it;
- options that the paper does not have: ``residual`` and ``action_everywhere``.

Legend: B lanes, T frames, C context frames, N tokens of a frame, D channels, A encoded action, h w c latent
grid (channels last), L time layers, G key/value heads, E size of a head, K sampling steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuralsim.dynamics.base import ClipBatch, Dynamics, State
from neuralsim.dynamics.frame_tokens import Conditions, FrameTokens
from neuralsim.dynamics.shortcut import Schedule, expand_to, mix, sample, share_of, shortcut_loss
from neuralsim.running_rms import RunningRMS
from neuralsim.transformer import Past, SpaceTimeTransformer, TransformerConfig, ring_write


@dataclass
class TransformerDynamicsConfig(TransformerConfig):
    """Size of the network and shape of its training."""

    height: int = 16
    """Latent rows; a multiple of ``patch``."""
    width: int = 16
    """Latent columns; a multiple of ``patch``."""
    latent_channels: int = 8
    """Latent channels."""
    action_size: int = 6
    """Length of an encoded action."""
    patch: int = 2
    """Side of the square of latents that makes one token."""
    registers: int = 4
    """Learned tokens without a meaning of their own, per frame."""
    agent_tokens: int = 0
    """Tokens that see everything and are seen by nothing, for heads of an agent."""
    context_length: int = 32
    """How many past frames are seen, C."""
    rollout: int = 16
    """Frames by which a training clip is longer than the context; at least 1."""
    max_steps: int = 64
    """K_max: sampling takes 1, 2, 4, ... up to so many steps; at least 4."""
    context_tau: float = 0.9
    """How clean the past is kept in a dream, rounded to the grid of K_max levels."""
    residual: bool = True
    """A frame also sees the latent before it and predicts the change, which is learned much sooner; False is the
    paper's model."""
    action_everywhere: bool = True
    """The action is also added to every latent token, which is learned much sooner than to look for the action
    token; False is the paper's model."""
    image_share: float = 0.3
    """Share of training lanes whose frames are separate images: they train first frames."""
    short_share: float = 0.3
    """Share of training lanes that are cut into short pieces, until ``long_only``."""
    short_length: int = 12
    """Frames of a short piece."""
    long_only: float = 0.8
    """Share of the run after which no clip is cut short any more."""
    bootstrap_fraction: float = 0.25
    """Share of lanes that train the shortcut (half of their frames have d > d_min), after a start without."""
    bootstrap_start: float = 0.2
    """Share of the run that trains without shortcuts."""
    zero_fraction: float = 0.1
    """Share of the frames at d_min that start from pure noise; the first sampling step is the hardest."""
    ramp: float = 0.9
    """Slope of the loss weight over tau."""
    self_context: float = 0.25
    """Share of lanes that have frames of the model's own making in their past (against drift)."""
    self_frames: int = 2
    """How many such frames, one after the other; each costs a pass without gradient over these lanes."""
    self_start: float = 0.3
    """Share of the run that trains without them."""


class TransformerDynamics(Dynamics):
    """Space-time transformer dynamics: the past is seen by attention, from one frame up to C.

    Raises:
        ValueError: If sizes or K_max do not fit.
    """

    type_name = "transformer"
    noise_slots = 2  # one grid to sample from, one for the commit pass

    def __init__(self, config: TransformerDynamicsConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TransformerDynamicsConfig()
        if config.max_steps < 4:
            raise ValueError(f"max_steps is {config.max_steps}; below 4 there is no noise level fit for the past")
        if min(config.context_length, config.rollout, config.short_length) < 1:
            raise ValueError(
                f"context_length {config.context_length}, rollout {config.rollout} and short_length"
                f" {config.short_length} must all be at least 1"
            )
        self.schedule = Schedule(config.max_steps)
        self.latent_shape = (config.height, config.width, config.latent_channels)
        self.action_size = config.action_size
        self.context_length = config.context_length
        self.predicted = config.rollout
        self.clip_length = config.context_length + config.rollout
        self.max_steps = config.max_steps
        # On the grid and below 1: the past is mixed and labelled exactly as training frames at d_min are.
        self.context_level = min(max(round(config.context_tau * config.max_steps), 1), config.max_steps - 1)
        self.tokens = FrameTokens(
            self.latent_shape,
            config.action_size,
            config.channels,
            config.patch,
            config.registers,
            config.agent_tokens,
            levels=config.max_steps,
            sizes=self.schedule.finest + 1,
            residual=config.residual,
            action_everywhere=config.action_everywhere,
        )
        self.network = SpaceTimeTransformer(config, self.tokens.positions, hidden=config.agent_tokens)
        self.scale = RunningRMS()
        self.set_progress(0.0)

    def set_progress(self, share: float) -> None:
        """Tells how much of the run is done, in [0, 1]: shortcuts and self-made context come in with it."""
        # Three switches rather than the number: a compiled model is compiled again when one of them turns.
        self.shortcuts = share >= self.config.bootstrap_start
        self.own_context = share >= self.config.self_start
        self.short_clips = share < self.config.long_only

    def compile_parts(self) -> None:
        """Compiles the network; the passes around it depend on values and would break the graph."""
        self.network.compile()

    def predict(self, z: Tensor, level: Tensor, size: Tensor, given: Conditions, mask: Tensor) -> Tensor:
        """Clean predictions of all frames of whole clips.

        Args:
            z: Noisy latents ``(B, T, h, w, c)``.
            level: Noise level indices ``(B, T)``.
            size: Step size indices ``(B, T)``.
            given: Actions and previous latents.
            mask: ``(B, T, T)``, from :meth:`time_mask`.
        """
        features, _ = self.network(self.tokens(z, level, size, given), mask)
        return self.tokens.read_out(features, z, given)

    def time_mask(self, first: Tensor) -> Tensor:
        """Which frame sees which ``(B, T, T)``: itself and C frames before, within its segment.

        Args:
            first: ``(B, T)`` True where a segment begins.
        """
        segment = first.long().cumsum(1)
        t = torch.arange(first.shape[1], device=first.device)
        age = t[:, None] - t
        window = (age >= 0) & (age <= self.context_length)
        return window & (segment[:, :, None] == segment[:, None, :])

    def forward(self, batch: ClipBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Shortcut-forcing loss over all frames of each clip.

        Returns:
            The loss, and ``flow``, ``bootstrap`` (raw terms, each the mean over its own frames) and
            ``relative_to_copy``: the squared error of predictions from pure noise over that of copying the
            frame before; NaN when the batch had none.

        Raises:
            ValueError: If the clips do not fit the model.
        """
        config, latents = self.config, batch.latents
        self._check_clips(latents, batch.actions)
        shortcuts = self.shortcuts or not self.training
        first = self._segments(batch.valid)
        actions = _shifted(batch.actions)
        frames, own = latents, torch.zeros_like(first)
        if self.own_context or not self.training:
            frames, own = self._put_own_frames(latents, actions, first, shortcuts)
        given = Conditions(actions, ~first, self._previous(frames, first))
        mask = self.time_mask(first)
        counted = batch.valid & ~own
        weight = expand_to(counted.to(latents.dtype), latents)
        copied = (latents - _shifted(latents[:, :-1])).square().mean((2, 3, 4))

        # Whole lanes train the shortcut, so that the teacher's two passes run on these alone.
        coarse = share_of(len(latents), config.bootstrap_fraction) if shortcuts else 0
        straight = len(latents) - coarse
        terms = _Sums()
        for lanes, chance in ((slice(0, straight), 0.0), (slice(straight, len(latents)), 0.5)):
            if lanes.start == lanes.stop:
                continue
            conditions, seen, counts = given.lanes(lanes), mask[lanes], counted[lanes]

            def predict(
                z: Tensor, level: Tensor, size: Tensor, given: Conditions = conditions, mask: Tensor = seen
            ) -> Tensor:
                return self.predict(z, level, size, given, mask)

            level, size = self._draw(own[lanes], chance)
            clean = frames[lanes]
            grid, noise = self.schedule, torch.randn_like(clean)
            loss = shortcut_loss(predict, clean, noise, level, size, grid, config.ramp, weight[lanes])
            terms.add("prediction_std", loss.spread, torch.ones_like(loss.spread))
            is_flow = size == self.schedule.finest
            # Each mean ran over all its frames; those of weight 0 must not count.
            terms.add("flow", loss.flow * is_flow.sum(), (is_flow & counts).sum())
            terms.add("bootstrap", loss.bootstrap * (~is_flow).sum(), (~is_flow & counts).sum())
            fresh = (level == 0) & is_flow & counts & ~first[lanes]
            terms.add("relative_to_copy", (loss.error * fresh).sum(), (copied[lanes] * fresh).sum())
        flow, bootstrap = terms.ratio("flow", 0.0), terms.ratio("bootstrap", 0.0)
        total = self.scale(flow)
        metrics = {
            "flow": flow.detach(),
            "relative_to_copy": terms.ratio("relative_to_copy", torch.nan),
            "prediction_std": terms.ratio("prediction_std", torch.nan),
        }
        if shortcuts:
            # On the scale of the flow term: where it is far smaller it must not drown the data.
            total = total + bootstrap * (total / flow.clamp(min=1e-12)).detach()
            metrics["bootstrap"] = bootstrap.detach()
        return total, metrics

    def _segments(self, valid: Tensor) -> Tensor:
        """Where segments begin ``(B, T)``: frames that see nothing before them, action unknown."""
        config, (lanes, frames), device = self.config, valid.shape, valid.device
        first = ~valid | _shifted(~valid[:, :-1], fill=True)
        if not self.training:
            return first
        kind = torch.rand(lanes, 1, device=device)
        offset = torch.randint(0, config.short_length, (lanes, 1), device=device)
        cut = (torch.arange(frames, device=device) + offset) % config.short_length == 0
        short = config.short_share if self.short_clips else 0.0
        return first | (kind < config.image_share) | (cut & (kind > 1 - short))

    def _draw(self, own: Tensor, chance: float) -> tuple[Tensor, Tensor]:
        """Level and size ``(B, T)`` per frame; frames of the model's own making are labelled as context."""
        coarse = torch.rand(own.shape, device=own.device) < chance
        level, size = self.schedule.draw(coarse, self.config.zero_fraction)
        return torch.where(own, self.context_level, level), torch.where(own, self.schedule.finest, size)

    def _previous(self, frames: Tensor, first: Tensor) -> Tensor:
        """The latent before each frame; 0 before a first frame.

        A dream gives it as it is; training adds up to as much noise as the context has, which keeps the model
        from trusting its own errors.
        """
        if not self.config.residual:
            return torch.zeros_like(frames)
        previous = _shifted(frames[:, :-1])
        if self.training:
            most = 1 - self.context_level / self.max_steps
            strength = most * torch.rand(first.shape, device=first.device)
            previous = mix(previous, torch.randn_like(previous), 1 - strength)
        return torch.where(expand_to(first, previous), 0, previous)

    @torch.no_grad()
    def _put_own_frames(
        self, latents: Tensor, actions: Tensor, first: Tensor, shortcuts: bool
    ) -> tuple[Tensor, Tensor]:
        """Replaces consecutive frames of the first lanes by one-step predictions, each seeing those before.

        Returns:
            The clips, and which frames were replaced ``(B, T)``. These serve as context only.
        """
        config, length, device = self.config, latents.shape[1], latents.device
        lanes = share_of(len(latents), config.self_context)
        if lanes == 0:
            return latents, torch.zeros_like(first)
        clips, begins, mask = latents[:lanes], first[:lanes], self.time_mask(first[:lanes])
        start = torch.randint(1, max(length - config.self_frames, 2), (lanes, 1), device=device)
        t = torch.arange(length, device=device)
        for i in range(config.self_frames):
            at = (t == start + i) & ~begins
            level = torch.where(at, 0, self.context_level)
            # Until large steps are trained, the finest one from pure noise gives the mean.
            size = torch.where(at & shortcuts, 0, self.schedule.finest)
            given = Conditions(actions[:lanes], ~begins, self._previous(clips, begins))
            z = mix(clips, torch.randn_like(clips), self.schedule.tau(level))
            clips = torch.where(expand_to(at, z), self.predict(z, level, size, given, mask), clips)
        replaced = (t >= start) & (t < start + config.self_frames) & ~begins
        return torch.cat([clips, latents[lanes:]]), torch.cat([replaced, torch.zeros_like(first[lanes:])])

    @torch.no_grad()
    def start(self, latents: Tensor, actions: Tensor) -> State:
        """Reads a context; of more than C frames, the last C.

        The frames are committed exactly as dreamed ones are, at the context's noise level, with noise from a
        fixed seed, the same for all lanes: the label is true and was trained, and a context has one state.

        Returns:
            ``keys`` and ``values`` ``(B, L, N, G, C, E)``, a ring: frame i lies in slot i mod C; ``count
            (B,)`` frames seen; ``latent (B, h, w, c)`` the last one; ``agent (B, n, D)`` features of the last
            frame's agent tokens, if there are any.

        Raises:
            ValueError: If shapes do not fit.
        """
        self._check_clips(latents, actions)
        latents = latents[:, -self.context_length :]
        length = latents.shape[1]
        actions = _shifted(actions[:, actions.shape[1] - (length - 1) :])
        first = torch.zeros(latents.shape[:2], dtype=torch.bool, device=latents.device)
        first[:, 0] = True
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(length, *self.latent_shape, generator=generator).to(latents)
        given = Conditions(actions, ~first, _shifted(latents[:, :-1]))
        level = torch.full(first.shape, self.context_level, device=latents.device)
        size = torch.full_like(level, self.schedule.finest)
        z = mix(latents, noise.expand_as(latents), self.schedule.tau(level))
        features, cache = self.network(self.tokens(z, level, size, given), self.time_mask(first))
        room = (0, 0, 0, self.context_length - length)
        state = {
            "keys": nn.functional.pad(torch.stack([keys for keys, _ in cache], dim=1), room),
            "values": nn.functional.pad(torch.stack([values for _, values in cache], dim=1), room),
            "count": torch.full((len(latents),), length, dtype=torch.long, device=latents.device),
            "latent": latents[:, -1].clone(),
        }
        if self.config.agent_tokens:
            state["agent"] = features[:, -1, -self.config.agent_tokens :]
        return state

    @torch.no_grad()
    def step(
        self, state: State, action: Tensor, noise: Tensor, steps: int, bounds: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, State, Tensor]:
        """One frame; see :meth:`Dynamics.step`.

        ``noise[:, 0]`` is what the frame is sampled from, ``noise[:, 1]`` what it is mixed with when it is
        committed. The ring is copied once per step, because the state given must not change.
        """
        last, count = state["latent"], state["count"]
        past = self.network.read(state["keys"], state["values"], count)
        known = torch.ones(len(last), 1, dtype=torch.bool, device=last.device)
        given = Conditions(action[:, None], known, last[:, None])

        def predict(z: Tensor, level: Tensor, size: Tensor) -> Tensor:
            features, _ = self._advance(z, level, size, given, past)
            return self.tokens.read_out(features[:, None], z[:, None], given)[:, 0]

        sampled, guess = sample(predict, noise[:, 0], steps, self.schedule)
        latent = torch.minimum(torch.maximum(sampled, bounds[0]), bounds[1]).to(last.dtype)
        uncertainty = (sampled - guess).float().square().mean((1, 2, 3)).sqrt()

        level = torch.full_like(count, self.context_level)
        z = mix(latent, noise[:, 1].to(latent.dtype), self.schedule.tau(level))
        features, cache = self._advance(z, level, torch.full_like(level, self.schedule.finest), given, past)
        following = {
            "keys": ring_write(state["keys"], count, torch.stack([keys for keys, _ in cache], dim=1)),
            "values": ring_write(state["values"], count, torch.stack([values for _, values in cache], dim=1)),
            "count": count + 1,
            "latent": latent,
        }
        if self.config.agent_tokens:
            following["agent"] = features[:, -self.config.agent_tokens :]
        return latent, following, uncertainty

    def _advance(
        self, z: Tensor, level: Tensor, size: Tensor, given: Conditions, past: Past
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """One pass over one frame ``(B, h, w, c)``: features ``(B, N, D)``, and its keys and values."""
        tokens = self.tokens(z[:, None], level[:, None], size[:, None], given)
        return self.network.advance(tokens[:, 0], past)

    def _check_clips(self, latents: Tensor, actions: Tensor) -> None:
        if latents.ndim != 5 or tuple(latents.shape[2:]) != self.latent_shape or not latents.shape[1]:
            raise ValueError(
                f"latents have shape {tuple(latents.shape)}; this model takes (lanes, frames,"
                f" {', '.join(map(str, self.latent_shape))}) with at least one frame"
            )
        wanted = (latents.shape[0], latents.shape[1] - 1, self.action_size)
        if tuple(actions.shape) != wanted:
            raise ValueError(
                f"actions have shape {tuple(actions.shape)}; these latents take {wanted}: one action"
                " between any two frames"
            )


class _Sums:
    """Numerators and denominators of means whose parts come one by one."""

    def __init__(self) -> None:
        self.parts: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def add(self, name: str, total: Tensor, count: Tensor) -> None:
        self.parts.setdefault(name, []).append((total, count))

    def ratio(self, name: str, empty: float) -> Tensor:
        total = torch.stack([total for total, _ in self.parts[name]]).sum()
        count = torch.stack([count for _, count in self.parts[name]]).sum()
        return torch.where(count > 0, total / torch.where(count > 0, count, 1), empty)


def _shifted(values: Tensor, fill: float | bool = 0) -> Tensor:
    """``(B, T-1, ...)`` of the steps between frames to ``(B, T, ...)``: at frame t the value of step t-1."""
    lead = values.new_full((values.shape[0], 1, *values.shape[2:]), fill)
    return torch.cat([lead, values], dim=1)
