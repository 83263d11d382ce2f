"""Policy and value, and what they have just played: the model that :mod:`neuralsim.agents.ppo` trains.

Schulman et al. 2017 ("Proximal policy optimization algorithms"), with what later work found to matter (Huang et al.
2022, "The 37 implementation details of proximal policy optimization"): orthogonal weights, generalised advantages,
normalised in every minibatch, clipped gradients, a falling learning rate.

Legend: N lanes, T steps of each, n frames seen, B rows of a minibatch.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor, nn

from neuralsim.agents.actor_critic import actor_critic_loss
from neuralsim.agents.masked import masked_mean, masked_std
from neuralsim.agents.pixels import PixelActor, PixelActorConfig, Pixels, PixelsConfig
from neuralsim.agents.ppo_objective import advantages_and_returns, normalised, value_loss
from neuralsim.agents.rollouts import Rollouts


@dataclass
class PPOConfig:
    """How it plays and learns."""

    horizon: int = 128
    """Steps played in every lane before they are learned from."""
    epochs: int = 4
    """How often each of them is learned from."""
    minibatches: int = 4
    """Into how many batches they are divided."""
    gamma: float = 0.99
    """Discount per step."""
    lam: float = 0.95
    """Lambda of the advantages: 0 trusts values alone, 1 the rewards."""
    clip: float = 0.2
    """How far the probability of an action may move, as a ratio, before it no longer counts."""
    value_clip: float = 0.0
    """How far a value may move before it no longer counts; 0 for no such limit."""
    value_weight: float = 0.5
    """Weight of the value's loss beside the policy's: they share a network."""
    entropy: float = 0.01
    """What a nat of entropy is worth."""
    normalise: bool = True
    """Advantages of a minibatch get mean 0 and standard deviation 1."""
    reward_scale: float = 1.0
    """Rewards are multiplied by this: returns should be of the order of 1 to 10."""

    def __post_init__(self) -> None:
        for name in ("horizon", "epochs", "minibatches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a number from 0 to 1")
        for name in ("clip", "value_clip", "value_weight", "entropy"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a number from 0 on")
        if not 0 < self.reward_scale < math.inf:
            raise ValueError(f"reward_scale is {self.reward_scale}; it must be a number above 0")

    @property
    def updates(self) -> int:
        """Optimiser steps on what was collected once."""
        return self.epochs * self.minibatches


class PPOTraining(nn.Module):
    """Policy and value with the environment that they play in.

    Args:
        envs: Observations are frames ``(H, W, 3)`` uint8; it is reset.
        name: What it is called in errors.
        config: How it learns.
        sizes: Of the network.
        seed: Of the first episodes, the initial weights and the order of minibatches.

    Raises:
        ValueError: If the observations are no frames, the actions are none that can be drawn, or numbers make no sense.
    """

    returns: Tensor
    advantages: Tensor
    used: Tensor

    def __init__(self, envs: VectorEnv, name: str, config: PPOConfig, sizes: PixelActorConfig, seed: int) -> None:
        super().__init__()
        self.config, self.seed = config, seed
        lanes, horizon = envs.num_envs, config.horizon
        if lanes * horizon % config.minibatches:
            raise ValueError(
                f"{lanes} lanes of {horizon} steps cannot be divided into {config.minibatches} minibatches"
            )
        self.rollouts = Rollouts(envs, name, horizon, sizes.frames, seed)
        self.distribution = self.rollouts.distribution
        self.eyes = Pixels(PixelsConfig(sizes.height, sizes.width))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.actor = PixelActor(sizes, self.distribution.parameters)
        self.register_buffer("returns", torch.zeros(lanes, horizon))
        self.register_buffer("advantages", torch.zeros(lanes, horizon))
        self.register_buffer("used", torch.tensor(config.updates))
        self._clock = 0.0

    def not_averaged(self) -> list[str]:
        """Of which entries of the state no running mean makes sense."""
        return [name for name, value in self.named_buffers() if value.is_floating_point()]

    def compile_parts(self) -> None:
        """Compiles the network for learning; it plays as written."""
        self.actor.trunk.compile()

    def describe(self, figures: dict[str, float]) -> str:
        """What stands beside the progress bar."""
        told = []
        if "env_steps_per_second" in figures:
            told.append(f"{figures['env_steps_per_second']:,.0f} steps/s")
        if "episode_return" in figures:
            told.append(f"{figures['episode_return']:+.1f} per episode")
        return ", ".join(told)

    def draw(self, step: int) -> Tensor:
        """Which of the collected steps ``(B,)`` an optimiser step learns from; depends on seed and step alone."""
        collection, within = divmod(step, self.config.updates)
        epoch, part = divmod(within, self.config.minibatches)
        order = np.random.default_rng((self.seed, collection, epoch)).permutation(self.returns.numel())
        return torch.from_numpy(np.split(order, self.config.minibatches)[part])

    def forward(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss on a minibatch of what was collected last; when that is used up, it plays on first.

        Args:
            batch: ``(B,)``, see :meth:`draw`.

        Raises:
            ValueError: If the environment pays what is no finite number.
        """
        config, kept = self.config, self.rollouts
        metrics: dict[str, Tensor] = {}
        if int(self.used) >= config.updates:
            metrics |= self._play_on()
        self.used += 1
        lane, t = batch // config.horizon, batch % config.horizon
        logits, values = self.judge(kept.windows(lane, t))
        action, old, before, returns, advantage = (
            x[lane, t] for x in (kept.actions, kept.log_prob, kept.values, self.returns, self.advantages)
        )
        weight = kept.counted[lane, t].to(returns)
        log_prob, entropy = self.distribution.log_prob(logits, action), self.distribution.entropy(logits)
        gain = normalised(advantage, weight) if config.normalise else advantage
        policy = actor_critic_loss(log_prob, old, gain, entropy, config.entropy, config.clip, weight)
        value = value_loss(values, before, returns, weight, config.value_clip)
        with torch.no_grad():
            change = log_prob - old
            likeliest = self.distribution.log_prob(logits, self.distribution.mode(logits)).exp()
            metrics |= {
                "policy": policy,
                "value": value,
                "policy_entropy": masked_mean(entropy, weight),
                "policy_max_probability": masked_mean(likeliest, weight),
                # Schulman 2020 ("Approximating KL divergence"): r - 1 - ln r, never negative.
                "approximate_kl": masked_mean(change.exp() - 1 - change, weight),
                "clip_fraction": masked_mean(((change.exp() - 1).abs() > config.clip).to(weight), weight),
                "value_error": masked_mean((values - returns).square(), weight).sqrt(),
                "return_std": masked_std(returns, weight),
                "advantage_std": masked_std(advantage, weight),
            }
        return policy + config.value_weight * value, {name: figure.detach() for name, figure in metrics.items()}

    def judge(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Frames seen ``(B, n, pixels)`` uint8, oldest first, to logits ``(B, P)`` and values ``(B,)``."""
        return self.actor.judge(self.eyes.encode(windows.unflatten(-1, self.eyes.frame_shape)))

    @torch.no_grad()
    def _play_on(self) -> dict[str, Tensor]:
        """Collects T steps of every lane, and tells how it went."""
        config, kept = self.config, self.rollouts
        before, self._clock = self._clock, time.perf_counter()
        # In full precision whatever the loop computes in: ratios compare what is said now with what is said later.
        # As written: batches of other sizes, in which steps are played, would be compiled anew.
        with torch.autocast(self.returns.device.type, enabled=False), torch.compiler.set_stance("force_eager"):
            played = kept.collect(self.judge)
        told = {"return_per_1000": 1000 * played.rewards.sum() / kept.counted.sum().clamp(min=1)}
        scaled = played._replace(rewards=played.rewards * config.reward_scale)
        advantages, returns = advantages_and_returns(*scaled, config.gamma, config.lam)
        self.advantages.copy_(advantages)
        self.returns.copy_(returns)
        self.used.zero_()
        # With what was learned since the last time; the first time playing alone is measured.
        spent = self._clock - before if before else time.perf_counter() - self._clock
        told["env_steps_per_second"] = torch.tensor(kept.counted.numel() / spent)
        if len(ended := kept.recent_episodes()):
            told |= {name: torch.tensor(value) for name, value in
                     zip(("episode_return", "episode_length"), ended.mean(0), strict=True)}  # fmt: skip
        return told
