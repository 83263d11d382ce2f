"""Crossing over from a running real episode into the dream, and back."""

from __future__ import annotations

import warnings

import gymnasium as gym
import numpy as np
import paying_game  # noqa: F401  (registers Paying-v0)
import pytest
from conftest import build_tiny_world
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from tiny_game import Tiny

from neuralsim.envs.dream import DreamEnv
from neuralsim.envs.preprocessing import Preprocess
from neuralsim.envs.real_to_dream import RealToDream, fit_real
from neuralsim.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world of the game that shows how far its dot has moved."""
    folder = tmp_path_factory.mktemp("worlds") / "paying"
    build_tiny_world(env_id="paying_game:Paying-v0", preprocessing={"size": [48, 64]}).save(folder)
    return World.load(folder, device="cpu", dtype="float32")


@pytest.fixture
def env(world: World) -> RealToDream:
    return RealToDream(world, max_episode_steps=8)


def dot(frame: np.ndarray) -> int:
    """Where the real game's white dot is."""
    return int(frame[3, :, 0].argmax())


def test_gymnasium_checker(world: World):
    gym.register("RealToDream-v0", entry_point=RealToDream, kwargs={"world": str(world.source)})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check_env(gym.make("RealToDream-v0", disable_env_checker=True).unwrapped)
            passive = gym.make("RealToDream-v0", render_mode="rgb_array")
            passive.reset(seed=0)
            passive.step(1)
            passive.unwrapped.to_dream()
            passive.step(1)
            passive.render()
            passive.close()
    finally:
        del gym.registry["RealToDream-v0"]


def test_crossing_over_and_back(env: RealToDream):
    frame, info = env.reset(seed=0)
    assert not info["in_dream"]
    for action in (1, 2, 3):
        frame, reward, terminated, truncated, info = env.step(action)
        assert (reward, terminated, truncated, info["in_dream"]) == (float(action), False, False, False)
    assert dot(frame) == 6
    _, info = env.to_dream()
    assert info["in_dream"]
    assert info["step"] == 0
    for _ in range(3):
        *_, info = env.step(5)
    assert info["in_dream"]
    assert info["step"] == 3
    frame, info = env.to_reality()
    assert not info["in_dream"]
    assert dot(frame) == 6
    frame, reward, *_ = env.step(4)
    assert dot(frame) == 10
    assert reward == 4.0
    again, _ = env.to_reality()  # already there
    assert np.array_equal(again, frame)


def test_the_dream_sees_the_last_frames_and_actions(world: World):
    env = RealToDream(world, context=3)
    frames, _ = env.reset(seed=4)
    frames = [frames]
    for action in (1, 2, 3, 4):
        frames.append(env.step(action)[0])
    observation, _ = env.to_dream()
    dreamed = [env.step(action)[0] for action in (0, 5, 1)]
    draw = int(np.random.Generator(np.random.PCG64(np.random.SeedSequence(4))).integers(2**31))
    dream = DreamEnv(world)
    expected, _ = dream.reset(seed=draw, options={"frames": np.stack(frames[-3:]), "actions": np.array([3, 4])})
    assert np.array_equal(observation, expected)
    for frame, action in zip(dreamed, (0, 5, 1), strict=True):
        assert np.array_equal(frame, dream.step(action)[0])


def test_right_after_the_reset_one_frame_is_enough(env: RealToDream):
    frame, _ = env.reset(seed=0)
    observation, _ = env.to_dream()
    expected, _ = DreamEnv(env.world).reset(options={"frames": frame})
    assert np.array_equal(observation, expected)


def test_seeds_repeat_everything(env: RealToDream):
    def episode(seed: int | None) -> list[np.ndarray]:
        seen = [env.reset(seed=seed)[0], env.step(1)[0], env.to_dream()[0]]
        seen += [env.step(2)[0], env.step(3)[0], env.to_dream()[0], env.step(2)[0], env.to_reality()[0], env.step(1)[0]]
        return seen

    first, then = episode(3), episode(None)
    again, then_again = episode(3), episode(None)
    assert all(np.array_equal(a, b) for a, b in zip(first + then, again + then_again, strict=True))
    assert not np.array_equal(first[4], episode(4)[4])


def test_another_future_of_the_same_moment(env: RealToDream):
    env.reset(seed=0)
    env.step(1)
    first, _ = env.to_dream()
    one = env.step(2)[0]
    second, info = env.to_dream()
    assert np.array_equal(first, second)
    assert info["step"] == 0
    assert not np.array_equal(one, env.step(2)[0])  # drawn anew


def test_reality_catches_up(env: RealToDream):
    env.reset(seed=0)
    env.step(1)
    env.to_dream()
    for action in (2, 3):
        env.step(action)
    frame, info = env.to_reality(advance=True)
    assert dot(frame) == 6
    assert info["advanced"] == {"steps": 2, "reward": 5.0, "terminated": False, "truncated": False}
    assert env.to_reality(advance=True)[1]["advanced"]["steps"] == 0


def test_reality_may_end_while_it_catches_up(world: World):
    env = RealToDream(world, gym.make("Paying-v0", length=3).unwrapped)
    env.reset(seed=0)
    env.step(1)
    env.to_dream()
    for _ in range(5):
        if env.step(2)[2]:
            break
    frame, info = env.to_reality(advance=True)
    assert dot(frame) == 5
    assert info["advanced"] == {"steps": 2, "reward": 4.0, "terminated": True, "truncated": False}
    with pytest.raises(ResetNeeded, match="real episode has ended"):
        env.step(0)
    with pytest.raises(ResetNeeded, match="nothing to dream on"):
        env.to_dream()
    env.reset()
    env.to_dream()


def test_after_the_end_of_a_dream(env: RealToDream):
    env.reset(seed=0)
    env.step(1)
    env.to_dream()
    while True:
        *_, terminated, truncated, _ = env.step(0)
        if terminated or truncated:
            break
    with pytest.raises(ResetNeeded, match="to_reality"):
        env.step(0)
    env.to_dream()
    env.step(0)
    frame, _ = env.to_reality()
    assert dot(frame) == 1
    env.step(1)


def test_before_the_first_reset(env: RealToDream):
    for call in (env.to_dream, env.to_reality, env.render, lambda: env.step(0)):
        with pytest.raises(ResetNeeded, match="no real episode has begun"):
            call()


def test_rendering(world: World):
    env = RealToDream(world, render_mode="rgb_array", render_scale=2)
    frame, _ = env.reset(seed=0)
    assert np.array_equal(env.render()[::2, ::2], frame)
    env.to_dream()
    frame, *_ = env.step(1)
    assert np.array_equal(env.render()[::2, ::2], frame)
    assert env.get_keys_to_action()[("w",)] == 2
    env.close()


class Ints(gym.ActionWrapper):
    def __init__(self, env):
        super().__init__(env)
        self.action_space = gym.spaces.Discrete(5)


def test_what_does_not_fit_is_refused(world: World):
    paying = gym.make("Paying-v0").unwrapped
    with pytest.raises(ValueError, match=r"Discrete\(5\).*Discrete\(6\)"):
        RealToDream(world, Ints(paying))
    with pytest.raises(ValueError, match=r"preprocessed by.*\[32, 32\].*\[48, 64\]"):
        RealToDream(world, Preprocess(paying, size=(32, 32)))
    with pytest.raises(ValueError, match=r"without wrappers of observations"):
        RealToDream(world, gym.wrappers.FrameStackObservation(Preprocess(paying, size=(48, 64)), 2))
    with pytest.raises(ValueError, match="no pixels"):
        RealToDream(world, Tiny(pixels="vector"))
    with pytest.raises(ValueError, match=r"context is 5 frames.*1 to 4"):
        RealToDream(world, context=5)
    with pytest.raises(ValueError, match="latent"):
        RealToDream(world, obs_type="latent")
    with pytest.raises(ValueError, match="'human'"):
        RealToDream(world, render_mode="human")
    with pytest.raises(ValueError, match="which environment"):
        RealToDream(build_tiny_world(env_id=""))


def test_a_preprocessed_environment_is_taken_as_it_is(world: World):
    real = Preprocess(gym.make("Paying-v0").unwrapped, size=(48, 64))
    assert fit_real(world, real) is real
    limited = gym.wrappers.TimeLimit(real, 3)
    assert fit_real(world, limited) is limited


@pytest.mark.parametrize("actions", ["multi", "box", "dict"])
def test_all_kinds_of_actions(actions: str):
    real = Tiny(actions=actions)
    env = RealToDream(build_tiny_world(real.action_space), real)
    env.action_space.seed(0)
    env.reset(seed=0)
    for _ in range(6):
        env.step(env.action_space.sample())
    env.to_dream()
    env.step(env.action_space.sample())
    env.to_reality(advance=True)


def test_pong():
    pytest.importorskip("ale_py")
    env = RealToDream("pong", sampling_steps=1, device="cpu")
    env.reset(seed=0)
    for _ in range(40):
        frame, *_ = env.step(2)
    dreamed, info = env.to_dream()
    assert info["in_dream"]
    assert np.abs(dreamed.astype(int) - frame).mean() < 3
    env.step(2)
    _, info = env.to_reality(advance=True)
    assert info["labels"]["player_present"] == 1.0
    assert info["advanced"]["steps"] == 1
    env.close()
