"""PPO on pixels, in any vector environment: a dream or a real game.

    ppo = PPO(gym.make_vec("Dream-Pong-v0", num_envs=16))
    agent = ppo.train(steps=1_000_000, out=Path("runs/ppo"))
    actions = agent.act(frames)

What was collected, the running episodes and, in a dream, the dreams themselves lie beside the weights in the
checkpoint: a run that was killed and resumed goes on exactly. A real game cannot be set back; there new episodes begin.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import tyro
from gymnasium.vector import VectorEnv
from torch import nn

from neuralsim.actions import space_to_json
from neuralsim.agents.agent import AGENT, Agent
from neuralsim.agents.pixels import PixelActorConfig
from neuralsim.agents.ppo_training import PPOConfig, PPOTraining
from neuralsim.agents.transitions import as_vector, check_frames
from neuralsim.data.latents import fingerprint
from neuralsim.envs.dream_vector import DreamVectorEnv
from neuralsim.evaluation.intervals import mean
from neuralsim.training.loop import LoopConfig, TrainingRun, averaged_weights
from neuralsim.world_files import AGENTS


@dataclass
class PPOLoop(LoopConfig):
    """The loop's options; EPOCHS x MINIBATCHES steps of the optimiser follow on LANES x HORIZON steps of the game."""

    steps: tyro.conf.Suppress[int] = 0  # follows from the steps of the game
    learning_rate: float = 2.5e-4
    """Learning rate at the beginning (AdamW); it falls along a cosine all the time."""
    warmup_steps: int = 0
    """Optimiser steps over which the learning rate rises from 0."""
    decay_fraction: float = 1.0
    """Last share of the run, over which the learning rate falls along a cosine."""
    weight_decay: float = 0.0
    """Decoupled weight decay of matrices and kernels; vectors have none."""
    beta2: float = 0.999
    """Second AdamW momentum; the first is 0.9."""
    gradient_clip: float = 0.5
    """Largest gradient norm; longer gradients are scaled down to it."""
    ema: float = 0.99
    """Decay of the averaged weights, which are those of the agent that is kept."""
    dtype: str = "float32"
    """float32, bfloat16 (autocast), or auto. The ratios of PPO are close to 1, where bfloat16 knows steps of 0.008."""
    log_every: int = 16
    """Optimiser steps between lines of the log."""
    checkpoint_every: int = 160
    """Optimiser steps between checkpoints."""
    evaluate_every: int = 1600
    """Optimiser steps between agents that are kept (OUT/agents)."""


class PPO:
    """Learns to play an environment.

    Args:
        envs: Any vector environment, or a single one, whose observations are frames ``(H, W, 3)`` uint8; it is reset.
        config: How it learns.
        actor: Size of the network.
        seed: Of the first episodes, the initial weights and the order of minibatches.
        agent: An agent of pixels to go on from; the size of the network is then its own.
        facts: What the agent's file shall say of the environment, see :class:`~neuralsim.agents.agent.Agent`; by
            default what ``envs`` tell.

    Attributes:
        model: Policy, value and what was played last.

    Raises:
        ValueError: If the observations are no frames, the actions are none that can be drawn, or numbers make no sense.
    """

    def __init__(
        self,
        envs: gym.Env | VectorEnv,
        config: PPOConfig | None = None,
        actor: PixelActorConfig | None = None,
        seed: int = 0,
        agent: Agent | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        self.envs = as_vector(envs)
        self.facts = facts_of(self.envs) if facts is None else facts
        name = self.facts["env_id"]
        if isinstance(self.envs, DreamVectorEnv):
            name = f"the dream {self.envs.world.config.name}"
        height, width = check_frames(self.envs, name)
        self.sizes = dataclasses.replace(actor or PixelActorConfig(), height=height, width=width)
        self.begun_from = None if agent is None else fingerprint(agent.policy)
        if agent is not None:
            if not isinstance(agent.config, PixelActorConfig):
                raise ValueError("the agent to go on from sees a world's latents; PPO goes on from agents of pixels")
            agent.check_fits(
                "the agent to go on from", self.envs.single_action_space, self.envs.single_observation_space
            )
            self.sizes = agent.config
        self.model = PPOTraining(self.envs, name, config or PPOConfig(), self.sizes, seed)
        if agent is not None:
            self.model.actor.load_state_dict(agent.policy.state_dict())

    def train(self, steps: int, out: Path | None = None, loop: PPOLoop | None = None) -> Agent:
        """Plays and learns.

        Args:
            steps: Steps of the game, all lanes together, rounded up to whole rounds of playing and learning.
            out: Folder of the run, which the same call resumes: the agent, agents of several ages, checkpoint, log and
                TensorBoard's events. None keeps nothing.
            loop: Learning rate and all else that training runs have.

        Returns:
            The agent, with averaged weights.

        Raises:
            ValueError: If ``out`` holds a run of another configuration, or the environment pays no finite number.
            TrainingDivergedError: If the loss is not finite.
        """
        if out is None:
            with tempfile.TemporaryDirectory() as folder:
                return self.train(steps, Path(folder), loop)
        per_round, updates = self.model.returns.numel(), self.model.config.updates
        rounds = math.ceil(steps / per_round)
        loop = dataclasses.replace(loop or PPOLoop(), steps=rounds * updates)
        training = TrainingRun(self.model, self.model.draw, out, loop, self._description(loop), self._keep)
        training.check_description()
        if not (out / "checkpoint.safetensors").exists():
            self._keep(self.model, 0, out)  # what all later ages are to be compared with
        lanes = self.envs.num_envs
        print(f"{rounds * per_round:,} steps are played in {lanes} lanes, with {loop.steps:,} steps of the optimiser")
        training.run()
        with averaged_weights(self.model, training.ema):
            agent = self.agent(training.step)
        print(f"agent: {agent.save(out / AGENT)}")
        return agent

    def agent(self, step: int = 0) -> Agent:
        """What the network is now, to play with; ``step`` is how many steps of the optimiser made it."""
        config = self.model.config
        trained = {
            "kind": "ppo",
            "steps": step,
            "env_steps": round(step * self._env_steps_per_step),
            "gamma": config.gamma,
            "ppo": dataclasses.asdict(config),
        }
        facts = {"action_space": space_to_json(self.envs.single_action_space), **self.facts, "trained": trained}
        eyes, actor = copy.deepcopy(self.model.eyes).cpu(), copy.deepcopy(self.model.actor).cpu()
        return Agent(eyes, actor, None, self.sizes, facts)

    @property
    def _env_steps_per_step(self) -> float:
        """Steps of the game, all lanes together, per step of the optimiser."""
        return self.model.returns.numel() / self.model.config.updates

    def _description(self, loop: PPOLoop) -> dict[str, Any]:
        """The run's ``config.json``: what a resumed run must have alike."""
        return {
            "kind": "ppo",
            **{name: self.facts[name] for name in ("env_id", "env_kwargs", "preprocessing", "world")},
            "dream": dream_settings(self.envs),
            "lanes": self.envs.num_envs,
            "env_steps_per_step": self._env_steps_per_step,
            "begun_from": self.begun_from,
            "seed": self.model.seed,
            "ppo": dataclasses.asdict(self.model.config),
            "actor": dataclasses.asdict(self.sizes),
            "loop": dataclasses.asdict(loop),
        }

    def _keep(self, model: nn.Module, step: int, folder: Path) -> dict[str, float]:
        """Keeps the agent of this age, and tells how the last episodes went."""
        self.agent(step).save(folder / AGENTS / f"ppo-{step:07d}.safetensors", to_play=True)
        kept = self.model.rollouts
        figures = {"episodes": float(kept.episodes)}
        if len(ended := kept.recent_episodes()):
            said = mean(ended[:, 0])
            figures |= {"episode_return": said["value"], "low": said["low"], "high": said["high"]}
        return figures


def facts_of(envs: VectorEnv) -> dict[str, Any]:
    """What environments tell of themselves: ``env_id``, ``env_kwargs``, ``preprocessing`` and ``world``.

    Those of a dream are of the game that it was learned from, which its agents can play as well.
    """
    if isinstance(envs, DreamVectorEnv):
        config = envs.world.config
        return {"env_id": config.env_id, "env_kwargs": config.env_kwargs, "preprocessing": config.preprocessing,
                "world": config.weights_sha256}  # fmt: skip
    spec = envs.spec
    name = type(envs).__name__ if spec is None else spec.id
    return {"env_id": name, "env_kwargs": {} if spec is None else dict(spec.kwargs), "preprocessing": None,
            "world": None}  # fmt: skip


def dream_settings(envs: VectorEnv) -> dict[str, Any] | None:
    """How a dream was made, as far as what is learned in it depends on that; None for a real game."""
    if not isinstance(envs, DreamVectorEnv):
        return None
    elsewhere = ("num_envs", "world", "device", "dtype", "render_mode", "render_scale")
    told = {name: value for name, value in envs._arguments.items() if name not in elsewhere}
    return {**told, "autoreset_mode": envs.autoreset_mode.value}
