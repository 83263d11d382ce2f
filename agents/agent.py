"""An agent that has learned: it sees frames and acts, in dreams and in the real game alike.

    agent = Agent.load("runs/pmpo")
    agent.reset(lanes=16, seed=0)
    actions = agent.act(frames)          # (16, H, W, 3) uint8 -> a batch of 16 actions

The file holds the tokenizer that the agent sees through, so it plays without the world it was trained in. An agent that
has learned on pixels (neuralsim agent train ppo) sees through :class:`~neuralsim.agents.pixels.Pixels`: the frames
themselves.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from neuralsim.actions import ActionCodec, space_from_json
from neuralsim.agents.action_distribution import ActionDistribution
from neuralsim.agents.actor import ActorConfig, PolicyNet, ValueNet
from neuralsim.agents.pixels import PixelActor, PixelActorConfig, Pixels, PixelsConfig
from neuralsim.envs.preprocessing import HOW_TO_SHOW_FRAMES
from neuralsim.tensor_files import read_tensors, write_tensors
from neuralsim.tokenizers import build_tokenizer
from neuralsim.tokenizers.base import Tokenizer
from neuralsim.training.parts import part_config
from neuralsim.world_files import AGENTS
from neuralsim.world_state import seed_tensor

AGENT = "agent.safetensors"
"""The agent in the folder of a finished run."""


class Agent:
    """Policy, value and the tokenizer they see through; for playing, nothing of it learns any more.

    Args:
        tokenizer: Frames to latents.
        policy: What to do.
        value: What a state is worth; None in an agent that was kept to play alone, and in one of pixels, whose policy
            knows it.
        config: Sizes of policy and value.
        facts: JSON: ``action_space``, ``env_id``, ``env_kwargs``, ``preprocessing``, ``world`` (checksum of the weights
            of the world it was trained in, or None) and ``trained`` (how).
        deterministic: Always the likeliest action; by default actions are drawn.

    Attributes:
        recent: ``(lanes, n, h, w, c)`` latents seen last, oldest first; None before the first frame.
        fresh: ``(lanes,)`` bool, where the next frame is the first of an episode.
        generators: What each lane draws its actions from.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        policy: PolicyNet | PixelActor,
        value: ValueNet | None,
        config: ActorConfig | PixelActorConfig,
        facts: dict[str, Any],
        deterministic: bool = False,
    ) -> None:
        self.tokenizer = tokenizer.eval().requires_grad_(False)
        self.policy = policy.eval().requires_grad_(False)
        self.value = None if value is None else value.eval().requires_grad_(False)
        self.config, self.facts, self.deterministic = config, facts, deterministic
        self.action_space: spaces.Space = space_from_json(facts["action_space"])
        self.actions = ActionCodec(self.action_space)
        self.distribution = ActionDistribution(self.actions)
        self.recent: Tensor | None = None
        self.fresh = np.zeros(0, np.bool_)
        self.generators: list[torch.Generator] = []

    def reset(self, lanes: int = 1, seed: int | Sequence[int] = 0) -> None:
        """Forgets all it has seen; lane i draws its actions from a stream of its own.

        Args:
            lanes: How many games it plays side by side.
            seed: One per lane; a single number s gives s, s + 1, ...

        Raises:
            ValueError: If there are not as many seeds as lanes, or one is outside [0, 2**63).
        """
        seeds = seed_tensor(seed, lanes).tolist()
        self.recent, self.fresh = None, np.ones(lanes, np.bool_)
        self.generators = [torch.Generator().manual_seed(s) for s in seeds]

    def begin(self, lanes: np.ndarray) -> None:
        """Tells in which lanes ``(n,)`` bool a new episode begins with the next frame."""
        self.fresh |= lanes

    def check_fits(self, name: str, action_space: spaces.Space, observation_space: spaces.Space) -> None:
        """Compares the agent, called ``name``, with an environment.

        Raises:
            ValueError: If it plays other actions, or sees other frames.
        """
        if self.action_space != action_space:
            raise ValueError(f"{name} plays {self.action_space}, and this environment has {action_space}")
        if observation_space.shape != self.tokenizer.frame_shape:
            raise ValueError(
                f"{name} sees frames {self.tokenizer.frame_shape}, and this environment shows observations of shape "
                f"{observation_space.shape}: {HOW_TO_SHOW_FRAMES}"
            )

    @torch.inference_mode()
    def act(self, frames: np.ndarray) -> Any:
        """Chooses an action in every lane.

        Args:
            frames: ``(n, H, W, 3)`` uint8, preprocessed as the recordings were.

        Returns:
            A batch of n actions in the format of the action space.

        Raises:
            ValueError: If these are not n such frames.
        """
        frames = np.asarray(frames)
        lanes = len(self.generators) or len(frames)
        if frames.shape != (lanes, *self.tokenizer.frame_shape) or frames.dtype != np.uint8:
            raise ValueError(
                f"the agent plays {lanes if self.generators else 'n'} lanes and sees frames (lanes, "
                f"{', '.join(map(str, self.tokenizer.frame_shape))}) uint8, got {frames.shape} {frames.dtype}: give a "
                "single frame as frame[None], and call reset(lanes) for another number of lanes"
            )
        if not self.generators:
            self.reset(lanes)
        latents = self.tokenizer.encode(torch.from_numpy(np.ascontiguousarray(frames)))[:, None]
        first = latents.expand(-1, self.config.frames, -1, -1, -1)
        if self.recent is None:
            self.recent = first
        else:
            following = torch.cat([self.recent[:, 1:], latents], dim=1)
            fresh = torch.from_numpy(self.fresh)[:, None, None, None, None]
            self.recent = torch.where(fresh, first, following)
        self.fresh = np.zeros_like(self.fresh)
        logits = self.policy(self.recent)[:, 0]
        if self.deterministic:
            encoded = self.distribution.mode(logits)
        else:
            drawn = [self.distribution.sample(row[None], rng) for row, rng in zip(logits, self.generators, strict=True)]
            encoded = torch.cat(drawn)
        return self.actions.decode(encoded.numpy())

    def save(self, path: Path, to_play: bool = False) -> Path:
        """Writes the agent as one file, whole or not at all.

        Args:
            path: The file.
            to_play: Only what playing takes, in half the size: no value, the policy in bfloat16.
        """
        parts: dict[str, nn.Module] = {"tokenizer": self.tokenizer, "policy": self.policy}
        if self.value is not None and not to_play:
            parts["value"] = self.value
        tensors = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
        if to_play:
            tensors |= {key: value.bfloat16() for key, value in tensors.items() if key.startswith("policy.")}
        told = {
            "actor": dataclasses.asdict(self.config),
            "tokenizer": part_config(self.tokenizer),
            **self.facts,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, tensors, {"kind": "agent", "config": json.dumps(told)})
        return path

    @classmethod
    def load(cls, source: str | Path, deterministic: bool = False) -> Agent:
        """Reads an agent.

        Args:
            source: A file, or the folder of a run (its final agent).
            deterministic: Always the likeliest action.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If the file is damaged or holds no agent.
        """
        path = find_agent(source)
        told = agent_facts(path)
        tensors, _ = read_tensors(path)
        try:
            sizes, tokenizer = told.pop("actor"), told.pop("tokenizer")
            parameters = ActionDistribution(ActionCodec(space_from_json(told["action_space"]))).parameters
            eyes: Tokenizer
            config: ActorConfig | PixelActorConfig
            policy: PolicyNet | PixelActor
            value: ValueNet | None = None
            if tokenizer["type"] == Pixels.type_name:
                eyes, config = Pixels(PixelsConfig(**tokenizer["config"])), PixelActorConfig(**sizes)
                policy = PixelActor(config, parameters)
            else:
                eyes, config = build_tokenizer(tokenizer["type"], tokenizer["config"]), ActorConfig(**sizes)
                policy = PolicyNet(config, parameters)
                value = ValueNet(config) if any(key.startswith("value.") for key in tensors) else None
            for name, part in (("tokenizer", eyes), ("policy", policy), ("value", value)):
                if part is None:
                    continue
                mine = {key for key in tensors if key.startswith(f"{name}.")}
                part.load_state_dict({key.removeprefix(f"{name}."): tensors[key] for key in mine})
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise ValueError(f"{path} does not fit this version of neuralsim: {error!r}; train it anew") from None
        return cls(eyes, policy, value, config, told, deterministic)


def find_agent(source: str | Path) -> Path:
    """The file of an agent: a file, or a run's folder.

    Raises:
        FileNotFoundError: If there is none.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        if not (path / AGENT).is_file():
            younger = f", or name one of {path / AGENTS}" if (path / AGENTS).is_dir() else ""
            raise FileNotFoundError(f"{path} holds no {AGENT}: train it to its end (neuralsim agent train){younger}")
        return path / AGENT
    if not path.is_file():
        raise FileNotFoundError(f"there is no agent {path}; train one with neuralsim agent train")
    return path


def ages(folder: Path) -> list[Path]:
    """Agents at several ages in a folder (a run's or a world's): kind by kind, youngest first."""
    return sorted((folder / AGENTS).glob("*.safetensors"))


def agent_facts(source: str | Path) -> dict[str, Any]:
    """What an agent's file says of it (see :class:`Agent`); the weights are not read.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If the file is damaged or holds no agent.
    """
    path = find_agent(source)
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or incomplete ({error}); restore it or train again") from None
    if metadata.get("kind") != "agent":
        raise ValueError(f"{path} holds no agent, but {metadata.get('kind', 'an unknown kind of file')}")
    try:
        facts = json.loads(metadata["config"])
        missing = {"actor", "tokenizer", "action_space", "env_id", "env_kwargs", "preprocessing", "world", "trained"}
        missing -= set(facts)
        if missing:
            raise ValueError(f"it does not tell its {', '.join(sorted(missing))}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not fit this version of neuralsim: {error!r}; train it anew") from None
    return facts
