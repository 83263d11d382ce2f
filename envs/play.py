"""Play a dream, or the real game, with keyboard and mouse: ``neuralsim play Dream-Pong-v0``.

This file opens environments and the window. The game itself is a :class:`~neuralsim.envs.session.Session`,
and the picture on the screen is drawn by :mod:`neuralsim.envs.hud`; neither needs pygame.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium as gym
import tyro

from neuralsim.envs.first_person import SENSITIVITY, FirstPersonKeys, keys_of
from neuralsim.envs.hud import Hud, Speed, best_scale, window_size
from neuralsim.envs.keyboard import BACKSPACE, CTRL, ESCAPE, RETURN, TAB
from neuralsim.envs.mouse import Mouse
from neuralsim.envs.session import Session
from neuralsim.extras import require

NOTICE_SECONDS = 4.0
NEXT_EPISODE_SECONDS = 5.0
REWIND_SECONDS_PER_KEY = 0.15  # while the key is held


@dataclass
class PlayConfig:
    """Play a dream or a real game in a window; the keys are shown beside the game.

    First-person games (MineRL, Minetest and dreams of them): W A S D walk, space jumps, shift sneaks, ctrl sprints. A
    click into the picture grabs the mouse: it looks around, its left button attacks, its right button uses. Escape
    frees it.

    Attributes:
        game: What to play: a registered id (Dream-Pong-v0, ALE/Pong-v5), a world folder, or a world on the
            hub (user/name).
        seed: Seed of the first episode.
        start: Which recorded start a dream begins from; tab goes on to the next.
        sampling_steps: Sampling steps K per dreamed frame; by default the world's own. + and - change it.
        fps: Steps per second; by default those of the real game.
        scale: Enlargement, a whole number; by default one that makes a comfortable window.
        view: A real game as it is (full), or as the models see it (preprocessed).
        env_kwargs: Arguments of the environment as JSON, e.g. '{"repeat_action_probability": 0.25}'. Atari
            games follow the keys at once unless you say otherwise.
        recordings: Folder for films; V begins and ends one.
        film: Kind of film; mp4 needs the extra "video" and becomes gif without it.
        sensitivity: First-person games: degrees that the view turns per pixel that the mouse moves.
        device: Where a dream is computed: cpu, cuda, mps; by default the best there is.
    """

    game: Annotated[str, tyro.conf.Positional] = "Dream-Pong-v0"
    seed: int = 0
    start: int = 0
    sampling_steps: int | None = None
    fps: float | None = None
    scale: int | None = None
    view: Literal["full", "preprocessed"] = "full"
    env_kwargs: str = "{}"
    recordings: Path = Path("recordings")
    film: Literal["mp4", "gif"] = "mp4"
    sensitivity: float = SENSITIVITY
    device: str | None = None


def open_game(config: PlayConfig) -> gym.Env:
    """Makes the environment that a config names.

    Raises:
        ValueError: For an unknown id, or arguments that are no JSON object; the message shows the way out.
        FileNotFoundError: If a path leads nowhere.
        ModuleNotFoundError: If an extra is missing.
    """
    try:
        kwargs: dict[str, Any] = json.loads(config.env_kwargs)
        if not isinstance(kwargs, dict):
            raise ValueError("it is no object")
    except ValueError as error:
        raise ValueError(f"--env-kwargs {config.env_kwargs!r} is no JSON object: {error}") from None
    name = config.game
    if Path(name).is_dir() or name.startswith((".", "~", "/")):
        return _open_dream("Dream-v0", {**kwargs, "world": str(Path(name).expanduser())}, config)
    if name.startswith("Dream-"):
        return _open_dream(name, kwargs, config)
    if "/" in name and not re.search(r"-v\d+$", name) and ":" not in name:
        return _open_dream("Dream-v0", {**kwargs, "world": name}, config)
    from neuralsim.envs.real import make_real

    if name.startswith("ALE/"):
        kwargs.setdefault("repeat_action_probability", 0.0)  # else a fourth of the keys comes late
    if config.view == "preprocessed":
        return make_real(name, kwargs, render_mode="rgb_array")
    real = make_real(name, kwargs, {"source": "render"}, render_mode="rgb_array")
    assert isinstance(real, gym.Wrapper)
    return real.env  # without the preprocessing


def _open_dream(env_id: str, kwargs: dict[str, Any], config: PlayConfig) -> gym.Env:
    import neuralsim  # noqa: F401  (registers the dreams)

    for name in ("sampling_steps", "device"):
        if getattr(config, name) is not None:
            kwargs[name] = getattr(config, name)
    try:
        return gym.make(env_id, render_mode="rgb_array", disable_env_checker=True, **kwargs)
    except gym.error.UnregisteredEnv:
        dreams = [known for known in gym.registry if known.startswith("Dream-")]
        near = difflib.get_close_matches(env_id, dreams, n=1) or dreams
        raise ValueError(f"unknown dream {env_id!r}; there is {', '.join(near)}") from None


def has_display() -> bool:
    """Whether a window can be opened, as far as the surroundings tell."""
    if os.environ.get("SDL_VIDEODRIVER"):
        return True
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def play(config: PlayConfig) -> None:
    """Opens the window and plays until it is closed.

    Raises:
        ModuleNotFoundError: Without the extra "play".
        OSError: Without a display.
        ValueError: If the config names nothing that can be played.
    """
    require_window()
    if config.scale is not None and config.scale < 1:
        raise ValueError(f"--scale {config.scale} must be a whole number of at least 1")
    if config.fps is not None and not config.fps > 0:
        raise ValueError(f"--fps {config.fps} must be a positive number")
    print(f"opening {config.game} ...", flush=True)
    env = open_game(config)
    try:
        session = Session(
            env,
            config.seed,
            config.start,
            keys_of(env, config.sensitivity),
            _real_rate(env, config),
            config.recordings,
            config.film,
        )
    except BaseException:
        env.close()
        raise
    play_session(session, config.fps, config.scale)


def _real_rate(env: gym.Env, config: PlayConfig) -> float | None:
    """None where the environment says how fast it runs, else ``--fps``: then that is real time."""
    world = getattr(env.unwrapped, "world", None)
    return None if world is not None or env.metadata.get("render_fps") else config.fps


def play_session(session: Session, fps: float | None = None, scale: int | None = None) -> None:
    """Shows a session in a window until it is closed; then closes the session.

    Args:
        session: What is played.
        fps: Steps per second; by default the session's.
        scale: Enlargement; by default a comfortable one.

    Raises:
        ModuleNotFoundError: Without the extra "play".
        OSError: Without a display.
    """
    pygame = require_window()
    try:
        pygame.display.init()
    except pygame.error as error:
        raise OSError(f"no window can be opened ({error}); {_WITHOUT_DISPLAY}") from None
    try:
        window = Window(session, fps, scale)
        while window.open:
            window.tick(time.monotonic())
        print(
            f"{session.name}: {session.score.step} steps, return {session.score.total:g} in the last of "
            f"{session.episode} episodes"
        )
    finally:
        if session.recording:
            session.toggle_recording()
            print(session.notice)
        session.close()
        pygame.display.quit()


_WITHOUT_DISPLAY = (
    "a film of a scripted player needs no display: neuralsim demo --headless. Over ssh, ssh -X brings one; "
    "SDL_VIDEODRIVER=dummy plays without showing anything"
)


def require_window() -> Any:
    """Imports pygame and checks that there is a display.

    Raises:
        ModuleNotFoundError: Without the extra "play".
        OSError: Without a display.
    """
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    pygame = require("pygame", extra="play", why="playing in a window")
    if not has_display():
        raise OSError(f"there is no display to open a window on; {_WITHOUT_DISPLAY}")
    return pygame


class Window:
    """The window: reads keys, keeps time and shows what :class:`~neuralsim.envs.hud.Hud` draws.

    pygame's display must be initialised.

    Args:
        session: What is played.
        fps: Steps per second; by default the session's.
        scale: Enlargement; by default a comfortable one.

    Attributes:
        open: False once the player wants to leave.
    """

    def __init__(self, session: Session, fps: float | None = None, scale: int | None = None) -> None:
        import pygame

        self.pygame = pygame
        self.session = session
        self.hud = Hud(session)
        self.period = 1.0 / (fps or session.fps)
        self.open = True
        size = window_size(session.frame.shape, scale or best_scale(session.frame.shape), self.hud.panel_height)
        pygame.display.set_caption(f"{session.name} - neuralsim")
        pygame.display.set_mode(size, pygame.RESIZABLE)
        self._held: list[int] = []  # in the order of pressing
        self._tapped: list[int] = []  # pressed and let go since the last step: it still counts
        self._mouse: Mouse | None = None
        self._next_step = self._next_draw = 0.0
        self._over_since: float | None = None
        self._noticed, self._notice_until = session.notices, 0.0
        if isinstance(session.keys, FirstPersonKeys):
            self._mouse = Mouse(session.keys, session.say)
        self._rewinding: float | None = None
        self._times: deque[float] = deque(maxlen=max(8, round(2 / self.period)))
        self._took = 0.0

    def tick(self, now: float) -> None:
        """Handles keys, steps if it is time to, draws, and waits a little.

        Args:
            now: Seconds of a clock that never goes back.
        """
        for event in self.pygame.event.get():
            self.handle(event, now)
        if not self.open:
            return
        stepped = self._advance(now)
        if self.session.notices != self._noticed:
            self._noticed, self._notice_until = self.session.notices, now + NOTICE_SECONDS
            self._next_draw = 0.0
        if stepped or now >= self._next_draw:
            self.draw(now)
            self._next_draw = now + 0.1
        pause = min(0.01, max(0.0, self._next_step - time.monotonic()))
        time.sleep(pause if self._running else 0.01)

    def handle(self, event: Any, now: float) -> None:
        """Reacts to a key, the mouse, a change of size or the closing of the window."""
        pygame, codes = self.pygame, self.session.keys.codes
        if self._mouse is not None and self._mouse.takes(event):
            return
        if event.type == pygame.QUIT:
            self.open = False
        elif event.type == pygame.KEYDOWN:
            # Where ctrl itself plays, no letter needs it to reach the window.
            if event.key in codes and (CTRL in codes or not event.mod & pygame.KMOD_CTRL):
                self._press(event.key)
            else:
                self._command(event.key, getattr(event, "unicode", ""), now)
            self._next_draw = 0.0
        elif event.type == pygame.KEYUP:
            self._release(event.key)
            if event.key == BACKSPACE:
                self._rewinding = None
        elif event.type == pygame.MOUSEBUTTONDOWN and Mouse.button(event) in codes:
            self._press(Mouse.button(event))
        elif event.type == pygame.MOUSEBUTTONUP:
            self._release(Mouse.button(event))
        elif event.type == pygame.WINDOWFOCUSLOST:
            self._held, self._rewinding = [], None  # their release goes to another window
        elif event.type == pygame.VIDEORESIZE:
            self._next_draw = 0.0

    def _press(self, code: int) -> None:
        self._held = [*(key for key in self._held if key != code), code]
        self._tapped.append(code)

    def _release(self, code: int) -> None:
        self._held = [key for key in self._held if key != code]

    def _drop_input(self) -> None:
        """Forgets what was pressed, or moved, for a moment that is over."""
        self._tapped = []
        if self._mouse is not None:
            self._mouse.keys.forget()

    def draw(self, now: float) -> None:
        """Shows the session."""
        message = self.session.notice if now < self._notice_until else ""
        waiting = self._over_since is not None and not self.session.paused
        countdown = self._over_since + NEXT_EPISODE_SECONDS - now if waiting else 0.0  # type: ignore[operator]
        surface: Any = self.pygame.display.get_surface()  # another one after a change of size
        picture = self.hud.draw(surface.get_size(), self.speed, message, countdown)
        surface.blit(self.pygame.image.frombuffer(picture.tobytes(), picture.size, "RGB"), (0, 0))
        self.pygame.display.flip()

    @property
    def speed(self) -> Speed:
        """What was measured over the last two seconds."""
        span = self._times[-1] - self._times[0] if len(self._times) > 1 else 0.0
        rate = (len(self._times) - 1) / span if span > 0 else 0.0
        return Speed(rate, 1.0 / self.period, self._took * 1000)

    @property
    def _running(self) -> bool:
        return not (self.session.paused or self.session.over)

    def _advance(self, now: float) -> bool:
        """Lets time pass; returns whether the game moved."""
        session = self.session
        if self._rewinding is not None and now >= self._rewinding:
            self._rewinding = now + REWIND_SECONDS_PER_KEY
            session.rewind()
            return True
        if session.over:
            self._over_since = now if self._over_since is None else self._over_since
            # A pause keeps the end on the screen.
            if now - self._over_since >= NEXT_EPISODE_SECONDS and not session.paused:
                self._begin(session.next_start)
                return True
            return False
        self._over_since = None
        if session.paused:
            self._times.clear()
            self._drop_input()
            self._next_step = now
            return False
        if now < self._next_step:
            return False
        # Late by more than a step (a slow world, a moved window): go on from now, never hurry to catch up.
        on_time = now - self._next_step < self.period
        self._next_step = (self._next_step if on_time else now) + self.period
        self._times.append(now)
        self._step()
        return True

    def _step(self) -> None:
        taps = [key for key in self._tapped if key not in self._held]
        self._tapped = []
        self.session.advance([*taps, *self._held])
        took = self.session.step_seconds
        self._took = took if self._took == 0 else 0.9 * self._took + 0.1 * took

    def _begin(self, how: Any) -> None:
        how()
        self._over_since = None
        self._times.clear()
        self._drop_input()

    def _command(self, key: int, text: str, now: float) -> None:
        """A key of the window's own (see :data:`neuralsim.envs.hud.CONTROLS`)."""
        session = self.session
        letter = text if text in ("+", "-", "=", ".") and text else chr(key) if 0 < key < 128 else ""
        if key == ESCAPE:
            self.open = False
        elif letter == "p":
            session.toggle_pause()
        elif letter in ("n", "."):
            session.paused = True
            self._step()
        elif key == BACKSPACE:
            self._rewinding = now
        elif letter == "r":
            self._begin(session.restart)
        elif key in (TAB, RETURN, self.pygame.K_KP_ENTER):
            self._begin(session.next_start)
        elif letter in ("+", "=") or key == self.pygame.K_KP_PLUS:
            session.change_sampling_steps(2)
        elif letter == "-" or key == self.pygame.K_KP_MINUS:
            session.change_sampling_steps(0.5)
        elif letter == "v":
            session.toggle_recording()
            print(session.notice, flush=True)
