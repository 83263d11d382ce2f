"""Policies at play, many lanes in step, in the dream and in the real game alike: they see frames and nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
from torch import Tensor

from neuralsim.agents.policies import Policy, make_policy
from neuralsim.envs.real import make_real
from neuralsim.world import World


@dataclass(frozen=True)
class Moment:
    """What one step brought to N lanes.

    Attributes:
        frames: ``(N, H, W, 3)`` uint8, after the step.
        rewards: ``(N,)``.
        ended: ``(N,)`` bool; the next frame of that lane is of a new episode, if it is played on.
        latents: ``(N, h, w, c)``, the world's own code of dreamed frames, fewer where fewer lanes are still played;
            None in reality.
    """

    frames: np.ndarray
    rewards: np.ndarray
    ended: np.ndarray
    latents: Tensor | None = None


@dataclass
class Play:
    """Many lanes of play.

    Attributes:
        frames: ``(N, T, H, W, 3)`` uint8, after each step.
        rewards: ``(N, T)``.
        ended: ``(N, T)`` bool; the next frame of that lane is of a new episode.
    """

    frames: np.ndarray
    rewards: np.ndarray
    ended: np.ndarray

    @classmethod
    def of(cls, moments: Iterable[Moment]) -> Play:
        """Keeps all moments of a play."""
        rows = [(moment.frames, moment.rewards, moment.ended) for moment in moments]
        return cls(*(np.stack(column, axis=1) for column in zip(*rows, strict=True)))


def dream_play(
    world: World,
    players: Sequence[Policy],
    steps: int,
    sampling_steps: int,
    seed: int = 0,
    shuffled: bool = False,
    once: bool = False,
    progress: Callable[[], None] | None = None,
) -> Iterator[Moment]:
    """Players, each in its own dream from a start at the beginning of a game.

    Args:
        world: The world; it needs starts.
        players: One per lane; reset with ``seed + lane``.
        steps: How many.
        sampling_steps: Sampling steps K.
        seed: Draws starts and noise.
        shuffled: A control: each step, what the players chose is shuffled among the lanes. Among many lanes hardly
            anything that a policy does shows in its own.
        once: Whether the play of a lane is over with its first episode. It shows the last frame from then on, ended
            and without a reward, and costs nothing; for readers that look at first episodes only.
        progress: Called after each step.

    Yields:
        What each step brought.
    """
    beginnings = [i for i, start in enumerate(world.starts) if start.kind == "beginning"] or range(len(world.starts))
    lanes, rng = len(players), np.random.default_rng(seed)
    chosen = [int(beginnings[i]) for i in rng.integers(len(beginnings), size=lanes)]
    first = [world.starts[i].frames[-1] for i in chosen]
    state = type(world.start_at(chosen[0])).stack([world.start_at(i, seed=seed + n) for n, i in enumerate(chosen)])
    for lane, player in enumerate(players):
        player.reset(seed + lane)
    current, ended = np.stack(first), np.zeros(lanes, np.bool_)
    playing = list(range(lanes))
    for t in range(steps):
        actions = np.stack([world.actions.encode(players[lane].act(current[lane], {})) for lane in playing])
        if shuffled:
            actions = rng.permutation(actions)
        state, said = world.step(state, world.actions.decode(actions), steps=sampling_steps)
        current = current.copy()  # players may keep the frames that they were shown
        current[playing] = world.decode(said.latent).cpu().numpy()
        rewards = np.zeros(lanes, np.float32)
        rewards[playing] = said.reward.cpu().numpy()
        over = said.terminated.cpu().numpy()
        if world.config.max_episode_steps is not None:
            over = over | (state.step.numpy() >= world.config.max_episode_steps)
        ended[playing] = over
        yield Moment(current.copy(), rewards, ended.copy(), said.latent)
        if progress is not None:
            progress()
        if once:
            state, playing = state.select(np.flatnonzero(~over).tolist()), np.flatnonzero(~ended).tolist()
            if not playing:
                return
        else:
            for lane in map(int, np.flatnonzero(over)):
                again = world.start_at(chosen[lane], seed=seed + 7919 * (t + 1) + lane)
                state = state.replace([lane], again)
                current[lane] = first[lane]
                players[lane].reset()


def real_play(
    world: World,
    players: Sequence[Policy],
    steps: int,
    seed: int = 0,
    once: bool = False,
    progress: Callable[[], None] | None = None,
) -> Iterator[Moment]:
    """The same players in the real environment that the world was learned from.

    Args:
        world: The world.
        players: One per lane; reset with ``seed + lane``, as its environment is.
        steps: How many.
        seed: See above.
        once: As in :func:`dream_play`.
        progress: Called after each step.

    Yields:
        What each step brought.
    """
    with contextlib.ExitStack() as stack:
        envs = [stack.enter_context(contextlib.closing(real_game(world))) for _ in players]
        for lane, player in enumerate(players):
            player.reset(seed + lane)
        current = [env.reset(seed=seed + lane)[0] for lane, env in enumerate(envs)]
        ended = np.zeros(len(players), np.bool_)
        for _ in range(steps):
            rewards = np.zeros(len(players))
            for lane, (env, player) in enumerate(zip(envs, players, strict=True)):
                if once and ended[lane]:
                    continue
                if ended[lane]:
                    current[lane], _ = env.reset()
                    player.reset()
                current[lane], rewards[lane], terminated, truncated, _ = env.step(player.act(current[lane], {}))
                ended[lane] = terminated or truncated
            yield Moment(np.stack(current), rewards, ended.copy())
            if progress is not None:
                progress()
            if once and ended.all():
                return


def make_players(world: World, names: Iterable[str]) -> list[Policy]:
    """Players of the world's real environment, as :func:`~neuralsim.agents.policies.make_policy` reads their names.

    Raises:
        ValueError: If one does not fit that environment, or must be told what no dream tells.
    """
    with contextlib.closing(real_game(world)) as env:
        players = [make_policy(name, env) for name in names]
    for player in players:
        if player.needs_info:
            raise ValueError(
                f"policy {player.name!r} must be told what only the real game knows, and cannot play in a dream; "
                "choose one that sees frames alone"
            )
    return players


def real_game(world: World) -> gym.Env:
    """The real environment as the world's recordings show it."""
    return make_real(world.config.env_id, world.config.env_kwargs, world.config.preprocessing)
