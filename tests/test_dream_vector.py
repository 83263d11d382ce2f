"""Many dreams at once: the same dreams as alone, in all three ways of beginning anew."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from conftest import build_tiny_world
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import neuralsim  # noqa: F401
from neuralsim.envs.dream import DreamEnv
from neuralsim.envs.dream_vector import DreamVectorEnv

LEVELS = 2  # of 255: what rounding in batched arithmetic may add up to in a few steps


@pytest.fixture(params=[("NextStep", None), ("SameStep", None), ("SameStep", "pov")])
def pair(request: pytest.FixtureRequest, tiny_world: Path) -> tuple[DreamVectorEnv, SyncVectorEnv]:
    """One batched environment, and one that steps single environments one by one."""
    mode, obs_key = request.param
    settings = {"world": tiny_world, "starts": "any", "max_episode_steps": 7, "obs_key": obs_key}
    single = partial(DreamEnv, **settings)
    return (
        DreamVectorEnv(4, **settings, autoreset_mode=mode),
        SyncVectorEnv([single] * 4, autoreset_mode=mode),
    )


def close(first, second) -> bool:
    """Equal structure, types and values, frames up to rounding."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(close(first[key], second[key]) for key in first)
    if first is None or second is None:
        return first is second
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    if first.dtype == object:
        return all(close(a, b) for a, b in zip(first, second, strict=True))
    if first.dtype == np.uint8:
        return np.abs(first.astype(int) - second).max() <= LEVELS
    return np.allclose(first, second, atol=1e-3)


def test_lanes_dream_what_single_environments_dream(pair: tuple[DreamVectorEnv, SyncVectorEnv]):
    ours, theirs = pair
    assert ours.metadata["autoreset_mode"] is ours.autoreset_mode is theirs.metadata["autoreset_mode"]
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    for mine, other in zip(ours.reset(seed=11), theirs.reset(seed=11), strict=True):
        assert close(mine, other)
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(25):
        actions = rng.integers(6, size=4)
        mine, other = ours.step(actions), theirs.step(actions)
        ends += int((mine[2] | mine[3]).sum())
        for a, b in zip(mine, other, strict=True):
            assert close(a, b)
    assert ends > 8
    assert ours.np_random_seed == theirs.np_random_seed
    assert [g.bit_generator.state for g in ours.np_random] == [g.bit_generator.state for g in theirs.np_random]


def test_options_and_seeds_as_gymnasium_has_them(pair: tuple[DreamVectorEnv, SyncVectorEnv]):
    ours, theirs = pair
    mask = np.array([False, True, False, True])
    calls = [
        {"seed": [5, 6, 7, 8]},
        {"options": {"start": 2}},
        {"options": {"reset_mask": mask}},
        {"seed": 30, "options": {"reset_mask": mask, "start": 1}},
        {"seed": [1, None, 2, None]},
        {"options": {"frames": np.full((48, 64, 3), 9, np.uint8)}},
    ]
    for call in calls:
        # Gymnasium takes the mask out of the options it is given: a copy for each.
        results = [
            env.reset(**{key: dict(value) if isinstance(value, dict) else value for key, value in call.items()})
            for env in pair
        ]
        assert close(results[0][0], results[1][0]), call
        assert close(results[0][1], results[1][1]), call
        actions = np.array([0, 1, 2, 3])
        for mine, other in zip(ours.step(actions), theirs.step(actions), strict=True):
            assert close(mine, other), call


def test_options_are_not_changed(tiny_world: Path):
    envs = DreamVectorEnv(2, tiny_world)
    envs.reset(seed=0)
    options = {"reset_mask": np.array([True, False])}
    envs.reset(options=options)
    assert list(options) == ["reset_mask"]


def test_options_per_lane(tiny_world: Path):
    envs = DreamVectorEnv(3, tiny_world)
    single = DreamEnv(tiny_world)
    observations, info = envs.reset(seed=0, options={"start": [3, 0, 1]})
    assert info["start"].tolist() == [3, 0, 1]
    for i, start in enumerate((3, 0, 1)):
        assert close(observations[i], single.reset(seed=i, options={"start": start})[0])
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 4, 48, 64, 3), dtype=np.uint8)
    actions = rng.integers(6, size=(3, 3))
    envs.reset(seed=0, options={"frames": frames, "actions": actions})
    stepped = envs.step(np.array([1, 2, 3]))[0]
    for i in range(3):
        single.reset(seed=i, options={"frames": frames[i], "actions": actions[i]})
        assert close(stepped[i], single.step(i + 1)[0])
    mask = np.array([False, True, False])
    observations, info = envs.reset(seed=0, options={"frames": frames, "actions": actions, "reset_mask": mask})
    assert info["_start"].tolist() == [False, True, False]
    assert close(observations[1], single.reset(seed=1, options={"frames": frames[1], "actions": actions[1]})[0])


def test_types_and_shapes(tiny_world: Path):
    envs = DreamVectorEnv(3, tiny_world, obs_type="latent")
    observations, info = envs.reset(seed=0)
    assert observations.dtype == np.float32
    assert observations in envs.observation_space
    observations, rewards, terminated, truncated, info = envs.step(envs.action_space.sample())
    assert observations in envs.observation_space
    assert rewards.dtype == np.float64
    assert terminated.dtype == truncated.dtype == np.bool_
    assert info["uncertainty"].dtype == np.float64
    assert info["step"].dtype == info["start"].dtype == np.int64
    assert info["_uncertainty"].all()


def test_nothing_returned_is_reused(tiny_world: Path):
    envs = DreamVectorEnv(2, tiny_world)
    first, info = envs.reset(seed=0)
    second, *rest, last_info = envs.step(np.array([0, 1]))
    first[:], second[:] = 0, 0
    info["step"][:] = 99
    last_info["_step"][:] = False
    for values in rest:
        values[:] = 1
    third, _, terminated, truncated, info = envs.step(np.array([0, 1]))
    assert third.any()
    assert not (terminated | truncated).any()
    assert info["step"].tolist() == [2, 2]
    assert info["_step"].all()


# -- beginning anew


def test_next_step(tiny_world: Path):
    envs = DreamVectorEnv(2, tiny_world, max_episode_steps=3)
    assert envs.autoreset_mode is AutoresetMode.NEXT_STEP
    envs.reset(seed=0, options={"start": 0})
    envs.step([0, 0])
    envs.reset(options={"reset_mask": np.array([True, False])})  # out of step with each other
    envs.step([0, 0])
    _, _, _, truncated, info = envs.step([0, 0])
    assert truncated.tolist() == [False, True]
    _, rewards, _terminated, truncated, info = envs.step([0, 0])
    assert truncated.tolist() == [True, False]
    assert info["step"].tolist() == [3, 0]
    assert rewards[1] == 0
    assert info["uncertainty"][1] == 0
    _, _, _, truncated, info = envs.step([0, 0])
    assert truncated.tolist() == [False, False]
    assert info["step"].tolist() == [0, 1]


def test_same_step(tiny_world: Path):
    envs = DreamVectorEnv(2, tiny_world, max_episode_steps=2, autoreset_mode=AutoresetMode.SAME_STEP)
    single = DreamEnv(tiny_world)
    single.reset(seed=1)
    envs.reset(seed=0)
    envs.step([1, 1])
    envs.reset(seed=5, options={"reset_mask": np.array([True, False])})
    single.step(1)
    last = single.step(2)
    observations, _, _, truncated, info = envs.step([2, 2])
    assert truncated.tolist() == [False, True]
    assert info["_final_obs"].tolist() == info["_final_info"].tolist() == [False, True]
    assert info["final_obs"][0] is None
    assert close(info["final_obs"][1], last[0])
    assert info["final_info"]["step"].tolist() == [0, 2]
    assert info["final_info"]["_step"].tolist() == [False, True]
    assert info["step"].tolist() == [1, 0]
    assert not close(observations[1], last[0])


def test_disabled(tiny_world: Path):
    envs = DreamVectorEnv(3, tiny_world, max_episode_steps=2, autoreset_mode="Disabled")
    envs.reset(seed=0)
    envs.step([0, 0, 0])
    mask = np.array([False, True, False])
    envs.reset(options={"reset_mask": mask})
    *_, truncated, _ = envs.step([0, 0, 0])
    assert truncated.tolist() == [True, False, True]
    with pytest.raises(ResetNeeded, match=r"lanes \[0, 2\] have ended"):
        envs.step([0, 0, 0])
    envs.reset(options={"reset_mask": truncated})
    envs.step([0, 0, 0])


# -- branching and pickling


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_restored_dreams_replay_bit_for_bit(tiny_world: Path, mode: str):
    envs = DreamVectorEnv(3, tiny_world, starts="any", max_episode_steps=20, autoreset_mode=mode)
    envs.reset(seed=0)
    rng = np.random.default_rng(0)
    actions = rng.integers(6, size=(60, 3))
    for row in actions[:19]:  # lanes are about to end
        envs.step(row)
    state = envs.clone_state(include_rng=True)
    frozen = pickle.dumps(envs)
    first = [envs.step(row) for row in actions]
    envs.restore_state(state)
    second = [envs.step(row) for row in actions]
    other = pickle.loads(frozen)
    third = [other.step(row) for row in actions]
    assert other.np_random_seed == envs.np_random_seed
    for a, b, c in zip(first, second, third, strict=True):
        for x, y, z in zip(a[:4], b[:4], c[:4], strict=True):
            assert np.array_equal(x, y)
            assert np.array_equal(x, z)
    with pytest.raises(ValueError, match="3 dreams, this environment 1"):
        DreamEnv(tiny_world).restore_state(state)


# -- mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_envs": 0}, "num_envs is 0"),
        ({"autoreset_mode": "Never"}, "autoreset_mode is 'Never'.*'SameStep'"),
        ({"render_mode": "human"}, "'rgb_array' or None"),
        ({"render_scale": 1.5}, "render_scale is 1.5"),
        ({"world": None}, "which world"),
    ],
)
def test_wrong_arguments(tiny_world: Path, arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        DreamVectorEnv(**{"num_envs": 2, "world": tiny_world, **arguments})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"seed": [1, 2]}, "2 seeds for 3 lanes"),
        ({"options": {"reset_mask": [True, False, True]}}, "boolean array"),
        ({"options": {"reset_mask": np.array([True, False])}}, r"shape \(3,\)"),
        ({"options": {"reset_mask": np.zeros(3, bool)}}, "at least one True"),
        ({"options": {"start": [0, 1]}}, "or 3 of them"),
        ({"options": {"start": [0, 1, 9]}}, "start 9"),
        ({"options": {"frames": np.zeros((2, 1, 48, 64, 3), np.uint8)}}, r"\(3, T, H, W, 3\)"),
    ],
)
def test_wrong_resets(tiny_world: Path, call: dict, message: str):
    envs = DreamVectorEnv(3, tiny_world)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        envs.reset(**call)


def test_order(tiny_world: Path):
    envs = DreamVectorEnv(2, tiny_world)
    with pytest.raises(ResetNeeded):
        envs.step([0, 0])
    with pytest.raises(ResetNeeded, match="reset all lanes"):
        envs.reset(options={"reset_mask": np.array([True, False])})
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="action 6"):
        envs.step([0, 6])
    with pytest.raises(ValueError, match="2 dreams need 2 actions"):
        envs.step([0, 0, 0])


# -- making and drawing


def test_make_vec(tiny_world: Path):
    envs = gym.make_vec("Dream-v0", num_envs=3, world=str(tiny_world), max_episode_steps=5)
    assert isinstance(envs, DreamVectorEnv)
    assert envs.num_envs == 3
    envs.reset(seed=0)
    for _ in range(5):
        *_, _truncated, _ = envs.step(envs.action_space.sample())
    assert envs.spec.id == "Dream-v0"
    again = gym.make_vec(envs.spec)
    assert again.num_envs == 3
    same = gym.make_vec("Dream-v0", num_envs=2, world=str(tiny_world), autoreset_mode="SameStep")
    assert same.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP


def test_render(tiny_world: Path):
    envs = DreamVectorEnv(2, tiny_world, render_mode="rgb_array", render_scale=2)
    observations, _ = envs.reset(seed=0)
    frames = envs.render()
    assert isinstance(frames, tuple)
    assert [frame.shape for frame in frames] == [(96, 128, 3)] * 2
    assert np.array_equal(frames[1][::2, ::2], observations[1])
    envs.close()


def test_dict_actions():
    world = build_tiny_world(gym.spaces.Dict(jump=gym.spaces.Discrete(2), turn=gym.spaces.Box(-1, 1, (2,))))
    envs, single = DreamVectorEnv(2, world), DreamEnv(world)
    envs.reset(seed=0)
    single.reset(seed=1)
    actions = envs.action_space.sample()
    assert close(envs.step(actions)[0][1], single.step({key: value[1] for key, value in actions.items()})[0])
