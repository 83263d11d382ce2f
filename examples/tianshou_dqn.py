"""Tianshou's DQN learns Pong in dreams.

pip install "neuralsim-gym[tianshou]" && python examples/tianshou_dqn.py

Tianshou steps the environments of its vector environment one by one, so its dreams are not batched: they share one
world, and cost what single dreams cost.
"""

import gymnasium as gym
import torch
import tyro
from gymnasium.wrappers import FrameStackObservation
from tianshou.algorithm import DQN
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, CollectStats, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OffPolicyTrainerParams
from torch import nn

import neuralsim  # noqa: F401  (registers the dreams)


class QNetwork(nn.Module):
    """Stacked frames (B, 4, H, W, 3) to action values (B, actions)."""

    def __init__(self, actions: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(12, 32, 8, stride=4), nn.ReLU(), nn.Conv2d(32, 64, 4, stride=2), nn.ReLU(),
            nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 512), nn.ReLU(), nn.Linear(512, actions),
        )  # fmt: skip

    def forward(self, obs, state=None, info=None):
        """Values, and the state of a recurrent network, of which there is none."""
        frames = torch.as_tensor(obs).float() / 255
        return self.net(frames.permute(0, 1, 4, 2, 3).flatten(1, 2)), state


def main(
    steps: int = 50_000,
    lanes: int = 4,
    sampling_steps: int = 4,
    dream_length: int = 256,
    buffer: int = 50_000,
    seed: int = 0,
) -> None:
    """Trains Tianshou's DQN in dreams.

    Args:
        steps: Steps of training, over all lanes.
        lanes: Dreams side by side.
        sampling_steps: Sampling steps K per dreamed frame.
        dream_length: Steps after which a dream is cut off.
        buffer: Frames that the replay buffer holds; 12 kB of memory each.
        seed: Of everything.
    """
    torch.manual_seed(seed)

    def make_dream() -> gym.Env:
        dream = gym.make(
            "Dream-Pong-v0", sampling_steps=sampling_steps, starts="any", max_episode_steps=dream_length
        )  # fmt: skip
        return FrameStackObservation(dream, 4)

    envs, test_envs = DummyVectorEnv([make_dream] * lanes), DummyVectorEnv([make_dream])
    envs.seed(seed)
    test_envs.seed(seed + lanes)
    space = make_dream().action_space
    policy = DiscreteQLearningPolicy(model=QNetwork(int(space.n)), action_space=space, eps_training=0.1)
    algorithm = DQN(policy=policy, optim=AdamOptimizerFactory(lr=1e-4), n_step_return_horizon=3, target_update_freq=500)
    # The stack of four is put together again when it is drawn: each frame is kept once.
    memory = VectorReplayBuffer(buffer, lanes, stack_num=4, ignore_obs_next=True, save_only_last_obs=True)
    collector = Collector[CollectStats](algorithm, envs, memory, exploration_noise=True)
    test_collector = Collector[CollectStats](algorithm, test_envs)
    warm_up = min(2_000, steps // 2) // lanes * lanes
    collector.reset()
    collector.collect(n_step=max(lanes, warm_up), random=True)
    epoch = min(5_000, steps)
    result = algorithm.run_training(
        OffPolicyTrainerParams(
            training_collector=collector, test_collector=test_collector, max_epochs=max(1, steps // epoch),
            epoch_num_steps=epoch, collection_step_num_env_steps=4 * lanes, test_step_num_episodes=1,
            update_step_num_gradient_steps_per_sample=0.25, batch_size=32,
        )
    )  # fmt: skip
    print(f"best dream: {result.best_score:+.1f} points in {dream_length} steps")


if __name__ == "__main__":
    tyro.cli(main)
