"""``neuralsim agent train clone``: do as the recorded players did (Dreamer 4's second phase, for an agent on latents).

The policy predicts the next L actions from what is seen now (multi-token prediction), the value what their returns
were. Where recordings mix many players, the clone is a mixture as well: a prior to improve on, not a champion.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuralsim.actions import ActionCodec, space_from_json, space_to_json
from neuralsim.agents.action_distribution import ActionDistribution
from neuralsim.agents.actor import ActorConfig, PolicyNet, ValueNet
from neuralsim.agents.agent import AGENT, Agent
from neuralsim.agents.learning_curves import keep_curves
from neuralsim.agents.masked import masked_mean, masked_std
from neuralsim.data.episodes import EpisodeStore
from neuralsim.data.latents import LatentEpisode, fingerprint, load_latents
from neuralsim.tokenizers.base import Tokenizer
from neuralsim.training.held_out import split_episodes
from neuralsim.training.loop import LoopConfig, TrainingRun
from neuralsim.training.parts import load_tokenizer

UNTOLD = 0.05
"""A return counts as told where at most this share of its weight lies beyond what was recorded."""


@dataclass
class CloningRun:
    """Trains an agent to act as the recorded players did.

    It sees the latents of a world's tokenizer; the world itself is not needed yet. The agent is the prior that
    neuralsim agent train pmpo improves on. The default takes ten minutes on one CPU core.
    """

    data: Path = Path("data/pong")
    """Recorded episodes (neuralsim record)."""
    tokenizer: Path = Path("pong")
    """Whose latents it sees: a world (a folder, or pong for the bundled one), a tokenizer run or file."""
    held_out: Path | None = None
    """Episodes for the figures; by default a twentieth of the data, which is then not trained on."""
    out: Path = Path("runs/clone")
    """Folder of the run; the same command resumes it."""
    batch_size: int = 256
    """Moments per step."""
    gamma: float = 0.99
    """Discount per step of the returns that the value learns; agents that go on from here must have the same."""
    actor: ActorConfig = field(default_factory=ActorConfig)
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=6000, learning_rate=1e-3, ema=0.99, gradient_clip=1.0)
    )


@dataclass
class MomentBatch:
    """Recorded moments.

    Attributes:
        recent: ``(B, n, h, w, c)`` latents up to now, oldest first.
        actions: ``(B, L, A)`` encoded, the action taken now and those after it.
        known: ``(B, L)``, 1.0 where the episode goes on so far.
        returns: ``(B,)`` discounted return from now on.
        told: ``(B,)``, 1.0 where the recording tells that return: where it breaks off (a time limit, the end of a
            recording) what would have followed is not known.
    """

    recent: Tensor
    actions: Tensor
    known: Tensor
    returns: Tensor
    told: Tensor

    def to(self, device: torch.device | str) -> MomentBatch:
        """The same moments on another device."""
        return MomentBatch(**{name: value.to(device) for name, value in vars(self).items()})


class MomentSampler:
    """Draws recorded moments, all alike; a draw depends on (seed, step) alone.

    Args:
        episodes: What to draw from.
        frames: Latents n up to a moment; before an episode's first frame that one is repeated.
        ahead: Actions L.
        gamma: Discount per step.
        seed: Of the draws.

    Raises:
        ValueError: If there is no step to draw, or a reward is no number.
    """

    def __init__(self, episodes: list[LatentEpisode], frames: int, ahead: int, gamma: float, seed: int = 0) -> None:
        self.episodes = [episode for episode in episodes if len(episode)]
        if not self.episodes:
            raise ValueError(f"the {len(episodes)} recorded episodes hold no step to learn from")
        self.frames, self.ahead, self.seed = frames, ahead, seed
        for episode in self.episodes:
            if not torch.isfinite(episode.rewards).all():
                raise ValueError(f"episode {episode.id} holds a reward that is no number (NaN or infinite)")
        self.returns = [discounted(episode.rewards, gamma) for episode in self.episodes]
        # Within so many steps of the end, more than UNTOLD of the weight of a return lies beyond it.
        self.edge = math.inf if gamma == 1 else math.log(UNTOLD) / math.log(gamma) if gamma > 0 else 1
        self.cumulative = np.cumsum([len(episode) for episode in self.episodes])

    def draw(self, step: int, batch_size: int) -> MomentBatch:
        """The batch of a step."""
        flat = np.random.default_rng((self.seed, step)).integers(self.cumulative[-1], size=batch_size)
        rows = []
        for index in flat:
            i = int(self.cumulative.searchsorted(index, side="right"))
            episode, now = self.episodes[i], int(index - (self.cumulative[i] - len(self.episodes[i])))
            seen = torch.arange(now - self.frames + 1, now + 1).clamp(min=0)
            steps = torch.arange(now, now + self.ahead)
            inside = steps.clamp(max=len(episode) - 1)
            known = (steps < len(episode)).float()
            told = bool(episode.terminated[-1] > 0) or len(episode) - now >= self.edge
            returns = self.returns[i][now]
            rows.append((episode.latents[seen].float(), episode.actions[inside], known, returns, torch.tensor(told)))
        recent, actions, known_, values, told_ = (torch.stack(column) for column in zip(*rows, strict=True))
        return MomentBatch(recent, actions, known_, values, told_.float())


def discounted(rewards: Tensor, gamma: float) -> Tensor:
    """Discounted return ``(T,)`` of each step of an episode to its end."""
    returns, following = torch.empty_like(rewards), 0.0
    for t in reversed(range(len(rewards))):
        following = float(rewards[t]) + gamma * following
        returns[t] = following
    return returns


class Cloning(nn.Module):
    """Policy and value, trained on recorded moments; they share nothing.

    Args:
        config: Sizes.
        distribution: Of the actions.
    """

    def __init__(self, config: ActorConfig, distribution: ActionDistribution) -> None:
        super().__init__()
        self.distribution = distribution
        self.policy = PolicyNet(config, distribution.parameters)
        self.value = ValueNet(config)

    def separate_parts(self) -> list[nn.Module]:
        """What shares no gradients."""
        return [self.policy, self.value]

    def forward(self, batch: MomentBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of actions and returns, and the share of present actions that were the likeliest."""
        logits = self.policy(batch.recent)
        logs = self.distribution.log_prob(logits, batch.actions)
        cloning = -masked_mean(logs, batch.known)
        said = self.value(batch.recent)
        value = masked_mean(self.value.two_hot.loss(said, batch.returns), batch.told)
        error = self.value.two_hot.decode(said.detach()) - batch.returns
        present = logits[:, 0].detach()
        likeliest, taken = self.distribution.mode(present), self.distribution.nearest(batch.actions[:, 0])
        metrics = {
            "cloning": cloning.detach(),
            "cloning_now": -logs[:, 0].detach().mean(),
            "cloning_accuracy": (likeliest == taken).all(-1).float().mean(),
            "value": value.detach(),
            "value_error": masked_mean(error.square(), batch.told).sqrt(),
            "return_std": masked_std(batch.returns, batch.told),
            "policy_entropy": self.distribution.entropy(present).mean(),
        }
        return cloning + value, metrics


def actor_config(config: ActorConfig, tokenizer: Tokenizer) -> ActorConfig:
    """The same with the grid of a tokenizer."""
    height, width, channels = tokenizer.latent_shape
    return dataclasses.replace(config, height=height, width=width, latent_channels=channels)


def train_cloning(run: CloningRun) -> None:
    """Trains, reports held-out figures and saves ``OUT/agent.safetensors`` (averaged weights)."""
    if run.batch_size < 1 or not 0 <= run.gamma <= 1:
        raise ValueError(f"batch_size is {run.batch_size}, gamma {run.gamma}; a batch has 1 or more moments, gamma is "
                         "from 0 to 1")  # fmt: skip
    store, tokenizer = EpisodeStore.open(run.data), load_tokenizer(run.tokenizer)
    train_ids, held_store, held_ids = split_episodes(store, run.held_out)
    for name in ("env_id", "action_space", "preprocessing"):
        ours, theirs = getattr(store.info, name), getattr(held_store.info, name)
        if ours != theirs:
            raise ValueError(f"--held-out {held_store.path} has {name} {theirs}, --data {store.path} has {ours}")
    distribution = ActionDistribution(ActionCodec(space_from_json(store.info.action_space)))
    config = actor_config(run.actor, tokenizer)
    episodes, held = load_latents(store, train_ids, tokenizer), load_latents(held_store, held_ids, tokenizer)
    sampler = MomentSampler(episodes, config.frames, config.ahead, run.gamma, run.loop.seed)
    unseen = MomentSampler(held, config.frames, config.ahead, run.gamma, seed=12345)
    torch.manual_seed(run.loop.seed)
    model = Cloning(config, distribution)
    description: dict[str, Any] = {
        "kind": "clone",
        "env_id": store.info.env_id,
        "tokenizer": fingerprint(tokenizer),
        "actor": dataclasses.asdict(config),
        "gamma": run.gamma,
        "batch_size": run.batch_size,
        "frames": sum(len(episode) + 1 for episode in episodes),
        "loop": dataclasses.asdict(run.loop),
    }

    def evaluate(model: nn.Module, step: int, folder: Path) -> dict[str, float]:
        device = next(model.parameters()).device
        return {name: float(value) for name, value in model(unseen.draw(0, 2048).to(device))[1].items()}

    training = TrainingRun(
        model, lambda step: sampler.draw(step, run.batch_size), run.out, run.loop, description, evaluate
    )
    training.run()
    model.load_state_dict(training.ema)
    info = store.info
    facts = {
        "action_space": space_to_json(space_from_json(info.action_space)),
        "env_id": info.env_id,
        "env_kwargs": info.env_kwargs,
        "preprocessing": info.preprocessing,
        "world": None,
        "trained": {"kind": "clone", "steps": training.step, "gamma": run.gamma, "frames": description["frames"]},
    }
    agent = Agent(tokenizer.cpu(), model.policy.cpu(), model.value.cpu(), config, facts)
    print(f"agent: {agent.save(run.out / AGENT)}")
    keep_curves(run.out)
