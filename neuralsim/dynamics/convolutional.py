"""Convolutional dynamics: a U-Net that reads the past once, and a light denoiser that samples the next latent.

The default at CPU scale. Notable here:
- history is stacked in channels, recent frames densely and a few long skips, because things that come back (a
  serve) are announced long before;
- the heavy part, the U-Net over history and actions, does not see the noise: it runs once per frame, whatever the
  number of sampling steps K; only the denoiser runs K times;
- the prediction is a residual to the last latent, so an untrained model copies;
- where actions turn a camera, past frames are turned into the new view first, and the residual is to the last one as
  it has moved (``view.py``);
- training unrolls clips on the model's own frames (``unrolling.py``); the networks stand in ``unet.py``.

Legend: B lanes, h w c latent grid, A encoded action, C channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from neuralsim.dynamics.base import ClipBatch, Dynamics, Rollout, State
from neuralsim.dynamics.shortcut import Schedule, check_power_of_two, sample
from neuralsim.dynamics.unet import Denoiser, HistoryNet
from neuralsim.dynamics.unrolling import unroll
from neuralsim.dynamics.view import TurnedView, check_camera
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
    blocks: tuple[int, int, int, int, int] = (2, 2, 2, 1, 1)
    """Residual blocks of the part that reads the past: at full, half and quarter resolution on the way down, at half
    and full resolution on the way up. A run may go on from one with fewer (--init-from)."""
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
    dissolves (Dreamer 4 does the same, tau_ctx). Where a camera turns, frames are remembered as they are and the noise
    is drawn whenever they are read: the frame that is moved has none."""
    dead_zone: float = 0.0
    """In a dream, what is predicted is drawn towards the frame that the prediction starts from by this much, in units
    of the latents' standard deviation: smaller changes are none (soft thresholding, Donoho 1995). Nothing else makes
    what stands still stand still: errors too small to be seen, always of the same sign, add up to specks."""
    flow_dead_zone: float = 0.0
    """In a dream that turns its view, flows of less than so many latent positions per step are none, for the same
    reason."""
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
    copy_floor: float = 0.0
    """Above 0, clips count by 1 / (error of copying the last frame + this), in latents: where nearly nothing happens,
    what little goes wrong is seen at once, and adds up while nothing happens; in a mean over all clips it is lost
    beside those in which a whole picture moves. 0: all count alike."""
    turn_view: bool = True
    """Where actions turn a camera: past frames are turned into the new view before they are read, and the prediction
    starts from the last one as it has moved."""
    camera: tuple[int, ...] = ()
    """Where in an encoded action the turn of the camera stands, pitch and yaw; found by itself where there is one."""
    camera_degrees: float = 10.0
    """By how many degrees an encoded 1 turns it."""
    field_of_view: tuple[float, float] = (70.0, 102.4)
    """What the camera sees, in degrees from top to bottom and from left to right. Minecraft at 16:9, and Minetest,
    however they were resized since; a game that draws square pictures sees as many degrees either way."""
    view_channels: int = 4
    """Channels of the pictures that are turned."""


class ConvolutionalDynamics(Dynamics):
    """U-Net dynamics on local latents, trained by shortcut forcing on its own rollouts.

    Raises:
        ValueError: If history, sizes or K_max do not fit.
    """

    type_name = "convolutional"
    noise_slots = 2  # one for the frame itself, one for the frame in the history; more where a camera turns

    def __init__(self, config: ConvolutionalDynamicsConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ConvolutionalDynamicsConfig()
        history = tuple(config.history)
        if not history or history[0] != 1 or list(history) != sorted(set(history)):
            raise ValueError(f"history is {history}; it must start with 1 and rise")
        if len(config.blocks) != 5 or min(config.blocks) < 1:
            raise ValueError(f"blocks is {config.blocks}; it must be five numbers of at least 1")
        if config.height % 4 or config.width % 4:
            raise ValueError(f"a latent grid of {config.height}x{config.width} cannot be halved twice")
        check_power_of_two(config.self_steps, "self_steps")
        if config.self_steps > config.max_steps:
            raise ValueError(f"self_steps is {config.self_steps}; it must not exceed max_steps, {config.max_steps}")
        if not 0 < config.noise_scale < math.inf:
            raise ValueError(f"noise_scale is {config.noise_scale}; it must be a number above 0")
        for name in ("dead_zone", "flow_dead_zone"):
            if not 0 <= getattr(config, name) < math.inf:
                raise ValueError(f"{name} is {getattr(config, name)}; it must be a number, 0 or more")
        if not 0 <= config.context_stain < 1:
            raise ValueError(f"context_stain is {config.context_stain}; it must be a share, 0 or more and less than 1")
        if not 0 <= config.dream_noise <= config.context_noise:
            raise ValueError(
                f"dream_noise is {config.dream_noise}; it must lie between 0 and context_noise, which is "
                f"{config.context_noise}: the model sees through no more noise than it was trained with"
            )
        check_camera(config)
        self.schedule = Schedule(config.max_steps)
        self.latent_shape = (config.height, config.width, config.latent_channels)
        self.action_size = config.action_size
        self.history = history
        self.context_length = max(history[-1], config.past_actions)
        turns = config.turn_view and len(config.camera) > 0
        self.known_actions = max(config.past_actions, history[-1] if turns else 0)
        self.predicted = config.rollout
        self.clip_length = self.context_length + config.lead + config.rollout
        self.max_steps = config.max_steps
        self.past = HistoryNet(config)
        self.view = TurnedView(config) if turns else None
        if self.view is not None:
            # What is kept moves from frame to frame and must not lose anything: noise is drawn whenever it is read.
            self.noise_slots = 1 + len(history)
        self.denoiser = Denoiser(config)
        self.scale = RunningRMS()
        self.progress = 0.0

    def set_progress(self, share: float) -> None:
        """Shortcuts and self-generated context come in with the share of the run that is done."""
        self.progress = share

    def fitted(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a model that sees fewer past actions, has fewer blocks, or does not turn its view.

        Call it before this one has learned: the older actions begin with no weight, and an untrained block changes
        nothing. An untrained view adds nothing to what is read, but has the prediction start from the last frame as
        turned.
        """
        name = "past.action.weight"
        if name not in weights:
            return weights
        new = {key: value for key, value in self.past.state_dict(prefix="past.").items() if ".blocks_" in key}
        if self.view is not None:
            new |= self.view.state_dict(prefix="view.")
        weights = {**new, **weights}
        missing = self.past.action.in_features - weights[name].shape[1]
        if missing <= 0 or missing % self.action_size:
            return weights
        return {**weights, name: F.pad(weights[name], (missing, 0))}  # the oldest action comes first

    def compile_parts(self) -> None:
        """Compiles the networks; the unrolled loop around them would make one huge graph."""
        self.past.compile()
        self.denoiser.compile()

    def features(self, context: Tensor, actions: Tensor, last: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Reads the past.

        Args:
            context: ``(B, n, h, w, c)`` the frames of ``history``, newest first, as they are read: with noise.
            actions: ``(B, known_actions, A)``, oldest first; the last is the one taken now.
            last: ``(B, h, w, c)`` the newest frame as the prediction starts from it, by default as it is read.

        Returns:
            Features ``(B, C, h, w)``, and the latent that the prediction is a residual to, ``(B, c, h, w)``: the last,
            moved into the new view where a camera turns.
        """
        # Written as channels-last memory, which is what CPU convolutions read fastest.
        stacked = rearrange(context, "b n h w c -> b h w (n c)").contiguous().permute(0, 3, 1, 2)
        recent = actions[:, actions.shape[1] - self.config.past_actions :].flatten(1)
        last = context[:, 0] if last is None else last
        if self.view is None:
            return self.past(stacked, recent), last.permute(0, 3, 1, 2)
        seen, turned = self.view.turn(context, last, actions)
        features = self.past(stacked, recent, seen)
        base = self.view.move(turned, features).permute(0, 3, 1, 2)
        return features + self.view.read_moved(base), base

    def predict(self, features: Tensor, base: Tensor, z: Tensor, level: Tensor, size: Tensor) -> Tensor:
        """Clean prediction ``(B, h, w, c)`` for a noisy latent ``(B, h, w, c)``."""
        residual = self.denoiser(features, z.permute(0, 3, 1, 2).to(features.dtype), level, size)
        return (residual.float() + base.float()).permute(0, 2, 3, 1)

    def draw(self, features: Tensor, base: Tensor, z: Tensor, level: Tensor, size: Tensor) -> Tensor:
        """:meth:`predict` for dreams: all differs from the base by the dead zone less, and what does by less, not."""
        clean = self.predict(features, base, z, level, size)
        if not self.config.dead_zone:
            return clean
        start = base.float().permute(0, 2, 3, 1)
        return start + F.softshrink(clean - start, self.config.dead_zone)

    def forward(self, batch: ClipBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Shortcut-forcing loss over the last ``rollout`` frames of each clip."""
        made = self.rollout(batch)
        return made.loss, made.metrics

    def rollout(self, batch: ClipBatch) -> Rollout:
        """As :meth:`forward`; own frames, once the model makes some, are those of the lead and the rollout."""
        made = unroll(self, batch)
        if self.view is not None and batch.pitch is not None:
            loss, off = self.view.pitch_loss(
                batch.latents, batch.pitch, self.config.context_noise if self.training else 0
            )
            made = replace(made, loss=made.loss + loss, metrics=made.metrics | {"pitch_off": off})
        return made

    def start(self, latents: Tensor, actions: Tensor) -> State:
        """Keeps the last ``context_length`` frames; a shorter context repeats its first."""
        missing = self.context_length - latents.shape[1]
        if missing > 0:
            latents = torch.cat([latents[:, :1].expand(-1, missing, -1, -1, -1), latents], dim=1)
        past = self.known_actions - 1
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
        last = context[:, 0]
        if self.view is not None:
            context = torch.lerp(context, noise[:, 1:].to(context), self.config.dream_noise)
        features, base = self.features(context, actions, last)
        sampled, first = sample(
            lambda z, level, size: self.draw(features, base, z, level, size),
            self.config.noise_scale * noise[:, 0],
            steps,
            self.schedule,
        )
        latent = torch.minimum(torch.maximum(sampled, bounds[0]), bounds[1]).to(latents.dtype)
        uncertainty = (sampled - first).float().square().mean((1, 2, 3)).sqrt()
        remembered = latent
        if self.view is None:
            remembered = torch.lerp(latent, noise[:, 1].to(latent), self.config.dream_noise)
        following = {
            "latents": torch.cat([latents[:, 1:], remembered[:, None]], dim=1),
            "actions": actions[:, 1:],
        }
        return latent, following, uncertainty
