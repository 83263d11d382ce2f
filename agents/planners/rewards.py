"""What a planner is to make much of: what the world learned to pay, or any function of what is dreamed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from neuralsim.world import World


@dataclass(frozen=True)
class RewardFunction:
    """A reward of one's own, such as a preference model: any callable.

    Args:
        function: One reward per step, ``(B,)``, array or tensor, from tensors on the world's device.
        sees: What it is called with. ``"frames"``: the frames ``(B, H, W, 3)`` uint8 that the steps arrive at, which
            must be drawn for it. ``"latents"``: their latents ``(B, h, w, c)`` float32, which are there anyway.
            ``"transitions"``: the latents before ``(B, m, h, w, c)``, oldest first, the encoded action ``(B, A)`` and
            the latent after ``(B, h, w, c)``, all float32; a
            :class:`~neuralsim.agents.preferences.reward_model.PreferenceReward` is such a function.

    Raises:
        ValueError: If ``sees`` is none of these.
    """

    function: Callable[..., Any]
    sees: Literal["frames", "latents", "transitions"] = "frames"

    def __post_init__(self) -> None:
        if self.sees not in ("frames", "latents", "transitions"):
            raise ValueError(
                f"a reward function sees {self.sees!r}; it can see 'frames', 'latents' or whole 'transitions'"
            )

    def __call__(self, world: World, before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        """Rewards ``(B,)`` float32 of steps, given as ``"transitions"`` are.

        Raises:
            ValueError: If the function does not return B finite numbers; the message names what it returned.
        """
        latents = after.float()
        seen: tuple[Tensor, ...] = (latents,)
        if self.sees == "frames":
            seen = (world.decode(after),)
        elif self.sees == "transitions":
            seen = (before.float(), action.float(), latents)
        name = getattr(self.function, "__name__", type(self.function).__name__)
        try:
            rewards = torch.as_tensor(self.function(*seen)).detach().to(latents.device, torch.float32)
        except (TypeError, RuntimeError) as error:
            shapes = ", ".join(f"{tuple(tensor.shape)} {tensor.dtype}" for tensor in seen)
            raise ValueError(f"the reward function {name} fails on {self.sees} {shapes}: {error}") from error
        if rewards.shape != (len(latents),):
            raise ValueError(
                f"the reward function {name} returned shape {tuple(rewards.shape)} for {len(latents)} {self.sees}; "
                f"return one number for each, shape ({len(latents)},)"
            )
        wrong = rewards[~rewards.isfinite()]
        if len(wrong):
            raise ValueError(
                f"the reward function {name} returned {wrong[0]} for {len(wrong)} of {len(latents)} {self.sees}: "
                "return finite numbers, for example with torch.nan_to_num"
            )
        return rewards


def check_learned_reward(world: World) -> None:
    """Makes sure that a world has rewards to tell plans apart by.

    Raises:
        ValueError: If its recordings all paid the same, or its reward head was never trained.
    """
    values, advice = world.config.reward_values, "give a reward of your own (reward=RewardFunction(...))"
    if values is not None and len(set(values)) < 2:
        raise ValueError(
            f"every step of the world {world.config.name!r} pays {values[0]}, so all plans are worth the same: {advice}"
        )
    out = world.heads.out_reward
    if not (out.weight.any() or out.bias.any()):
        raise ValueError(f"the reward head of the world {world.config.name!r} was never trained: {advice}")
    if not (out.weight.isfinite().all() and out.bias.isfinite().all()):
        raise ValueError(
            f"the reward head of the world {world.config.name!r} holds weights that are no finite numbers: train it "
            f"again, or {advice}"
        )
