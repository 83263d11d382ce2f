"""TorchRL: its GymWrapper around the batched dream, a collector, and a few updates of its PPO.

pip install "neuralsim-gym[torchrl]" && python examples/torchrl_collector.py

TorchRL resets finished lanes by itself, so the dream is made with ``autoreset_mode="Disabled"``.
"""

import gymnasium as gym
import torch
import tyro
from rich.progress import track
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.envs import CatFrames, Compose, GymWrapper, RewardSum, ToTensorImage, TransformedEnv
from torchrl.modules import ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

import neuralsim  # noqa: F401  (registers the dreams)


def make_env(lanes: int, sampling_steps: int, dream_length: int) -> TransformedEnv:
    envs = gym.make_vec(
        "Dream-Pong-v0", num_envs=lanes, sampling_steps=sampling_steps, starts="any", max_episode_steps=dream_length,
        autoreset_mode="Disabled",
    )  # fmt: skip
    pictures = [ToTensorImage(in_keys=["observation"]), CatFrames(4, dim=-3, in_keys=["observation"])]
    return TransformedEnv(GymWrapper(envs, categorical_action_encoding=True), Compose(*pictures, RewardSum()))


def network(outputs: int) -> nn.Module:
    """Stacked frames (..., 12, 64, 64) to outputs."""
    convolutions = nn.Sequential(
        nn.Conv2d(12, 32, 8, stride=4), nn.ReLU(), nn.Conv2d(32, 64, 4, stride=2), nn.ReLU(),
        nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(256), nn.ReLU(), nn.Linear(256, outputs),
    )  # fmt: skip

    class AnyBatch(nn.Module):
        """TorchRL's batches have lanes and time; convolutions know one batch dimension."""

        def __init__(self) -> None:
            super().__init__()
            self.net = convolutions

        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            lead = pictures.shape[:-3]
            return self.net(pictures.reshape(-1, *pictures.shape[-3:])).reshape(*lead, outputs)

    return AnyBatch()


def main(
    steps: int = 50_000,
    lanes: int = 16,
    rollout: int = 64,
    sampling_steps: int = 4,
    dream_length: int = 256,
    seed: int = 0,
) -> None:
    """Trains TorchRL's PPO in dreams.

    Args:
        steps: Steps of training, over all lanes.
        lanes: Dreams side by side.
        rollout: Steps per lane between two updates.
        sampling_steps: Sampling steps K per dreamed frame.
        dream_length: Steps after which a dream is cut off.
        seed: Of everything.
    """
    torch.manual_seed(seed)
    env = make_env(lanes, sampling_steps, dream_length)
    env.set_seed(seed)
    actor = ProbabilisticActor(
        TensorDictModule(network(env.full_action_spec_unbatched["action"].n), ["observation"], ["logits"]),
        in_keys=["logits"], distribution_class=torch.distributions.Categorical, return_log_prob=True,
    )  # fmt: skip
    critic = ValueOperator(network(1), in_keys=["observation"])
    start = env.reset()
    critic(actor(start))  # lazy layers learn their sizes
    loss_module = ClipPPOLoss(actor, critic, clip_epsilon=0.1, entropy_coeff=0.01, normalize_advantage=True)
    advantage = GAE(gamma=0.99, lmbda=0.95, value_network=critic)
    optimizer = torch.optim.Adam(loss_module.parameters(), lr=2.5e-4)
    batch = rollout * lanes
    collector = Collector(env, actor, frames_per_batch=batch, total_frames=max(1, steps // batch) * batch)
    for data in track(collector, "training", total=max(1, steps // batch)):
        for _ in range(4):
            advantage(data)
            flat = data.reshape(-1)
            for index in torch.randperm(len(flat)).split(256):
                losses = loss_module(flat[index])
                loss = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(loss_module.parameters(), 0.5)
                optimizer.step()
        ended = data["next", "done"].squeeze(-1)
        if ended.any():
            points = data["next", "episode_reward"].squeeze(-1)[ended].mean().item()
            print(f"{int(ended.sum())} dreams ended, {points:+.2f} points each; loss {loss.item():.3f}")
    collector.shutdown()


if __name__ == "__main__":
    tyro.cli(main)
