"""``neuralsim agent evaluate``: an agent plays whole episodes, in the real game or in a dream."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from neuralsim.actions import ActionCodec
from neuralsim.agents.agent import Agent
from neuralsim.agents.planners.mpc import MPC
from neuralsim.agents.planners.options import MPCOptions, make_mpc
from neuralsim.agents.policies import POLICIES, Policy, make_policy
from neuralsim.data.episodes import write_atomically
from neuralsim.devices import choose_device, fast_dream_dtype
from neuralsim.envs.dream_vector import DreamVectorEnv
from neuralsim.envs.real import make_real, read_env_kwargs
from neuralsim.envs.shared_worlds import shared_world
from neuralsim.evaluation.intervals import mean
from neuralsim.evaluation.playing import make_players
from neuralsim.registration import BUNDLED_WORLDS
from neuralsim.world_files import CONFIG
from neuralsim.world_state import seed_tensor


@dataclass
class AgentEvaluation:
    """Lets an agent play whole episodes and tells its mean return, with a 95 % interval over the episodes.

    The same command plays dreams (--env Dream-Pong-v0) and the real game (--env ALE/Pong-v5). Planners look ahead in a
    world at every moment instead of having learned (mpc --world Dream-Pong-v0); they take their time.
    """

    agent: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="AGENT")]
    """A run's folder, an agent's file, any policy of neuralsim record (random, scripted=0.7, sb3=PATH.zip), or a
    planner: mpc, mpc=cem, mpc=icem, mpc=mppi, mpc=shooting."""
    env: str = "ALE/Pong-v5"
    """The environment: a real one, or a dream (Dream-Pong-v0, or a world's folder)."""
    env_kwargs: str | None = None
    """Arguments of gymnasium.make as JSON, such as '{"repeat_action_probability": 0.0}'; by default those of the
    recordings that the agent, or the planner's world, learned from; for other policies, and other games, none."""
    episodes: int = 20
    """Whole episodes; they are played side by side."""
    seed: int = 0
    """Of games and draws: episode i has seed + i."""
    deterministic: bool = False
    """Always the likeliest action."""
    max_steps: int = 27_000
    """An episode that lasts longer ends here (27,000 steps of 4 screens: Atari's half hour)."""
    out: Path | None = None
    """Also writes the figures to this JSON file."""
    world: str | None = None
    """Where planners plan: Dream-Pong-v0, or a world's folder or hub id; by default the dream that they play."""
    mpc: MPCOptions = field(default_factory=MPCOptions)
    """How planners plan."""


def evaluate_agent(config: AgentEvaluation) -> dict[str, Any]:
    """Plays, prints and returns ``return`` (mean and interval), ``length`` and ``returns`` of every episode.

    Raises:
        ValueError: If agent and environment do not fit.
        FileNotFoundError: If there is no such agent or world.
    """
    for name in ("episodes", "max_steps"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}; it must be at least 1")
    seed_tensor(config.seed, config.episodes)
    if config.out is not None and config.out.is_dir():
        raise ValueError(f"--out {config.out} is a folder; name the JSON file to write, {config.out / 'figures.json'}")
    name, _, path = config.agent.partition("=")
    agent, planner = None, make_planner(config) if _is_planner(config.agent) else None
    if planner is None and (config.world is not None or config.mpc != MPCOptions()):
        raise ValueError(f"--world and --mpc tell how planners plan (mpc, mpc=cem), and {config.agent} is no planner")
    if planner is not None:
        learned_from = vars(planner.world.config)
    elif name == "agent" or not _is_policy(config.agent):
        source = path if name == "agent" else config.agent
        if near := not Path(source).exists() and difflib.get_close_matches(source, POLICIES, n=1):
            raise FileNotFoundError(f"there is no agent {source}; did you mean the policy {near[0]}?")
        agent = Agent.load(source, config.deterministic)
        learned_from = agent.facts
    elif name == "keyboard":
        raise ValueError("a keyboard player is no agent: neuralsim play shows the game in a window")
    else:
        learned_from = {"env_id": None, "preprocessing": None}
    if config.env_kwargs is not None:
        kwargs = read_env_kwargs(config.env_kwargs)
    else:
        kwargs = learned_from["env_kwargs"] if learned_from["env_id"] == config.env else {}
    envs = make_lanes(config.env, config.episodes, kwargs, learned_from["preprocessing"])
    with contextlib.closing(envs):
        if agent is not None:
            agent.check_fits(config.agent, envs.single_action_space, envs.single_observation_space)
        if planner is not None:
            planner.check_fits(config.world or config.env, envs.single_action_space, envs.single_observation_space)
        players = agent or planner or PolicyLanes(config.agent, config.env, config.episodes, kwargs)
        returns, lengths, over = play_episodes(envs, players, config.seed, config.max_steps)
    figures = {
        **{key: value for key, value in vars(config).items() if key not in ("out", "world", "mpc")},
        **({} if planner is None else {"world": config.world or config.env, "mpc": dataclasses.asdict(config.mpc)}),
        "env_kwargs": kwargs,
        "return": mean(returns),
        "length": mean(lengths),
        "returns": returns.tolist(),
        "unfinished": int((~over).sum()),
    }
    told = figures["return"]
    print(
        f"{config.agent} in {config.env} {json.dumps(kwargs) if kwargs else 'as registered'}: return "
        f"{told['value']:.1f} ({told['low']:.1f} to {told['high']:.1f}) over {config.episodes} episodes of "
        f"{figures['length']['value']:.0f} steps on average"
        + (f"; {figures['unfinished']} were cut off after {config.max_steps} steps" if figures["unfinished"] else "")
    )
    if planner is not None and (made := planner.horizon.plans):
        seconds, steps = planner.horizon.seconds, int(lengths.sum())
        print(
            f"{made:,} plans of {seconds / made:.2f} s each: {steps / seconds:.1f} steps of play per second of planning"
        )
    if config.out is not None:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(config.out, json.dumps(figures, indent=1) + "\n")
    return figures


class Players(Protocol):
    """Who acts in many lanes at once; :class:`~neuralsim.agents.agent.Agent` is one."""

    def reset(self, lanes: int, seed: int) -> None:
        """Begins anew."""

    def act(self, frames: np.ndarray) -> Any:
        """Frames ``(n, H, W, 3)`` to a batch of n actions."""


@runtime_checkable
class CostlyPlayers(Players, Protocol):
    """Players who would rather not act where nothing counts any more; :class:`MPC` is one."""

    def retire(self, lanes: np.ndarray) -> None:
        """Tells in which lanes ``(n,)`` bool the game is over."""


class PolicyLanes:
    """Policies by name, one per lane."""

    def __init__(self, name: str, env_id: str, lanes: int, env_kwargs: dict[str, Any]) -> None:
        self.policies: list[Policy]
        if is_dream(env_id):
            # Policies are made for real games, and play in dreams what they would play there.
            world = shared_world(env_id)
            self.policies, self.codec = make_players(world, [name] * lanes), world.actions
        else:
            with contextlib.closing(make_real(env_id, env_kwargs)) as env:
                self.policies = [make_policy(name, env) for _ in range(lanes)]
                self.codec = ActionCodec(env.action_space)
        self.infos: list[dict[str, Any]] = [{} for _ in range(lanes)]

    def reset(self, lanes: int, seed: int) -> None:
        """Begins anew."""
        for lane, policy in enumerate(self.policies):
            policy.reset(seed + lane)

    def tell(self, infos: dict[str, Any]) -> None:
        """Takes in what a vector environment's infos say, for policies that must be told."""
        if self.policies[0].needs_info:
            self.infos = [lane_info(infos, lane) for lane in range(len(self.policies))]

    def act(self, frames: np.ndarray) -> Any:
        """One action per lane."""
        chosen = [
            policy.act(frame, info) for policy, frame, info in zip(self.policies, frames, self.infos, strict=True)
        ]
        return self.codec.decode(np.stack([self.codec.encode(action) for action in chosen]))


def lane_info(infos: dict[str, Any], lane: int) -> dict[str, Any]:
    """What a vector environment's infos say of one lane: arrays with a mask ``_name`` beside each; no nested ones."""
    return {
        name: values[lane]
        for name, values in infos.items()
        if not name.startswith("_") and isinstance(values, np.ndarray) and infos[f"_{name}"][lane]
    }


def make_planner(config: AgentEvaluation) -> MPC:
    """The planner that a call asks for.

    Raises:
        ValueError: If no world is named, or the settings make no sense.
        FileNotFoundError: If there is no such world or prior.
    """
    source = config.world or (config.env if is_dream(config.env) else None)
    if source is None:
        raise ValueError(f"{config.agent} plans in a world: say in which, for example --world Dream-Pong-v0")
    world = shared_world(BUNDLED_WORLDS.get(source, source), dtype=fast_dream_dtype("auto", choose_device()))
    return make_mpc(world, config.mpc, config.agent.partition("=")[2] or None)


def is_dream(env_id: str) -> bool:
    """Whether an environment is named that dreams: an id of a bundled world, or a world's folder."""
    return env_id in (*BUNDLED_WORLDS, *BUNDLED_WORLDS.values()) or (Path(env_id) / CONFIG).is_file()


def make_lanes(
    env_id: str, lanes: int, env_kwargs: dict[str, Any], preprocessing: dict[str, Any] | None
) -> gym.vector.VectorEnv:
    """Environments side by side: dreams in one batch, real games one after the other.

    Raises:
        ValueError: For an unknown id, wrong arguments or an environment without pixels.
    """
    if is_dream(env_id):
        try:
            return DreamVectorEnv(num_envs=lanes, world=BUNDLED_WORLDS.get(env_id, env_id), **env_kwargs)
        except TypeError as error:
            raise ValueError(f"the dream {env_id} does not take the arguments {env_kwargs}: {error}") from None
    return gym.vector.SyncVectorEnv([lambda: make_real(env_id, env_kwargs, preprocessing) for _ in range(lanes)])


def play_episodes(
    envs: gym.vector.VectorEnv, players: Players, seed: int, max_steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Plays one episode in every lane.

    Returns:
        Return and length ``(n,)`` of each, and whether it came to its end.
    """
    lanes = envs.num_envs
    frames, infos = envs.reset(seed=seed)
    players.reset(lanes, seed)
    returns, lengths, over = np.zeros(lanes), np.zeros(lanes, np.int64), np.zeros(lanes, np.bool_)
    columns = (TextColumn("episodes"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
               TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, disable=not sys.stdout.isatty()) as progress:
        task = progress.add_task("", total=lanes, note="")
        while not over.all() and lengths.max() < max_steps:
            if isinstance(players, PolicyLanes):
                players.tell(infos)
            frames, rewards, terminated, truncated, infos = envs.step(players.act(frames))
            returns[~over] += rewards[~over]
            lengths[~over] += 1
            over |= terminated | truncated
            if isinstance(players, CostlyPlayers):
                players.retire(over)
            progress.update(task, completed=int(over.sum()), note=f"step {lengths.max()}, mean {returns.mean():+.1f}")
    return returns, lengths, over


def _is_planner(text: str) -> bool:
    return text.partition("=")[0] == "mpc" and not Path(text).exists()


def _is_policy(text: str) -> bool:
    return text.partition("=")[0] in {name.partition("=")[0] for name in POLICIES} and not Path(text).exists()
