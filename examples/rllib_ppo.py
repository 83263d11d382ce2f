"""RLlib's PPO learns Pong in the natively batched dream.

pip install "neuralsim-gym[rllib]" && python examples/rllib_ppo.py

RLlib pins its own version of Gymnasium: give it an environment of its own. It makes vector environments by Gymnasium's
``vector_entry_point``, which is the dream's one forward pass for all lanes; every env runner holds a world.
"""

import gymnasium as gym
import numpy as np
import ray
import tyro
from gymnasium.wrappers.vector import DtypeObservation, RescaleObservation
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.tune.registry import register_env
from rich.progress import track

import neuralsim  # noqa: F401  (registers the dreams)
from neuralsim.envs.frame_stack import VectorFrameStack


def make_dreams(settings: dict) -> gym.vector.VectorEnv:
    envs = VectorFrameStack(gym.make_vec("neuralsim:Dream-Pong-v0", **settings))
    # RLlib's networks take observations as they are: floats, please.
    return RescaleObservation(DtypeObservation(envs, np.float32), np.float32(0), np.float32(1))


def main(
    steps: int = 50_000,
    lanes: int = 16,
    runners: int = 0,
    batch: int = 2_048,
    sampling_steps: int = 4,
    dream_length: int = 256,
    seed: int = 0,
) -> None:
    """Trains RLlib's PPO in dreams.

    Args:
        steps: Steps of training, over all lanes.
        lanes: Dreams side by side in every runner.
        runners: Processes that dream; 0 dreams in this one.
        batch: Steps between two updates.
        sampling_steps: Sampling steps K per dreamed frame.
        dream_length: Steps after which a dream is cut off.
        seed: Of everything.
    """
    register_env("stacked-dream", make_dreams)
    config = (
        PPOConfig()
        .environment(
            "stacked-dream",
            env_config={"sampling_steps": sampling_steps, "starts": "any", "max_episode_steps": dream_length},
        )
        .env_runners(
            num_env_runners=runners, num_envs_per_env_runner=lanes, gym_env_vectorize_mode="vector_entry_point"
        )
        .training(train_batch_size_per_learner=batch, minibatch_size=min(256, batch), num_epochs=4, lr=2.5e-4)
        .rl_module(
            model_config=DefaultModelConfig(
                conv_filters=[[32, 8, 4], [64, 4, 2], [64, 3, 1]], conv_activation="relu", head_fcnet_hiddens=[256]
            )
        )
        .debugging(seed=seed)
    )
    ray.init(num_cpus=max(1, runners + 1), include_dashboard=False, log_to_driver=False)
    algorithm = config.build_algo()
    for _ in track(range(max(1, steps // batch)), "training"):
        figures = algorithm.train()["env_runners"]
        print(f"{figures['num_env_steps_sampled_lifetime']:.0f} steps: {figures.get('episode_return_mean')} per dream")
    algorithm.stop()
    ray.shutdown()


if __name__ == "__main__":
    tyro.cli(main)
