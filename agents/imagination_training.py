"""Policy and value in training on what they imagine: the model that :mod:`neuralsim.agents.imagination_run` trains.

Every ``updates`` steps new futures are imagined with the policy of that moment; what was imagined lies beside the
weights in the checkpoint, so that a resumed run goes on exactly.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Literal

import torch
import tyro
from torch import Tensor, nn

from neuralsim.agents.action_distribution import ActionDistribution
from neuralsim.agents.actor import PolicyNet, ValueNet
from neuralsim.agents.actor_critic import ReturnRange, actor_critic_loss
from neuralsim.agents.imagination import imagine
from neuralsim.agents.lambda_returns import lambda_returns
from neuralsim.agents.masked import masked_mean, masked_std
from neuralsim.agents.pmpo import pmpo_loss
from neuralsim.world import World

LONG_STEPS = 200
"""Steps of the dreams that tell how good an agent of some age is."""


@dataclass
class Moments:
    """Recorded moments that dreams go on from.

    Attributes:
        latents: ``(B, T, h, w, c)`` up to the moment, oldest first.
        actions: ``(B, T - 1, A)`` encoded actions between.
    """

    latents: Tensor
    actions: Tensor

    def to(self, device: torch.device | str) -> Moments:
        """The same moments on another device."""
        return Moments(self.latents.to(device), self.actions.to(device))


@dataclass
class ImaginationConfig:
    """How futures are imagined and what is learned from them."""

    objective: tyro.conf.Suppress[Literal["pmpo", "actor-critic"]] = "pmpo"  # the command says which
    """pmpo (the sign of advantages, tied to the clone) or actor-critic (their size, with an entropy bonus)."""
    dreams: int = 64
    """Futures imagined side by side."""
    horizon: int = 24
    """Steps of a future. Dreams begin at recorded moments, which other players have led to; in longer ones more is the
    agent's own play."""
    sampling_steps: int = 1
    """Sampling steps K of a dreamed frame."""
    updates: int = 8
    """Steps of the optimiser on what was imagined, before new futures are."""
    batch_size: int = 384
    """Imagined steps per step of the optimiser."""
    gamma: float = 0.99
    """Discount per step; that of the clone, whose values go on being learned."""
    lam: float = 0.95
    """Lambda of the returns: 0 trusts values alone, 1 the rewards of a future and its last value."""
    slow_value: float = 0.02
    """Share of the value's weights that the slow copy takes over per step; returns and advantages are taken with the
    slow copy."""
    alpha: float = 0.5
    """PMPO: share of what turned out better than expected."""
    beta: float = 0.3
    """PMPO: weight of the KL divergence from the clone."""
    entropy: float = 3e-3
    """Actor-critic: what a nat of entropy is worth."""


class ImaginationTraining(nn.Module):
    """Policy and value with all they need to learn from what they imagine.

    The world is no part of the weights, and no gradient reaches it.

    Args:
        world: Where it plays.
        policy: The clone's policy; a frozen copy stays as the prior.
        value: The clone's value.
        frames: Latents n that both see.
        config: See above.

    Raises:
        ValueError: If the numbers make no sense.
    """

    latents: Tensor
    actions: Tensor
    log_prob: Tensor
    alive: Tensor
    returns: Tensor
    advantages: Tensor
    used: Tensor

    def __init__(
        self, world: World, policy: PolicyNet, value: ValueNet, frames: int, config: ImaginationConfig
    ) -> None:
        super().__init__()
        count = config.dreams * config.horizon
        if min(config.dreams, config.horizon, config.updates) < 1 or not 1 <= config.batch_size <= count:
            raise ValueError(
                f"{config.dreams} dreams of {config.horizon} steps, {config.updates} updates with batches of "
                f"{config.batch_size}: each must be at least 1, and a batch at most the {count} imagined steps"
            )
        for name in ("gamma", "lam", "slow_value", "alpha"):
            if not 0 <= getattr(config, name) <= 1:
                raise ValueError(f"{name} is {getattr(config, name)}; it must be a number from 0 to 1")
        world.check_steps(config.sampling_steps)
        self.world, self.frames, self.config = world, frames, config
        self.distribution = ActionDistribution(world.actions)
        self.policy = copy.deepcopy(policy).train().requires_grad_(True)
        self.value = copy.deepcopy(value).train().requires_grad_(True)
        self.prior = copy.deepcopy(policy).eval().requires_grad_(False)
        self.slow_value = copy.deepcopy(value).eval().requires_grad_(False)
        self.return_range = ReturnRange()
        # What was imagined last, and how often it has been learned from. Latents lie flat: the loop lays out what has
        # more than three dimensions as pictures, which these are not.
        dreams, horizon = config.dreams, config.horizon
        self.register_buffer("latents", torch.zeros(dreams, frames + horizon, math.prod(world.latent_shape)))
        self.register_buffer("actions", torch.zeros(dreams, horizon, world.actions.size))
        for name in ("log_prob", "alive", "returns", "advantages"):
            self.register_buffer(name, torch.zeros(dreams, horizon))
        self.register_buffer("used", torch.tensor(config.updates))

    def separate_parts(self) -> list[nn.Module]:
        """What shares no gradients."""
        return [self.policy, self.value]

    def not_averaged(self) -> list[str]:
        """Of which entries of the state no running mean makes sense."""
        return ["latents", "actions", "log_prob", "alive", "returns", "advantages"]

    def frozen_parts(self) -> list[nn.Module]:
        """What must not learn."""
        return [self.prior, self.slow_value, *self.world.parts.values()]

    def compile_parts(self) -> None:
        """Compiles what dreams and what learns; the steps of a dream around it would make one huge graph."""
        self.world.dynamics.compile_parts()
        for part in (self.world.heads, self.policy, self.value):
            part.compile()

    def forward(self, batch: Moments) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss on a share of what was imagined last; when that is used up, the clips' futures are imagined first."""
        config = self.config
        metrics: dict[str, Tensor] = {}
        if int(self.used) >= config.updates:
            metrics |= self._imagine_anew(batch)
        self.used += 1
        lane, t = self._pick()
        recent = self.latents[lane[:, None], t[:, None] + torch.arange(self.frames, device=t.device)]
        recent = recent.unflatten(-1, self.world.latent_shape)
        action, old, returns, advantage, alive = (
            x[lane, t] for x in (self.actions, self.log_prob, self.returns, self.advantages, self.alive)
        )
        logits = self.policy(recent)[:, 0]
        log_prob, entropy = self.distribution.log_prob(logits, action), self.distribution.entropy(logits)
        with torch.no_grad():
            kl_target = self.prior(recent)[:, 0]
        kl = self.distribution.kl(logits, kl_target)
        if config.objective == "pmpo":
            loss, counts = pmpo_loss(log_prob, advantage, kl, config.alpha, config.beta, alive)
            metrics |= {f"{name}_samples": count for name, count in counts.items()}
        else:
            loss = actor_critic_loss(log_prob, old, advantage, entropy, config.entropy, weight=alive)
        said = self.value(recent)
        value_loss = masked_mean(self.value.two_hot.loss(said, returns), alive)
        self._follow()
        error = self.value.two_hot.decode(said.detach()) - returns
        likeliest = self.distribution.log_prob(logits.detach(), self.distribution.mode(logits.detach()))
        metrics |= {
            "policy": loss.detach(),
            "value": value_loss.detach(),
            "kl": masked_mean(kl.detach(), alive),
            "policy_entropy": masked_mean(entropy.detach(), alive),
            "policy_max_probability": masked_mean(likeliest.exp(), alive),
            "value_error": masked_mean(error.square(), alive).sqrt(),
            "return_std": masked_std(returns, alive),
            "advantage_std": masked_std(advantage, alive),
        }
        return loss + value_loss, metrics

    @torch.no_grad()
    def play(self, batch: Moments) -> dict[str, float]:
        """Mean return of the policy in longer dreams from the clips on, with the world's own K."""
        rng = torch.Generator().manual_seed(0)
        steps = self.world.config.sampling_steps
        dreamed = imagine(
            self.world,
            self.policy,
            self.distribution,
            self.frames,
            batch.latents,
            batch.actions,
            LONG_STEPS,
            steps,
            rng,
        )
        paid = dreamed.rewards * dreamed.alive
        return {f"return_of_{LONG_STEPS}": float(paid.sum(1).mean())}

    @torch.no_grad()
    def _imagine_anew(self, batch: Moments) -> dict[str, Tensor]:
        # Whatever the loop computes in, the world has its own number format.
        with torch.autocast(self.latents.device.type, enabled=False):
            return self._imagine_without_autocast(batch)

    def _imagine_without_autocast(self, batch: Moments) -> dict[str, Tensor]:
        config = self.config
        rng = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        dreamed = imagine(
            self.world, self.policy, self.distribution, self.frames, batch.latents, batch.actions, config.horizon,
            config.sampling_steps, rng,
        )  # fmt: skip
        values = self.slow_value.value(dreamed.windows(self.frames).flatten(0, 1)).unflatten(0, (config.dreams, -1))
        returns = lambda_returns(dreamed.rewards, dreamed.continues, values, config.gamma, config.lam)
        scale = self.return_range(returns[dreamed.alive > 0]) if config.objective == "actor-critic" else 1.0
        self.latents.copy_(dreamed.latents.flatten(2))
        for name in ("actions", "log_prob", "alive"):
            getattr(self, name).copy_(getattr(dreamed, name))
        self.returns.copy_(returns)
        self.advantages.copy_((returns - values[:, :-1]) / scale)
        self.used.zero_()
        paid = dreamed.rewards * dreamed.alive
        return {"return_per_1000": 1000 * paid.sum() / dreamed.alive.sum()}

    def _pick(self) -> tuple[Tensor, Tensor]:
        """Dream and step ``(batch_size,)`` of some imagined steps."""
        count = self.config.dreams * self.config.horizon
        picked = torch.randperm(count)[: self.config.batch_size].to(self.latents.device)
        return picked // self.config.horizon, picked % self.config.horizon

    @torch.no_grad()
    def _follow(self) -> None:
        if self.training:
            for slow, fast in zip(self.slow_value.parameters(), self.value.parameters(), strict=True):
                slow.lerp_(fast, self.config.slow_value)
