"""``neuralsim world pack``: trained parts and real starts become a world folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from neuralsim.actions import slice_actions
from neuralsim.data.episodes import EpisodeStore
from neuralsim.data.latents import fingerprint
from neuralsim.evaluation.probes import find_probes, probes_for
from neuralsim.starts import Start
from neuralsim.training.parts import HOW_TRAINED, load_heads, load_tokenizer, load_world_model, part_config, read_spent
from neuralsim.world import World
from neuralsim.world_config import WorldConfig, history

MOST_REWARD_VALUES = 16
"""Recordings with no more distinct rewards than this make a world that pays only those."""


@dataclass
class PackConfig:
    """Puts a tokenizer, a dynamics run and real contexts to start from together as a world folder."""

    name: str = "pong"
    """Short name of the world."""
    data: Path = Path("data/pong")
    """The recordings it was trained on; starts are cut from them."""
    tokenizer: Path = Path("runs/tokenizer")
    """Folder of the tokenizer run."""
    dynamics: Path = Path("runs/dynamics")
    """Folder of the dynamics run."""
    blend: tuple[str, ...] = ()
    """Runs whose dynamics are mixed in, weight by weight, as FOLDER=SHARE. Earlier ones of the same training, which
    kept to real context, sharpen what the model's own context has blurred. The rest is the dynamics' own."""
    heads: Path | None = None
    """Folder of another dynamics run, or a world (pong is the bundled one), whose reward and continue heads are taken.
    Heads trained alone on real frames fit every dynamics on these latents; those trained on dreams fit its dreams best,
    and those of its relatives."""
    out: Path = Path("worlds/pong")
    """The world folder; an existing one is replaced once the new one is whole."""
    beginnings: int = 24
    """Starts cut from the beginning of episodes."""
    middles: int = 24
    """Starts cut from anywhere."""
    start_frames: int = 0
    """Frames per start; 0 is as many as the dynamics can use."""
    sampling_steps: int = 4
    """Default sampling steps K."""
    notice: str = ""
    """A sentence that everybody should see who uses the world, such as which game its weights really come from; it
    stands at the head of the card and on the screen of neuralsim play."""
    probes: str | None = None
    """Probes that judge its dreams: a known game's (pong), or module:NAME for your own (docs/probes.md); by default
    those of the recorded game, if there are any."""
    max_episode_steps: int | None = None
    """Time limit of the real environment in steps; Atari's is 27,000 at frame skip 4."""
    weights_dtype: str = "float32"
    """float32, or bfloat16 to halve the file; the tokenizer keeps its precision."""
    seed: int = 0
    """Seed of the choice of starts."""


def pack(config: PackConfig) -> World:
    """Builds and saves the world.

    Raises:
        FileNotFoundError: If a part or the data is missing.
        ValueError: If dynamics and tokenizer do not belong together, or the dynamics to be blended differ in size, or
            are no FOLDER=SHARE, or if there are no such probes.
    """
    find_probes(config.probes)
    shares, shares_told, heads_told = read_shares(config.blend), dict[str, Any](), dict[str, Any]()
    store = EpisodeStore.open(config.data)
    tokenizer = load_tokenizer(config.tokenizer)
    model, description = load_world_model(config.dynamics)
    if description["tokenizer"] != fingerprint(tokenizer):
        raise ValueError(
            f"the dynamics in {config.dynamics} was trained on latents of another tokenizer than "
            f"{config.tokenizer}: name the one it was trained with"
        )
    blended = []
    for run, share in shares.items():
        other, told = load_world_model(Path(run))
        if what_it_sees(told) != what_it_sees(description):
            raise ValueError(f"the dynamics in {run} sees other latents or another past: it cannot be blended")
        blended.append((other.dynamics, share))
        shares_told[run] = {"share": share, **{key: told.get(key) for key in HOW_TRAINED}, **read_spent(Path(run))}
        if told.get("init_from") in history(description):
            del shares_told[run]["init_from"]  # told already
    blend(model.dynamics, blended)
    if config.heads is not None:
        model.heads, sees, heads_told = load_heads(config.heads)
        if sees != description["tokenizer"]:
            raise ValueError(f"the heads in {config.heads} were trained on latents of another tokenizer")
    info = store.info
    world_config = WorldConfig(
        name=config.name,
        frame_shape=info.frame_shape,
        action_space=info.action_space,
        tokenizer=part_config(tokenizer),
        dynamics=part_config(model.dynamics),
        heads={"config": vars(model.heads.config)},
        fps=info.fps,
        env_id=info.env_id,
        env_kwargs=info.env_kwargs,
        preprocessing=info.preprocessing,
        action_meanings=info.action_meanings,
        keys_to_action=info.keys_to_action,
        reward_values=_reward_values(store),
        reward_range=_reward_range(store),
        max_episode_steps=config.max_episode_steps,
        sampling_steps=config.sampling_steps,
        probes=config.probes or probes_for(info.env_id, info.preprocessing),
        notice=config.notice,
        trained_on=_provenance(store, config, description, shares_told, heads_told),
    )
    length = config.start_frames or model.dynamics.context_length
    starts = choose_starts(store, length, config.beginnings, config.middles, config.seed)
    world = World(world_config, tokenizer, model.dynamics, model.heads, starts)
    world.save(config.out, weights_dtype=config.weights_dtype)
    size = (config.out / "world.safetensors").stat().st_size / 1e6
    print(
        f"packed {config.out}: {size:.1f} MB of weights, {len(starts)} starts\n"
        f"dream it: gym.make('Dream-v0', world='{config.out}'), or neuralsim play {config.out}"
    )
    return world


def what_it_sees(description: dict[str, Any]) -> tuple[Any, ...]:
    """What must be the same for weights to mean the same: tokenizer, kind, and which past is seen."""
    config = description["dynamics"]["config"]
    past = (config.get(key) for key in ("history", "past_actions", "max_steps"))
    # Empty where there is no camera, and None where the config is older than cameras.
    view = (config.get(key) if config.get("camera") else None for key in ("camera", "camera_degrees", "field_of_view"))
    return (description["tokenizer"], description["dynamics"]["type"], *past, *view)


def read_shares(blend: tuple[str, ...]) -> dict[str, float]:
    """Reads ``("runs/first=0.3",)`` as ``{"runs/first": 0.3}``.

    Raises:
        ValueError: If it is something else, or nothing is left for the rest.
    """
    shares: dict[str, float] = {}
    for entry in blend:
        run, _, share = entry.rpartition("=")
        if run in shares:
            raise ValueError(f"blend names {run} twice")
        try:
            shares[run] = float(share)
        except ValueError:
            shares[run] = float("nan")
        if not run or not 0 < shares[run] < 1:
            raise ValueError(f"blend is {entry!r}; it must be FOLDER=SHARE with a share between 0 and 1")
    if sum(shares.values()) >= 1:
        raise ValueError(f"the shares of blend {' '.join(blend)} leave nothing for the dynamics itself")
    return shares


def blend(dynamics: nn.Module, others: Sequence[tuple[nn.Module, float]]) -> None:
    """Replaces all weights of ``dynamics`` by a weighted mean of its own and others', given with their shares.

    Weights of one training can be averaged, as they lie in one basin (Wortsman et al. 2022, Model soups).

    Raises:
        ValueError: If their sizes differ.
    """
    own = dynamics.state_dict()
    mixed = {name: value.float() * (1 - sum(share for _, share in others)) for name, value in own.items()}
    for other, share in others:
        weights = other.state_dict()
        if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in weights.items()}:
            raise ValueError("dynamics of other sizes cannot be blended: their channels and blocks must be alike")
        for name, value in weights.items():
            mixed[name] += share * value.float()
    dynamics.load_state_dict(mixed)


def choose_starts(store: EpisodeStore, length: int, beginnings: int, middles: int, seed: int) -> list[Start]:
    """Cuts contexts of ``length`` frames, every one from another episode where there are enough of them."""
    rng = np.random.default_rng(seed)
    usable = [i for i in store.ids if store.length(i) >= length]
    if not usable:
        raise ValueError(f"no episode of {store.path} has {length} steps: record longer ones, or lower --start-frames")
    starts = []
    for kind, count in (("beginning", beginnings), ("middle", middles)):
        for n, episode in enumerate(rng.permutation(usable).tolist() * (count // len(usable) + 1)):
            if n == count:
                break
            begin = 0 if kind == "beginning" else int(rng.integers(1, max(2, store.length(episode) - length)))
            actions = slice_actions(store.actions(episode), slice(begin, begin + length - 1))
            starts.append(Start(store.frames(episode, begin, begin + length), actions, kind, episode, begin))
    return starts


def _reward_values(store: EpisodeStore) -> list[float] | None:
    values: set[float] = set()
    for i in store.ids:
        values |= set(np.unique(store.rewards(i)).tolist())
        if len(values) > MOST_REWARD_VALUES:
            return None
    return sorted(values)


def _reward_range(store: EpisodeStore) -> tuple[float, float]:
    rewards = [store.rewards(i) for i in store.ids]
    return float(min(r.min() for r in rewards)), float(max(r.max() for r in rewards))


def _provenance(
    store: EpisodeStore,
    config: PackConfig,
    description: dict[str, Any],
    blended: dict[str, Any],
    heads: dict[str, Any],
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "recordings": {
            "episodes": len(store),
            "steps": store.total_steps,
            "command": store.info.command,
            "content": [store.short_hash(i) for i in store.ids],  # evaluation refuses recordings trained on
            "seeds": sorted({seed for i in store.ids if (seed := store.meta(i)["seed"]) >= 0}),
        },
        "dynamics": {key: description.get(key) for key in HOW_TRAINED},
    }
    for part, folder in (("tokenizer", config.tokenizer), ("dynamics", config.dynamics)):
        if spent := read_spent(folder):
            facts.setdefault(part, {}).update(spent)
    if blended:
        facts["dynamics"]["blend"] = blended
    if heads:
        facts["heads"] = heads
    facts["torch"] = torch.__version__
    return facts
