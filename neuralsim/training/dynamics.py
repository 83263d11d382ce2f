"""``neuralsim train dynamics``: the next latent, its reward, and whether the episode goes on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange
from torch import nn

from neuralsim.actions import ActionCodec, space_from_json
from neuralsim.data.clips import ClipMix, ClipSampler
from neuralsim.data.episodes import EpisodeStore
from neuralsim.data.latents import LatentEpisode, fingerprint, load_latents
from neuralsim.devices import choose_device
from neuralsim.dynamics import build_dynamics
from neuralsim.dynamics.convolutional import ConvolutionalDynamicsConfig
from neuralsim.dynamics.transformer import TransformerDynamicsConfig
from neuralsim.evaluation.probes import Probes, Thing, comebacks, find, find_probes, probes_for, turns
from neuralsim.heads import Heads, HeadsConfig
from neuralsim.pictures import strip, write_picture
from neuralsim.tokenizers.base import Tokenizer
from neuralsim.training.foresight import Foresight, ForesightConfig, places
from neuralsim.training.held_out import split_episodes
from neuralsim.training.loop import LoopConfig, TrainingRun
from neuralsim.training.parts import initial_weights_of, load_initial_weights, load_tokenizer, part_config, save_part
from neuralsim.training.world_model import WorldModel


@dataclass
class DynamicsRun:
    """Trains dynamics and heads on pre-encoded latents.

    While it trains, held-out clips are dreamed with their recorded actions: the error by horizon, relative to
    copying the last frame, is reported, and strips of real frames over dreamed ones are written to OUT/pictures.
    """

    data: Path = Path("data/pong")
    """Recorded episodes (neuralsim record)."""
    tokenizer: Path = Path("runs/tokenizer")
    """Folder of a tokenizer run, its tokenizer.safetensors, or a world (a folder, or pong for the bundled one)."""
    held_out: Path | None = None
    """Episodes for the figures; by default a twentieth of the data, which is then not trained on."""
    out: Path = Path("runs/dynamics")
    """Folder of the run; the same command resumes it."""
    init_from: Path | None = None
    """Start from the weights of another dynamics run, or of a world (pong is the bundled one), of the same size;
    it may have seen fewer past actions, have fewer blocks, or know other buttons."""
    heads_only: bool = False
    """Trains reward and continue heads alone, on real frames; for a run that begins from another (--init-from)."""
    heads_on_dreams: bool = False
    """With --heads-only: also on frames that convolutional dynamics dreams, by its options for own frames (lead,
    rollout, self-context, self-start, self-steps). A point looks different there, and one that is counted but not paid
    is lost to whoever plays."""
    kind: Literal["convolutional", "transformer"] = "convolutional"
    """convolutional (the default at CPU scale) or transformer (Dreamer 4; from GPU scale on)."""
    batch_size: int = 8
    """Clips per step."""
    clips: ClipMix = field(default_factory=ClipMix)
    probes: str | None = None
    """Probes of the game (module:NAME, docs/probes.md), for turns, comebacks, foresight and figures; by default those
    that know it. Recordings with its ground truth must name things as they do."""
    convolutional: ConvolutionalDynamicsConfig = field(default_factory=ConvolutionalDynamicsConfig)
    transformer: TransformerDynamicsConfig = field(default_factory=TransformerDynamicsConfig)
    foresight: ForesightConfig = field(default_factory=ForesightConfig)
    heads: HeadsConfig = field(default_factory=HeadsConfig)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=12_000, learning_rate=1.5e-3))

    @staticmethod
    def presets() -> dict[str, DynamicsRun]:
        """Defaults by name."""
        transformer = DynamicsRun(
            kind="transformer",
            # Dreams start from real frames and first sampling steps decide: fewer lone images, no ramp.
            transformer=TransformerDynamicsConfig(image_share=0.05, ramp=0.0, zero_fraction=0.3),
            loop=LoopConfig(steps=100_000, learning_rate=3e-4),
        )
        # First many independent frames after real context, and most of them from pure noise, where all is decided ...
        first = DynamicsRun(
            out=Path("runs/first"),
            batch_size=64,
            clips=ClipMix(events=0.04, ends=0.01, aftermath=0.1, starts=0.01, turns=0.6, comebacks=0.04),
            convolutional=ConvolutionalDynamicsConfig(
                past_actions=8, rollout=1, self_context=0.0, bootstrap_start=0.4, zero_fraction=0.7, context_stain=0.3
            ),
            loop=LoopConfig(steps=16_000, learning_rate=1e-3, optimizer="muon"),
        )
        # ... then the model's own frames as context, until it stands its own errors ...
        second = DynamicsRun(
            init_from=Path("runs/first"),
            out=Path("runs/second"),
            batch_size=16,
            clips=ClipMix(events=0.04, ends=0.01, aftermath=0.15, starts=0.01, turns=0.5, comebacks=0.05),
            convolutional=ConvolutionalDynamicsConfig(
                past_actions=8,
                lead=16,
                rollout=4,
                self_start=0.0,
                self_context=0.75,
                bootstrap_start=0.0,
                zero_fraction=0.6,
                context_stain=0.3,
            ),
            # What it foresees is learned by now.
            foresight=ForesightConfig(weight=0.5),
            loop=LoopConfig(steps=2000, learning_rate=7e-4, optimizer="muon", decay_fraction=0.85),
        )
        # ... then the heads alone, which see a point in a fraction of a percent of the frames, on its dreams as well.
        third = DynamicsRun(
            init_from=Path("runs/second"),
            heads_only=True,
            heads_on_dreams=True,
            batch_size=32,
            clips=ClipMix(events=0.4, ends=0.1, aftermath=0.1, starts=0.02),
            convolutional=ConvolutionalDynamicsConfig(
                past_actions=8, lead=16, rollout=4, self_start=0.0, self_context=1.0, bootstrap_fraction=0.0
            ),
            loop=LoopConfig(steps=700, learning_rate=1e-3, decay_fraction=0.8),
        )
        # In a first-person world whole pictures move, and what comes into view nobody can know: own frames soon show
        # another place than the recording, and teach a model to blur; a dead zone makes dreams last. A past that
        # reaches as far in fewer frames; nothing that probes know.
        voxels = DynamicsRun(
            data=Path("data/explore"),
            out=Path("runs/minetest"),
            batch_size=64,
            clips=ClipMix(events=0.1, ends=0.0, aftermath=0.0, starts=0.01),
            convolutional=ConvolutionalDynamicsConfig(
                history=(1, 2, 3, 4, 8, 16, 32),
                rollout=1,
                self_context=0.0,
                bootstrap_start=0.3,
                zero_fraction=0.5,
                context_noise=0.1,
                dream_noise=0.05,
                dead_zone=0.2,
                flow_dead_zone=0.1,
                copy_floor=0.02,
            ),
            loop=LoopConfig(steps=6000, learning_rate=1e-3, optimizer="muon", ema=0.997),
        )
        return {
            "pong": first,
            "pong-own-context": second,
            "pong-heads": third,
            "pong-transformer": transformer,
            "minetest": voxels,
        }


def build_world_model(run: DynamicsRun, tokenizer: Tokenizer, codec: ActionCodec) -> WorldModel:
    """An untrained model whose sizes follow the tokenizer's latents and the actions."""
    height, width, channels = tokenizer.latent_shape
    sizes = {"height": height, "width": width, "latent_channels": channels, "action_size": codec.size}
    chosen: Any = run.convolutional if run.kind == "convolutional" else run.transformer
    config = dataclasses.replace(chosen, **sizes)
    camera = codec.camera()
    if run.kind == "convolutional" and run.convolutional.turn_view and not run.convolutional.camera and camera:
        config = dataclasses.replace(config, camera=camera[0], camera_degrees=camera[1])
    dynamics = build_dynamics(run.kind, dataclasses.asdict(config))
    heads = Heads(dataclasses.replace(run.heads, **sizes))
    return WorldModel(dynamics, heads, run.heads_only, heads_on_dreams=run.heads_on_dreams)


def add_foresight(model: WorldModel, run: DynamicsRun, tokenizer: Tokenizer, things: tuple[Thing, ...]) -> None:
    """Has the features of the past foresee where things will be, if there are any to foresee."""
    if things:
        grid, frame = tokenizer.latent_shape[:2], tokenizer.frame_shape[:2]
        model.foresight = Foresight(run.foresight, things, run.convolutional.channels, grid, frame)


def foresees(run: DynamicsRun) -> bool:
    """Whether a run trains what can foresee, and is to."""
    return run.kind == "convolutional" and run.foresight.weight > 0 and not run.heads_only


def _check_dreams(run: DynamicsRun) -> None:
    if not run.heads_only:
        raise ValueError("heads_on_dreams is for training heads alone: add --heads-only")
    if run.kind != "convolutional":
        raise ValueError(f"heads_on_dreams needs dynamics that hands out its own frames, and {run.kind} does not")
    if run.convolutional.self_context <= 0:
        raise ValueError(
            f"heads_on_dreams needs own frames, but self_context is {run.convolutional.self_context}: "
            "--convolutional.self-context 1"
        )


def mark_places(episodes: list[LatentEpisode], store: EpisodeStore, probes: Probes | None) -> tuple[Thing, ...]:
    """Marks in episodes where the things are that the game's probes know.

    Returns:
        These things; none if the recordings do not know where they are.
    """
    if probes is None:
        return ()
    for episode in episodes:
        episode.places = places(probes.things, store.labels(episode.id))
    return probes.things if all(episode.places is not None for episode in episodes) else ()


def mark_courses(
    episodes: list[LatentEpisode], store: EpisodeStore, clips: ClipMix, name: str | None = None
) -> Probes | None:
    """Marks turns and comebacks in episodes, where clips are to show them and the recordings know them.

    Returns:
        The probes of that name, else those of the recorded game, if anybody knows it.
    """
    probes = find_probes(name or probes_for(store.info.env_id, store.info.preprocessing))
    if probes is not None and clips.turns + clips.comebacks > 0:
        for episode in episodes:
            labels = store.labels(episode.id)
            episode.turns = torch.from_numpy(turns(probes.things[0], labels))
            episode.comebacks = torch.from_numpy(comebacks(probes.things[0], labels))
    return probes


def train_dynamics(run: DynamicsRun) -> None:
    """Trains, evaluates and saves ``OUT/dynamics.safetensors`` (averaged weights)."""
    find_probes(run.probes)  # complains now, not after the latents
    if run.heads_on_dreams:
        _check_dreams(run)
    store = EpisodeStore.open(run.data)
    tokenizer = load_tokenizer(run.tokenizer).to(choose_device(run.loop.device))
    train_ids, held_store, held_ids = split_episodes(store, run.held_out)
    codec = ActionCodec(space_from_json(store.info.action_space))
    episodes = load_latents(store, train_ids, tokenizer)
    held = load_latents(held_store, held_ids, tokenizer)
    probes = mark_courses(episodes, store, run.clips, run.probes)
    things = mark_places(episodes, store, probes) if foresees(run) else ()
    torch.manual_seed(run.loop.seed)
    model = build_world_model(run, tokenizer, codec)
    add_foresight(model, run, tokenizer, things)
    initial = None
    if run.init_from is not None:
        # A run that is resumed has its weights already: what it began from may have gone on since, or be gone.
        initial = initial_weights_of(run.out, run.init_from) or load_initial_weights(model, run.init_from, codec)
    beyond = model.foresight.beyond if model.foresight else 0
    clip_length, predicted = model.dynamics.clip_length, model.dynamics.predicted
    sampler = ClipSampler(episodes, clip_length, predicted, run.clips, run.loop.seed, beyond)

    def evaluate(model: nn.Module, step: int, folder: Path) -> dict[str, float]:
        assert isinstance(model, WorldModel)
        # Saved at every evaluation, so that the world can be packed and played while it trains.
        save_part(folder / "dynamics.safetensors", model, "world model", description)
        return dream_held_out(model, tokenizer, held, probes, folder / "pictures" / f"{step:07d}.png")

    description: dict[str, Any] = {
        "kind": "dynamics",
        "env_id": store.info.env_id,
        "action_space": store.info.action_space,
        "tokenizer": fingerprint(tokenizer),
        "dynamics": part_config(model.dynamics),
        "heads": dataclasses.asdict(model.heads.config),
        "batch_size": run.batch_size,
        "clips": dataclasses.asdict(run.clips),
        "foresight": dataclasses.asdict(run.foresight) | {"things": [dataclasses.asdict(t) for t in things]}
        if model.foresight
        else None,
        "heads_only": run.heads_only,
        "heads_on_dreams": run.heads_on_dreams,
        "init_from": initial,
        "episodes": len(episodes),
        "frames": sum(len(episode) + 1 for episode in episodes),
        "loop": dataclasses.asdict(run.loop),
    }
    # What became an option later: runs that were begun before go on.
    sizes: Any = type(model.dynamics.config)
    before: dict[str, Any] = {"turn_view": run.convolutional.turn_view} if run.kind == "convolutional" else {}
    defaults = {
        "dynamics": {"config": dataclasses.asdict(sizes()) | before},
        "clips": dataclasses.asdict(ClipMix()),
        "heads_on_dreams": False,
        "action_space": store.info.action_space,
    }
    training = TrainingRun(
        model,
        lambda step: sampler.draw(step, run.batch_size),
        run.out,
        run.loop,
        description,
        evaluate,
        defaults=defaults,
    )
    training.run()
    model.load_state_dict(training.ema)
    save_part(run.out / "dynamics.safetensors", model, "world model", description)


@torch.no_grad()
def dream_held_out(
    model: WorldModel,
    tokenizer: Tokenizer,
    episodes: list[LatentEpisode],
    probes: Probes | None,
    picture: Path,
    clips: int = 64,
    steps: int = 4,
) -> dict[str, float]:
    """Dreams the recorded actions of held-out clips.

    Returns:
        ``error_N``: squared latent error at horizon N over that of copying the last frame (1 is no better than
        copying); ``<thing>_N``: the share of frames in which a probed thing is in its place; and the share of reward
        events that the head finds on real transitions, with its precision.
    """
    dynamics, horizon = model.dynamics, 20
    device = next(model.parameters()).device
    sampler = ClipSampler(episodes, dynamics.context_length + horizon, horizon, seed=12345)
    batch = sampler.draw(0, clips).to(device)
    begin = dynamics.context_length
    state = dynamics.start(batch.latents[:, :begin], batch.actions[:, : begin - 1])
    low, high = (bound.to(device) for bound in tokenizer.latent_bounds())
    generator = torch.Generator().manual_seed(0)
    dreamed = []
    for t in range(begin, begin + horizon):
        noise = torch.randn(clips, dynamics.noise_slots, *dynamics.latent_shape, generator=generator).to(device)
        latent, state, _ = dynamics.step(
            state, batch.actions[:, t - 1], noise, min(steps, dynamics.max_steps), (low, high)
        )
        dreamed.append(latent)
    dream = torch.stack(dreamed, dim=1)
    real = batch.latents[:, begin:]
    copy = batch.latents[:, begin - 1 : begin]
    figures = {
        f"error_{h}": float(
            (dream[:, h - 1] - real[:, h - 1]).square().mean() / (copy[:, 0] - real[:, h - 1]).square().mean()
        )
        for h in (1, 5, 10, 20)
    }
    if probes:
        shown, truth = (find(probes, tokenizer.decode(z[:, [4, 9, 19]]).cpu().numpy()) for z in (dream, real))
        for thing in probes.things:
            near, there = shown[thing.name].distance(truth[thing.name]) <= thing.tolerance, truth[thing.name].present
            figures |= {
                f"{thing.name}_{h}": float(near[there[:, i], i].mean())
                for i, h in enumerate((5, 10, 20))
                if there[:, i].any()
            }
    before = model.heads.look_back(batch.latents)[:, begin - 1 : -1]
    found = model.heads(*(rearrange(x, "b t ... -> (b t) ...") for x in (before, real, batch.actions[:, begin - 1 :])))
    paid = rearrange(batch.rewards[:, begin - 1 :], "b t -> (b t)")
    said = found.reward.abs() > 0.5 * paid.abs().max().clamp(min=1e-3)
    if (paid != 0).any():
        hits = float((said & (paid != 0)).sum())
        figures["reward_recall"] = hits / float((paid != 0).sum())
        figures["reward_precision"] = hits / max(float(said.sum()), 1.0)
    rows = []
    for lane in range(3):
        for frames in (real[lane, ::2], dream[lane, ::2]):
            rows.append(strip(tokenizer.decode(frames).cpu().numpy(), horizon))
    write_picture(picture, np.concatenate(rows), scale=2)
    return figures
