"""Stable-Baselines3's PPO learns Pong in the dream alone; then it plays the real game, beside a random player.

pip install "neuralsim-gym[rl,atari]" && python examples/train_sb3_ppo.py

All lanes are dreamed in one batch (SB3VecEnv). The model is saved in a form that ``neuralsim agent evaluate
sb3=PATH.zip`` and ``neuralsim record --policy sb3=PATH.zip`` play too. ``--help`` lists the arguments.
"""

import json
from pathlib import Path

import gymnasium as gym
import tyro
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecFrameStack

import neuralsim  # noqa: F401  (registers the dreams)
from neuralsim.agents.agent_evaluation import AgentEvaluation, evaluate_agent
from neuralsim.agents.sb3_vec_env import SB3VecEnv


def main(
    steps: int = 200_000,
    lanes: int = 16,
    sampling_steps: int = 4,
    dream_length: int = 256,
    episodes: int = 10,
    seed: int = 0,
    out: Path = Path("runs/sb3-ppo"),
) -> None:
    """Trains PPO in dreams and plays the real game.

    Args:
        steps: Steps of training, over all lanes.
        lanes: Dreams side by side.
        sampling_steps: Sampling steps K per dreamed frame: fewer are faster, more are truer.
        dream_length: Steps after which a dream is cut off; long ones drift away from the game.
        episodes: Real games that judge the result.
        seed: Of everything.
        out: Folder of the model.
    """
    envs = gym.make_vec(
        "Dream-Pong-v0", num_envs=lanes, sampling_steps=sampling_steps, starts="any",
        max_episode_steps=dream_length, autoreset_mode="SameStep",
    )  # fmt: skip
    config = envs.unwrapped.world.config
    model = PPO(
        "CnnPolicy", VecFrameStack(SB3VecEnv(envs), 4), n_steps=min(128, max(2, steps // lanes)), batch_size=256,
        n_epochs=4, learning_rate=2.5e-4, clip_range=0.1, ent_coef=0.01, seed=seed, verbose=1,
    )  # fmt: skip
    model.learn(steps, progress_bar=True)
    envs.close()
    out.mkdir(parents=True, exist_ok=True)
    model.save(out / "model.zip")
    for player in (f"sb3={out / 'model.zip'}", "random"):
        evaluate_agent(
            AgentEvaluation(player, config.env_id, json.dumps(config.env_kwargs), episodes, seed=seed + 1000)
        )


if __name__ == "__main__":
    tyro.cli(main)
