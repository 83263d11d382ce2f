"""Every action survives encoding and decoding; every other value is refused by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import data_equivalence
from hypothesis import example, given, settings
from hypothesis import strategies as st

from neuralsim.actions import ActionCodec, add_lane, keys_from_json, map_actions, space_from_json, space_to_json


@st.composite
def boxes(draw: st.DrawFn) -> spaces.Box:
    shape = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    dtype = draw(st.sampled_from([np.float32, np.float64, np.uint8, np.int16, np.int64]))
    if np.issubdtype(dtype, np.integer):
        bounds = st.integers(0, 255) if dtype == np.uint8 else st.integers(-1000, 1000)
    else:
        bounds = st.floats(-1e3, 1e3, width=32)
    low, high = sorted((draw(bounds) + 0, draw(bounds) + 0))  # + 0: no negative zero
    return spaces.Box(low, high, shape, dtype)


single_spaces = st.one_of(
    st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 40), st.integers(-5, 5)),
    st.builds(
        lambda sizes, start: spaces.MultiDiscrete(sizes, start=[start] * len(sizes)),
        st.lists(st.integers(1, 6), min_size=1, max_size=4),
        st.integers(-3, 3),
    ),
    st.builds(lambda: spaces.MultiDiscrete([[2, 3], [4, 5]])),
    st.builds(spaces.MultiBinary, st.one_of(st.integers(1, 5), st.just((2, 3)))),
    boxes(),
)
all_spaces = st.recursive(
    single_spaces,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=3).map(spaces.Dict),
        st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
    ),
    max_leaves=5,
)


def same(first, second, space) -> bool:
    """Equal, up to float32 for the floating parts."""
    if isinstance(space, spaces.Dict):
        return all(same(first[key], second[key], part) for key, part in space.spaces.items())
    if isinstance(space, spaces.Tuple):
        return all(same(a, b, part) for a, b, part in zip(first, second, space.spaces, strict=True))
    if np.issubdtype(space.dtype, np.floating):
        span = float(np.max(space.high.astype(np.float64) - space.low)) + 1e-6
        return np.allclose(first, second, rtol=1e-5, atol=1e-5 * span)
    return np.array_equal(first, second)


@settings(max_examples=150)
@given(space=all_spaces, seed=st.integers(0, 2**31))
@example(space=spaces.Box(0.0, 2.220446e-16, (), np.float32), seed=0)
def test_actions_survive(space: spaces.Space, seed: int):
    space.seed(seed)
    codec = ActionCodec(space)
    samples = [space.sample() for _ in range(4)]
    vectors = np.stack([codec.encode(action) for action in samples])
    assert vectors.shape == (4, codec.size)
    assert vectors.dtype == np.float32
    assert np.abs(vectors).max() <= 1 + 1e-6
    for action, vector in zip(samples, vectors, strict=True):
        assert same(codec.decode(vector), action, space)
    batch = codec.decode(vectors)
    assert np.allclose(codec.encode(batch), vectors, atol=1e-5)
    for i, action in enumerate(samples):
        assert same(map_actions(lambda a, i=i: a[i], batch), action, space)
        assert codec.encode(add_lane(action)).shape == (1, codec.size)


@settings(max_examples=100)
@given(space=all_spaces)
def test_spaces_survive_json(space: spaces.Space):
    restored = space_from_json(json.loads(json.dumps(space_to_json(space))))
    assert restored == space
    space.seed(3)
    restored.seed(3)
    assert data_equivalence(space.sample(), restored.sample(), exact=True)


@settings(max_examples=60)
@given(n=st.integers(1, 20), start=st.integers(-5, 5), value=st.integers(-100, 100))
def test_discrete_refuses_what_the_space_does_not_contain(n: int, start: int, value: int):
    space = spaces.Discrete(n, start=start)
    if space.contains(value):
        ActionCodec(space).encode(value)
    else:
        with pytest.raises(ValueError, match=f"action {value} is outside"):
            ActionCodec(space).encode(value)


@pytest.mark.parametrize(
    ("space", "action", "message"),
    [
        (spaces.Discrete(6), 6, "action 6 is outside .*use 0 to 5"),
        (spaces.Discrete(6), -1, "action -1"),
        (spaces.Discrete(6), 1.5, "integers"),
        (spaces.Discrete(6), "up", "numbers"),
        (spaces.Discrete(6), None, "numbers"),
        (spaces.Discrete(6), True, "integers"),
        (spaces.MultiDiscrete([2, 3]), [1, 3], "action 3 is outside"),
        (spaces.MultiDiscrete([2, 3]), [1], r"shape \(1,\)"),
        (spaces.MultiDiscrete([2, 3]), 1, r"shape \(\)"),
        (spaces.MultiBinary(3), [0, 1, 2], "action 2 is outside"),
        (spaces.Box(-1, 1, (2,)), [0.0, 1.5], "action 1.5 is outside"),
        (spaces.Box(-1, 1, (2,)), [0.0, np.nan], "action nan is outside"),
        (spaces.Box(-1, 1, (2,)), [0.0, np.inf], "action inf is outside"),
        (spaces.Box(0, 9, (1,), np.int32), [2.5], "action 2.5 is outside"),
        (spaces.Dict(a=spaces.Discrete(2), b=spaces.Discrete(3)), {"a": 0}, r"keys \['a', 'b'\]"),
        (spaces.Dict(a=spaces.Discrete(2)), {"a": 0, "c": 1}, "keys"),
        (spaces.Dict(a=spaces.Discrete(2)), 1, "keys"),
        (spaces.Dict(a=spaces.Discrete(2)), {"a": 2}, "action part 'a': action 2"),
        (spaces.Dict(a=spaces.Discrete(2), b=spaces.Discrete(3)), {"a": [0], "b": [0, 1]}, "batches"),
        (spaces.Tuple([spaces.Discrete(2), spaces.Discrete(3)]), (1,), "tuple of 2"),
    ],
)
def test_wrong_actions_are_named(space: spaces.Space, action, message: str):
    with pytest.raises(ValueError, match=message):
        ActionCodec(space).encode(action)


def test_a_bound_written_with_double_precision_is_inside():
    space = spaces.Box(np.float32(0.1), np.float32(0.7), (1,))
    assert ActionCodec(space).encode(np.array([0.1])) == -1
    assert ActionCodec(space).encode(np.array([0.7])) == 1


def test_no_actions_are_an_empty_batch():
    for space in (spaces.Discrete(3), spaces.MultiDiscrete([2, 3]), spaces.Box(-1, 1, (2,))):
        codec = ActionCodec(space)
        assert codec.encode(np.zeros((5, 0, *space.shape))).shape == (5, 0, codec.size)


@pytest.mark.parametrize("space", [spaces.Text(3), spaces.Sequence(spaces.Discrete(2))])
def test_unsupported_spaces(space: spaces.Space):
    with pytest.raises(ValueError, match="supported are"):
        ActionCodec(space)


@pytest.mark.parametrize("space", [spaces.Box(-np.inf, np.inf, (2,)), spaces.Dict({}), spaces.Tuple(())])
def test_spaces_that_cannot_be_encoded(space: spaces.Space):
    with pytest.raises(ValueError, match=r"finite bounds|no actions"):
        ActionCodec(space)


def test_unknown_space_type():
    with pytest.raises(ValueError, match="unknown space type 'Graph'"):
        space_from_json({"type": "Graph"})


def test_keys():
    space = spaces.Dict(jump=spaces.Discrete(2), turn=spaces.Box(-1, 1, (2,)))
    keys = keys_from_json([[["w"], {"jump": 1, "turn": [0, 0.5]}], [[], {"jump": 0, "turn": [0, 0]}]], space)
    assert set(keys) == {("w",)}
    assert all(action in space for action in keys.values())
    assert keys_from_json([[["d", " "], 4], [[32], 1]], spaces.Discrete(6)) == {("d", " "): 4, (32,): 1}
    with pytest.raises(ValueError, match="pairs"):
        keys_from_json([1, 2], spaces.Discrete(6))
