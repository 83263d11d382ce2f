"""Batched dreams behind Stable-Baselines3's vector interface."""

from __future__ import annotations

import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from conftest import build_tiny_world
from gymnasium.vector import SyncVectorEnv
from tiny_game import ACTIONS, Tiny

sb3 = pytest.importorskip("stable_baselines3")

from stable_baselines3.common.evaluation import evaluate_policy  # noqa: E402
from stable_baselines3.common.monitor import Monitor  # noqa: E402
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecTransposeImage  # noqa: E402

from neuralsim.agents.sb3_vec_env import SB3VecEnv  # noqa: E402
from neuralsim.envs.dream import DreamEnv  # noqa: E402
from neuralsim.envs.dream_vector import DreamVectorEnv  # noqa: E402
from neuralsim.envs.flatten_actions import FlattenVectorActions  # noqa: E402


def dreams(world, lanes: int = 3, **settings) -> SB3VecEnv:
    settings = {"starts": "any", "max_episode_steps": 6, "autoreset_mode": "SameStep", **settings}
    return SB3VecEnv(DreamVectorEnv(lanes, world, device="cpu", dtype="float32", **settings))


def test_as_stable_baselines_own_environment(tiny_world: Path):
    """Step for step what DummyVecEnv makes of single dreams with a Monitor around each."""

    def single() -> Monitor:
        return Monitor(DreamEnv(tiny_world, starts="any", max_episode_steps=6, device="cpu", dtype="float32"))

    ours, theirs = dreams(tiny_world), DummyVecEnv([single] * 3)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    for envs in (ours, theirs):
        assert list(envs.seed(5)) == [5, 6, 7]
    # A level or two is what batched arithmetic may differ by.
    assert np.abs(ours.reset().astype(int) - theirs.reset()).max() <= 2
    rng = np.random.default_rng(0)
    ended = 0
    for _ in range(20):
        actions = rng.integers(0, 6, 3)
        mine, yours = ours.step(actions), theirs.step(actions)
        assert np.abs(mine[0].astype(int) - yours[0]).max() <= 2
        assert mine[1].dtype == yours[1].dtype == np.float32
        assert mine[1].tolist() == yours[1].tolist()
        assert mine[2].tolist() == yours[2].tolist()
        for lane in range(3):
            info, other = mine[3][lane], yours[3][lane]
            assert set(info) == set(other)
            assert type(info["uncertainty"]) is float
            assert info["step"] == other["step"]
            assert info["TimeLimit.truncated"] is other["TimeLimit.truncated"]
            if mine[2][lane]:
                ended += 1
                assert np.abs(info["terminal_observation"].astype(int) - other["terminal_observation"]).max() <= 2
                assert (info["episode"]["r"], info["episode"]["l"]) == (other["episode"]["r"], other["episode"]["l"])
                assert ours.reset_infos[lane]["step"] == theirs.reset_infos[lane]["step"] == 0
    assert ended >= 9


def test_seeds_are_used_once(tiny_world: Path):
    envs = dreams(tiny_world)
    envs.seed(1)
    first, then = envs.reset(), envs.reset()
    assert not np.array_equal(first, then)
    envs.seed(1)
    assert np.array_equal(first, envs.reset())
    assert np.array_equal(then, envs.reset())


def test_options_are_used_once(tiny_world: Path):
    envs = dreams(tiny_world)
    envs.set_options({"start": [2, 0, 1]})
    envs.reset()
    assert [info["start"] for info in envs.reset_infos] == [2, 0, 1]
    envs.set_options({"start": 3})
    envs.reset()
    assert [info["start"] for info in envs.reset_infos] == [3, 3, 3]
    assert envs._options == [{}] * 3
    with pytest.raises(ValueError, match="one dict for all lanes"):
        envs.set_options([{}, {}, {}])


def test_what_lanes_share(tiny_world: Path):
    envs = dreams(tiny_world, render_mode="rgb_array")
    envs.reset()
    assert envs.get_attr("render_mode") == ["rgb_array"] * 3
    assert envs.get_attr("action_space", [0]) == [gym.spaces.Discrete(6)]
    assert envs.has_attr("world")
    assert not envs.has_attr("wrold")
    envs.set_attr("remark", 7)
    assert envs.get_attr("remark") == [7] * 3
    with pytest.raises(ValueError, match="all 3 lanes"):
        envs.set_attr("remark", 8, indices=[1])
    assert [frame.shape for frame in envs.env_method("render")] == [(48, 64, 3)] * 3
    assert len(envs.env_method("clone_state")) == 3
    with pytest.raises(ValueError, match="all 3 lanes"):
        envs.env_method("clone_state", indices=0)
    assert envs.env_is_wrapped(Monitor) == [True] * 3
    assert envs.env_is_wrapped(gym.wrappers.TimeLimit, indices=[0, 2]) == [False] * 2
    assert envs.render().shape == (2 * 48, 2 * 64, 3)
    assert [image.shape for image in envs.get_images()] == [(48, 64, 3)] * 3
    assert dreams(tiny_world).get_images() == [None] * 3
    envs.close()


def test_other_vector_environments_too():
    envs = SB3VecEnv(SyncVectorEnv([lambda: Tiny(length=4)] * 2, autoreset_mode="SameStep"))
    envs.reset()
    for _ in range(4):
        observations, _, dones, infos = envs.step(np.zeros(2, int))
    assert dones.all()
    assert observations[0, 0, 0].tolist() == [0, 0, 0]
    assert infos[1]["terminal_observation"][0, 0].tolist() == [4, 4, 4]
    assert infos[1]["labels"] == {"time": 4.0}
    assert envs.reset_infos[1]["labels"] == {"time": 0.0}


def test_another_autoreset_mode_is_refused(tiny_world: Path):
    with pytest.raises(ValueError, match='autoreset_mode="SameStep"'):
        SB3VecEnv(DreamVectorEnv(2, tiny_world))


def test_ppo_logs_what_dreams_paid(tiny_world: Path):
    envs = VecFrameStack(dreams(tiny_world), 2)
    model = sb3.PPO("CnnPolicy", envs, n_steps=8, batch_size=8, n_epochs=1, seed=0)
    assert isinstance(model.env, VecTransposeImage)
    model.learn(24)
    assert model.ep_info_buffer
    assert {info["l"] for info in model.ep_info_buffer} <= set(range(1, 7))
    rewards, lengths = evaluate_policy(model, envs, n_eval_episodes=3, return_episode_rewards=True, warn=True)
    assert len(rewards) == len(lengths) == 3
    assert max(lengths) <= 6


def test_dqn_learns_from_dict_actions(tiny_world: Path):
    world = build_tiny_world(ACTIONS["dict"])
    plain = DreamVectorEnv(2, world, starts="any", max_episode_steps=5, autoreset_mode="SameStep")
    envs = SB3VecEnv(FlattenVectorActions(plain, "discrete", bins=3))
    model = sb3.DQN("CnnPolicy", envs, buffer_size=50, learning_starts=8, batch_size=4, seed=0)
    model.learn(24)
    assert model.action_space == gym.spaces.Discrete(18)
    assert model.num_timesteps == 24


def test_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "neuralsim.agents.sb3_vec_env")
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(ModuleNotFoundError, match=r"neuralsim-gym\[rl\]"):
        import neuralsim.agents.sb3_vec_env  # noqa: F401
