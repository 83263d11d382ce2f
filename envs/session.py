"""A game being played, without a window: an environment, its score, starts, pause, rewind and recording.

The window of ``neuralsim play`` shows a :class:`Session` and calls its methods; so can a test, or a notebook.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from neuralsim.envs.first_person import keys_of
from neuralsim.envs.keyboard import KeyMap
from neuralsim.envs.preprocessing import find_pixels
from neuralsim.envs.real import real_fps
from neuralsim.film import FilmWriter

MAX_SAMPLING_STEPS = 64
REWIND_SECONDS = 30.0
SNAPSHOTS_PER_SECOND = 3.0


@dataclass(frozen=True)
class Score:
    """What the screen says about the episode.

    Attributes:
        step: Steps taken in this episode.
        action: The last action, None before the first.
        reward: Of the last step.
        total: Sum of rewards.
        gained: Sum of the positive ones.
        lost: Sum of the negative ones, as a positive number.
        last_point: The last reward that was not zero.
        last_point_step: The step that gave it.
    """

    step: int = 0
    action: Any = None
    reward: float = 0.0
    total: float = 0.0
    gained: float = 0.0
    lost: float = 0.0
    last_point: float = 0.0
    last_point_step: int = -1_000_000

    def after(self, action: Any, reward: float) -> Score:
        """The score after one more step."""
        point = {"last_point": reward, "last_point_step": self.step + 1} if reward else {}
        return replace(
            self,
            step=self.step + 1,
            action=action,
            reward=reward,
            total=self.total + reward,
            gained=self.gained + max(reward, 0.0),
            lost=self.lost + max(-reward, 0.0),
            **point,  # type: ignore[arg-type]
        )


class Session:
    """One player at one environment.

    Args:
        env: Any environment with pictures as observations, or under a key of Dict observations, or with
            ``render_mode="rgb_array"``. A dream has
            more to offer: starts to choose from, and the number of sampling steps.
        seed: Seed of the first episode.
        start: Which recorded start the first dream begins from. Ignored for environments without starts.
        keys: What plays; by default what :func:`~neuralsim.envs.first_person.keys_of` finds.
        fps: Steps per second that are real time; by default the environment's own rate.
        recordings: Folder for films.
        film: "mp4", or "gif". Without the extra "video" mp4 becomes gif.
        film_scale: Enlargement of films.

    Attributes:
        frame: The picture now, ``(H, W, 3)`` uint8.
        score: The :class:`Score` now.
        over: Whether the episode ended, and ``ending`` says how.
        paused: Whether time stands still.
        notice: The last message for the player.
        notices: How many there have been, so that a window sees a new one.
        step_seconds: What the environment's last step took, without drawing and filming.

    Raises:
        ValueError: If the environment shows no pictures, or has no keys.
    """

    def __init__(
        self,
        env: gym.Env,
        seed: int = 0,
        start: int = 0,
        keys: KeyMap | None = None,
        fps: float | None = None,
        recordings: str | Path = "recordings",
        film: str = "mp4",
        film_scale: int = 4,
    ) -> None:
        self.env = env
        self.keys = keys or keys_of(env)
        self.fps = fps or getattr(getattr(env.unwrapped, "world", None), "fps", None) or real_fps(env)
        self.seed, self.recordings, self.film, self.film_scale = seed, Path(recordings), film, film_scale
        self.start: int | None = None
        if self.starts:
            if not 0 <= start < self.starts:
                raise ValueError(f"start {start} is not there: this world has starts 0 to {self.starts - 1}")
            self.start = start
        self.paused = self.over = False
        self.ending = self.notice = ""
        self.notices = self.episode = 0
        self.step_seconds = 0.0
        self.score = Score()
        self.writer: FilmWriter | None = None
        stride = max(1, round(self.fps / SNAPSHOTS_PER_SECOND))
        self._stride = stride
        self._past: deque[tuple[Any, np.ndarray, Score]] = deque(maxlen=int(REWIND_SECONDS * self.fps / stride))
        try:
            self._key = find_pixels(env.observation_space)
        except ValueError:  # no picture, or several
            self._key = None
        self._observation: Any = None
        self.frame: np.ndarray = np.zeros((1, 1, 3), np.uint8)
        self.restart()

    @property
    def name(self) -> str:
        """What is played: the environment's id, or the folder of the world."""
        spec = self.env.spec
        world = spec.kwargs.get("world") if spec is not None else None
        return Path(str(world)).name if world else getattr(spec, "id", type(self.env.unwrapped).__name__)

    @property
    def is_dream(self) -> bool:
        """Whether a world model is played, not the real thing."""
        return self.sampling_steps is not None

    @property
    def origin(self) -> str:
        """What a world says in its notice: what to know of where its weights come from. Empty for a real game."""
        return getattr(getattr(getattr(self.env.unwrapped, "world", None), "config", None), "notice", "")

    @property
    def starts(self) -> int:
        """How many recorded starts there are to dream from; 0 for a real game."""
        return len(getattr(getattr(self.env.unwrapped, "world", None), "starts", ()))

    @property
    def sampling_steps(self) -> int | None:
        """Sampling steps K per frame of a dream; None for a real game."""
        return getattr(self.env.unwrapped, "sampling_steps", None)

    @property
    def can_rewind(self) -> bool:
        """Whether the environment can be put back to an earlier state."""
        return hasattr(self.env.unwrapped, "clone_state") and hasattr(self.env.unwrapped, "restore_state")

    @property
    def recording(self) -> bool:
        """Whether a film is being written."""
        return self.writer is not None

    def restart(self) -> None:
        """Begins the same episode again: same start, same seed."""
        options = {} if self.start is None else {"start": self.start}
        observation, _ = self.env.reset(seed=self.seed, options=options)
        self._observation = observation
        self.score, self.over, self.ending = Score(), False, ""
        self.episode += 1
        self._past.clear()
        self._look()
        self._remember()

    def next_start(self) -> None:
        """Begins another episode: a dream from the next start, a real game with the next seed."""
        if self.start is None:
            self.seed += 1
        else:
            self.start = (self.start + 1) % self.starts
        self.restart()

    def advance(self, held: Sequence[int] = ()) -> None:
        """One step with the keys that are held; nothing when the episode is over.

        Args:
            held: Key codes in the order in which they were pressed.
        """
        self.step(self.keys.action(held))

    def step(self, action: Any) -> None:
        """One step with an action of the environment; nothing when the episode is over."""
        if self.over:
            return
        before = time.perf_counter()
        self._observation, reward, terminated, truncated, _ = self.env.step(action)
        self.step_seconds = time.perf_counter() - before
        self.score = self.score.after(action, float(reward))
        if terminated or truncated:
            self.over = True
            self.ending = "the game is over" if terminated else "the time is up"
        self._look()
        if self.score.step % self._stride == 0:
            self._remember()

    def rewind(self) -> None:
        """Goes back a third of a second or so, and stands still there.

        A film that is being recorded keeps what was seen.
        """
        if not self.can_rewind:
            self.say("this environment cannot be rewound")
            return
        self.paused = True
        if self._past[-1][2].step == self.score.step and len(self._past) > 1:
            self._past.pop()
        state, frame, score = self._past[-1]
        self.env.unwrapped.restore_state(state)  # type: ignore[attr-defined]
        self.frame, self.score, self.over = frame, score, False

    def toggle_pause(self) -> None:
        """Stops time, or lets it run again."""
        self.paused = not self.paused

    def change_sampling_steps(self, factor: float) -> None:
        """Multiplies K by 2 or 1/2, between 1 and 64; more steps are slower and sharper."""
        steps = self.sampling_steps
        if steps is None:
            self.say("sampling steps are a matter of dreams; this is the real game")
            return
        power = 2 ** round(np.log2(steps))
        wanted = min(MAX_SAMPLING_STEPS, max(1, int(power * factor)))
        try:
            self.env.unwrapped.sampling_steps = wanted  # type: ignore[attr-defined]
        except ValueError as error:
            self.say(str(error))

    def toggle_recording(self) -> None:
        """Begins a film, or finishes it; a notice says where it is."""
        if self.writer is None:
            self._begin_film()
        else:
            self.say(f"saving {self.writer.path} ...")
            writer, self.writer = self.writer, None
            try:
                path = writer.close()
            except (OSError, ValueError) as error:
                self.say(f"the film is lost: {error}")
            else:
                self.say(f"saved {path}: {writer.count / writer.fps:.0f} s, {file_size(path)}")

    def say(self, text: str) -> None:
        """Tells the player something."""
        self.notice = text
        self.notices += 1

    def close(self) -> None:
        """Finishes a film that is being recorded and closes the environment."""
        if self.writer is not None:
            self.toggle_recording()
        self.env.close()

    def _begin_film(self) -> None:
        slug = re.sub(r"[^A-Za-z0-9]+", "-", self.name).strip("-").lower()
        stem = f"{slug}-{time.strftime('%Y%m%d-%H%M%S')}"
        kinds = [self.film] if self.film == "gif" else [self.film, "gif"]
        for kind in kinds:
            path = self.recordings / f"{stem}.{kind}"
            serial = 1
            while path.exists():
                serial += 1
                path = self.recordings / f"{stem}-{serial}.{kind}"
            try:
                self.writer = FilmWriter(path, self.fps, self.film_scale)
            except ModuleNotFoundError as error:
                if kind == kinds[-1]:
                    raise
                missing = f" ({error})"
            except OSError as error:
                self.say(str(error))
                return
            else:
                self.writer.add(self.frame)
                self.say(f"recording {path}" + ("" if kind == kinds[0] else missing))
                return

    def _look(self) -> None:
        """Takes the picture of now, and adds it to the film."""
        told = self._observation
        if isinstance(told, dict):
            # Where there is render(), its picture is for people, and often larger than the one in the dict.
            told = np.zeros(0) if self.env.render_mode == "rgb_array" or self._key is None else told[self._key]
        seen: Any = np.asarray(told)
        if seen.dtype != np.uint8 or seen.ndim != 3 or seen.shape[2] != 3:
            seen = np.asarray(self.env.render() if self.env.render_mode == "rgb_array" else 0)
            if seen.ndim != 3 or seen.shape[2] != 3:
                raise ValueError(
                    f"{self.name} shows no pictures: its observations are {self.env.observation_space} and "
                    'it was not made with render_mode="rgb_array"'
                )
        self.frame = seen.astype(np.uint8, copy=False)
        if self.writer is not None:
            try:
                self.writer.add(self.frame)
            except (OSError, ValueError) as error:
                self.writer.discard()
                self.writer = None
                self.say(f"the film is lost: {error}")

    def _remember(self) -> None:
        if self.can_rewind:
            state = self.env.unwrapped.clone_state(include_rng=True)  # type: ignore[attr-defined]
            self._past.append((state, self.frame, self.score))


def file_size(path: Path) -> str:
    """Size of a file, readable: "84 kB", "1.6 MB"."""
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{max(1, round(size / 1e3))} kB"
