"""A reward learned from preferences: what it is made of, what it is trained on, and how it is saved.

A preference tells rewards up to scale and shift only, so a finished model is *normalised*: over the steps of the
recordings its reward has mean 0 and standard deviation 1.

    reward = PreferenceReward.load("runs/preference")
    r = reward(before, action, after)    # (B, n, h, w, c), (B, A), (B, h, w, c) -> (B,)

Legend: B transitions or pairs, M members of the ensemble, S steps of a segment, n latents seen, h w c latent grid,
A encoded action.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import tyro
from einops import rearrange
from torch import Tensor, nn

from neuralsim.data.latents import LatentEpisode
from neuralsim.heads import strided_trunk, trunk_size
from neuralsim.tensor_files import read_tensors, write_tensors
from neuralsim.training.parts import tokenizer_fingerprint
from neuralsim.world import World

PREFERENCE = "preference.safetensors"
"""The reward model in the folder of a finished run."""

KIND = "preference reward"

_BATCH = 512  # transitions that are judged at once when a whole data set is


def bradley_terry_loss(left: Tensor, right: Tensor, target: Tensor, mistakes: float = 0.0) -> Tensor:
    """Cross-entropy of choices between segments (Christiano et al. 2017, equation 1 and section 2.2.3).

    P(left is better) = sigmoid(left - right); with mistakes, (1 - mistakes) of that plus half of them.

    Args:
        left: ``(...)`` sum of rewards of the left segments.
        right: ``(...)`` of the right ones.
        target: ``(...)`` 1 where the left one was chosen, 0 where the right one was, 0.5 where both are as good.
        mistakes: Share of choices that are taken to be made at random; a few wrong labels then do little harm.

    Returns:
        ``(...)``, at least 0.
    """
    gap = left - right

    def log_chance(x: Tensor) -> Tensor:
        sure = F.logsigmoid(x)
        if mistakes == 0:
            return sure
        return torch.logaddexp(sure + math.log1p(-mistakes), torch.full_like(sure, math.log(mistakes / 2)))

    return -(target * log_chance(gap) + (1 - target) * log_chance(-gap))


@dataclass
class PreferenceRewardConfig:
    """Size of the reward model."""

    height: tyro.conf.Suppress[int] = 16  # these four follow the world
    """Latent rows."""
    width: tyro.conf.Suppress[int] = 16
    """Latent columns."""
    latent_channels: tyro.conf.Suppress[int] = 8
    """Latent channels."""
    action_size: tyro.conf.Suppress[int] = 6
    """Length of an encoded action."""
    frames: int = 4
    """Latents n that are seen, the new one included. With 1 the reward is that of a frame alone: not of the action that
    led to it, nor of how things move."""
    channels: int = 32
    """Width of the first convolution."""
    hidden: int = 128
    """Width of the layer above the convolutions."""
    members: int = 1
    """Networks, each trained on its own sample of the labels; their mean is the reward, their disagreement tells where
    labels are missing. As many times slower."""


class PreferenceNet(nn.Module):
    """The reward of one step, seen as the heads of a world see it (:mod:`neuralsim.heads`): latents and the action.

    Raises:
        ValueError: If ``frames`` is below 1.
    """

    def __init__(self, config: PreferenceRewardConfig) -> None:
        super().__init__()
        if config.frames < 1:
            raise ValueError(f"frames is {config.frames}; it takes at least 1 to see anything")
        change = config.frames > 1
        self.trunk = strided_trunk((config.frames + change) * config.latent_channels, config.channels)
        self.hidden = nn.Linear(trunk_size(config.height, config.width, config.channels), config.hidden)
        self.action = nn.Linear(config.action_size, config.hidden, bias=False) if change else None
        self.out = nn.Linear(config.hidden, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, seen: Tensor, action: Tensor) -> Tensor:
        """Rewards ``(B,)`` of transitions.

        Args:
            seen: ``(B, n, h, w, c)``, oldest first; the last one is the latent after.
            action: ``(B, A)`` taken between the last two.
        """
        change = seen[:, -1:] - seen[:, -2:-1]  # nothing, where one frame is all there is
        x = rearrange(torch.cat([seen, change], dim=1), "b n h w c -> b (n c) h w")
        x = self.hidden(self.trunk(x).flatten(1))
        if self.action is not None:
            x = x + self.action(action.to(x.dtype))
        return self.out(F.silu(x))[:, 0].float()


def look_back(latents: Tensor, first: int, last: int, frames: int) -> Tensor:
    """What the network sees of the steps that lead to the frames ``first + 1`` to ``last`` of an episode.

    Args:
        latents: ``(T+1, h, w, c)``, the episode.
        first: Step, from 0.
        last: The step after the last one.
        frames: n.

    Returns:
        ``(last - first, n, h, w, c)`` float32; before the episode's first frame, that one is repeated.
    """
    index = torch.arange(first - frames + 2, last + 1).clamp(min=0)
    return latents[index].float().unfold(0, frames, 1).movedim(-1, 1)


class PreferenceReward(nn.Module):
    """A normalised reward for one step of a world; frozen, and callable in place of the world's own reward head.

    Args:
        config: Sizes.
        members: M networks.
        facts: JSON: ``env_id``, ``action_space``, ``tokenizer`` (fingerprint of its weights), ``world`` (checksum of
            its weights, or None) and ``trained`` (on what, and how well it foretells choices).

    Attributes:
        shift: buffer ``(M,)``, subtracted from what a member says.
        scale: buffer ``(M,)``, what remains is divided by it.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, config: PreferenceRewardConfig, members: nn.ModuleList, facts: dict[str, Any]) -> None:
        super().__init__()
        self.config, self.facts = config, facts
        self.members = members
        self.register_buffer("shift", torch.zeros(len(members)))
        self.register_buffer("scale", torch.ones(len(members)))
        self.eval().requires_grad_(False)

    def forward(self, before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        """Rewards ``(B,)``, float32, of transitions; see :meth:`opinions`."""
        return self.opinions(before, action, after).mean(1)

    def disagreement(self, before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        """Standard deviation ``(B,)`` among the members, in units of the reward; 0 for a single one."""
        return self.opinions(before, action, after).std(1, correction=0)

    def opinions(self, before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        """What each member says.

        Args:
            before: ``(B, m, h, w, c)`` latents before the step, oldest first, at least one: the last n - 1 count, and
                the oldest one stands for those that are missing. ``(B, h, w, c)`` is a single one.
            action: ``(B, A)`` encoded action.
            after: ``(B, h, w, c)`` latent after.

        Returns:
            ``(B, M)`` float32, normalised.

        Raises:
            ValueError: For latents or actions of another shape than those of the world it was trained for.
        """
        config = self.config
        before = before[:, None] if before.ndim == 4 else before
        grid = (config.height, config.width, config.latent_channels)
        shapes = (tuple(before.shape[2:]), tuple(after.shape[1:]), tuple(action.shape[1:]))
        if shapes != (grid, grid, (config.action_size,)) or before.ndim != 5 or before.shape[1] < 1:
            raise ValueError(
                f"this reward sees latents before (B, m, {', '.join(map(str, grid))}), an action (B, "
                f"{config.action_size}) and the latent after, got {tuple(before.shape)}, {tuple(action.shape)} and "
                f"{tuple(after.shape)}"
            )
        count = config.frames - 1
        missing = before[:, :1].expand(-1, max(0, count - before.shape[1]), -1, -1, -1)
        recent = before[:, max(0, before.shape[1] - count) :]
        seen = torch.cat([missing, recent, after[:, None].to(before.dtype)], dim=1)
        return (self._raw(seen.to(self.shift), action.to(self.shift)) - self.shift) / self.scale

    def _raw(self, seen: Tensor, action: Tensor) -> Tensor:
        return torch.stack([member(seen, action) for member in self.members], dim=1)

    @torch.no_grad()
    def normalise(self, episodes: list[LatentEpisode]) -> None:
        """Makes the reward have mean 0 and standard deviation 1 over the steps of the episodes.

        So does each member before their mean is taken: none of them counts for more than another.

        Raises:
            ValueError: If there is no step, or if a member says the same of all.
        """
        rows = []
        for episode in episodes:
            for begin in range(0, len(episode), _BATCH):
                end = min(begin + _BATCH, len(episode))
                seen = look_back(episode.latents, begin, end, self.config.frames).to(self.shift)
                rows.append(self._raw(seen, episode.actions[begin:end].to(self.shift)).cpu().double())
        if not rows:
            raise ValueError(f"{len(episodes)} episodes hold no step to normalise the reward over: record more")
        raw = torch.cat(rows)
        mean, std = raw.mean(0), raw.std(0, correction=0)
        if not bool((std > 1e-6 * mean.abs().clamp(min=1e-6)).all()):
            raise ValueError(
                f"the reward is {float(mean[std.argmin()]):g} at every one of {len(raw)} steps: nothing was learned; "
                "train for more steps (--loop.steps), or label more pairs"
            )
        together = ((raw - mean) / std).mean(1).std(correction=0)
        self.shift.copy_(mean)
        self.scale.copy_(std * together)

    def check_fits(self, world: World) -> None:
        """Compares with a world.

        Raises:
            ValueError: If it was learned on other latents, or for other actions.
        """
        for what, ours, theirs in (
            ("actions", self.facts["action_space"], world.config.action_space),
            ("tokenizer", self.facts["tokenizer"], tokenizer_fingerprint(world)),
        ):
            if ours != theirs:
                raise ValueError(
                    f"this reward was learned with {what} {ours}, the world {world.config.name} has {theirs}: train "
                    f"one with neuralsim agent train preference --world {world.source or world.config.name}"
                )

    def save(self, path: Path) -> Path:
        """Writes the model as one file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        told = {"reward": dataclasses.asdict(self.config), **self.facts}
        write_tensors(path, self.state_dict(), {"kind": KIND, "config": json.dumps(told)})
        return path

    @classmethod
    def load(cls, source: str | Path, device: str | torch.device = "cpu") -> PreferenceReward:
        """Reads a reward model.

        Args:
            source: A file, or the folder of a run.
            device: Where the latents will be.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If the file is damaged or holds no reward model.
        """
        path = Path(source).expanduser()
        path = path / PREFERENCE if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no reward model {path}; train one to its end with neuralsim agent train preference"
            )
        tensors, metadata = read_tensors(path)
        if metadata.get("kind") != KIND:
            raise ValueError(f"{path} holds no reward model, but {metadata.get('kind', 'an unknown kind of file')}")
        try:
            facts = json.loads(metadata["config"])
            config = PreferenceRewardConfig(**facts.pop("reward"))
            model = cls(config, make_members(config), facts)
            model.load_state_dict(tensors)
            missing = {"env_id", "action_space", "tokenizer", "trained"} - set(facts)
            if missing:
                raise ValueError(f"it does not tell its {', '.join(sorted(missing))}")
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise ValueError(f"{path} does not fit this version of neuralsim: {error!r}; train it anew") from None
        return model.to(device)


def make_members(config: PreferenceRewardConfig) -> nn.ModuleList:
    """Untrained networks, as many as the config says.

    Raises:
        ValueError: If that is none.
    """
    if config.members < 1:
        raise ValueError(f"members is {config.members}; it must be at least 1")
    return nn.ModuleList(PreferenceNet(config) for _ in range(config.members))
