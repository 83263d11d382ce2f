"""Playing in many lanes for some steps and keeping what is learned from them: the first half of PPO.

All of it are buffers of a module, and lie beside the weights in a checkpoint: the steps collected last, the episodes
that are under way and, in a dream, the dreams themselves. A frame is kept once; which of them are seen together at a
step is kept as indices.

Legend: N lanes, T steps of each, n frames seen, A size of an encoded action.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor, nn

from neuralsim.actions import ActionCodec
from neuralsim.agents.action_distribution import ActionDistribution
from neuralsim.agents.saved_dreams import restore_dreams, save_dreams
from neuralsim.agents.transitions import Transition, Transitions
from neuralsim.envs.dream_vector import DreamVectorEnv

RECENT = 100
"""Episodes over which the mean return is told."""

Judge = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Frames seen ``(B, n, pixels)`` uint8 to logits ``(B, P)`` and values ``(B,)``."""


class Collected(NamedTuple):
    """What the steps brought, for :func:`~neuralsim.agents.ppo_objective.advantages_and_returns`."""

    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    values: Tensor
    beyond: Tensor


class Rollouts(nn.Module):
    """A vector environment, and the last T steps in each of its lanes.

    Args:
        envs: Observations are frames ``(H, W, 3)`` uint8; it is reset.
        name: What it is called in errors.
        horizon: T.
        frames: n.
        seed: Of the first episodes.

    Attributes:
        frames: ``(N, n - 1 + T, pixels)`` uint8, all frames there were.
        seen: ``(N, T, n)``, which of them were seen at each step, oldest first.
        actions: ``(N, T, A)`` encoded.
        log_prob: ``(N, T)``, ln pi of the action when it was taken.
        values: ``(N, T)``, what was said of the state.
        counted: ``(N, T)`` bool, False where the step only began an episode.
        collected: How often T steps were played.
        episodes: How many have come to an end.

    Raises:
        ValueError: If the observations are no frames or the actions cannot be encoded.
    """

    frames: Tensor
    seen: Tensor
    actions: Tensor
    log_prob: Tensor
    values: Tensor
    counted: Tensor
    recent: Tensor
    ended: Tensor
    episode_return: Tensor
    episode_length: Tensor
    finished: Tensor
    episodes: Tensor
    moment: Tensor
    collected: Tensor

    def __init__(self, envs: VectorEnv, name: str, horizon: int, frames: int, seed: int) -> None:
        super().__init__()
        self.envs, self.name, self.seed = envs, name, seed
        self.transitions = Transitions(envs, name)
        self.codec = ActionCodec(envs.single_action_space)
        self.distribution = ActionDistribution(self.codec)
        lanes, pixels = envs.num_envs, int(np.prod(envs.single_observation_space.shape or ()))
        # Frames lie flat: the training loop lays out what has four dimensions as pictures.
        self.register_buffer("frames", torch.zeros(lanes, frames - 1 + horizon, pixels, dtype=torch.uint8))
        self.register_buffer("seen", torch.zeros(lanes, horizon, frames, dtype=torch.long))
        self.register_buffer("actions", torch.zeros(lanes, horizon, self.codec.size))
        self.register_buffer("log_prob", torch.zeros(lanes, horizon))
        self.register_buffer("values", torch.zeros(lanes, horizon))
        self.register_buffer("counted", torch.zeros(lanes, horizon, dtype=torch.bool))
        # Where the games stand after it: what is seen, where a lane's next step is none, and episodes so far.
        self.register_buffer("recent", torch.zeros(lanes, frames, pixels, dtype=torch.uint8))
        self.register_buffer("ended", torch.zeros(lanes, dtype=torch.bool))
        self.register_buffer("episode_return", torch.zeros(lanes))
        self.register_buffer("episode_length", torch.zeros(lanes, dtype=torch.long))
        self.register_buffer("moment", torch.zeros(0, dtype=torch.uint8))
        # Return and length of the last episodes that came to an end, in a ring.
        self.register_buffer("finished", torch.zeros(RECENT, 2))
        self.register_buffer("episodes", torch.tensor(0))
        self.register_buffer("collected", torch.tensor(0))
        self._at = 0  # how often this process's environment has been played when it stands where it stands
        self._begin_episodes()

    @torch.no_grad()
    def collect(self, judge: Judge) -> Collected:
        """Plays T steps in every lane.

        Args:
            judge: The policy and value that play.

        Raises:
            ValueError: If a reward is not finite; the message names environment, lane and step.
        """
        self._catch_up()
        device, (lanes, horizon, n) = self.frames.device, self.seen.shape
        rng = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        rewards, beyond = torch.zeros_like(self.values), torch.zeros_like(self.values)
        terminated, truncated = torch.zeros_like(self.counted), torch.zeros_like(self.counted)
        window = self.recent
        index = torch.arange(n, device=device).expand(lanes, n)  # of the window's frames among those kept
        self.frames[:, :n] = window
        for t in range(horizon):
            self.seen[:, t] = index
            logits, value = judge(window)
            action = self.distribution.sample(logits, rng)
            self.actions[:, t], self.values[:, t] = action, value
            self.log_prob[:, t] = self.distribution.log_prob(logits, action)
            step = self.transitions.step(self.codec.decode(action.cpu().numpy()))
            rewards[:, t] = torch.from_numpy(step.rewards).to(rewards)
            terminated[:, t] = torch.from_numpy(step.terminated)
            truncated[:, t] = torch.from_numpy(step.truncated)
            self.counted[:, t] = torch.from_numpy(step.counted)
            cut = torch.from_numpy(step.truncated & ~step.terminated).to(device)
            if cut.any():
                beyond[cut, t] = judge(push(window[cut], self._flat(step.last)[cut]))[1]
            now, begun = self._flat(step.frames), torch.from_numpy(step.begun).to(device)
            window = push(window, now, begun)
            index = push(index, torch.full_like(index[:, 0], n + t), begun)
            if t + 1 < horizon:
                self.frames[:, n + t] = now
            self._count(step)
        values = torch.cat([self.values, judge(window)[1][:, None]], dim=1)
        self.recent.copy_(window)
        self._keep_place()
        self.collected += 1
        self._at = int(self.collected)
        return Collected(rewards, terminated, truncated, values, beyond)

    def windows(self, lane: Tensor, t: Tensor) -> Tensor:
        """What was seen in lanes ``(B,)`` at steps ``(B,)``: ``(B, n, pixels)`` uint8, oldest first."""
        return self.frames[lane[:, None], self.seen[lane, t]]

    def recent_episodes(self) -> np.ndarray:
        """Return and length ``(episodes, 2)`` of the last episodes that came to an end, :data:`RECENT` at most."""
        return self.finished[: int(self.episodes)].cpu().numpy()

    def _begin_episodes(self) -> None:
        """New episodes in all lanes; a run that was interrupted begins others than it began with."""
        seed = (self.seed * 1_000_003 + int(self.collected) * self.envs.num_envs) % 2**31
        first = self._flat(self.transitions.reset(seed))
        self.recent.copy_(first[:, None].expand_as(self.recent))
        self.episode_return.zero_()
        self.episode_length.zero_()
        self._keep_place()

    def _keep_place(self) -> None:
        self.ended.copy_(torch.from_numpy(self.transitions.ended))
        if isinstance(self.envs, DreamVectorEnv):
            self.moment = save_dreams(self.envs).to(self.frames.device)

    def _catch_up(self) -> None:
        """Brings the environment to where the checkpoint that was loaded left it."""
        if self._at == int(self.collected):
            return
        if isinstance(self.envs, DreamVectorEnv):
            restore_dreams(self.envs, self.moment)
            self.transitions.ended = self.ended.cpu().numpy().copy()
        else:
            print(f"{self.name} cannot be set back to where it was: new episodes begin")
            self._begin_episodes()
        self.transitions.steps = int(self.collected) * self.seen.shape[1]
        self._at = int(self.collected)

    def _count(self, step: Transition) -> None:
        """Takes note of returns and lengths of episodes."""
        self.episode_return += torch.from_numpy(step.rewards).to(self.episode_return)
        self.episode_length += torch.from_numpy(step.counted).to(self.episode_length)
        for lane in np.flatnonzero(step.terminated | step.truncated).tolist():
            row = self.finished[int(self.episodes) % RECENT]
            row[0], row[1] = self.episode_return[lane], self.episode_length[lane]
            self.episodes += 1
            self.episode_return[lane] = 0
            self.episode_length[lane] = 0

    def _flat(self, frames: np.ndarray) -> Tensor:
        return torch.from_numpy(frames).flatten(1).to(self.frames.device)


def push(window: Tensor, new: Tensor, begun: Tensor | None = None) -> Tensor:
    """The last n of something with one more.

    Args:
        window: ``(N, n, ...)``, oldest first.
        new: ``(N, ...)``.
        begun: ``(N,)`` bool, where it is the first of an episode and stands for all that would come before.
    """
    following = torch.cat([window[:, 1:], new[:, None]], dim=1)
    if begun is None:
        return following
    return torch.where(begun.reshape(-1, *[1] * (window.ndim - 1)), new[:, None].expand_as(window), following)
