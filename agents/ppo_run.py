"""``neuralsim agent train ppo``: an agent on pixels that begins with nothing, in a dream or in the real game."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym

from neuralsim.agents.agent import Agent
from neuralsim.agents.agent_evaluation import is_dream, make_lanes
from neuralsim.agents.learning_curves import keep_curves
from neuralsim.agents.pixels import PixelActorConfig
from neuralsim.agents.ppo import PPO, PPOLoop, facts_of
from neuralsim.agents.ppo_training import PPOConfig
from neuralsim.envs.real import read_env_kwargs
from neuralsim.envs.shared_worlds import shared_world


@dataclass
class PPORun:
    """Trains an agent on pixels by PPO, from nothing, in a dream or in the real game.

    It sees the last four frames, and plays whatever shows the same frames and takes the same actions: the dream it has
    learned in, and the game that this is a dream of (neuralsim agent evaluate). The same command resumes a run that was
    interrupted, in a dream exactly; in a real game with new episodes.
    """

    env: str = "Dream-Pong-v0"
    """The environment: a dream (Dream-Pong-v0, or a world's folder) or a real one (ALE/Pong-v5)."""
    env_kwargs: str | None = None
    """Arguments of gymnasium.make as JSON: '{"repeat_action_probability": 0.0}', for dreams '{"sampling_steps": 1}'."""
    like_world: str | None = None
    """A dream whose frames a real game is to show, so that the agent can play both. If it is a dream of this very game,
    the game gets the arguments of its recordings as well."""
    size: tuple[int, int] = (64, 64)
    """Height and width of a real game's frames; --like-world has its own."""
    source: Literal["observation", "render"] = "observation"
    """render: take the picture that a real environment draws of itself instead of its observation."""
    out: Path = Path("runs/ppo")
    """Folder of the run; the same command resumes it."""
    steps: int = 1_000_000
    """Steps of the game, all lanes together. A finished run can be continued by asking for more."""
    lanes: int = 16
    """Games that are played side by side."""
    init_from: Path | None = None
    """An agent of pixels to go on from, for example one that has learned in the dream."""
    ppo: PPOConfig = field(default_factory=PPOConfig)
    actor: PixelActorConfig = field(default_factory=PixelActorConfig)
    loop: PPOLoop = field(default_factory=PPOLoop)


def train_ppo(run: PPORun) -> None:
    """Trains and saves ``OUT/agent.safetensors``, agents of several ages, ``OUT/agents/*``, and the learning curves.

    Raises:
        ValueError: If agent and environment do not fit, numbers make no sense, or a reward is no finite number.
        FileNotFoundError: If there is no such world or agent.
    """
    for name in ("steps", "lanes"):
        if getattr(run, name) < 1:
            raise ValueError(f"{name} is {getattr(run, name)}; it must be at least 1")
    agent = None if run.init_from is None else Agent.load(run.init_from)
    envs, facts = make_envs(run)
    with contextlib.closing(envs):
        PPO(envs, run.ppo, run.actor, run.loop.seed, agent, facts).train(run.steps, run.out, run.loop)
    keep_curves(run.out)


def make_envs(run: PPORun) -> tuple[gym.vector.VectorEnv, dict[str, Any]]:
    """The environments of a run, and what an agent's file says of them.

    Raises:
        ValueError: If ``like_world`` makes no sense, or an environment cannot be made.
    """
    kwargs = {} if run.env_kwargs is None else read_env_kwargs(run.env_kwargs)
    if is_dream(run.env):
        if run.like_world is not None:
            raise ValueError(f"--like-world is for real games; the dream {run.env} has frames of its own")
        envs = make_lanes(run.env, run.lanes, {"device": run.loop.device, **kwargs}, None)
        return envs, facts_of(envs)
    preprocessing: dict[str, Any] = {"size": list(run.size), "source": run.source}
    if run.like_world is not None:
        world = shared_world(run.like_world).config
        preprocessing = world.preprocessing
        if run.env_kwargs is None and world.env_id == run.env:
            kwargs = world.env_kwargs
    envs = make_lanes(run.env, run.lanes, kwargs, preprocessing)
    assert isinstance(envs, gym.vector.SyncVectorEnv)
    shown = envs.get_attr("settings")[0]
    return envs, {"env_id": run.env, "env_kwargs": kwargs, "preprocessing": shown, "world": None}
