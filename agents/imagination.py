"""Imagination: a policy plays on from recorded moments, in latents; no picture is drawn.

Legend: B dreams, H steps, n latents that the policy sees, h w c latent grid, A encoded action.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralsim.agents.action_distribution import ActionDistribution
from neuralsim.world import World


@dataclass
class Imagined:
    """What was dreamed.

    Attributes:
        latents: ``(B, n - 1 + H + 1, h, w, c)``: n - 1 real frames before, the real one that the dream begins at, and
            the H dreamed ones.
        actions: ``(B, H, A)`` encoded.
        log_prob: ``(B, H)`` of the actions, when they were taken.
        rewards: ``(B, H)``.
        continues: ``(B, H)``, 0.0 where the episode ended with the step, else 1.0.
    """

    latents: Tensor
    actions: Tensor
    log_prob: Tensor
    rewards: Tensor
    continues: Tensor

    @property
    def alive(self) -> Tensor:
        """``(B, H)``, 1.0 for steps of an episode, 0.0 for those after its end."""
        ended = torch.cumprod(self.continues, dim=1)
        return torch.cat([torch.ones_like(ended[:, :1]), ended[:, :-1]], dim=1)

    def windows(self, frames: int) -> Tensor:
        """``(B, H + 1, n, h, w, c)``: what the policy sees before each step, and after the last one."""
        return self.latents.unfold(1, frames, 1).movedim(-1, 2)


@torch.no_grad()
def imagine(
    world: World,
    policy: Callable[[Tensor], Tensor],
    distribution: ActionDistribution,
    frames: int,
    latents: Tensor,
    actions: Tensor,
    horizon: int,
    steps: int,
    rng: torch.Generator,
) -> Imagined:
    """Lets a policy play in a world; neither of them changes, and no gradient is kept.

    Args:
        world: The world.
        policy: Latents ``(B, n, h, w, c)`` to logits ``(B, L, P)``.
        distribution: Of the actions.
        frames: n.
        latents: ``(B, T, h, w, c)`` recorded context, T >= n.
        actions: ``(B, T - 1, A)`` encoded actions between.
        horizon: H.
        steps: Sampling steps K.
        rng: Draws actions and noise.

    Returns:
        The dreams, float32.

    Raises:
        ValueError: If the context is shorter than what the policy sees.
    """
    if latents.shape[1] < frames:
        raise ValueError(f"a context of {latents.shape[1]} frames is too short for a policy that sees {frames}")
    state = world.start_from_latents(latents, actions)
    seen = [latents[:, -frames + i].float() for i in range(frames)]
    taken, logs, rewards, continues = [], [], [], []
    for _ in range(horizon):
        logits = policy(torch.stack(seen[-frames:], dim=1))[:, 0]
        action = distribution.sample(logits, rng)
        state, said = world.step(state, world.actions.decode(action.cpu().numpy()), rng=rng, steps=steps)
        seen.append(said.latent.float())
        taken.append(action)
        logs.append(distribution.log_prob(logits, action))
        rewards.append(said.reward.float())
        continues.append(1.0 - said.terminated.float())
    columns = (torch.stack(rows, dim=1) for rows in (seen, taken, logs, rewards, continues))
    return Imagined(*columns)
