"""PPO in one file, after CleanRL's ppo_atari.py (https://github.com/vwxyzjn/cleanrl): read it from top to bottom.

pip install "neuralsim-gym[atari]" && python examples/cleanrl_style_ppo.py

The environment is ``gym.make_vec("Dream-Pong-v0")``, one batched forward pass for all lanes; the agent that learned in
it then plays the real game, beside one that has learned nothing. ``--help`` explains every argument.
"""

from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
import tyro
from rich.progress import track
from torch import Tensor, nn
from torch.distributions import Categorical

import neuralsim  # noqa: F401  (registers the dreams)
from neuralsim.envs.frame_stack import VectorFrameStack
from neuralsim.envs.real import make_real


@dataclass
class Args:
    """Arguments of the run."""

    steps: int = 200_000
    """Steps of training, over all lanes."""
    lanes: int = 16
    """Dreams side by side."""
    rollout: int = 128
    """Steps per lane between two updates."""
    sampling_steps: int = 4
    """Sampling steps K per dreamed frame: fewer are faster, more are truer."""
    dream_length: int = 256
    """Steps after which a dream is cut off; long ones drift away from the game."""
    learning_rate: float = 2.5e-4
    """Of Adam, annealed to 0."""
    gamma: float = 0.99
    """Discount per step."""
    gae_lambda: float = 0.95
    """Of generalized advantage estimation (https://arxiv.org/abs/1506.02438)."""
    epochs: int = 4
    """How often each rollout is gone through."""
    minibatches: int = 8
    """Into how many parts a rollout is cut."""
    clip: float = 0.1
    """How far the policy's ratio may move (https://arxiv.org/abs/1707.06347, equation 7)."""
    entropy_weight: float = 0.01
    """Weight of the entropy bonus."""
    value_weight: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 0.5
    """Longer gradients are shortened to this."""
    games: int = 8
    """Real games that judge the result, played side by side."""
    game_steps: int = 3_000
    """A real game that lasts longer is cut off."""
    seed: int = 0
    """Of everything."""


def layer(module: nn.Module, gain: float = 2**0.5) -> nn.Module:
    nn.init.orthogonal_(module.weight, gain)
    nn.init.zeros_(module.bias)
    return module


class Network(nn.Module):
    """Frames (B, H, W, C) uint8 to logits (B, actions) and values (B,)."""

    def __init__(self, frame_shape: tuple[int, int, int], actions: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            layer(nn.Conv2d(frame_shape[2], 32, 8, stride=4)), nn.ReLU(),
            layer(nn.Conv2d(32, 64, 4, stride=2)), nn.ReLU(),
            layer(nn.Conv2d(64, 64, 3)), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        size = self.features(torch.zeros(1, frame_shape[2], *frame_shape[:2])).shape[1]
        self.hidden = nn.Sequential(layer(nn.Linear(size, 512)), nn.ReLU())
        self.policy, self.value = layer(nn.Linear(512, actions), 0.01), layer(nn.Linear(512, 1), 1.0)

    def forward(self, frames: Tensor) -> tuple[Categorical, Tensor]:
        """The policy's distributions and the values."""
        hidden = self.hidden(self.features(frames.permute(0, 3, 1, 2) / 255))
        return Categorical(logits=self.policy(hidden)), self.value(hidden)[:, 0]


@torch.no_grad()
def play(args: Args, config, network: Network) -> np.ndarray:
    """Returns (games,) of real games, played side by side."""
    real = gym.vector.SyncVectorEnv(
        [lambda: make_real(config.env_id, config.env_kwargs, config.preprocessing)] * args.games
    )
    envs = VectorFrameStack(real)
    frames, _ = envs.reset(seed=args.seed + 1000)
    returns, running = np.zeros(args.games), np.ones(args.games, bool)
    for _ in range(args.game_steps):
        frames, rewards, terminated, truncated, _ = envs.step(network(torch.from_numpy(frames))[0].sample().numpy())
        returns += rewards * running
        running &= ~(terminated | truncated)
        if not running.any():
            break
    envs.close()
    return returns


def main(args: Args) -> None:
    torch.manual_seed(args.seed)
    envs = VectorFrameStack(
        gym.make_vec(
            "Dream-Pong-v0", num_envs=args.lanes, sampling_steps=args.sampling_steps, starts="any",
            max_episode_steps=args.dream_length, autoreset_mode="SameStep",
        )
    )  # fmt: skip
    config = envs.unwrapped.world.config
    network = Network(envs.single_observation_space.shape, int(envs.single_action_space.n))
    print(f"before training: {play(args, config, network).mean():+.1f} points per real game")
    optimizer = torch.optim.Adam(network.parameters(), lr=args.learning_rate, eps=1e-5)

    shape = (args.rollout, args.lanes)
    frames_TB = torch.zeros((*shape, *envs.single_observation_space.shape), dtype=torch.uint8)
    actions_TB = torch.zeros(shape, dtype=torch.long)
    logprobs_TB, rewards_TB, overs_TB, values_TB = (torch.zeros(shape) for _ in range(4))
    points = np.zeros(args.lanes)
    finished: list[float] = []  # returns of the dreams that ended lately

    frames, _ = envs.reset(seed=args.seed)
    updates = max(1, args.steps // (args.rollout * args.lanes))
    for update in track(range(updates), "training"):
        optimizer.param_groups[0]["lr"] = args.learning_rate * (1 - update / updates)

        # Roll out.
        for t in range(args.rollout):
            frames_TB[t] = torch.from_numpy(frames)
            with torch.no_grad():
                policy, values_TB[t] = network(frames_TB[t])
            actions_TB[t] = policy.sample()
            logprobs_TB[t] = policy.log_prob(actions_TB[t])
            frames, rewards, terminated, truncated, info = envs.step(actions_TB[t].numpy())
            over = terminated | truncated
            points += rewards
            finished = [*finished, *points[over]][-100:]
            points[over] = 0
            cut = truncated & ~terminated
            if cut.any():  # the dream would have gone on: the value of its last frame stands for what was missed
                last = torch.from_numpy(np.stack(list(info["final_obs"][cut])))
                with torch.no_grad():
                    rewards[cut] += args.gamma * network(last)[1].numpy()
            rewards_TB[t], overs_TB[t] = torch.from_numpy(rewards), torch.from_numpy(over)

        # Estimate advantages.
        with torch.no_grad():
            next_value = network(torch.from_numpy(frames))[1]
        advantages_TB, advantage = torch.zeros(shape), torch.zeros(args.lanes)
        for t in reversed(range(args.rollout)):
            goes_on = 1 - overs_TB[t]
            delta = rewards_TB[t] + args.gamma * next_value * goes_on - values_TB[t]
            advantage = delta + args.gamma * args.gae_lambda * goes_on * advantage
            advantages_TB[t], next_value = advantage, values_TB[t]
        returns_TB = advantages_TB + values_TB

        # Update.
        flat = [x.flatten(0, 1) for x in (frames_TB, actions_TB, logprobs_TB, advantages_TB, returns_TB)]
        for _ in range(args.epochs):
            for index in torch.randperm(len(flat[0])).chunk(args.minibatches):
                seen, taken, old_logprob, gain, target = (x[index] for x in flat)
                policy, value = network(seen)
                ratio = (policy.log_prob(taken) - old_logprob).exp()
                gain = (gain - gain.mean()) / (gain.std() + 1e-8)
                policy_loss = -torch.min(gain * ratio, gain * ratio.clamp(1 - args.clip, 1 + args.clip)).mean()
                value_loss = 0.5 * (value - target).square().mean()
                loss = policy_loss + args.value_weight * value_loss - args.entropy_weight * policy.entropy().mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), args.max_grad_norm)
                optimizer.step()
        if (update + 1) % 10 == 0 and finished:
            print(f"update {update + 1}: {np.mean(finished):+.2f} points per dream of {args.dream_length} steps")
    envs.close()
    print(f"after training: {play(args, config, network).mean():+.1f} points per real game")


if __name__ == "__main__":
    main(tyro.cli(Args))
