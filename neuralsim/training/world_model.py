"""Dynamics and heads as one model to train."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from neuralsim.dynamics.base import ClipBatch, Dynamics
from neuralsim.heads import Heads
from neuralsim.running_rms import RunningRMS


class WorldModel(nn.Module):
    """Dynamics and heads, trained together on the same clips but without sharing gradients.

    The heads judge real transitions and, where the dynamics hands out its own frames, the same transitions as it
    dreamed them: in use they will see nothing else.
    """

    def __init__(self, dynamics: Dynamics, heads: Heads) -> None:
        super().__init__()
        self.dynamics = dynamics
        self.heads = heads
        self.reward_scale = RunningRMS()
        self.continue_scale = RunningRMS()

    def set_progress(self, share: float) -> None:
        """Passes the share of the run that is done to the dynamics."""
        self.dynamics.set_progress(share)

    def compile_parts(self) -> None:
        """Compiles what runs many times per step."""
        self.dynamics.compile_parts()

    def forward(self, batch: ClipBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of the scaled losses, and the metrics of all parts."""
        loss, metrics, own = self.dynamics.rollout_loss(batch)
        count = batch.latents.shape[1] - self.dynamics.context_length
        before, after = batch.latents[:, -count - 1 : -1], batch.latents[:, -count:]
        targets = [value[:, -count:] for value in (batch.actions, batch.rewards, batch.terminated)]
        pairs = [(before, after)]
        if own is not None:
            pairs.append((torch.cat([batch.latents[:, -count - 1 : -count], own[:, :-1]], dim=1), own))
        rewards, ends = [], []
        for previous, latent in pairs:
            flat = [rearrange(x, "b t ... -> (b t) ...") for x in (previous, latent, *targets)]
            reward, end = self.heads.losses(*flat)
            rewards.append(reward)
            ends.append(end)
        reward_loss, continue_loss = torch.stack(rewards).mean(), torch.stack(ends).mean()
        metrics |= {"reward": rewards[0].detach(), "continue": ends[0].detach()}
        return loss + self.reward_scale(reward_loss) + self.continue_scale(continue_loss), metrics
