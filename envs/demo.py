"""A first look: ``neuralsim demo`` plays the bundled dream, in a window or, without a display, on its own.

On its own, a scripted player that sees nothing but the dreamed pixels plays, and a film shows what happened.
"""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym

from neuralsim.envs.play import PlayConfig, has_display, open_game, play
from neuralsim.envs.session import Score, file_size
from neuralsim.film import FilmWriter

FILM_SCALE = 4


@dataclass
class DemoConfig:
    """Play the bundled dream of Pong.

    With a display this opens a window: the arrow keys play. Without one, a scripted player plays, and a film
    of it is written.

    Attributes:
        headless: Let the scripted player play even if there is a display.
        steps: Steps that the scripted player plays.
        out: Where its film goes; the suffix, .gif or .mp4, chooses the kind.
        seed: Seed of the dream and of the player.
        world: Another world of Atari Pong than the bundled one: a folder, or user/name on the hub.
        sampling_steps: Sampling steps K per frame; by default the world's own.
        device: Where the dream is computed: cpu, cuda, mps; by default the best there is.
    """

    headless: bool = False
    steps: int = 600
    out: Path = Path("demo.gif")
    seed: int = 0
    world: str | None = None
    sampling_steps: int | None = None
    device: str | None = None


@dataclass
class DemoResult:
    """What a scripted player did.

    Attributes:
        seconds: Spent in the environment's ``step``, decoding included, film and player excluded.
        fps: Steps per second that would be real time.
        score: Summed over all episodes: ``total``, ``gained`` and ``lost``, and the number of steps.
        ends: Episodes that ended.
        frames: Frames of the film, the first one included.
    """

    seconds: float = 0.0
    fps: float = 15.0
    score: Score = field(default_factory=Score)
    ends: int = 0
    frames: int = 0

    @property
    def rate(self) -> float:
        """Steps per second."""
        return self.score.step / self.seconds if self.seconds > 0 else 0.0


def demo(config: DemoConfig) -> DemoResult | None:
    """Opens the window, or lets the scripted player play; returns what it did.

    Raises:
        ValueError: For a number of steps under 1, or a world that is not Atari Pong.
        OSError: If the film cannot be written.
    """
    if config.steps < 1:
        raise ValueError(f"--steps {config.steps} must be at least 1")
    game = config.world or "Dream-Pong-v0"
    playing = PlayConfig(game, config.seed, sampling_steps=config.sampling_steps, device=config.device)
    if not config.headless and has_display():
        if importlib.util.find_spec("pygame") is not None:
            play(playing)
            return None
        print('a window needs pip install "neuralsim-gym[play]"; until then a scripted player plays')
    env = open_game(playing)
    try:
        result = play_scripted(env, config)
    finally:
        env.close()
    show(result, config, env)
    return result


def play_scripted(env: gym.Env, config: DemoConfig) -> DemoResult:
    """Lets the scripted player play ``config.steps`` steps and films them.

    Args:
        env: A dream of Atari Pong, frames as observations.
        config: Steps, seed and the film's place.

    Returns:
        Time, score and ends. The film is at ``config.out``.

    Raises:
        ValueError: If the environment is not Atari Pong.
        OSError: If the film cannot be written; nothing has been played then.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    player = pong_player(env, config.seed)
    world: Any = getattr(env.unwrapped, "world", None)
    fps = float(getattr(world, "fps", None) or env.metadata.get("render_fps") or 15)
    result = DemoResult(fps=fps)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with FilmWriter(config.out, fps, FILM_SCALE) as film, Progress(*columns) as progress:
        task = progress.add_task(f"a scripted player in {config.world or 'Dream-Pong-v0'}", total=config.steps)
        frame, info = env.reset(seed=config.seed)
        player.reset(config.seed)
        film.add(frame)
        for _ in range(config.steps):
            action = player.act(frame, info)
            before = time.perf_counter()
            frame, reward, terminated, truncated, info = env.step(action)
            result.seconds += time.perf_counter() - before
            result.score = result.score.after(action, float(reward))
            film.add(frame)
            if terminated or truncated:
                result.ends += 1
                frame, info = env.reset()
                player.reset()
                film.add(frame)
            progress.advance(task)
        result.frames = film.count
        progress.update(task, description=f"writing {config.out}")
    return result


def pong_player(env: gym.Env, seed: int) -> Any:
    """The scripted player, if the environment is Atari Pong.

    Raises:
        ValueError: If it is not.
    """
    from neuralsim.agents.scripted import PONG_ACTIONS, PongPlayer
    from neuralsim.envs.keyboard import action_meanings

    frame_shape = env.observation_space.shape
    if action_meanings(env) != PONG_ACTIONS or frame_shape is None or frame_shape[-1:] != (3,):
        raise ValueError(
            f"the scripted player plays frames of Atari Pong by the actions {PONG_ACTIONS}; this world has "
            f"{action_meanings(env) or env.action_space} and {env.observation_space}: try neuralsim play"
        )
    return PongPlayer(0.9, seed)


def show(result: DemoResult, config: DemoConfig, env: gym.Env) -> None:
    """Prints what happened."""
    from rich.console import Console
    from rich.table import Table

    score = result.score
    table = Table(
        show_header=False,
        title=f"A scripted player in {config.world or 'Dream-Pong-v0'}",
        title_justify="left",
    )
    table.add_column(style="dim")
    table.add_column(justify="right")
    steps = getattr(env.unwrapped, "sampling_steps", None)
    rows = {
        "steps": f"{score.step}",
        "sampling steps K": "-" if steps is None else f"{steps}",
        "steps/s, frames decoded": f"{result.rate:.0f}",
        "times real time": f"{result.rate / result.fps:.1f}",
        "return": f"{score.total:g}",
        "points won : lost": f"{score.gained:g} : {score.lost:g}",
        "ends of games": f"{result.ends}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console = Console()
    out = Path(config.out)
    console.print(table)
    # Not in the table, and not wrapped: a path is there to be copied.
    seconds = result.frames / result.fps
    console.print(
        f"the film, {seconds:.0f} s at the real rate, {file_size(out)}: {out.resolve()}",
        soft_wrap=True, highlight=False, markup=False,
    )  # fmt: skip
