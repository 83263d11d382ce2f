"""Programmed Pong players: one whose skill can be set, and the mix that recordings for training are made with.

They play from ground truth where ``info["labels"]`` offers it, otherwise from the 64x64 frame alone, so that they
also play inside a dream. Positions are in pixels of the 64x64 frame, velocities in pixels per step (4 screens).
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from neuralsim.agents.policies import Policy

PONG_ACTIONS = ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"]
"""The action set these players know; RIGHT is up."""

_NOOP, _FIRE, _UP, _DOWN, _FIRE_OFFSET = 0, 1, 2, 3, 2

# The court in frame pixels: where the ball's centre turns round, and where the paddle meets it.
_TOP, _BOTTOM, _CONTACT_X = 9.25, 58.5, 55.1
_WALL = 12.5  # nearer to a wall than this (68 - this at the bottom) the ball may have bounced within the step

# How the paddle moves, fitted on the console: v(t+1) = _KEEP v(t) + _NOW u(t) + _LATER u(t-1), u = -1, 0 or 1.
_KEEP, _NOW, _LATER = 0.26, 2.9, 2.13
_TAP = 6.7  # so that a single tap from rest moves it by this in the end
_PLANS = np.array(list(itertools.product((0, -1, 1), repeat=4)))  # (81, 4) moves of the next four steps


@dataclass(frozen=True)
class Style:
    """How a :class:`PongPlayer` plays.

    Attributes:
        aim_error: Standard deviation of the error in where it expects the ball, drawn once per approach.
        edge: Share of returns hit with the paddle's edge, which sends the ball off steeply and fast.
        lapse: Probability of a random action in a step.
        anticipates: Share of approaches in which it goes to where the ball will arrive; otherwise it follows it.
        restless: Probability of a random move in a step while there is time: the ball is away or far off.
        fire: Probability of pressing the button along with a move.
    """

    aim_error: float
    edge: float
    lapse: float
    anticipates: float
    restless: float = 0.0
    fire: float = 0.05

    @classmethod
    def of_skill(cls, skill: float) -> Style:
        """From 0 (hopeless) to 1 (near perfect)."""
        weakness = 1.0 - skill
        return cls(
            aim_error=7.0 * weakness**1.3,
            edge=0.35 + 0.6 * skill,
            lapse=0.35 * weakness**2,
            anticipates=min(1.0, 0.15 + 1.1 * skill),
        )


class PongPlayer(Policy):
    """Plays the right paddle of Atari Pong.

    Args:
        skill: From 0 (hopeless) to 1 (near perfect); None draws a new one for each episode.
        seed: Seed of its errors.

    Raises:
        ValueError: If the skill lies outside [0, 1].
    """

    def __init__(self, skill: float | None = 0.9, seed: int | None = None) -> None:
        if skill is not None and not 0.0 <= skill <= 1.0:
            raise ValueError(f"skill {skill} must lie between 0 (hopeless) and 1 (near perfect)")
        self.skill = skill
        self.rng = np.random.default_rng(seed)
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Begins an episode; without a seed the random stream goes on."""
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        skill = self.rng.uniform() if self.skill is None else self.skill
        self.name = "scripted" if self.skill is None else f"scripted={self.skill:g}"
        self.play(Style.of_skill(skill))

    def play(self, style: Style) -> None:
        """Goes on in another style."""
        self.style = style
        self.last_ball: tuple[float, float] | None = None
        self.last_paddle: float | None = None
        self.velocity: tuple[float, float] | None = None
        self.approaching = False
        self.pushed = 0  # the last move: -1 up, 1 down
        self._new_aim()

    def act(self, frame: np.ndarray, info: dict[str, Any]) -> int:
        """An action from 0 to 5, from ``info["labels"]`` or else from the frame ``(64, 64, 3)`` uint8."""
        ball, paddle = _look(frame, info)
        velocity = self._measure(ball)
        slide = 0.0 if paddle is None or self.last_paddle is None else paddle - self.last_paddle
        self.last_ball, self.last_paddle = ball, paddle
        if self.rng.random() < self.style.lapse:
            return self._random()
        approaching = velocity is not None and velocity[0] > 0
        if approaching and not self.approaching:
            self._new_aim()
        self.approaching = approaching
        far = ball is None or not approaching or ball[0] < 40
        if far and self.rng.random() < self.style.restless:
            return self._random()
        if paddle is None:
            return self._pressed(_UP if self.rng.random() < 0.5 else _DOWN)  # it lies beyond an edge
        if ball is None:
            return self._pressed(_NOOP)
        target, steps = ball[1], 9.0
        if approaching and self.velocity is not None:
            steps = max(0.0, (_CONTACT_X - ball[0]) / self.velocity[0])
            if self.anticipates:
                target = arrival(ball, self.velocity)
        return self._pressed({0: _NOOP, -1: _UP, 1: _DOWN}[self._move(target + self.offset, paddle, slide, steps)])

    def _move(self, target: float, paddle: float, slide: float, steps: float) -> int:
        """Where to move (-1 up, 1 down) so that the paddle is at ``target`` in so many steps."""
        if steps > 4:
            rest = paddle + slide * _KEEP / (1 - _KEEP) + _LATER / (1 - _KEEP) * self.pushed
            return 0 if abs(target - rest) < _TAP / 2 else int(np.sign(target - rest))
        position = np.full(len(_PLANS), paddle)
        speed, before = np.full(len(_PLANS), slide), np.full(len(_PLANS), self.pushed)
        for t in range(max(1, int(np.ceil(steps)))):
            speed = _KEEP * speed + _NOW * _PLANS[:, t] + _LATER * before
            position, before = position + speed, _PLANS[:, t]
        miss = np.abs(np.clip(position, _TOP, _BOTTOM) - target) + 0.01 * np.abs(_PLANS).sum(axis=1)
        return int(_PLANS[miss.argmin(), 0])

    def _measure(self, ball: tuple[float, float] | None) -> tuple[float, float] | None:
        """The ball's velocity; None while unknown."""
        before = self.last_ball
        if before is None or ball is None or abs(ball[0] - before[0]) > 8:  # a jump is a serve
            self.velocity = None
            return None
        dx, dy = ball[0] - before[0], ball[1] - before[1]
        if self.velocity is not None and not _WALL < min(ball[1], before[1]) <= max(ball[1], before[1]) < 68 - _WALL:
            # At a wall a step holds a part of both ways and the ball is half hidden: trust the speed from before.
            speed = abs(self.velocity[1])
            dy = np.copysign(speed, dy)
        self.velocity = (dx, float(dy))
        return self.velocity

    def _new_aim(self) -> None:
        # Steep returns, by trial: the paddle a little above the ball, or well below it.
        edge = -self.rng.uniform(0.4, 1.7) if self.rng.random() < 0.7 else self.rng.uniform(1.5, 2.2)
        inner = self.rng.uniform(-1.0, 1.0)
        wanted = edge if self.rng.random() < self.style.edge else inner
        self.offset = wanted + self.rng.normal(0.0, self.style.aim_error)
        self.anticipates = self.rng.random() < self.style.anticipates

    def _random(self) -> int:
        action = int(self.rng.integers(6))
        self.pushed = (0, 0, -1, 1, -1, 1)[action]
        return action

    def _pressed(self, action: int) -> int:
        self.pushed = {_UP: -1, _DOWN: 1}.get(action, 0)
        if self.rng.random() >= self.style.fire:
            return action
        return _FIRE if action == _NOOP else action + _FIRE_OFFSET


class PongMix(Policy):
    """Plays Pong in many ways, so that a recording holds what a world must have seen.

    Each episode has a personality, and within it most change their style every 20 to 160 steps.
    """

    PERSONALITIES: ClassVar[dict[str, float]] = {
        "master": 0.36,  # wins
        "varied": 0.28,  # skill changes all the time
        "learner": 0.14,  # mostly tracks, with random offsets
        "wild": 0.10,  # holding, avoiding, random, idle
        "hopeless": 0.05,
        "random": 0.04,
        "still": 0.03,
    }
    """Names and probabilities."""

    def __init__(self, seed: int | None = None) -> None:
        self.rng = np.random.default_rng(seed)
        self.player = PongPlayer(0.5)
        self.held = 0  # steps for which a random action is still held
        self.action = _NOOP
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Begins an episode with a new personality."""
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.player.reset(int(self.rng.integers(2**31)))
        names = list(self.PERSONALITIES)
        self.personality = names[self.rng.choice(len(names), p=list(self.PERSONALITIES.values()))]
        self.name = f"pong-mix/{self.personality}"
        self._new_segment()

    def act(self, frame: np.ndarray, info: dict[str, Any]) -> int:
        """An action from 0 to 5."""
        if self.left == 0:
            self._new_segment()
        self.left -= 1
        tracked = self.player.act(frame, info)
        if self.kind == "track":
            return tracked
        if self.kind == "avoid":
            return {_UP: _DOWN, _DOWN: _UP, _UP + 2: _DOWN + 2, _DOWN + 2: _UP + 2}.get(tracked, tracked)
        if self.kind == "idle":
            return _NOOP
        if self.kind == "random" or self.held == 0:
            self.held = int(self.rng.integers(1, 12))
            self.action = int(self.rng.integers(6))
        self.held -= 1
        return self.action

    def _new_segment(self) -> None:
        kinds = {
            "master": {"track": 0.97, "hold": 0.01, "idle": 0.02},
            "varied": {"track": 0.88, "hold": 0.04, "avoid": 0.03, "random": 0.03, "idle": 0.02},
            "learner": {"track": 0.75, "hold": 0.10, "avoid": 0.05, "random": 0.05, "idle": 0.05},
            "wild": {"track": 0.35, "hold": 0.30, "avoid": 0.15, "random": 0.10, "idle": 0.10},
            "hopeless": {"track": 1.0},
            "random": {"random": 1.0},
            "still": {"idle": 1.0},
            "idle": {"idle": 0.8, "hold": 0.2},
        }[self.personality]
        skill = {
            "master": self.rng.uniform(0.92, 1.0),
            "varied": self.rng.uniform(0.5, 1.0),
            "learner": self.rng.uniform(0.5, 0.9),
            "hopeless": self.rng.uniform(0.0, 0.3),
        }.get(self.personality, 0.6)
        self.kind = list(kinds)[self.rng.choice(len(kinds), p=list(kinds.values()))]
        moves_on = self.personality == "idle" and self.kind == "hold"
        self.left = int(self.rng.integers(3, 15) if moves_on else self.rng.integers(20, 160))
        self.held = 0
        restless = float(self.rng.choice([0.0, 0.3, 0.6]))
        self.player.play(dataclasses.replace(Style.of_skill(skill), restless=restless))


class PongIdle(PongMix):
    """Rests, and now and then goes to rest elsewhere: what balls do to a paddle that does not follow them."""

    PERSONALITIES: ClassVar[dict[str, float]] = {"idle": 1.0}

    def reset(self, seed: int | None = None) -> None:
        """Begins an episode."""
        super().reset(seed)
        self.name = "pong-idle"


def arrival(ball: tuple[float, float], velocity: tuple[float, float]) -> float:
    """Where a ball ``(x, y)`` that flies right meets the paddle's line, bouncing off the walls on its way."""
    steps = max(0.0, (_CONTACT_X - ball[0]) / velocity[0])
    height = _BOTTOM - _TOP
    y = (ball[1] + velocity[1] * steps - _TOP) % (2 * height)
    return _TOP + (y if y <= height else 2 * height - y)


def _look(frame: np.ndarray, info: dict[str, Any]) -> tuple[tuple[float, float] | None, float | None]:
    labels = info.get("labels")
    if labels is None:
        from neuralsim.evaluation.pong_probes import probe

        labels = {name: values[0] for name, values in probe(frame[None]).items()}
    ball = (float(labels["ball_x"]), float(labels["ball_y"])) if labels["ball_present"] else None
    return ball, float(labels["player_y"]) if labels["player_present"] else None
