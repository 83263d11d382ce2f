"""Any action space as MultiDiscrete or Discrete: exact both ways, whatever the nesting."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from conftest import build_tiny_world
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_game import ACTIONS, Tiny

from neuralsim.envs.dream_vector import DreamVectorEnv
from neuralsim.envs.flatten_actions import ActionFlattener, FlattenActions, FlattenVectorActions

discrete = st.builds(spaces.Discrete, st.integers(1, 5), start=st.integers(-3, 3))
multi = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(spaces.MultiDiscrete)
binary = st.sampled_from([1, 3, (2, 2)]).map(spaces.MultiBinary)
boxes = st.builds(
    lambda low, span, shape: spaces.Box(low, low + span, shape, np.float32),
    st.floats(-10, 10, width=32), st.sampled_from([0.125, 1.0, 7.5]), st.sampled_from([(), (2,), (2, 1)]),
)  # fmt: skip
whole_boxes = st.builds(
    lambda low, span: spaces.Box(low, low + span, (2,), np.int16), st.integers(-5, 5), st.integers(1, 6)
)
anything = st.recursive(
    st.one_of(discrete, multi, binary, boxes, whole_boxes),
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3).map(spaces.Dict),
        st.lists(inner, min_size=1, max_size=2).map(spaces.Tuple),
    ),
    max_leaves=4,
)


def same(first, second) -> bool:
    if isinstance(first, dict):
        return set(first) == set(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return np.array_equal(first, second) and np.asarray(first).dtype == np.asarray(second).dtype


class Acts(gym.Env):
    """Remembers what was done to it."""

    def __init__(self, space: spaces.Space) -> None:
        self.action_space = space
        self.observation_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return 0, {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.done = action
        return 0, 0.0, False, False, {}


@given(anything, st.integers(0, 2**31 - 1))
@settings(max_examples=120)
def test_there_and_back(space: spaces.Space, seed: int):
    env = FlattenActions(Acts(space), bins=None if not _floats(space) else 2)
    env.action_space.seed(seed)
    flat = env.action_space.sample()
    env.step(flat)
    done = env.unwrapped.done
    assert np.array_equal(env.reverse_action(done), flat)
    assert same(env.action(env.reverse_action(done)), done)
    rows = np.stack([env.action_space.sample() for _ in range(6)]).reshape(2, 3, -1)
    assert np.array_equal(env.flattener.flatten(env.flattener.unflatten(rows)), rows)


@given(anything, st.integers(0, 2**31 - 1))
@settings(max_examples=60)
def test_an_action_of_the_space_survives_where_nothing_is_cut(space: spaces.Space, seed: int):
    if _floats(space):
        return
    env = FlattenActions(Acts(space))
    space.seed(seed)
    action = space.sample()
    assert same(env.action(env.reverse_action(action)), action)


def _floats(space: spaces.Space) -> bool:
    if isinstance(space, spaces.Dict):
        return any(map(_floats, space.values()))
    if isinstance(space, spaces.Tuple):
        return any(map(_floats, space))
    return isinstance(space, spaces.Box)


def test_every_number_of_a_discrete_space_is_another_action():
    env = FlattenActions(Acts(spaces.Dict({"a": spaces.Discrete(3, start=1), "b": spaces.MultiBinary(2)})), "discrete")
    assert env.action_space == spaces.Discrete(12)
    actions = [env.action(i) for i in range(12)]
    assert len({str(action) for action in actions}) == 12
    assert [env.reverse_action(action) for action in actions] == list(range(12))
    assert all(type(env.reverse_action(action)) is int for action in actions)
    assert actions[1]["a"] == 1  # the last choice counts fastest
    assert actions[1]["b"].tolist() == [0, 1]
    for wrong in (12, -1, 0.5):
        with pytest.raises(ValueError, match=r"outside Discrete\(12\)"):
            env.step(wrong)


def test_boxes_are_cut_evenly_bounds_included():
    env = FlattenActions(Acts(spaces.Box(np.array([-1, 0], np.float32), np.array([1, 10], np.float32))), bins=[3, 5])
    assert env.action_space == spaces.MultiDiscrete([3, 5])
    assert [env.action(np.array([i, 0]))[0] for i in range(3)] == [-1.0, 0.0, 1.0]
    assert [env.action(np.array([0, i]))[1] for i in range(5)] == [0.0, 2.5, 5.0, 7.5, 10.0]
    assert env.reverse_action(np.array([0.4, 6.0], np.float32)).tolist() == [1, 2]  # the nearest
    with pytest.raises(ValueError, match=r"1\.5 is outside"):
        env.reverse_action(np.array([1.5, 0.0]))


def test_bins_by_part():
    space = spaces.Dict({"camera": spaces.Box(-180.0, 180.0, (2,)), "jump": spaces.Discrete(2)})
    for bins in (11, {"camera": 11}, {"camera": [11, 11]}):
        assert FlattenActions(Acts(space), bins=bins).action_space == spaces.MultiDiscrete([11, 11, 2])
    pair = spaces.Tuple((spaces.Discrete(2), spaces.Box(0.0, 1.0, ())))
    assert FlattenActions(Acts(pair), bins=[None, 4]).action_space == spaces.MultiDiscrete([2, 4])


def test_a_dimension_without_room_has_one_choice():
    env = FlattenActions(Acts(spaces.Box(np.array([0, 2], np.float32), np.array([1, 2], np.float32))), bins=3)
    assert env.action_space == spaces.MultiDiscrete([3, 1])


@pytest.mark.parametrize(
    ("space", "arguments", "message"),
    [
        (spaces.Box(-1.0, 1.0, (2,)), {}, "continuous"),
        (spaces.Box(-np.inf, np.inf, (2,)), {"bins": 3}, "finite bounds"),
        (spaces.Box(-1.0, 1.0, (2,)), {"bins": 1}, "from 2 on"),
        (spaces.Box(-1.0, 1.0, (2,)), {"bins": [2, 3, 4]}, "broadcast"),
        (spaces.Box(0, 3, (1,), np.int8), {"bins": 9}, "9 different values"),
        (spaces.Box(-(2**31), 2**31 - 1, (1,), np.int32), {}, "4294967296 values: say into how many"),
        (spaces.Dict({"a": spaces.Box(-1.0, 1.0, ())}), {"bins": {"b": 3}}, "do not fit"),
        (spaces.Dict({"a": spaces.Box(-1.0, 1.0, ())}), {}, "'a'.*continuous"),
        (spaces.Dict({"a": spaces.Box(-1.0, 1.0, ())}), {"bins": "many"}, "'many'"),
        (spaces.Discrete(3), {"bins": [3]}, "no Box"),
        (spaces.Dict({}), {}, "no actions"),
        (spaces.Text(4), {}, "cannot describe"),
        (spaces.MultiBinary(30), {"to": "discrete"}, "1073741824 combinations"),
        (spaces.Discrete(3), {"to": "box"}, "'box'"),
    ],
)
def test_refusals(space, arguments, message):
    with pytest.raises(ValueError, match=message):
        FlattenActions(Acts(space), **arguments)


def test_choices_out_of_range_are_named():
    flattener = ActionFlattener(spaces.MultiDiscrete([2, 3]))
    with pytest.raises(ValueError, match="choice 3 at position 1 is outside 0 to 2"):
        flattener.unflatten(np.array([[0, 3]]))
    with pytest.raises(ValueError, match="rows of 2"):
        flattener.unflatten(np.array([0, 1, 1]))
    with pytest.raises(ValueError, match="rows of 2"):
        flattener.unflatten(np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="7 is outside"):
        flattener.flatten(np.array([[0, 7]]))
    with pytest.raises(ValueError, match="do not fit"):
        ActionFlattener(spaces.Dict({"a": spaces.Discrete(2)})).flatten({"b": 0})


@pytest.mark.parametrize("to", ["multi_discrete", "discrete"])
@pytest.mark.parametrize("actions", ACTIONS)
def test_a_game_takes_them(actions: str, to: str):
    env = FlattenActions(Tiny(actions=actions), to, bins=3)
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(10):
        env.step(env.action_space.sample())  # the game checks its actions


@pytest.mark.parametrize("to", ["multi_discrete", "discrete"])
def test_batched_dreams_take_them(to: str):
    """Lane for lane what the single wrapper does."""
    world = build_tiny_world(ACTIONS["dict"])
    envs = FlattenVectorActions(DreamVectorEnv(3, world), to, bins=3)
    plain = DreamVectorEnv(3, world)
    single = FlattenActions(Tiny(actions="dict"), to, bins=3)
    assert envs.single_action_space == single.action_space
    envs.action_space.seed(1)
    actions = envs.action_space.sample()
    envs.reset(seed=0)
    plain.reset(seed=0)
    meant = [single.action(action) for action in actions]
    batch = {key: np.stack([action[key] for action in meant]) for key in ("jump", "camera")}
    assert np.array_equal(envs.step(actions)[0], plain.step(batch)[0])
    assert np.array_equal(envs.reverse_actions(batch), actions)
