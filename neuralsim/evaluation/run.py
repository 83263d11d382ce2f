"""``neuralsim evaluate``: how far a world can be trusted, measured on held-out recordings."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import operator
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from neuralsim.actions import has_camera
from neuralsim.data.episodes import EpisodeStore, write_atomically
from neuralsim.evaluation.attention import attention_pictures
from neuralsim.evaluation.camera import CameraReader
from neuralsim.evaluation.card import render_card
from neuralsim.evaluation.closed_loop import describe
from neuralsim.evaluation.controllability import controllability
from neuralsim.evaluation.cost import cost
from neuralsim.evaluation.counterfactuals import counterfactuals
from neuralsim.evaluation.dreamed_events import dreamed_events
from neuralsim.evaluation.events import teacher_forced_events
from neuralsim.evaluation.games import GamesPlayed, compare_games
from neuralsim.evaluation.held_out import Clips, choose_cuts, read_clips
from neuralsim.evaluation.inverse_dynamics import ActionReader, train_inverse_dynamics
from neuralsim.evaluation.long_dreams import LongPlay, alien_limit, compare_long
from neuralsim.evaluation.open_loop import FILM, OpenLoop, by_horizon, dream_clips, open_loop
from neuralsim.evaluation.page import Film, Picture
from neuralsim.evaluation.plan import LONG, RETURN_CLIPS, EvaluateConfig, Plan
from neuralsim.evaluation.playing import Play, dream_play, make_players, real_play
from neuralsim.evaluation.ranking import rank_policies
from neuralsim.evaluation.report import write_report
from neuralsim.evaluation.returns import return_error
from neuralsim.evaluation.side_by_side import Measure, side_by_side
from neuralsim.evaluation.tokenizer import tokenizer_fidelity
from neuralsim.evaluation.trust import calibrate
from neuralsim.json_parts import dump_parts
from neuralsim.pictures import beside, enlarge, strip, write_picture
from neuralsim.world import World
from neuralsim.world_files import CARD, CARD_TEXT

__all__ = ["EvaluateConfig", "evaluate"]

UNFINISHED = "unfinished.json"
"""What has been measured so far, in the folder of the report."""
LONGEST = ("games", "ranking", "open-loop", "long-dreams")
"""Parts that take longest: side by side, they begin first."""
ALIEN_FRAMES = 2000
"""Real frames that tell how well the tokenizer gives back what it knows."""

Tick = Callable[[], None]


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Measures, writes and prints the card.

    Raises:
        ValueError: If recordings and world do not belong together.
    """
    plan = Plan.of(config)
    card = plan.facts() | measure(plan)
    text = render_card(card)
    write_card(config.out, card, text)
    print(text)
    shown: list[Film] = []
    looks: list[Picture] = []
    if "films" in plan.parts:
        clips, dreamed = films(plan.world, plan.store, config.sampling_steps)
        write_picture(config.out / "dream_beside_real.png", beside_real(clips.future[:2], dreamed[:2]))
        for cut, real, dream in zip(clips.cuts, clips.future, dreamed, strict=True):
            title = f"Episode {cut.episode}, from frame {cut.begin + clips.context}: real left, dreamed right"
            shown.append((title, beside([real, dream]), plan.world.fps))
        context = slice(clips.context)
        looks = attention_pictures(
            plan.world, clips.frames[0, context], clips.actions[0, context], steps=config.sampling_steps
        )
    print(f"report: {write_report(config.out, card, text, shown, looks)}")
    if config.save:
        # Only the card: weights that were loaded in another precision must not be written back.
        assert plan.world.source is not None
        write_card(plan.world.source, card, text)
    (config.out / UNFINISHED).unlink()
    return card


def measure(plan: Plan) -> dict[str, Any]:
    """All figures, part by part, with a bar for each.

    What an interrupted call had measured is kept beside the report until the whole is done, and not measured again.
    """
    kept = plan.config.out / UNFINISHED
    measures = {"tokenizer": _tokenizer} | {part: MEASURES[part] for part in plan.work}
    done: dict[str, dict[str, Any]] = {}
    if kept.is_file():
        before = json.loads(kept.read_text(encoding="utf-8"))
        done = {part: before[part] for part in measures if before.get(part, {}).get("of") == plan.fingerprint(part)}
    if again := [part for part in measures if part in done]:
        print(f"going on after an interruption; measured already: {', '.join(again)}")
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        tasks = {part: progress.add_task(part, total=plan.work.get(part, 1), start=False) for part in measures}
        begun: dict[str, float] = {}

        def tick(part: str, steps: int = 1) -> None:
            if part not in begun:
                begun[part] = time.monotonic()
                progress.start_task(tasks[part])
            progress.advance(tasks[part], steps)

        def finish(part: str, figures: dict[str, Any]) -> None:
            done[part] = {"of": plan.fingerprint(part), "figures": figures}
            write_atomically(kept, json.dumps(done))
            progress.update(tasks[part], completed=plan.work.get(part, 1))
            if not progress.console.is_terminal:  # bars are drawn on terminals only
                print(f"{part}: {time.monotonic() - begun[part]:.0f} s", flush=True)

        for part in again:
            progress.update(tasks[part], completed=plan.work.get(part, 1))
        left = {part: measures[part] for part in (*LONGEST, *plan.work) if part in plan.work and part not in again}
        if plan.config.workers > 1 and len(left) > 1:
            left.pop("cost", None)  # speed is measured while nothing else is
            with contextlib.closing(side_by_side(plan, left, tick)) as apart:
                for part, figures in apart:
                    finish(part, figures)
        for part in measures:
            if part not in done:
                tick(part, 0)
                finish(part, measures[part](plan, functools.partial(tick, part)))
    return functools.reduce(operator.or_, (done[part]["figures"] for part in measures), {})


def _tokenizer(plan: Plan, tick: Tick) -> dict[str, Any]:
    return {"tokenizer": tokenizer_fidelity(plan.world, plan.store, plan.probes)}


def _open_loop(plan: Plan, tick: Tick) -> dict[str, Any]:
    world, store, config = plan.world, plan.store, plan.config
    reader = None
    if plan.reads_actions:
        half = len(store) // 2
        model = train_inverse_dynamics(store, store.ids[:half], world.actions, progress=tick)
        reader = ActionReader(model, world.actions, store.ids[half:])
    camera = CameraReader(world.actions) if has_camera(world.action_space) else None
    measured = open_loop(
        world,
        store,
        plan.probes,
        config.clips,
        plan.horizons,
        config.sampling_steps,
        plan.metrics,
        observers=tuple(observer for observer in (reader, camera, plan.video) if observer is not None),
        film=min(FILM, plan.horizons[-1]),
        progress=tick,
    )
    return {
        "open_loop": by_horizon(measured),
        "dreamed_events": dreamed_events(measured.said, measured.paid),
        "controllability": controllability(measured),
        "trust": calibrate(measured),
        "inverse_dynamics": reader.figures() if reader else None,
        "camera": camera.figures() if camera else None,
        "camera_in_motion": _in_motion(measured, camera.moving()) if camera else None,
        "fvd": plan.video.figures() if plan.video else None,
    }


def _in_motion(measured: OpenLoop, moving: np.ndarray) -> dict[str, Any] | None:
    if not moving.any():
        return None
    return {"clips": int(moving.sum()), "open_loop": by_horizon(measured.only(moving))}


def _events(plan: Plan, tick: Tick) -> dict[str, Any]:
    return {"events": teacher_forced_events(plan.world, plan.store, tick)}


def _returns(plan: Plan, tick: Tick) -> dict[str, Any]:
    if not plan.spans:
        return {}
    clips = min(plan.config.clips, RETURN_CLIPS)
    steps = plan.config.sampling_steps
    return {"returns": return_error(plan.world, plan.store, clips, plan.spans, steps, progress=tick)}


def _closed_loop(plan: Plan, tick: Tick) -> dict[str, Any]:
    config, probes, world = plan.config, plan.probes, plan.world
    assert probes is not None
    dreamed = dream_play(
        plan.world,
        make_players(world, [plan.player] * config.lanes),
        config.steps,
        config.sampling_steps,
        progress=tick,
    )
    real = real_play(plan.world, make_players(world, [plan.player] * config.lanes), config.steps, progress=tick)
    return {"closed_loop": {"dream": describe(Play.of(dreamed), probes), "real": describe(Play.of(real), probes)}}


def _games(plan: Plan, tick: Tick) -> dict[str, Any]:
    config, world = plan.config, plan.world
    told: dict[str, Any] = {}
    for player, count in ((plan.player, config.games), ("noop", -(-config.games // 5))):
        dreamed_play = functools.partial(dream_play, sampling_steps=config.sampling_steps)
        sides = []
        for moments in (dreamed_play, real_play):
            players = make_players(world, [player] * count)
            play = moments(world, players, config.game_steps, once=True, progress=tick)
            sides.append(GamesPlayed(count, plan.probes).watch(play))
        told[player] = compare_games(*sides)
    return {"games": told}


def _ranking(plan: Plan, tick: Tick) -> dict[str, Any]:
    config = plan.config
    return {
        "ranking": rank_policies(
            plan.world, plan.policies, config.ranking_lanes, config.ranking_steps, config.sampling_steps, progress=tick
        )
    }


def _counterfactuals(plan: Plan, tick: Tick) -> dict[str, Any]:
    config = plan.config
    return {
        "counterfactuals": counterfactuals(
            plan.world,
            plan.player,
            plan.probes,
            config.moments,
            config.branches,
            config.branch_steps,
            config.sampling_steps,
            progress=tick,
        )
    }


def _long_dreams(plan: Plan, tick: Tick) -> dict[str, Any]:
    config, world, store = plan.config, plan.world, plan.store
    cuts = choose_cuts(store, min(ALIEN_FRAMES, store.total_steps), 1)
    limit = alien_limit(world, np.stack([store.frames(cut.episode, cut.begin, cut.begin + 1)[0] for cut in cuts]))
    lanes, steps = config.long_lanes, config.long_steps
    dreamed = dream_play(world, make_players(world, [plan.player] * lanes), steps, config.sampling_steps, progress=tick)
    real = real_play(world, make_players(world, [plan.player] * lanes), steps, progress=tick)
    seen, truth = (LongPlay(world, plan.probes, limit).see(moments) for moments in (dreamed, real))
    return {"long_dreams": {"lanes": lanes, "steps": steps, **compare_long(seen, truth, LONG)}}


def _cost(plan: Plan, tick: Tick) -> dict[str, Any]:
    return {"cost": cost(plan.world, plan.config.sampling_steps, tick)}


MEASURES: dict[str, Measure] = {
    "open-loop": _open_loop,
    "events": _events,
    "returns": _returns,
    "closed-loop": _closed_loop,
    "games": _games,
    "ranking": _ranking,
    "counterfactuals": _counterfactuals,
    "long-dreams": _long_dreams,
    "cost": _cost,
}
"""What measures each part; each returns its entries of the card."""


def write_card(folder: Path, card: dict[str, Any], text: str) -> None:
    """Writes ``card.json`` and ``card.md``, each in one move; what could not be measured (NaN) is null."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / CARD, dump_parts(_without_nan(card)))
    write_atomically(folder / CARD_TEXT, text)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def films(
    world: World, store: EpisodeStore, steps: int, clips: int = 4, horizon: int = 56, seed: int = 3
) -> tuple[Clips, np.ndarray]:
    """Clips, and what is dreamed of them ``(N, T, H, W, 3)`` from the same context and actions."""
    context = world.dynamics.context_length
    horizon = min(horizon, max(store.length(i) for i in store.ids) + 1 - context)
    chosen = read_clips(store, choose_cuts(store, clips, context + horizon, seed), context, horizon)
    dreamed = [world.decode(said.latent).cpu().numpy() for said in dream_clips(world, chosen, chosen.actions, steps)]
    return chosen, np.stack(dreamed, axis=1)


def beside_real(real: np.ndarray, dreamed: np.ndarray) -> np.ndarray:
    """A picture ``(H, W, 3)`` of films: strips of real frames over strips of dreamed ones."""
    rows = [strip(enlarge(film, 2), 8) for pair in zip(real, dreamed, strict=True) for film in pair]
    return np.concatenate(rows)
