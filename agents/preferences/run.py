"""``neuralsim agent train preference``: a reward that foretells which of two segments somebody prefers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neuralsim.agents.preferences.pairs import PreferencePairs
from neuralsim.agents.preferences.reward_model import PREFERENCE, PreferenceReward, PreferenceRewardConfig
from neuralsim.agents.preferences.training import LabelledPairs, PreferenceTraining, judge, split_labels
from neuralsim.data.episodes import EpisodeStore
from neuralsim.data.latents import fingerprint, load_latents
from neuralsim.evaluation.held_out import check_same_game
from neuralsim.training.loop import LoopConfig, TrainingRun
from neuralsim.world import World


@dataclass
class PreferenceRun:
    """Trains a reward on labelled pairs of recorded segments (neuralsim preferences label).

    It sees the latents of a world, so that planners and agents can be paid by it in that world's dreams. Pairs that
    are held out tell how many choices it foretells. In the end it is normalised: over the recorded steps its mean is 0
    and its standard deviation 1.
    """

    world: Path = Path("pong")
    """Whose latents it sees: a world's folder, or pong for the bundled one."""
    data: Path = Path("data/pong")
    """The recordings that the labels are about."""
    labels: Path = Path("labels.jsonl")
    """Labels (neuralsim preferences label)."""
    out: Path = Path("runs/preference")
    """Folder of the run; the same command resumes it."""
    held_out: float = 0.2
    """Share of the labels that is not learned, but judged by."""
    mistakes: float = 0.1
    """Share of choices that are taken to be made at random: people err, and a model that is to be sure of everything
    learns that too."""
    batch_size: int = 16
    """Pairs per step."""
    reward: PreferenceRewardConfig = field(default_factory=PreferenceRewardConfig)
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=500, learning_rate=5e-4, warmup_steps=50, ema=0.99, weight_decay=0.1, checkpoint_every=100,
            evaluate_every=100
        )
    )  # fmt: skip


def train_preference(run: PreferenceRun) -> None:
    """Trains, tells how well held-out choices are foretold and saves ``OUT/preference.safetensors``.

    Raises:
        ValueError: If world, recordings and labels do not belong together, or there are too few labels.
        FileNotFoundError: If one of them is not there.
    """
    if run.batch_size < 1:
        raise ValueError(f"batch_size is {run.batch_size}; a batch has at least 1 pair")
    store = EpisodeStore.open(run.data)
    if not len(store):
        raise ValueError(f"{store.path} holds no episodes: record some (neuralsim record)")
    pairs = PreferencePairs(run.labels, store)
    if pairs.note:
        print(pairs.note)
    learned, held = split_labels(pairs.judged, run.held_out, run.loop.seed)
    world = World.load(str(run.world), device="cpu", dtype="float32")
    check_same_game(world, store)
    height, width, channels = world.latent_shape
    config = dataclasses.replace(
        run.reward, height=height, width=width, latent_channels=channels, action_size=world.actions.size
    )
    torch.manual_seed(run.loop.seed)
    model = PreferenceTraining(config, run.mistakes)
    episodes = load_latents(store, store.ids, world.tokenizer)
    sampler = LabelledPairs(learned, episodes, config.frames, config.members, run.loop.seed)
    unseen = LabelledPairs(held, episodes, config.frames)
    description: dict[str, Any] = {
        "kind": "preference",
        "env_id": store.info.env_id,
        "tokenizer": fingerprint(world.tokenizer),
        "labels": pairs.fingerprint(),
        "pairs": len(learned),
        "held_out": run.held_out,
        "mistakes": run.mistakes,
        "batch_size": run.batch_size,
        "reward": dataclasses.asdict(config),
        "frames": sum(len(episode) + 1 for episode in episodes),
        "loop": dataclasses.asdict(run.loop),
    }

    def evaluate(model: nn.Module, step: int, folder: Path) -> dict[str, float]:
        assert isinstance(model, PreferenceTraining)
        return judge(model, unseen)

    training = TrainingRun(
        model, lambda step: sampler.draw(step, run.batch_size), run.out, run.loop, description, evaluate
    )
    training.run()
    model.load_state_dict(training.ema)
    trained = {
        "steps": training.step,
        "pairs": len(learned),
        "held_out_pairs": len(held),
        **judge(model.eval(), unseen),
        "labels": pairs.fingerprint(),
        "by": sorted({label.by for label in pairs.judged}),
    }
    facts = {
        "env_id": store.info.env_id,
        "action_space": world.config.action_space,
        "tokenizer": description["tokenizer"],
        "world": world.config.weights_sha256,
        "trained": trained,
    }
    reward = PreferenceReward(config, model.members, facts).to(next(model.parameters()).device)
    reward.normalise(episodes)
    path = reward.cpu().save(run.out / PREFERENCE)
    print(f"reward model: {path} (right about {trained['accuracy']:.0%} of the held-out choices)")
