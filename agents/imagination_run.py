"""``neuralsim agent train pmpo | actor-critic``: a clone plays in a dream, and does more of what paid.

Dreamer 4's third phase: the world is frozen, dreams go on from recorded moments in latents and are never drawn. PMPO
keeps the policy near a frozen copy of the clone.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from torch import nn

from neuralsim.agents.actor import PolicyNet
from neuralsim.agents.agent import AGENT, Agent
from neuralsim.agents.imagination_training import ImaginationConfig, ImaginationTraining, Moments
from neuralsim.agents.learning_curves import keep_curves
from neuralsim.data.clips import ClipMix, ClipSampler
from neuralsim.data.episodes import EpisodeStore
from neuralsim.data.latents import fingerprint, load_latents
from neuralsim.devices import choose_device, fast_dream_dtype
from neuralsim.evaluation.held_out import check_same_game
from neuralsim.registration import BUNDLED_WORLDS
from neuralsim.training.dynamics import mark_courses
from neuralsim.training.held_out import split_episodes
from neuralsim.training.loop import LoopConfig, TrainingRun
from neuralsim.training.parts import tokenizer_fingerprint
from neuralsim.world import World
from neuralsim.world_files import AGENTS

LONG_DREAMS = 16
"""Dreams that tell how good an agent of some age is."""


@dataclass
class ImaginationRun:
    """Trains an agent in a dream, from its clone on; the world stays as it is."""

    env: str = "Dream-Pong-v0"
    """The dream: Dream-Pong-v0, a world's folder or a hub id."""
    prior: Path = Path("runs/clone")
    """The clone to begin from (neuralsim agent train clone); it also stays the prior."""
    data: Path = Path("data/pong")
    """Recorded episodes; dreams go on from their moments."""
    out: Path = Path("runs/agent")
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
class PMPORun(ImaginationRun):
    """Trains an agent in a dream, from its clone on, by PMPO; the world stays as it is.

    At every evaluation the agent of that age is kept (OUT/agents), and its mean return in 16 dreams of 200 steps is
    told (return_of_200). 1,000 steps take some five minutes on one CPU core with the bundled world (--loop.compile).
    neuralsim agent evaluate then lets it play the real game.
    """

    out: Path = Path("runs/pmpo")
    """Folder of the run; the same command resumes it."""


@dataclass
class ActorCriticRun(ImaginationRun):
    """Trains an agent in a dream, from its clone on, by actor-critic; the world stays as it is.

    At every evaluation the agent of that age is kept (OUT/agents), and its mean return in 16 dreams of 200 steps is
    told (return_of_200). 1,000 steps take some five minutes on one CPU core with the bundled world (--loop.compile).
    neuralsim agent evaluate then lets it play the real game.
    """

    out: Path = Path("runs/actor-critic")
    """Folder of the run; the same command resumes it."""
    imagination: ImaginationConfig = field(
        default_factory=lambda: ImaginationConfig(objective="actor-critic", dreams=32, horizon=96, updates=16)
    )


def train_in_imagination(run: ImaginationRun) -> None:
    """Trains, tells what dreams pay and saves ``OUT/agent.safetensors`` and ``OUT/agents/*``.

    Raises:
        ValueError: If clone, world and recordings do not belong together.
        FileNotFoundError: If one of them is not there.
    """
    if run.env in gym.registry and run.env not in BUNDLED_WORLDS:
        raise ValueError(f"{run.env} is no dream: name {' or '.join(BUNDLED_WORLDS)}, or a world's folder")
    dtype = fast_dream_dtype(run.loop.dtype, choose_device(run.loop.device))
    world = World.load(run.env, run.loop.device, dtype)
    clone, store = Agent.load(run.prior), EpisodeStore.open(run.data)
    if not isinstance(clone.policy, PolicyNet):
        raise ValueError(
            f"{run.prior} sees pixels, and in imagination there are none: train a clone (neuralsim agent train clone)"
        )
    if fingerprint(clone.tokenizer) != tokenizer_fingerprint(world):
        raise ValueError(
            f"the clone {run.prior} sees through another tokenizer than the world {run.env} has: train one with "
            f"neuralsim agent train clone --tokenizer {world.source}"
        )
    if clone.value is None:
        raise ValueError(f"{run.prior} was kept to play alone; begin from the agent of a run (its folder)")
    if clone.facts["env_id"] != world.config.env_id:
        raise ValueError(f"the clone {run.prior} plays {clone.facts['env_id']}, the world {world.config.env_id}")
    if clone.action_space != world.action_space:
        raise ValueError(f"the clone {run.prior} plays {clone.action_space}, the world {run.env} {world.action_space}")
    if clone.facts["trained"].get("gamma") != run.imagination.gamma:
        raise ValueError(
            f"the clone's values have gamma {clone.facts['trained'].get('gamma')}, this run has "
            f"{run.imagination.gamma}: choose --imagination.gamma alike"
        )
    check_same_game(world, store)
    train_ids, _, held_ids = split_episodes(store, None)
    episodes, held = (load_latents(store, ids, clone.tokenizer) for ids in (train_ids, held_ids))
    mark_courses(episodes, store, run.clips)
    context = max(world.dynamics.context_length, clone.config.frames)
    # Whole contexts and the frame after, which is left out: no moment is the end of an episode.
    sampler = ClipSampler(episodes, context + 1, context, run.clips, run.loop.seed)
    unseen = ClipSampler(held, context + 1, context, seed=12345)

    def moments(sampler: ClipSampler, step: int, count: int) -> Moments:
        batch = sampler.draw(step, count)
        return Moments(batch.latents[:, :-1], batch.actions[:, :-1])

    torch.manual_seed(run.loop.seed)
    model = ImaginationTraining(world, clone.policy, clone.value, clone.config.frames, run.imagination)
    description: dict[str, Any] = {
        "kind": run.imagination.objective,
        "world": world.config.weights_sha256,
        "prior": fingerprint(clone.policy),
        "env_id": store.info.env_id,
        "frames": sum(len(episode) + 1 for episode in episodes),
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
        agent_of(model, step).save(path, to_play=True)

    def keep(model: nn.Module, step: int, folder: Path) -> dict[str, float]:
        assert isinstance(model, ImaginationTraining)
        keep_age(model, step)
        return model.play(moments(unseen, 0, LONG_DREAMS).to(world.device))

    training = TrainingRun(
        model, lambda step: moments(sampler, step, run.imagination.dreams), run.out, run.loop, description, keep
    )
    training.check_description()
    # The clone itself: what all later ages are to be compared with.
    keep_age(model, 0)
    training.run()
    model.load_state_dict(training.ema)
    keep_age(model, training.step)
    print(f"agent: {agent_of(model, training.step).save(run.out / AGENT)}")
    keep_curves(run.out)
