"""Stable-Baselines3's DQN learns Pong in the dream alone; then it plays the real game, beside a random player.

pip install "neuralsim-gym[rl,atari]" && python examples/train_sb3_dqn.py

As train_sb3_ppo.py, off-policy: the replay buffer holds dreamed frames. ``--help`` lists the arguments.
"""

import json
from pathlib import Path

import gymnasium as gym
import tyro
from stable_baselines3 import DQN
from stable_baselines3.common.vec_env import VecFrameStack

import neuralsim  # noqa: F401  (registers the dreams)
from neuralsim.agents.agent_evaluation import AgentEvaluation, evaluate_agent
from neuralsim.agents.sb3_vec_env import SB3VecEnv


def main(
    steps: int = 100_000,
    lanes: int = 8,
    sampling_steps: int = 4,
    dream_length: int = 256,
    buffer: int = 20_000,
    episodes: int = 10,
    seed: int = 0,
    out: Path = Path("runs/sb3-dqn"),
) -> None:
    """Trains DQN in dreams and plays the real game.

    Args:
        steps: Steps of training, over all lanes.
        lanes: Dreams side by side.
        sampling_steps: Sampling steps K per dreamed frame: fewer are faster, more are truer.
        dream_length: Steps after which a dream is cut off; long ones drift away from the game.
        buffer: Transitions that the replay buffer holds; 50 kB of memory each.
        episodes: Real games that judge the result.
        seed: Of everything.
        out: Folder of the model.
    """
    envs = gym.make_vec(
        "Dream-Pong-v0", num_envs=lanes, sampling_steps=sampling_steps, starts="any",
        max_episode_steps=dream_length, autoreset_mode="SameStep",
    )  # fmt: skip
    config = envs.unwrapped.world.config
    # Two frames show where the ball is going, at half the memory of the usual four.
    model = DQN(
        "CnnPolicy", VecFrameStack(SB3VecEnv(envs), 2), buffer_size=buffer, learning_starts=min(5_000, steps // 2),
        learning_rate=1e-4, batch_size=32, train_freq=1, gradient_steps=2, target_update_interval=4_000,
        exploration_fraction=0.3, exploration_final_eps=0.02, seed=seed, verbose=1,
    )  # fmt: skip
    model.learn(steps, progress_bar=True, log_interval=20)
    envs.close()
    out.mkdir(parents=True, exist_ok=True)
    model.save(out / "model.zip")
    for player in (f"sb3={out / 'model.zip'}", "random"):
        evaluate_agent(
            AgentEvaluation(player, config.env_id, json.dumps(config.env_kwargs), episodes, seed=seed + 1000)
        )


if __name__ == "__main__":
    tyro.cli(main)
