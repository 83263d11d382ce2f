"""One moment, many futures: clone a dream, hold every action for 300 steps, and see what each would have paid.

python examples/branch_a_dream.py
"""

import gymnasium as gym

import neuralsim  # noqa: F401  (registers the dreams)


def main() -> None:
    env = gym.make("Dream-Pong-v0").unwrapped
    env.reset(seed=1)
    for _ in range(40):
        env.step(0)
    moment = env.clone_state()
    for action, name in enumerate(env.world.config.action_meanings):
        env.restore_state(moment)
        total = 0.0
        for _ in range(300):
            _, reward, terminated, truncated, _ = env.step(action)
            total += reward
            if terminated or truncated:
                break
        print(f"{name:10s} {total:+.0f}")


if __name__ == "__main__":
    main()
