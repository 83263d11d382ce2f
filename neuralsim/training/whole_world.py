"""``neuralsim train world``: from recordings to a world folder, stage by stage."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from rich import print as rich_print
from rich.rule import Rule

from neuralsim.data.episodes import EpisodeStore
from neuralsim.training.dynamics import DynamicsRun, train_dynamics
from neuralsim.training.loop import LoopConfig
from neuralsim.training.pack import PackConfig, pack
from neuralsim.training.tokenizer import TokenizerRun, train_tokenizer
from neuralsim.world import World


@dataclass
class WorldRun:
    """Trains a world of recordings: tokenizer, dynamics in their stages, and the packed folder.

    Each stage is a run of its own with the defaults of a preset, and can be had with all its options by itself
    (neuralsim train tokenizer, train dynamics, world pack). The same command resumes where it was interrupted.

    Example: neuralsim train world --preset minetest --data data/treechop --out worlds/treechop
    """

    data: Path = Path("data/pong")
    """Recorded episodes (neuralsim record, neuralsim data import)."""
    held_out: Path | None = None
    """Episodes for the figures of training; by default a twentieth of the data, which is then not trained on."""
    out: Path = Path("worlds/mine")
    """The world folder; its name is the world's."""
    runs: Path | None = None
    """Folder of the runs; by default runs/NAME."""
    tokenizer: str = "pong"
    """Preset of neuralsim train tokenizer."""
    stages: tuple[str, ...] = ("pong", "pong-own-context", "pong-heads")
    """Presets of neuralsim train dynamics, each of which goes on from the one before."""
    share: float = 1.0
    """Share of the presets' steps: 0.1 for a first look."""
    start_frames: int = 0
    """Frames per start of the world; 0 is as many as the dynamics can use."""
    max_episode_steps: int | None = None
    """Time limit of the real environment in steps."""
    notice: str = ""
    """A sentence that everybody should see who uses the world."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""
    threads: int = 0
    """CPU threads; 0 leaves PyTorch's choice."""
    compile: bool = False
    """Compile the models (needs a C++ compiler; a minute at the start of each stage, mostly faster after)."""

    @staticmethod
    def presets() -> dict[str, WorldRun]:
        """Defaults by name."""
        voxels = WorldRun(
            data=Path("data/explore"),
            tokenizer="minetest",
            stages=("minetest",),
            start_frames=17,
        )
        return {"pong": WorldRun(), "minetest": voxels}


def train_world(run: WorldRun) -> World:
    """Runs all stages and packs the world.

    Raises:
        FileNotFoundError: If there are no such recordings.
        ValueError: If there is no such preset, or an option makes no sense.
    """
    if not run.share > 0:
        raise ValueError(f"share is {run.share:g}; it must be above 0")
    for kind, names, known in (
        ("tokenizer", [run.tokenizer], TokenizerRun.presets()),
        ("stages", run.stages, DynamicsRun.presets()),
    ):
        if unknown := [name for name in names if name not in known]:
            raise ValueError(f"{kind}: there is no preset {unknown[0]!r}; there are {', '.join(known)}")
    if not run.stages:
        raise ValueError("stages names no preset: a world needs dynamics")
    EpisodeStore.open(run.data)  # complains now
    home = run.runs or Path("runs") / run.out.name
    tokenizer = dataclasses.replace(
        TokenizerRun.presets()[run.tokenizer], data=run.data, held_out=run.held_out, out=home / "tokenizer"
    )
    tokenizer.loop = _loop(run, tokenizer.loop)
    _announce(run, 0, f"tokenizer, {tokenizer.loop.steps:,} steps")
    train_tokenizer(tokenizer)
    before: Path | None = None
    for number, name in enumerate(run.stages, 1):
        stage = dataclasses.replace(
            DynamicsRun.presets()[name],
            data=run.data,
            held_out=run.held_out,
            tokenizer=tokenizer.out,
            init_from=before,
            out=home / name,
        )
        stage.loop = _loop(run, stage.loop)
        _announce(run, number, f"dynamics {name}, {stage.loop.steps:,} steps")
        train_dynamics(stage)
        before = stage.out
    assert before is not None
    _announce(run, len(run.stages) + 1, "packing")
    return pack(
        PackConfig(
            name=run.out.name,
            data=run.data,
            tokenizer=tokenizer.out,
            dynamics=before,
            out=run.out,
            start_frames=run.start_frames,
            max_episode_steps=run.max_episode_steps,
            notice=run.notice,
        )
    )


def _loop(run: WorldRun, loop: LoopConfig) -> LoopConfig:
    steps = max(1, round(run.share * loop.steps))
    return dataclasses.replace(loop, steps=steps, device=run.device, threads=run.threads, compile=run.compile)


def _announce(run: WorldRun, number: int, what: str) -> None:
    rich_print(Rule(f"{number + 1} of {len(run.stages) + 2}: {what}"))
