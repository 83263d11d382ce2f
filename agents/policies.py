"""What plays while recording: the interface of a policy, and policies by name, as on the command line."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

POLICIES = {
    "random": "every action equally likely, drawn anew each step",
    "sticky-random": "a random action held for 1 to 12 steps",
    "noop": "always the environment's first action (zero, for continuous ones)",
    "scripted": "a programmed player that knows the game (Pong); its skill changes from episode to episode",
    "scripted=SKILL": "the same with a fixed skill from 0 (hopeless) to 1 (near perfect)",
    "pong-mix": "Pong played in many ways, strong and weak, wild and idle: made for training a world",
    "pong-idle": "Pong played by somebody who rests, and now and then goes to rest elsewhere",
    "tree-feller": "fells trees in Minetest-Treechop-v0: walks to the nearest log, digs it, and on to the next",
    "minetest-mix": "Minetest played in many ways: walks, looks, climbs, swims, digs, builds, fells; for recordings",
    "agent=PATH": "an agent that neuralsim agent train made: a run's folder, or one of its files",
    "sb3=PATH.zip": "a Stable-Baselines3 model",
    "keyboard": "you, in a window (one process)",
}
"""Names that :func:`make_policy` knows, and what they do."""


class PlayerQuit(Exception):
    """Raised by :meth:`Policy.act` when a human player leaves."""


class Policy(ABC):
    """Plays episodes.

    Attributes:
        name: Stored with every episode. It may change at a reset, where a policy has several personalities.
    """

    name: str = ""
    needs_info: bool = False
    """Whether it must be told in ``info`` what a frame does not show: such policies play real games only."""

    @abstractmethod
    def reset(self, seed: int | None = None) -> None:
        """Begins an episode; with the same seed a policy plays the same way."""

    @abstractmethod
    def act(self, frame: np.ndarray, info: dict[str, Any]) -> Any:
        """Chooses an action.

        Args:
            frame: The preprocessed frame ``(H, W, 3)`` uint8.
            info: The environment's info; ``info["labels"]`` holds ground truth where it is known.
        """

    def close(self) -> None:  # noqa: B027  (most policies hold nothing)
        """Releases what the policy holds."""


@dataclass(frozen=True)
class PolicyChoice:
    """One entry of a mix: a policy's name, its argument, and how often it plays."""

    name: str
    argument: str | None = None
    weight: float = 1.0

    def __str__(self) -> str:
        return self.name if self.argument is None else f"{self.name}={self.argument}"


def parse_policies(texts: tuple[str, ...] | list[str]) -> list[PolicyChoice]:
    """Reads ``NAME``, ``NAME:WEIGHT``, ``NAME=ARGUMENT`` or ``NAME=ARGUMENT:WEIGHT``.

    Raises:
        ValueError: For an unknown name or a weight that is no positive number.
    """
    known = {name.partition("=")[0] for name in POLICIES}
    choices = []
    for text in texts:
        body, weight = text, 1.0
        head, colon, tail = text.rpartition(":")
        if colon:
            try:
                weight, body = float(tail), head
            except ValueError:
                if "=" not in head:  # C:\model.zip has a colon of its own
                    raise ValueError(f"policy {text!r}: the weight {tail!r} is no number; "
                                     "write NAME:WEIGHT, for example random:0.2") from None  # fmt: skip
        name, _, argument = body.partition("=")
        if name not in known:
            raise ValueError(f"unknown policy {name!r}; choose from {', '.join(POLICIES)}")
        if not 0 < weight < float("inf"):
            raise ValueError(f"policy {text!r}: the weight must be a positive number")
        choices.append(PolicyChoice(name, argument or None, weight))
    if not choices:
        raise ValueError(f"no policy given; choose from {', '.join(POLICIES)}")
    return choices


def make_policy(choice: PolicyChoice | str, env: gym.Env) -> Policy:
    """Makes a policy that plays ``env`` (see :data:`POLICIES`).

    Raises:
        ValueError: If the policy does not fit the environment.
        ModuleNotFoundError: If it needs an extra that is not installed.
    """
    if isinstance(choice, str):
        (choice,) = parse_policies([choice])
    if choice.name in ("scripted", "pong-mix", "pong-idle"):
        return _pong_policy(choice, env)
    if choice.name in ("tree-feller", "minetest-mix"):
        return _minetest_policy(choice, env)
    if choice.name == "agent":
        from neuralsim.agents.learned import LearnedPolicy

        if choice.argument is None:
            raise ValueError("say which agent plays: --policy agent=PATH")
        return LearnedPolicy(choice.argument, env)
    if choice.name == "sb3":
        from neuralsim.agents.sb3 import StableBaselinesPolicy

        if choice.argument is None:
            raise ValueError("say which model plays: --policy sb3=PATH.zip")
        return StableBaselinesPolicy(choice.argument, env.action_space)
    if choice.argument is not None:
        raise ValueError(f"policy {choice.name!r} takes no argument, but got {choice.argument!r}")
    if choice.name == "keyboard":
        from neuralsim.agents.keyboard import KeyboardPolicy

        return KeyboardPolicy(env)
    from neuralsim.agents.random import NoopPolicy, RandomPolicy, StickyRandomPolicy

    kinds = {"random": RandomPolicy, "sticky-random": StickyRandomPolicy, "noop": NoopPolicy}
    return kinds[choice.name](env.action_space)


def _pong_policy(choice: PolicyChoice, env: gym.Env) -> Policy:
    from neuralsim.agents.scripted import PONG_ACTIONS, PongIdle, PongMix, PongPlayer

    get_meanings = getattr(env.unwrapped, "get_action_meanings", None)
    meanings = get_meanings() if get_meanings else None
    name = env.spec.id if env.spec else str(env)
    if "Pong" not in name or not isinstance(env.action_space, spaces.Discrete) or meanings != PONG_ACTIONS:
        raise ValueError(
            f"policy {choice.name!r} plays only Atari Pong with the actions {PONG_ACTIONS}, and this is {name} "
            f"with {meanings or env.action_space}; use random, sticky-random, sb3=PATH.zip or keyboard"
        )
    if choice.name in ("pong-mix", "pong-idle"):
        return PongMix() if choice.name == "pong-mix" else PongIdle()
    if choice.argument is None:
        return PongPlayer(skill=None)
    try:
        return PongPlayer(skill=float(choice.argument))
    except ValueError:
        raise ValueError(f"scripted={choice.argument}: the skill must be a number from 0 to 1") from None


def _minetest_policy(choice: PolicyChoice, env: gym.Env) -> Policy:
    from neuralsim.agents.minetest_players import MinetestMix, TreeFeller
    from neuralsim.envs.minetest import MinetestEnv

    game = env.unwrapped
    if choice.argument is not None:
        raise ValueError(f"policy {choice.name!r} takes no argument, but got {choice.argument!r}")
    if not isinstance(game, MinetestEnv) or (choice.name == "tree-feller" and game.task.name != "treechop"):
        where = "Minetest-Treechop-v0" if choice.name == "tree-feller" else "Minetest"
        name = env.spec.id if env.spec else str(env)
        raise ValueError(f"policy {choice.name!r} plays only {where}, and this is {name}; use random or sticky-random")
    if choice.name == "tree-feller":
        return TreeFeller(game.action_space)
    return MinetestMix(game.action_space, game.task.name)
