"""Dreams that end where trust does: how far do random players get before the dream doubts itself?

python examples/stop_when_unsure.py
"""

import gymnasium as gym
import numpy as np

import neuralsim  # noqa: F401  (registers the dreams)


def main() -> None:
    for min_trust in (0.9, 0.8, 0.7):
        envs = gym.make_vec("Dream-Pong-v0", num_envs=8, min_trust=min_trust)
        envs.reset(seed=0)
        envs.action_space.seed(0)
        lasted = np.zeros(8, int)
        running = np.ones(8, bool)
        while running.any() and lasted.max() < 200:
            *_, terminated, truncated, _ = envs.step(envs.action_space.sample())
            lasted += running
            running &= ~(terminated | truncated)
        print(f"trust of at least {min_trust}: {lasted.min()} to {lasted.max()} steps, {lasted.mean():.0f} on average")
        envs.close()


if __name__ == "__main__":
    main()
