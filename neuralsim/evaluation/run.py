"""``neuralsim evaluate``: how far a world can be trusted, measured on held-out recordings."""

from __future__ import annotations

import importlib.util
import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from rich.progress import Progress

from neuralsim.agents.scripted import PongPlayer
from neuralsim.data.episodes import EpisodeStore, write_atomically
from neuralsim.envs.real import make_real
from neuralsim.evaluation.card import render_card
from neuralsim.evaluation.closed_loop import describe, play_dream, play_real
from neuralsim.evaluation.controllability import controllability
from neuralsim.evaluation.events import teacher_forced_events
from neuralsim.evaluation.frechet import FVD_FRAMES, VideoDistance
from neuralsim.evaluation.held_out import check_held_out, choose_cuts, read_clips
from neuralsim.evaluation.image_quality import SMALLEST_LPIPS, Lpips, psnr, ssim
from neuralsim.evaluation.inverse_dynamics import AFTER, BEFORE, READER_STEPS, ActionReader, train_inverse_dynamics
from neuralsim.evaluation.open_loop import Metric, by_horizon, dream_clips, open_loop
from neuralsim.evaluation.probes import PROBES, Probes
from neuralsim.evaluation.returns import SPANS, return_error
from neuralsim.evaluation.tokenizer import tokenizer_fidelity
from neuralsim.pictures import enlarge, strip, write_picture
from neuralsim.world import World
from neuralsim.world_files import CARD, CARD_TEXT

HORIZONS = (1, 2, 4, 5, 8, 10, 16, 20, 32, 64, 128)
"""Steps into the dream at which it is compared with reality."""
RETURN_CLIPS = 64
"""At most so many clips for returns, which are long."""
FILM = 32
"""Frames of a dream that are judged as a film."""


@dataclass
class EvaluateConfig:
    """Measures a world on held-out recordings and writes its card.

    Open loop (recorded actions, dream against reality by horizon, beside dreams with wrong actions, copying the last
    frame and the tokenizer's ceiling), controllability, actions read off dreamed frames, rewards and ends on real
    transitions, returns, closed loop (a scripted player in the dream and in the real game), and speed. What could not
    be measured is named in the card.
    """

    world: Annotated[str, tyro.conf.Positional]
    """World folder, bundled name or hub id."""
    data: Path = Path("data/pong-heldout")
    """Held-out recordings, of other seeds than those it was trained on."""
    out: Path = Path("report")
    """Folder for card.json, card.md and dream_beside_real.png."""
    clips: int = 200
    """Clips for the open loop."""
    horizon: int = 128
    """Last step into the dream at which it is compared with reality."""
    lpips: Path | None = None
    """torchvision's AlexNet weights (alexnet-owt-7be5be79.pth), to measure LPIPS as well."""
    sampling_steps: int = 4
    """Sampling steps K."""
    i3d: Path | None = None
    """The I3D network as TorchScript (i3d_torchscript.pt), to measure FVD as well."""
    lanes: int = 12
    """Lanes of the closed loop; 0 leaves it out."""
    steps: int = 500
    """Steps per lane of the closed loop."""
    skill: float = 0.7
    """Skill of the scripted player in the closed loop."""
    save: bool = False
    """Also write the card into the world's folder."""


@dataclass
class Plan:
    """What is to be measured, checked before anything is: better to complain now than after half an hour."""

    config: EvaluateConfig
    world: World
    store: EpisodeStore
    probes: Probes | None
    horizons: tuple[int, ...]
    spans: tuple[int, ...]
    metrics: dict[str, Metric]
    video: VideoDistance | None
    not_measured: dict[str, str]

    @classmethod
    def of(cls, config: EvaluateConfig) -> Plan:
        """Reads world and recordings.

        Raises:
            ValueError: If they do not belong together, or the config makes no sense.
            FileNotFoundError: If world, recordings or weights are not there.
            ModuleNotFoundError: If an extra is missing.
        """
        world, store = World.load(config.world), EpisodeStore.open(config.data)
        horizons = (*(h for h in HORIZONS if h < config.horizon), config.horizon)
        for name, least in (("horizon", 1), ("clips", 2), ("lanes", 0), ("steps", 1)):
            if (value := getattr(config, name)) < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")
        PongPlayer(config.skill)
        config.out.mkdir(parents=True, exist_ok=True)
        check_held_out(world, store, world.dynamics.context_length + horizons[-1])
        world.check_steps(config.sampling_steps)
        longest = max(store.length(i) for i in store.ids) + 1 - world.dynamics.context_length
        plan = cls(
            config,
            world,
            store,
            PROBES[world.config.probes] if world.config.probes else None,
            horizons,
            tuple(span for span in SPANS if span <= longest),
            {"psnr": psnr},
            VideoDistance(config.i3d) if config.i3d else None,
            {},
        )
        plan._note_what_is_missing()
        plan._choose_metrics()
        if plan.plays:
            make_real(world.config.env_id, world.config.env_kwargs, world.config.preprocessing).close()
        return plan

    def _note_what_is_missing(self) -> None:
        for span in SPANS[len(self.spans) :]:
            self.not_measured[f"Return over {span} steps"] = "the recordings are too short"
        if not self.plays:
            self.not_measured["Closed loop"] = (
                "no probes know this game"
                if self.probes is None
                else "the world has no starts"
                if not self.world.starts
                else "left out (--lanes 0)"
            )
        if not self.world.config.trained_on.get("recordings", {}).get("content"):
            self.not_measured["Overlap with the training recordings"] = "the world does not say what it was trained on"
        if not self.reads_actions:
            self.not_measured["Actions read off dreamed frames"] = f"needs a horizon of {BEFORE + AFTER} or more"

    def _choose_metrics(self) -> None:
        if importlib.util.find_spec("torchmetrics") is None:
            self.not_measured["SSIM"] = 'pip install "neuralsim-gym[evaluation]"'
        else:
            self.metrics["ssim"] = ssim
        if self.config.lpips is None:
            self.not_measured["LPIPS"] = "its network's weights were not given (--lpips alexnet-owt-7be5be79.pth)"
        else:
            self.metrics["lpips"] = Lpips(self.config.lpips)
            if min(self.world.frame_shape[:2]) < SMALLEST_LPIPS:
                raise ValueError(f"LPIPS needs frames of {SMALLEST_LPIPS} pixels, these are {self.world.frame_shape}")
        if self.video is None:
            self.not_measured["FVD"] = "its network was not given (--i3d i3d_torchscript.pt)"
        elif self.config.horizon < FVD_FRAMES:
            raise ValueError(f"FVD looks at {FVD_FRAMES} frames, but horizon is {self.config.horizon}")

    @property
    def plays(self) -> bool:
        """Whether there is a closed loop: its players need probes to see, and starts to begin from."""
        return self.probes is not None and self.config.lanes > 0 and bool(self.world.starts)

    @property
    def reads_actions(self) -> bool:
        """Whether dreams are long enough to read actions off them."""
        return self.horizons[-1] >= BEFORE + AFTER

    @property
    def ticks(self) -> int:
        """How many steps of progress there will be."""
        clips, config = self.config.clips, self.config
        returns = -(-min(clips, RETURN_CLIPS) // 32) * max(self.spans, default=0)
        played = config.steps + config.lanes if self.plays else 0
        reader = READER_STEPS if self.reads_actions else 0
        return 1 + len(self.store) + reader + -(-clips // 32) * self.horizons[-1] + returns + played

    def facts(self) -> dict[str, Any]:
        """What the card says of world and measurement beside figures."""
        config, world, store = self.config, self.world, self.store
        trained_on = dict(world.config.trained_on)
        if "recordings" in trained_on:
            trained_on["recordings"] = {k: v for k, v in trained_on["recordings"].items() if k != "content"}
        return {
            "world": world.config.name,
            "env_id": world.config.env_id,
            "env_kwargs": world.config.env_kwargs,
            "sampling_steps": config.sampling_steps,
            "trained_on": trained_on,
            "held_out": {"episodes": len(store), "steps": store.total_steps, "command": store.info.command},
            "clips": config.clips,
            "lanes": config.lanes,
            "steps": config.steps,
            "skill": config.skill,
            "not_measured": self.not_measured,
            "parameters": {
                part: sum(p.numel() for p in getattr(world, part).parameters())
                for part in ("tokenizer", "dynamics", "heads")
            },
        }


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Measures, writes and prints the card.

    Raises:
        ValueError: If recordings and world do not belong together.
    """
    plan = Plan.of(config)
    with Progress() as progress:
        task = progress.add_task("evaluating", total=plan.ticks)
        card = plan.facts() | measure(plan, lambda: progress.advance(task))
    card["speed"] = speed(plan.world, config.sampling_steps)
    text = render_card(card)
    write_card(config.out, card, text)
    print(text)
    write_picture(config.out / "dream_beside_real.png", beside_real(plan.world, plan.store, config.sampling_steps))
    if config.save:
        # Only the card: weights that were loaded in another precision must not be written back.
        assert plan.world.source is not None
        write_card(plan.world.source, card, text)
    return card


def measure(plan: Plan, tick: Callable[[], None]) -> dict[str, Any]:
    """All figures but speed."""
    world, store, probes, config = plan.world, plan.store, plan.probes, plan.config
    figures: dict[str, Any] = {"tokenizer": tokenizer_fidelity(world, store, probes)}
    tick()
    figures["events"] = teacher_forced_events(world, store, tick)
    reader = None
    if plan.reads_actions:
        half = len(store) // 2
        model = train_inverse_dynamics(store, store.ids[:half], world.actions, progress=tick)
        reader = ActionReader(model, world.actions, store.ids[half:])
    measured = open_loop(
        world,
        store,
        probes,
        config.clips,
        plan.horizons,
        config.sampling_steps,
        plan.metrics,
        observers=tuple(observer for observer in (reader, plan.video) if observer is not None),
        film=min(FILM, plan.horizons[-1]),
        progress=tick,
    )
    figures["open_loop"] = by_horizon(measured)
    figures["controllability"] = controllability(measured)
    figures["inverse_dynamics"] = reader.figures() if reader else None
    figures["fvd"] = plan.video.figures() if plan.video else None
    figures["returns"] = {}
    if plan.spans:
        clips = min(config.clips, RETURN_CLIPS)
        figures["returns"] = return_error(world, store, clips, plan.spans, config.sampling_steps, progress=tick)
    if plan.plays:
        assert probes is not None
        dreamed = play_dream(world, config.lanes, config.steps, config.sampling_steps, config.skill, progress=tick)
        real = play_real(world, config.lanes, config.steps, config.skill, progress=tick)
        figures["closed_loop"] = {"dream": describe(dreamed, probes), "real": describe(real, probes)}
    return figures


def write_card(folder: Path, card: dict[str, Any], text: str) -> None:
    """Writes ``card.json`` and ``card.md``, each in one move; what could not be measured (NaN) is null."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / CARD, json.dumps(_without_nan(card), indent=1, allow_nan=False) + "\n")
    write_atomically(folder / CARD_TEXT, text)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def beside_real(world: World, store: EpisodeStore, steps: int, horizon: int = 56, seed: int = 3) -> np.ndarray:
    """A picture ``(H, W, 3)``: real frames over dreamed ones, twice, from the same context and actions."""
    context = world.dynamics.context_length
    horizon = min(horizon, max(store.length(i) for i in store.ids) + 1 - context)
    clips = read_clips(store, choose_cuts(store, 2, context + horizon, seed), context, horizon)
    dreamed = [world.decode(said.latent).cpu().numpy() for said in dream_clips(world, clips, clips.actions, steps)]
    rows = []
    for real, dream in zip(clips.future, np.stack(dreamed, axis=1), strict=True):
        rows += [strip(enlarge(film, 2), 8) for film in (real, dream)]
    return np.concatenate(rows)


def speed(world: World, steps: int, count: int = 150) -> dict[str, Any]:
    """Steps per second of one dream with pictures, on the machine at hand."""
    state = world.start_at(0) if world.starts else world.start(np.zeros((1, 1, *world.frame_shape), np.uint8))
    action = world.actions.decode(torch.zeros(1, world.actions.size).numpy())
    began = time.perf_counter()
    for i in range(count + 20):
        if i == 20:
            began = time.perf_counter()
        state, said = world.step(state, action, steps=steps)
        world.decode(said.latent).cpu()  # as a player gets it; a GPU would else still be at work when the clock stops
    return {
        "steps_per_second": count / (time.perf_counter() - began),
        "device": world.device.type,
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()} {world.device.type}",
    }
