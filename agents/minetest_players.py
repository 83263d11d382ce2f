"""Programmed Minetest players: one that fells trees, and the mix that recordings for training are made with.

They know where they are and look from ``info`` (see :class:`neuralsim.envs.minetest.MinetestEnv`), and of the land only
what they run into. What a player does at a time is a behaviour: a generator that yields one action after the other.
Angles are in degrees (yaw 0 looks along +z, 90 along +x; pitch down is positive), lengths in nodes, times in steps.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from neuralsim.agents.policies import Policy
from neuralsim.envs.minerl_spaces import HOTBAR
from neuralsim.envs.minetest.inputs import KEYS

EYE_HEIGHT = 1.47
"""Of the eyes above the feet, in the Minetest Game."""
REACH = 4.0
"""How far from the eyes a block can be dug."""
WATER = 0.4
"""Feet below this height are mostly in water, which stands up to 1: or else in a pit, where jumping does no harm."""

DIGGERS = {"treechop": (1,), "dig": (1, 2, 3), "explore": (1, 2, 3)}
"""By task the slots of the hotbar with a tool."""
AXES = {"treechop": 1, "dig": 3, "explore": 3}
"""By task the slot with an axe."""
BLOCKS = {"explore": (4, 5)}
"""By task the slots with blocks to place."""
FELLING = ("treechop", "explore")
"""Tasks in which the game tells where the nearest log is."""

_STUCK = 0.05  # nodes per step: who walks and gets on less than this has met something

Action = dict[str, Any]
Behaviour = Iterator[Action]


class MinetestPlayer(Policy):
    """What all players share: how to turn, to walk and to get past obstacles.

    Args:
        space: Actions of the environment: ``camera`` and buttons.
        seed: Seed of what it does.

    Raises:
        ValueError: If these are not the actions of a Minetest environment.
    """

    name = "minetest"
    needs_info = True

    def __init__(self, space: spaces.Space, seed: int | None = None) -> None:
        parts = space.spaces if isinstance(space, spaces.Dict) else {}
        camera = parts.get("camera")
        if not isinstance(camera, spaces.Box) or not {"forward", "jump", "attack"} <= set(parts):
            raise ValueError(f"Minetest players need a camera and the buttons forward, jump and attack, not {space}")
        self.limit = float(camera.high.min())
        self.buttons = [name for name in parts if name != "camera"]
        self.rng = np.random.default_rng(seed)
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Begins an episode; without a seed the random stream goes on."""
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.info: dict[str, Any] = {}
        self.last_position: np.ndarray | None = None
        self.slow = 0  # steps for which it has walked and hardly moved
        self.walks = False
        self.agility = self.rng.uniform(0.12, 0.35)  # share of what is left of a turn that is made in a step
        self.behaviour: Behaviour = iter(())

    def act(self, frame: np.ndarray, info: dict[str, Any]) -> Action:
        """The next action of what it is doing.

        Raises:
            ValueError: If the info does not tell position and look.
        """
        if not {"position", "yaw", "pitch"} <= set(info):
            raise ValueError("Minetest players must be told position, yaw and pitch in info, as the game tells them")
        self.info = info
        position = np.asarray(info["position"], float)
        moved = np.inf if self.last_position is None else float(np.hypot(*(position - self.last_position)[[0, 2]]))
        self.slow = self.slow + 1 if self.walks and moved < _STUCK else 0
        self.last_position = position
        action = next(self.behaviour, None)
        if action is None:
            self.behaviour = self.choose()
            action = next(self.behaviour, None) or self.press()
        self.walks = bool(action.get("forward", 0))
        return action

    @abstractmethod
    def choose(self) -> Behaviour:
        """What to do next."""

    # Ways to act

    def press(self, *buttons: str, pitch: float = 0.0, yaw: float = 0.0) -> Action:
        """An action with these buttons, as far as there are such, and a turn of the camera, as far as it goes."""
        turn = np.clip([pitch, yaw], -self.limit, self.limit).astype(np.float32)
        return {**{name: int(name in buttons) for name in self.buttons}, "camera": turn}

    def turn(self, yaw: float, pitch: float, *buttons: str, jitter: float = 0.3) -> Action:
        """Turns towards a look, faster while far from it, as a hand on a mouse does."""
        left = angle_between(self.info["yaw"], yaw)
        down = pitch - self.info["pitch"]
        shake = self.rng.normal(0, jitter, 2) if jitter else (0.0, 0.0)
        # The last bit is made at once: what one aims at shall be hit.
        share = [1.0 if abs(rest) < 1 else max(self.agility, 1 / abs(rest)) for rest in (down, left)]
        return self.press(*buttons, pitch=share[0] * down + shake[0], yaw=share[1] * left + shake[1])

    def walk(self, yaw: float, pitch: float, *buttons: str) -> Action:
        """Walks where it looks: jumps where it gets on no more, and swims in water."""
        keys = ["forward", *buttons]
        if self.slow > 2 or (self.swims() and self.rng.random() < 0.9):
            keys.append("jump")
        return self.turn(yaw, pitch, *keys)

    def swims(self) -> bool:
        """Whether it is in water, as far as its height tells."""
        return float(self.info["position"][1]) < WATER

    def look_at(self, target: np.ndarray) -> tuple[float, float, float]:
        """Yaw and pitch of the look at a place, and how far it is from the eyes."""
        way = np.asarray(target, float) - np.asarray(self.info["position"], float) - [0, EYE_HEIGHT, 0]
        across = math.hypot(way[0], way[2])
        return (
            math.degrees(math.atan2(way[0], way[2])) % 360,
            -math.degrees(math.atan2(way[1], across)),
            math.hypot(across, way[1]),
        )


class TreeFeller(MinetestPlayer):
    """Fells trees in ``Minetest-Treechop-v0``: walks to the nearest log, digs it, goes on to the next."""

    name = "tree-feller"

    def choose(self) -> Behaviour:
        """The nearest log, or a walk where there is none."""
        return self.fell() if "target" in self.info else self.stroll(int(self.rng.integers(30, 80)))

    def fell(self, patience: int = 90) -> Behaviour:
        """Walks to the nearest log and digs it; gives it up after ``patience`` steps that bring nothing."""
        target, left, nearest = np.array(self.info["target"], float), patience, math.inf
        while "target" in self.info and np.array_equal(self.info["target"], target):
            yaw, pitch, far = self.look_at(target)
            if far < nearest - 0.2:  # it gets nearer
                nearest, left = far, patience
            left -= 1
            if left < 0:
                break
            aimed = abs(angle_between(self.info["yaw"], yaw)) < 6 and abs(pitch - self.info["pitch"]) < 6
            across = math.hypot(target[0] - self.info["position"][0], target[2] - self.info["position"][2])
            if far < REACH - 0.4 or across < 0.8:
                # At a log above, a step back shows it better than a look straight up.
                back = ("back",) if across < 0.8 and pitch < -60 else ()
                yield self.turn(yaw, pitch, *(("attack",) if aimed else ()), *back, jitter=0.1)
            else:
                # What bars the way, mostly leaves, is dug through.
                bars = ("attack",) if self.slow > 6 else ()
                yield self.walk(yaw, float(np.clip(pitch, -20, 30)), *bars)
        if left < 0:
            yield from self.stroll(int(self.rng.integers(40, 100)))

    def stroll(self, steps: int) -> Behaviour:
        """Walks along a way that winds, and turns away from what it cannot pass."""
        yaw, pitch = (self.info["yaw"] + self.rng.uniform(-120, 120)) % 360, self.rng.uniform(-5, 15)
        for _ in range(steps):
            yaw += self.rng.normal(0, 2)
            if self.slow > 25:
                yaw = self.info["yaw"] + self.rng.choice((-1, 1)) * self.rng.uniform(60, 150)
                self.slow = 0
            yield self.walk(yaw, pitch)


class MinetestMix(TreeFeller):
    """Plays Minetest in many ways, so that a recording holds what a world must have seen.

    Each episode has a personality; within it behaviours of some seconds follow each other. Trees are felled where the
    game tells where they are, and blocks placed where there are some and a button for it.

    Args:
        space: Actions of the environment.
        task: Which task it is (:mod:`neuralsim.envs.minetest.tasks`).
        seed: Seed of what it does.
    """

    BEHAVIOURS: ClassVar[tuple[str, ...]] = ("stroll", "run", "look", "fell", "dig", "place", "fidget", "rest")
    PERSONALITIES: ClassVar[dict[str, tuple[float, tuple[float, ...]]]] = {
        # How often it comes up, and how often it does each of the above.
        "wanderer": (0.35, (5, 3, 3, 1, 0.5, 0.3, 0.7, 0.3)),
        "looker": (0.15, (1, 0.5, 6, 0.5, 0.5, 0.3, 2, 0.6)),
        "feller": (0.25, (1, 0.5, 1, 8, 0.5, 0, 0.5, 0.2)),
        "digger": (0.15, (1.5, 0.5, 1, 1, 5, 2, 0.7, 0.2)),
        "fidget": (0.10, (1, 0.5, 1, 0.5, 0.5, 0.5, 6, 0.5)),
    }
    """Names, probabilities, and weights of :attr:`BEHAVIOURS`."""

    def __init__(self, space: spaces.Space, task: str = "explore", seed: int | None = None) -> None:
        self.task = task
        super().__init__(space, seed)

    def reset(self, seed: int | None = None) -> None:
        """Begins an episode with a new personality."""
        super().reset(seed)
        names = list(self.PERSONALITIES)
        shares = np.array([self.PERSONALITIES[name][0] for name in names])
        self.personality = names[self.rng.choice(len(names), p=shares / shares.sum())]
        self.name = f"minetest-mix/{self.personality}"

    def choose(self) -> Behaviour:
        """One of the behaviours that are possible here."""
        weights = dict(zip(self.BEHAVIOURS, self.PERSONALITIES[self.personality][1], strict=True))
        if self.task not in FELLING or "target" not in self.info:
            weights["fell"] = 0
        if self.task not in BLOCKS or "use" not in self.buttons:
            weights["place"] = 0
        shares = np.array(list(weights.values()))
        kind = list(weights)[self.rng.choice(len(shares), p=shares / shares.sum())]
        steps = int(self.rng.integers(20, 120))
        ways: dict[str, Callable[[], Behaviour]] = {
            "stroll": lambda: self.stroll(steps),
            "run": lambda: self.run(steps),
            "look": lambda: self.look(steps),
            "fell": self.fell_some,
            "dig": lambda: self.dig(steps),
            "place": self.place,
            "fidget": lambda: self.fidget(steps),
            "rest": lambda: self.rest(steps // 4),
        }
        return ways[kind]()

    def run(self, steps: int) -> Behaviour:
        """Sprints, with a jump now and then."""
        yaw = self.info["yaw"]
        for _ in range(steps):
            yaw += self.rng.normal(0, 3)
            if self.slow > 20:
                yaw, self.slow = self.info["yaw"] + self.rng.uniform(90, 270), 0
            yield self.walk(yaw, 5.0, "sprint", *(("jump",) if self.rng.random() < 0.05 else ()))

    def look(self, steps: int) -> Behaviour:
        """Looks around, from one thing to the next, mostly standing."""
        while steps > 0:
            yaw = self.info["yaw"] + self.rng.normal(0, 60)
            pitch = float(np.clip(self.rng.normal(5, 25), -70, 80))
            keys = ("forward",) if self.rng.random() < 0.3 else ()
            for _ in range(min(steps, int(self.rng.integers(5, 30)))):
                steps -= 1
                yield self.turn(yaw, pitch, *keys)

    def fell_some(self) -> Behaviour:
        """Fells a log or two, with an axe in its hand."""
        yield from self._take(AXES[self.task])
        for _ in range(int(self.rng.integers(1, 4))):
            if "target" in self.info:
                yield from self.fell()

    def dig(self, steps: int) -> Behaviour:
        """Digs what is before its feet or straight ahead, and goes on into it."""
        yield from self._take(*DIGGERS.get(self.task, ()))
        yaw, pitch = self.info["yaw"] + self.rng.normal(0, 30), self.rng.choice((10.0, 35.0, 50.0, 75.0))
        for step in range(steps):
            yield self.turn(yaw, pitch, "attack", *(("forward",) if step % 20 > 14 else ()), jitter=0.1)

    def place(self) -> Behaviour:
        """Puts some blocks where it looks."""
        yield from self._take(*BLOCKS[self.task])
        yaw, pitch = self.info["yaw"] + self.rng.normal(0, 30), self.rng.uniform(25, 60)
        for _ in range(int(self.rng.integers(2, 8))):
            yaw += self.rng.normal(0, 15)
            for step in range(12):
                yield self.turn(yaw, pitch, *(("use",) if step == 8 else ()))
            if self.rng.random() < 0.4:
                yield self.press("back")

    def fidget(self, steps: int) -> Behaviour:
        """Holds buttons and turns that have no purpose: what every button does shows here."""
        idle = {"attack", "ESC", "drop", *HOTBAR}
        moves = [name for name in self.buttons if name in KEYS and name not in idle]
        while steps > 0:
            held = [name for name in moves if self.rng.random() < 0.25]
            if self.rng.random() < 0.15:
                held.append("attack")
            pitch, yaw = self.rng.normal(0, 1.5), self.rng.normal(0, 4)
            for _ in range(min(steps, int(self.rng.integers(2, 14)))):
                steps -= 1
                # The look comes back from the sky and from the feet.
                yield self.press(*held, pitch=pitch - 0.02 * self.info["pitch"], yaw=yaw)

    def rest(self, steps: int) -> Behaviour:
        """Does nothing."""
        for _ in range(max(1, steps)):
            yield self.press()

    def _take(self, *slots: int) -> Behaviour:
        """Takes something out of one of these slots into the hand, where there are buttons for it."""
        there = [f"hotbar.{slot}" for slot in slots if f"hotbar.{slot}" in self.buttons]
        if there:
            yield self.press(there[int(self.rng.integers(len(there)))])


def angle_between(yaw: float, other: float) -> float:
    """Degrees to turn right from one yaw to another, -180 to 180."""
    return (other - yaw + 180) % 360 - 180
