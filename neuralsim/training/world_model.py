"""Dynamics and heads as one model to train."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from neuralsim.dynamics.base import ClipBatch, Dynamics
from neuralsim.dynamics.shortcut import mix
from neuralsim.heads import Heads
from neuralsim.running_rms import RunningRMS
from neuralsim.training.foresight import Foresight

MOST_NOISE = 0.15
"""Most noise that heads trained alone see, as a share of the lerp."""


class WorldModel(nn.Module):
    """Dynamics and heads, trained together on the same clips but without sharing gradients.

    The heads judge real transitions and, where the dynamics hands out its own frames, the same transitions as it
    dreamed them: in use they will see nothing else. Where a dream shows something in another place than reality does,
    what was really paid is not due in it, and nothing is learned from that transition.

    Args:
        dynamics: Predicts latents.
        heads: Judge transitions.
        heads_only: Leaves the dynamics as it is and trains the heads on real frames, half of the clips with some noise
            in place of the dynamics' errors. A step takes a fraction of the time, and rare events need many.
        heads_on_dreams: With heads_only, also on frames that the dynamics dreams.
        foresight: Has the dynamics' features tell where things will be, on clips that know it.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        heads: Heads,
        heads_only: bool = False,
        foresight: Foresight | None = None,
        heads_on_dreams: bool = False,
    ) -> None:
        super().__init__()
        self.heads_only = heads_only
        self.heads_on_dreams = heads_on_dreams
        dynamics.requires_grad_(not heads_only)
        self.dynamics = dynamics
        self.heads = heads
        self.foresight = foresight
        self.reward_scale = RunningRMS()
        self.continue_scale = RunningRMS()

    def set_progress(self, share: float) -> None:
        """Passes the share of the run that is done to the dynamics."""
        self.dynamics.set_progress(share)

    def separate_parts(self) -> list[nn.Module]:
        """What shares no gradients."""
        return [self.dynamics, self.heads, *([self.foresight] if self.foresight else [])]

    def compile_parts(self) -> None:
        """Compiles what takes the time of a step."""
        self.dynamics.compile_parts()
        if self.foresight is not None:
            self.foresight.compile()

    def forward(self, batch: ClipBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of the scaled losses, and the metrics of all parts."""
        loss, own, alike = batch.latents.new_zeros(()), None, None
        metrics: dict[str, Tensor] = {}
        if not self.heads_only or self.heads_on_dreams:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.heads_only):
                made = self.dynamics.rollout(batch)
            own, alike = made.own, made.alike
        if not self.heads_only:
            loss, metrics = made.loss, made.metrics
            if self.foresight is not None and made.features is not None and batch.places is not None:
                sight, told = self.foresight.loss(made, batch.places)
                loss, metrics = loss + self.foresight.config.weight * sight, metrics | told
        count = self.dynamics.predicted
        targets = [value[:, -count:] for value in (batch.actions, batch.rewards, batch.terminated)]
        real = self._noised(batch.latents) if self.heads_only and self.training else batch.latents
        clips: list[tuple[Tensor, Tensor | None]] = [(real, None)]
        if own is not None:
            counts = None if alike is None else self._all_seen(alike)[:, -count:]
            clips.append((torch.cat([batch.latents[:, : -own.shape[1]], own], dim=1), counts))
        rewards, ends = [], []
        for clip, counts in clips:
            before = self.heads.look_back(clip)[:, -count - 1 : -1]
            flat = [rearrange(x, "b t ... -> (b t) ...") for x in (before, clip[:, -count:], *targets)]
            reward, end = self.heads.losses(*flat, counts=None if counts is None else counts.flatten())
            rewards.append(reward)
            ends.append(end)
        reward_loss, continue_loss = torch.stack(rewards).mean(), torch.stack(ends).mean()
        metrics |= {"reward": rewards[0].detach(), "continue": ends[0].detach()}
        if own is not None:
            metrics |= {"reward_dreamed": rewards[1].detach(), "continue_dreamed": ends[1].detach()}
        return loss + self.reward_scale(reward_loss) + self.continue_scale(continue_loss), metrics

    def _all_seen(self, alike: Tensor) -> Tensor:
        """By own frame ``(B, S)``, whether all those are alike that the heads see of the transition to it."""
        frames = self.heads.config.frames
        return F.pad(alike, (frames - 1, 0), value=True).unfold(1, frames, 1).all(-1)  # before them there are real ones

    @staticmethod
    def _noised(latents: Tensor) -> Tensor:
        lanes = len(latents)
        every_other = torch.arange(lanes, device=latents.device) % 2
        strength = MOST_NOISE * torch.rand(lanes, device=latents.device) * every_other
        return mix(latents, torch.randn_like(latents), 1 - strength)
