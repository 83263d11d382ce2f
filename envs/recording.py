"""Recording a real environment: policies play, episodes land in a store. ``neuralsim record --help``."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import tyro
from gymnasium import spaces

from neuralsim.actions import space_to_json
from neuralsim.agents.policies import PlayerQuit, Policy, make_policy, parse_policies
from neuralsim.data.episodes import DatasetInfo, Episode, EpisodeStore, stack_actions
from neuralsim.data.writer_lock import only_writer
from neuralsim.envs.preprocessing import Preprocess
from neuralsim.envs.real import make_real, read_env_kwargs, real_fps
from neuralsim.processes import SPAWN, Workers


@dataclass(frozen=True)
class RecordConfig:
    """Records a real environment being played.

    Run the same command again to continue after an interruption, or with more steps to add to a recording.
    Episode i is always played with seed + i, whatever the number of workers.

    Policies: random, sticky-random, noop, scripted, scripted=SKILL, pong-mix, pong-idle, tree-feller, minetest-mix,
    agent=PATH, sb3=PATH.zip, keyboard. Several make a mix; each may carry a weight, as in `--policy random:0.1
    scripted:0.9`.

    Example: neuralsim record ALE/Pong-v5 --steps 200000 --policy pong-mix --out data/pong
    --env-kwargs '{"repeat_action_probability": 0.0}'
    """

    env_id: Annotated[str, tyro.conf.Positional]
    """Id of the environment, e.g. ALE/Pong-v5."""
    out: Path
    """Folder of the dataset; an existing one is continued."""
    steps: int = 100_000
    """Steps the dataset shall hold in the end. The episode in progress is cut there (as truncated)."""
    policy: tuple[str, ...] = ("random",)
    """Who plays: NAME, NAME=ARGUMENT, each with :WEIGHT if you like."""
    workers: int = 1
    """Processes that play at the same time."""
    seed: int = 0
    """Seed of the first episode; give held-out recordings another range of seeds."""
    env_kwargs: str = "{}"
    """Arguments of the environment as JSON. For models of MineRL or Minetest narrow the camera, '{"camera_limit": 10}':
    they see actions scaled by their bounds, and next to 180 degrees the turns that people make are too small."""
    size: tuple[int, int] = (64, 64)
    """Height and width of the stored frames."""
    resample: str = "box"
    """Filter that resizes the screen: box (by area), nearest, bilinear, bicubic or lanczos."""
    crop: tuple[int, int, int, int] | None = None
    """Part of the screen to keep: top, left, height, width."""
    source: str = "observation"
    """observation, or render to record the environment's picture where its observations are no pixels."""
    key: str | None = None
    """Key of the pixels in Dict observations."""
    fps: float | None = None
    """Observations per second of play; by default what the environment says."""
    max_episode_steps: int | None = None
    """Cuts episodes after so many steps."""
    quiet: bool = False
    """Shows no progress."""

    def arguments(self) -> dict[str, Any]:
        """``env_kwargs`` read from JSON.

        Raises:
            ValueError: If it is no JSON object.
        """
        return read_env_kwargs(self.env_kwargs)

    def command(self) -> str:
        """The command line that makes this recording."""
        words = ["neuralsim", "record", self.env_id, "--steps", str(self.steps), "--policy", *self.policy]
        words += ["--seed", str(self.seed), "--out", str(self.out)]
        for name in ("env_kwargs", "resample", "source", "key", "fps", "max_episode_steps"):
            value = getattr(self, name)
            if value != type(self).__dataclass_fields__[name].default:
                words += ["--" + name.replace("_", "-"), str(value)]
        for name in ("size", "crop"):
            value = getattr(self, name)
            if value != type(self).__dataclass_fields__[name].default:
                words += ["--" + name, *map(str, value)]
        return shlex.join(words)


def record(config: RecordConfig) -> EpisodeStore:
    """Records until the dataset holds ``config.steps`` steps.

    Returns:
        The store.

    Raises:
        ValueError: For an unknown environment or policy, settings that make no sense, or a folder that holds a
            dataset recorded with other settings.
        OSError: If the disk is full or a worker died; finished episodes are kept.
    """
    _check(config)
    env = _make(config)
    try:
        info = _describe(config, env)
        for choice in parse_policies(config.policy):
            if choice.name != "keyboard":
                make_policy(choice, env).close()  # complain now rather than in a worker
    finally:
        env.close()
    store = _open(config, info)
    with only_writer(store):
        store.remove_partial_files()
        have = store.total_steps
        if have < config.steps:
            store.note_command(info.command)
            if config.workers == 1:
                _record_here(config, store, have)
            else:
                _record_with_workers(config, store, have)
    if not config.quiet:
        print(f"{len(store)} episodes, {store.total_steps} steps in {config.out}")
    return store


def play_episode(
    env: gym.Env, policy: Policy, seed: int, on_step: Callable[[], bool], max_steps: int | None = None
) -> tuple[Episode | None, bool]:
    """Plays one episode.

    Args:
        env: A :class:`Preprocess` environment.
        policy: Who plays.
        seed: For both.
        on_step: Called before each step; False cuts the episode there.
        max_steps: Cuts it after so many steps.

    Returns:
        The episode, or None if it has no step; and whether the player quit.
    """
    frame, info = env.reset(seed=seed)
    policy.reset(seed)
    frames, labels = [frame], [_labels(info)]
    actions: list[Any] = []
    rewards: list[float] = []
    terminated = truncated = quit_ = False
    while not (terminated or truncated) and (max_steps is None or len(actions) < max_steps):
        try:
            action = policy.act(frame, info)
        except PlayerQuit:
            quit_ = True
            break
        if not on_step():
            break
        frame, reward, terminated, truncated, info = env.step(action)
        frames.append(frame)
        labels.append(_labels(info))
        actions.append(action)
        rewards.append(float(reward))
    if not actions:
        return None, quit_
    last = np.arange(len(actions)) == len(actions) - 1
    names = set.intersection(*(set(values) for values in labels))  # what every frame has
    return Episode(
        frames=np.stack(frames),
        actions=stack_actions(env.action_space, actions),
        rewards=np.array(rewards, np.float32),
        terminated=last & bool(terminated),
        truncated=last & (not terminated),
        labels={name: np.array([values[name] for values in labels], np.float32) for name in sorted(names)},
        policy=policy.name,
        seed=seed,
    ), quit_


class _Counters:
    """What the workers share: steps played so far, the next episode, and whether to stop."""

    def __init__(self, context: Any, have: int, taken: list[int]) -> None:
        self.steps = context.Value("q", have)
        self.index = context.Value("q", 0)
        self.stop = context.Value("b", False)
        self.taken = frozenset(taken)

    def next_index(self) -> int:
        """An episode that is neither in the store nor being played."""
        with self.index.get_lock():
            while self.index.value in self.taken:
                self.index.value += 1
            self.index.value += 1
            return self.index.value - 1

    def step(self, limit: int) -> bool:
        """Counts a step; False if there is no room for another."""
        with self.steps.get_lock():
            if self.stop.value or self.steps.value >= limit:
                return False
            self.steps.value += 1
            return True


def _work(config: RecordConfig, store: EpisodeStore, counters: _Counters, tick: Callable[[], None]) -> None:
    env = _make(config)
    choices = parse_policies(config.policy)
    weights = np.array([choice.weight for choice in choices])
    policies: dict[int, Policy] = {}
    try:
        quit_ = False
        while not quit_ and not counters.stop.value and counters.steps.value < config.steps:
            index = counters.next_index()
            seed = config.seed + index
            which = int(np.random.default_rng([seed, 0]).choice(len(choices), p=weights / weights.sum()))
            if which not in policies:
                policies[which] = make_policy(choices[which], env)

            def on_step() -> bool:
                tick()
                return counters.step(config.steps)

            episode, quit_ = play_episode(env, policies[which], seed, on_step, config.max_episode_steps)
            if counters.stop.value:
                return
            if episode is not None:
                store.add(episode, index)
    finally:
        for policy in policies.values():
            policy.close()
        env.close()


def _record_here(config: RecordConfig, store: EpisodeStore, have: int) -> None:
    counters = _Counters(SPAWN, have, store.ids)
    with _progress(config, have) as show:
        shown = [time.monotonic()]

        def tick() -> None:
            if time.monotonic() - shown[0] > 0.2:
                shown[0] = time.monotonic()
                show(counters.steps.value)

        _work(config, store, counters, tick)
        show(counters.steps.value)


def _record_with_workers(config: RecordConfig, store: EpisodeStore, have: int) -> None:
    counters = _Counters(SPAWN, have, store.ids)
    with (
        Workers(config.workers, "recording", "finished episodes", _share, config, store, counters) as workers,
        _progress(config, have) as show,
    ):
        try:
            pending = {workers.submit(_run_worker) for _ in range(config.workers)}
            while pending:
                done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                show(counters.steps.value)
                for future in done:
                    future.result()
        finally:
            counters.stop.value = True


_shared: tuple[RecordConfig, EpisodeStore, _Counters] | None = None  # of a worker process


def _share(config: RecordConfig, store: EpisodeStore, counters: _Counters) -> None:
    global _shared
    _shared = (config, store, counters)


def _run_worker() -> None:
    assert _shared is not None
    _work(*_shared, tick=lambda: None)


@contextlib.contextmanager
def _progress(config: RecordConfig, have: int) -> Iterator[Callable[[int], None]]:
    if config.quiet:
        yield lambda steps: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("recording {task.fields[env_id]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps, left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task("record", total=config.steps, completed=have, env_id=config.env_id)
        yield lambda steps: progress.update(task, completed=steps)


def _check(config: RecordConfig) -> None:
    if config.steps < 1:
        raise ValueError(f"--steps {config.steps} must be at least 1")
    if config.workers < 1:
        raise ValueError(f"--workers {config.workers} must be at least 1")
    if not 0 <= config.seed < 2**31 - 10_000_000:
        raise ValueError(f"--seed {config.seed} must lie between 0 and {2**31 - 10_000_000}")
    if config.max_episode_steps is not None and config.max_episode_steps < 1:
        raise ValueError(f"--max-episode-steps {config.max_episode_steps} must be at least 1")
    if config.workers > 1 and any(choice.name == "keyboard" for choice in parse_policies(config.policy)):
        raise ValueError(f"one person plays one game: use --workers 1 with keyboard, not {config.workers}")


def _make(config: RecordConfig) -> gym.Env:
    settings = {
        "size": config.size,
        "resample": config.resample,
        "crop": config.crop,
        "source": config.source,
        "key": config.key,
    }
    return make_real(config.env_id, config.arguments(), settings)


def _describe(config: RecordConfig, env: gym.Env) -> DatasetInfo:
    assert isinstance(env, Preprocess)
    meanings = getattr(env.unwrapped, "get_action_meanings", None)
    keys = getattr(env.unwrapped, "get_keys_to_action", None)
    discrete = isinstance(env.action_space, spaces.Discrete)
    return DatasetInfo(
        env_id=config.env_id,
        env_kwargs=config.arguments(),
        action_space=space_to_json(env.action_space),
        frame_shape=(*env.size, 3),
        fps=real_fps(env) if config.fps is None else config.fps,
        preprocessing=env.settings,
        keys_to_action=_keys_as_json(keys()) if keys and discrete else None,
        action_meanings=list(meanings()) if meanings and discrete else None,
        command=config.command(),
        source={
            "policies": [f"{choice}:{choice.weight:g}" for choice in parse_policies(config.policy)],
            "seed": config.seed,
            "max_episode_steps": config.max_episode_steps,
        },
    )


def _keys_as_json(keys_to_action: dict[Any, Any]) -> list[Any]:
    """Pairs of pressed keys and action: ``[[["d", " "], 4], ...]``."""
    return [
        [list(keys) if isinstance(keys, (tuple, str)) else [keys], int(action)]
        for keys, action in keys_to_action.items()
    ]


def _open(config: RecordConfig, info: DatasetInfo) -> EpisodeStore:
    if not (config.out / "dataset.json").exists():
        return EpisodeStore.create(config.out, info)
    store = EpisodeStore.open(config.out)
    if joined := store.info.source.get("joined"):
        raise ValueError(
            f"{config.out} was joined from {', '.join(part['path'] for part in joined)}: record into a folder of its "
            "own, and join again (neuralsim data join)"
        )
    for name in ("env_id", "env_kwargs", "action_space", "frame_shape", "fps", "preprocessing", "source"):
        there, wanted = getattr(store.info, name), getattr(info, name)
        if there != wanted:
            raise ValueError(
                f"{config.out} was recorded with {name} {there}, and this call asks for {wanted}; repeat the call that "
                f"began it ({store.info.command}), with more --steps if you like, or choose another --out"
            )
    return store


def _labels(info: dict[str, Any]) -> dict[str, Any]:
    labels = info.get("labels")
    return labels if isinstance(labels, dict) else {}
