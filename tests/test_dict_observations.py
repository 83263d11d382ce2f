"""``obs_key="pov"``: the same dreams, with frames in a dict as MineRL's environments show them."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from conftest import build_tiny_world
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from neuralsim.agents import PPO
from neuralsim.envs.dream import DreamEnv
from neuralsim.envs.dream_vector import DreamVectorEnv
from neuralsim.envs.first_person import FirstPersonKeys
from neuralsim.envs.flatten_actions import FlattenActions, FlattenVectorActions
from neuralsim.envs.frame_stack import VectorFrameStack
from neuralsim.envs.keyboard import SPACE
from neuralsim.envs.minerl_spaces import observation_space
from neuralsim.envs.play import PlayConfig, open_game
from neuralsim.envs.real_to_dream import RealToDream
from neuralsim.envs.session import Session
from neuralsim.registration import OWN_WORLD


def test_as_minerl_shows_them(minerl_world: Path):
    env = gym.make(OWN_WORLD, world=str(minerl_world), obs_key="pov")
    assert env.observation_space == observation_space(48, 64)
    observation, _ = env.reset(seed=0)
    assert list(observation) == ["pov"]
    assert env.observation_space.contains(observation)
    observation, *_ = env.step(env.action_space.sample())
    assert env.observation_space.contains(observation)


def test_frames_are_plain_unless_somebody_asks(minerl_world: Path):
    """Whatever observations a world was learned from, and whatever the name, latents are a Box."""
    assert isinstance(DreamEnv(minerl_world).observation_space, spaces.Box)
    for make in (DreamEnv, lambda *args, **kwargs: DreamVectorEnv(2, *args, **kwargs)):
        env = make(minerl_world, obs_type="latent", obs_key="pov")
        assert isinstance(env.observation_space, spaces.Box)
        assert env.reset(seed=0)[0].dtype == np.float32


@pytest.mark.parametrize("key", ["", 3, ("pov",)])
def test_a_key_that_is_no_name_is_refused(tiny_world: Path, key):
    with pytest.raises(ValueError, match=r"obs_key is .*; it must be a name such as 'pov', or None"):
        DreamEnv(tiny_world, obs_key=key)


def test_checkers(tiny_world: Path, minerl_world: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*symmetric and normalized")  # a camera is no joystick
        for world in (tiny_world, minerl_world):
            check_env(gym.make(OWN_WORLD, world=str(world), obs_key="pov", disable_env_checker=True).unwrapped)
            passive = gym.make(OWN_WORLD, world=str(world), obs_key="pov", render_mode="rgb_array")
            passive.reset(seed=0)
            passive.step(passive.action_space.sample())


def test_stable_baselines3_checker(tiny_world: Path):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    checker.check_env(gym.make(OWN_WORLD, world=str(tiny_world), obs_key="pov").unwrapped)


def test_the_same_dream(tiny_world: Path):
    plain, named = DreamEnv(tiny_world), DreamEnv(tiny_world, obs_key="pov")
    assert np.array_equal(plain.reset(seed=3)[0], named.reset(seed=3)[0]["pov"])
    for action in (1, 0):
        mine, other = named.step(action), plain.step(action)
        assert np.array_equal(mine[0]["pov"], other[0])
        assert mine[1:] == other[1:]
    copied = pickle.loads(pickle.dumps(named))
    mine, other = named.step(2), copied.step(2)
    assert np.array_equal(mine[0]["pov"], other[0]["pov"])
    mine[0]["pov"][:] = 0  # a new array, nobody else's
    assert np.array_equal(named._lanes.frames()[0], other[0]["pov"])


@pytest.mark.parametrize("mode", AutoresetMode)
def test_many_at_once(tiny_world: Path, mode: AutoresetMode):
    plain, named = (
        gym.make_vec(
            OWN_WORLD, 3, world=str(tiny_world), starts="any", max_episode_steps=4, autoreset_mode=mode, obs_key=key
        )
        for key in (None, "pov")
    )
    assert named.observation_space == spaces.Dict({"pov": spaces.Box(0, 255, (3, 48, 64, 3), np.uint8)})
    assert np.array_equal(plain.reset(seed=5)[0], named.reset(seed=5)[0]["pov"])
    ends = 0
    for action in range(9):
        mine, other = (envs.step(np.full(3, action % 6)) for envs in (named, plain))
        assert named.observation_space.contains(mine[0])
        assert np.array_equal(mine[0]["pov"], other[0])
        over = mine[2] | mine[3]
        ends += over.sum()
        for lane in np.flatnonzero(over) if mode is AutoresetMode.SAME_STEP else ():
            final = mine[4]["final_obs"][lane]
            assert named.single_observation_space.contains(final)
            assert np.array_equal(final["pov"], other[4]["final_obs"][lane])
        if mode is AutoresetMode.DISABLED and over.any():
            mine, other = (envs.reset(options={"reset_mask": over}) for envs in (named, plain))
            assert np.array_equal(mine[0]["pov"], other[0])
    assert ends >= 3


def test_a_real_game_and_its_dream_show_the_same(tmp_path: Path):
    world = build_tiny_world(env_id="paying_game:Paying-v0", preprocessing={"size": [48, 64]}).save(tmp_path / "w")
    plain, named = RealToDream(world), RealToDream(world, obs_key="pov")
    assert named.observation_space == spaces.Dict({"pov": plain.observation_space})

    def walk(env: RealToDream) -> list:
        seen = [env.reset(seed=1)[0], env.step(2)[0], env.to_dream()[0], env.step(3)[0]]
        return [*seen, env.to_reality()[0], env.step(1)[0]]

    for frame, observation in zip(walk(plain), walk(named), strict=True):
        assert named.observation_space.contains(observation)
        assert np.array_equal(frame, observation["pov"])


def test_stable_baselines3_plays_them(tiny_world: Path):
    sb3 = pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.vec_env import DummyVecEnv

    from neuralsim.agents.sb3_vec_env import SB3VecEnv

    settings = {"world": tiny_world, "max_episode_steps": 3, "obs_key": "pov"}
    ours = SB3VecEnv(DreamVectorEnv(2, **settings, autoreset_mode="SameStep"))
    theirs = DummyVecEnv([lambda: DreamEnv(**settings)] * 2)
    for envs in (ours, theirs):
        envs.seed(1)
    assert ours.reset()["pov"].shape == theirs.reset()["pov"].shape
    for _ in range(4):
        mine, other = ours.step(np.zeros(2, int)), theirs.step(np.zeros(2, int))
        assert mine[2].tolist() == other[2].tolist()
        for info, its in zip(mine[3], other[3], strict=True):
            if "terminal_observation" in its:
                last, its_last = info["terminal_observation"]["pov"], its["terminal_observation"]["pov"]
                assert np.abs(last.astype(int) - its_last).max() <= 2
    sb3.PPO("MultiInputPolicy", ours, n_steps=4, batch_size=4, n_epochs=1, device="cpu").learn(8)


def test_actions_are_flattened_around_them(minerl_world: Path):
    single = FlattenActions(DreamEnv(minerl_world, obs_key="pov"), bins=5)
    single.reset(seed=0)
    assert single.step(single.action_space.sample())[0]["pov"].shape == (48, 64, 3)
    envs = FlattenVectorActions(DreamVectorEnv(2, minerl_world, obs_key="pov"), bins=5)
    envs.reset(seed=0)
    assert envs.step(envs.action_space.sample())[0]["pov"].shape == (2, 48, 64, 3)


@pytest.mark.parametrize("key", [None, "pov"])
def test_a_person_plays_them(minerl_world: Path, key: str | None):
    """As ``neuralsim play`` does, whatever form the observations have."""
    env = open_game(PlayConfig(str(minerl_world), env_kwargs=json.dumps({"obs_key": key}), device="cpu"))
    session = Session(env, seed=2)
    assert isinstance(session.keys, FirstPersonKeys)
    session.keys.look(30, 0)
    session.advance([ord("w"), SPACE])
    assert session.keys.describe(session.score.action) == "forward, jump, look 0 4.5"
    assert session.frame.shape == (48, 64, 3)
    session.rewind()
    assert session.score.step == 0
    session.close()


def test_who_wants_plain_frames_says_how_to_get_them(tiny_world: Path):
    envs = DreamVectorEnv(2, tiny_world, obs_key="pov")
    for use in (VectorFrameStack, PPO):
        with pytest.raises(ValueError, match=r"shows Dict\('pov'.*obs_key=None.*Preprocess"):
            use(envs)
