"""``neuralsim agent train pmpo``: a clone plays in a dream and does more of what paid, less of what did not.

Dreamer 4's third phase: the world is frozen, dreams go on from recorded moments in latents and are never drawn, a
frozen copy of the clone keeps the policy near what was recorded. Every ``updates`` steps new futures are imagined; what
was imagined lies beside the weights in the checkpoint, so that a resumed run goes on exactly.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from neuralsim.agents.action_distribution import ActionDistribution
from neuralsim.agents.actor import PolicyNet, ValueNet
from neuralsim.agents.actor_critic import ReturnRange, actor_critic_loss
from neuralsim.agents.agent import AGENT, Agent
from neuralsim.agents.imagination import imagine
from neuralsim.agents.lambda_returns import lambda_returns
from neuralsim.agents.pmpo import pmpo_loss
from neuralsim.data.clips import ClipMix, ClipSampler
from neuralsim.data.episodes import EpisodeStore
from neuralsim.data.latents import fingerprint, load_latents
from neuralsim.dynamics.base import ClipBatch
from neuralsim.training.loop import LoopConfig, TrainingRun
from neuralsim.training.parts import load_tokenizer
from neuralsim.training.tokenizer import split_episodes
from neuralsim.world import World
from neuralsim.world_files import AGENTS

LONG_DREAMS, LONG_STEPS = 16, 200
"""Dreams that tell how good an agent of some age is, and their steps."""


@dataclass
class ImaginationConfig:
    """How futures are imagined and what is learned from them."""

    objective: Literal["pmpo", "actor-critic"] = "pmpo"
    """pmpo (the sign of advantages, tied to the clone) or actor-critic (their size, with an entropy bonus)."""
    dreams: int = 64
    """Futures imagined side by side."""
    horizon: int = 24
    """Steps of a future."""
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
    """Share of the value's weights that the slow copy takes over per step; returns are taken with the slow copy."""
    alpha: float = 0.5
    """PMPO: share of what turned out better than expected."""
    beta: float = 0.3
    """PMPO: weight of the KL divergence from the clone."""
    entropy: float = 3e-3
    """Actor-critic: what a nat of entropy is worth."""


@dataclass
class PMPORun:
    """Trains an agent in a dream, from its clone on; the world stays as it is.

    At every evaluation the agent of that age is kept (OUT/agents), and its return in longer dreams is told.
    neuralsim agent evaluate then lets it play the real game.
    """

    env: str = "Dream-Pong-v0"
    """The dream: Dream-Pong-v0, a world's folder or a hub id."""
    prior: Path = Path("runs/clone")
    """The clone to begin from (neuralsim agent train clone); it also stays the prior."""
    data: Path = Path("data/pong")
    """Recorded episodes; dreams go on from their moments."""
    out: Path = Path("runs/pmpo")
    """Folder of the run; the same command resumes it."""
    imagination: ImaginationConfig = field(default_factory=ImaginationConfig)
    clips: ClipMix = field(default_factory=lambda: ClipMix(events=0.0, ends=0.0, aftermath=0.0, starts=0.02))
    """Which moments dreams begin at."""
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=4000, learning_rate=5e-4, warmup_steps=100, decay_fraction=0.3, final_learning_rate=0.1, ema=0.99,
            weight_decay=0.0, evaluate_every=1000
        )
    )  # fmt: skip


@dataclass
class ActorCriticRun(PMPORun):
    """Trains an agent in a dream by actor-critic; else as neuralsim agent train pmpo."""

    out: Path = Path("runs/actor-critic")
    """Folder of the run; the same command resumes it."""
    imagination: ImaginationConfig = field(default_factory=lambda: ImaginationConfig(objective="actor-critic"))


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
        world.check_steps(config.sampling_steps)
        self.world, self.frames, self.config = world, frames, config
        self.distribution = ActionDistribution(world.actions)
        self.policy = copy.deepcopy(policy).train().requires_grad_(True)
        self.value = copy.deepcopy(value).train().requires_grad_(True)
        self.prior = copy.deepcopy(policy).eval().requires_grad_(False)
        self.slow_value = copy.deepcopy(value).eval().requires_grad_(False)
        self.return_range = ReturnRange()
        # What was imagined last, and how often it has been learned from.
        dreams, horizon = config.dreams, config.horizon
        self.register_buffer("latents", torch.zeros(dreams, frames + horizon, math.prod(world.latent_shape)))
        self.register_buffer("actions", torch.zeros(dreams, horizon, world.actions.size))
        for name in ("log_prob", "alive", "returns", "advantages"):
            self.register_buffer(name, torch.zeros(dreams, horizon))
        self.register_buffer("used", torch.tensor(config.updates))

    def separate_parts(self) -> list[nn.Module]:
        """What shares no gradients."""
        return [self.policy, self.value]

    def frozen_parts(self) -> list[nn.Module]:
        """What must not learn."""
        return [self.prior, self.slow_value, *self.world.parts.values()]

    def forward(self, batch: ClipBatch) -> tuple[Tensor, dict[str, Tensor]]:
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
        count = alive.sum().clamp(min=1)
        value_loss = (self.value.two_hot.loss(said, returns) * alive).sum() / count
        self._follow()
        error = self.value.two_hot.decode(said.detach()) - returns
        likeliest = self.distribution.log_prob(logits.detach(), self.distribution.mode(logits.detach()))
        metrics |= {
            "policy": loss.detach(),
            "value": value_loss.detach(),
            "kl": kl.detach().mean(),
            "policy_entropy": entropy.detach().mean(),
            "policy_max_probability": likeliest.exp().mean(),
            "value_error": (error.square() * alive).sum().div(count).sqrt(),
            "return_std": returns.std(),
            "advantage_std": advantage.std(),
        }
        return loss + value_loss, metrics

    @torch.no_grad()
    def play(self, batch: ClipBatch) -> dict[str, float]:
        """What the policy earns in longer dreams with the world's own K: reward per 1,000 steps."""
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
    def _imagine_anew(self, batch: ClipBatch) -> dict[str, Tensor]:
        config = self.config
        rng = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        dreamed = imagine(
            self.world, self.policy, self.distribution, self.frames, batch.latents, batch.actions, config.horizon,
            config.sampling_steps, rng,
        )  # fmt: skip
        values = self.slow_value.value(dreamed.windows(self.frames).flatten(0, 1)).unflatten(0, (config.dreams, -1))
        returns = lambda_returns(dreamed.rewards, dreamed.continues, values, config.gamma, config.lam)
        scale = self.return_range(returns) if config.objective == "actor-critic" else 1.0
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


def train_in_imagination(run: PMPORun) -> None:
    """Trains, tells what dreams pay and saves ``OUT/agent.safetensors`` and ``OUT/agents/*``.

    Raises:
        ValueError: If clone, world and recordings do not belong together.
        FileNotFoundError: If one of them is not there.
    """
    world, clone, store = World.load(run.env, run.loop.device), Agent.load(run.prior), EpisodeStore.open(run.data)
    # Compared as they lie on disk: a world on a GPU may have been rounded.
    if fingerprint(clone.tokenizer) != fingerprint(load_tokenizer(Path(str(world.source)))):
        raise ValueError(
            f"the clone {run.prior} sees through another tokenizer than the world {run.env} has: train one with "
            f"neuralsim agent train clone --tokenizer {run.env}"
        )
    if clone.action_space != world.action_space:
        raise ValueError(f"the clone {run.prior} plays {clone.action_space}, the world {run.env} {world.action_space}")
    if clone.facts["trained"].get("gamma") != run.imagination.gamma:
        raise ValueError(
            f"the clone's values have gamma {clone.facts['trained'].get('gamma')}, this run has "
            f"{run.imagination.gamma}: choose --imagination.gamma alike"
        )
    train_ids, _, _ = split_episodes(store, None)
    episodes = load_latents(store, train_ids, clone.tokenizer)
    context = max(world.dynamics.context_length, clone.config.frames)
    sampler = ClipSampler(episodes, context + 1, 1, run.clips, run.loop.seed)

    def moments(step: int, count: int) -> ClipBatch:
        """Recorded moments, none of them the end of an episode: the frame after the moment is left out."""
        batch = sampler.draw(step, count)
        return ClipBatch(**{name: value[:, :-1] for name, value in vars(batch).items()})

    torch.manual_seed(run.loop.seed)
    model = ImaginationTraining(world, clone.policy, clone.value, clone.config.frames, run.imagination)
    description: dict[str, Any] = {
        "kind": run.imagination.objective,
        "world": world.config.weights_sha256,
        "prior": fingerprint(clone.policy),
        "env_id": store.info.env_id,
        "imagination": dataclasses.asdict(run.imagination),
        "clips": dataclasses.asdict(run.clips),
        "loop": dataclasses.asdict(run.loop),
    }

    def agent_of(model: ImaginationTraining, step: int) -> Agent:
        told = {key: description[key] for key in ("kind", "imagination")}
        trained = {**told, "steps": step, "prior": clone.facts["trained"], "gamma": run.imagination.gamma}
        facts = {**clone.facts, "world": world.config.weights_sha256, "trained": trained}
        policy, value = copy.deepcopy(model.policy).cpu(), copy.deepcopy(model.value).cpu()
        return Agent(clone.tokenizer, policy, value, clone.config, facts)

    def keep_age(model: ImaginationTraining, step: int) -> None:
        path = run.out / AGENTS / f"{run.imagination.objective}-{step:07d}.safetensors"
        agent_of(model, step).save(path, torch.bfloat16)  # to be judged, not to go on from

    def keep(model: nn.Module, step: int, folder: Path) -> dict[str, float]:
        assert isinstance(model, ImaginationTraining)
        keep_age(model, step)
        return model.play(moments(12345, LONG_DREAMS).to(world.device))

    training = TrainingRun(
        model, lambda step: moments(step, run.imagination.dreams), run.out, run.loop, description, keep
    )
    training.check_description()
    # The clone itself: what all later ages are to be compared with.
    keep_age(model, 0)
    training.run()
    model.load_state_dict(training.ema)
    print(f"agent: {agent_of(model, run.loop.steps).save(run.out / AGENT)}")
