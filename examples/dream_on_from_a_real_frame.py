"""Play the real game for a while, then let the dream go on from the frames that were seen.

pip install "neuralsim-gym[atari]" && python examples/dream_on_from_a_real_frame.py
"""

import gymnasium as gym
import numpy as np

import neuralsim  # noqa: F401  (registers the dreams)
from neuralsim.agents.scripted import PongPlayer
from neuralsim.envs.real import make_real
from neuralsim.film import write_film


def main() -> None:
    dream = gym.make("Dream-Pong-v0", max_episode_steps=10_000)
    config = dream.unwrapped.world.config
    real = make_real(config.env_id, config.env_kwargs, config.preprocessing)
    player = PongPlayer(skill=0.9, seed=0)
    frame, _ = real.reset(seed=0)
    frames, actions = [frame], []
    for _ in range(120):
        actions.append(player.act(frame, {}))
        frame, *_ = real.step(actions[-1])
        frames.append(frame)
    film = list(frames)
    frame, _ = dream.reset(options={"frames": np.stack(frames[-33:]), "actions": np.array(actions[-32:])})
    for _ in range(200):
        frame, _, terminated, truncated, _ = dream.step(player.act(frame, {}))
        film.append(frame)
        if terminated or truncated:
            break
    print(write_film("real_then_dreamed.gif", np.stack(film), fps=config.fps, scale=4))


if __name__ == "__main__":
    main()
