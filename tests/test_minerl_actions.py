"""The camera's bins, VPT's joint classes and the wrappers: exact both ways where they can be."""

from __future__ import annotations

import itertools

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralsim.agents.action_distribution import mu_law_centers
from neuralsim.envs.flatten_actions import FlattenActions
from neuralsim.envs.minerl_camera import CameraBins
from neuralsim.envs.minerl_spaces import human_action_space, noop_action, observation_space, v0_action_space
from neuralsim.envs.minerl_vpt import (
    BUTTON_CLASSES,
    GROUPS,
    INVENTORY,
    UNUSED_BUTTONS,
    VPT_BUTTONS,
    VPTActions,
)
from neuralsim.envs.minerl_wrappers import (
    TREECHOP_ACTIONS,
    BinCamera,
    ChosenActions,
    JointActions,
    LimitCamera,
    multi_discrete,
)

CAMERA, VPT = CameraBins(), VPTActions()
degrees = st.floats(-180, 180, width=32)


class Remembers(gym.Env):
    """MineRL's spaces, and the last action."""

    def __init__(self, space: spaces.Dict) -> None:
        self.action_space, self.observation_space = space, observation_space(4, 4)

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.done = action
        return self.observation_space.sample(), 0.0, False, False, {}


def same(first: dict, second: dict) -> bool:
    return set(first) == set(second) and all(np.array_equal(first[name], second[name]) for name in first)


def test_the_bins_are_those_of_vpt():
    assert (CAMERA.bins, CAMERA.classes, CAMERA.null) == (11, 121, 60)
    positive = [0.0, 0.6154, 1.6094, 3.2153, 5.8095, 10.0]
    np.testing.assert_allclose(CAMERA.centers, [*(-x for x in positive[:0:-1]), *positive], atol=2e-4)
    # An agent's distribution over a camera of -10 to 10 degrees has the very same bins.
    np.testing.assert_allclose(CAMERA.centers, 10 * mu_law_centers().numpy(), atol=1e-5)
    # Pitch comes first; and rounding is done on the mu-law scale: in degrees, 0.29 would be nearer to 0 than to 0.615.
    assert CAMERA.to_class([0.0, 10.0]) == 60 + 5
    assert CAMERA.to_class([-10.0, 0.0]) == 5
    assert CAMERA.encode([0.27, 0.29]).tolist() == [5, 6]


schemes = st.builds(
    lambda size, half, mu: CameraBins(size * half, size, mu),
    st.sampled_from([0.5, 1.0, 2.0, 3.0]), st.integers(1, 12), st.sampled_from([0.0, 1.0, 5.0, 10.0, 40.0]),
)  # fmt: skip


@given(schemes)
@settings(max_examples=60)
def test_every_class_comes_back(bins: CameraBins):
    classes = np.arange(bins.classes)
    turns = bins.from_class(classes)
    assert turns.dtype == np.float32
    assert np.array_equal(bins.to_class(turns), classes)
    assert np.array_equal(bins.from_class(bins.to_class(turns)), turns)
    assert np.array_equal(bins.from_class(bins.null), [0, 0])
    assert (np.diff(bins.centers) > 0).all()
    assert np.array_equal(bins.centers, -bins.centers[::-1])


@given(st.lists(st.tuples(degrees, degrees), min_size=1, max_size=8))
def test_a_turn_goes_to_a_neighbouring_bin(turns):
    turns = np.array(turns, np.float32)
    index = CAMERA.encode(turns)
    cut = np.clip(turns, -10, 10)
    around = np.pad(CAMERA.centers, 1, mode="edge")
    assert (around[index] <= cut + 1e-5).all()
    assert (cut <= around[index + 2] + 1e-5).all()
    assert np.array_equal(CAMERA.encode(-turns), 10 - index)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CAMERA.to_class([0.0, 400.0]), "yaw 400"),
        (lambda: CAMERA.to_class([0.0]), "shape"),
        (lambda: CAMERA.from_class(121), "camera class 121 is outside 0 to 120"),
        (lambda: CAMERA.from_class(1.5), "whole number"),
        (lambda: CAMERA.decode([3, 11]), "camera bin 11 is outside 0 to 10"),
        (lambda: CAMERA.encode(np.nan), "no number"),
        (lambda: CameraBins(10, 3), "multiple of binsize"),
        (lambda: CameraBins(mu=-1), "mu 0 or more"),
        (lambda: VPT.decode(8641, 0), "button class 8641 is outside 0 to 8640"),
        (lambda: VPT.decode([1, 2], [3]), "differ in shape"),
        (lambda: VPT.encode({"attack": 1}), "lacks"),
        (lambda: VPT.encode({**noop_action(human_action_space()), "chat": 1}), "unknown key 'chat'"),
        (lambda: VPT.encode({**noop_action(human_action_space()), "use": 3}), "'use' is 3"),
        (lambda: VPT.encode({**noop_action(human_action_space()), "use": [0, 1]}), r"'use' has shape \(2,\)"),
    ],
)
def test_bad_input_is_named(call, message: str):
    with pytest.raises(ValueError, match=message):
        call()


def test_vpt_has_8641_classes_of_20_buttons():
    assert BUTTON_CLASSES == 8641
    assert len(VPT_BUTTONS) == 20
    assert set(UNUSED_BUTTONS) == {"ESC", "pickItem", "swapHands"}


def test_the_classes_count_as_those_of_vpt():
    """Against the definition: the product of the groups, in VPT's order, the camera last, then the inventory."""
    groups = [("none", *group) for group in GROUPS.values()] + [("none", "camera")]
    combinations = list(itertools.product(*groups))
    assert len(combinations) == INVENTORY
    decoded = VPT.decode(np.arange(BUTTON_CLASSES), np.full(BUTTON_CLASSES, 7))
    for number in np.random.default_rng(0).choice(INVENTORY, 300, replace=False):
        pressed = {name for name in VPT_BUTTONS if decoded[name][number]}
        assert pressed == set(combinations[number]) - {"none", "camera"}
        turned = decoded["camera"][number].any()
        assert turned == (combinations[number][-1] == "camera")
    assert {name for name in VPT_BUTTONS if decoded[name][INVENTORY]} == {"inventory"}


def test_every_pair_of_classes_comes_back():
    buttons = np.arange(BUTTON_CLASSES)
    for camera in (0, 59, 60, 61, 120):
        pair = VPT.canonical(buttons, np.full_like(buttons, camera))
        again = VPT.encode(VPT.decode(buttons, np.full_like(buttons, camera)))
        assert all(map(np.array_equal, pair, again))
        assert all(map(np.array_equal, VPT.canonical(*pair), pair))
    assert VPT.is_exact(VPT.decode(*pair)).all()


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=40)
def test_actions_of_people_come_back_where_they_can(seed: int):
    rng = np.random.default_rng(seed)
    actions = {name: (rng.random((3, 5)) < 0.15).astype(np.int64) for name in (*VPT_BUTTONS, *UNUSED_BUTTONS)}
    actions["camera"] = rng.choice([0.0, 0.0, 1.0, 10.0], (3, 5, 2)).astype(np.float32)
    classes = VPT.encode(actions)
    nearest, exact = VPT.decode(*classes), VPT.is_exact(actions)
    assert all(map(np.array_equal, VPT.encode(nearest), classes))  # what is lost is lost once
    for name in actions:
        assert np.array_equal(nearest[name][exact], actions[name][exact])
    expected = (actions["camera"] != 1.0).all(-1) & ~sum(actions[name] for name in UNUSED_BUTTONS).astype(bool)
    for group in GROUPS.values():
        expected &= sum(actions[name] for name in group) < 2
    others = sum(actions[name] for name in VPT_BUTTONS if name != "inventory") + actions["camera"].any(-1)
    expected &= (actions["inventory"] == 0) | (others == 0)
    assert np.array_equal(exact, expected)


def test_buttons_that_exclude_each_other():
    nothing = noop_action(human_action_space())
    after = VPT.decode(*VPT.encode({**nothing, "forward": 1, "back": 1, "sprint": 1, "sneak": 1, "hotbar.2": 1,
                                    "hotbar.7": 1}))  # fmt: skip
    assert {name for name in VPT_BUTTONS if after[name]} == {"sneak", "hotbar.7"}
    after = VPT.decode(*VPT.encode({**nothing, "inventory": 1, "attack": 1, "camera": (0.0, 10.0)}))
    assert {name for name in VPT_BUTTONS if after[name]} == {"inventory"}
    assert not after["camera"].any()


@pytest.mark.parametrize(
    "wrap",
    [
        BinCamera,
        lambda env: BinCamera(env, joint=False),
        multi_discrete,
        lambda env: multi_discrete(env, joint=False),
        LimitCamera,
        JointActions,
        lambda env: JointActions(env, to="multi_discrete"),
        lambda env: ChosenActions(env, TREECHOP_ACTIONS),
    ],
)
@given(seed=st.integers(0, 2**31 - 1))
@settings(max_examples=25)
def test_wrapped_actions_come_back(wrap, seed: int):
    env = wrap(Remembers(human_action_space()))
    env.action_space.seed(seed)
    action = env.action_space.sample()
    env.step(action)
    done = env.unwrapped.done
    if isinstance(env, FlattenActions):
        done = env.env.reverse_action(done)
    back = env.reverse_action(done)
    assert env.action_space.contains(back)
    if not isinstance(env, JointActions):  # where several pairs of classes stand for one action
        assert same(back, action) if isinstance(action, dict) else np.array_equal(back, action)
    assert same(env.action(back), done)


def test_sizes_of_the_wrapped_spaces():
    human, treechop = Remembers(human_action_space()), Remembers(v0_action_space())
    assert BinCamera(human).action_space["camera"] == spaces.Discrete(121)
    assert sorted(multi_discrete(human).action_space.nvec.tolist()) == [2] * 23 + [121]
    assert sorted(multi_discrete(treechop, joint=False).action_space.nvec.tolist()) == [2] * 8 + [11, 11]
    assert JointActions(human).action_space["buttons"] == spaces.Discrete(8641)
    assert JointActions(human, to="multi_discrete").action_space == spaces.MultiDiscrete([8641, 121])
    chosen = ChosenActions(treechop)
    assert chosen.action_space == spaces.Discrete(len(TREECHOP_ACTIONS))
    assert chosen.meanings[:4] == ["nothing", "attack", "forward", "forward+attack"]
    assert chosen.meanings[8] == "camera -5 0"


def test_a_limited_camera():
    env = LimitCamera(Remembers(v0_action_space()))
    nothing = noop_action(env.action_space)
    with pytest.raises(ValueError, match="camera pitch 11 is outside -10 to 10"):
        env.step({**nothing, "camera": (11.0, 0.0)})
    assert env.reverse_action({**nothing, "camera": np.array([11.0, -3.0])})["camera"].tolist() == [10.0, -3.0]
    with pytest.raises(ValueError, match="limit 20"):
        LimitCamera(env, 20)
    assert BinCamera(env).action_space["camera"] == spaces.Discrete(121)


def test_chosen_actions_cannot_be_changed_from_outside():
    env = ChosenActions(Remembers(v0_action_space()))
    env.action(8)["camera"] += 1
    assert env.action(8)["camera"].tolist() == [-5.0, 0.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda env: ChosenActions(env, [{"jmp": 1}]), "action 0 of the list: unknown key 'jmp'.*'jump'"),
        (lambda env: ChosenActions(env, [{}, {"jump": 1}, {"camera": (0, -0.0)}]), "actions 0 and 2.*the same"),
        (lambda env: ChosenActions(env, []), "at least one"),
        (lambda env: ChosenActions(env).action(99), "99 is outside 0 to 13"),
        (
            lambda env: ChosenActions(env).reverse_action({**noop_action(v0_action_space()), "sneak": 1}),
            "none of the 14",
        ),
        (lambda env: JointActions(env), "lacks hotbar.1.*multi_discrete"),
        (lambda env: BinCamera(ChosenActions(env)), "before any other"),
        (lambda env: BinCamera(env).action({"attack": 1}), "lacks"),
        (lambda env: BinCamera(env, maxval=200, binsize=100), "at most 180"),
    ],
)
def test_wrappers_name_what_does_not_fit(call, message: str):
    with pytest.raises(ValueError, match=message):
        call(Remembers(v0_action_space()))


def test_vpt_does_not_fit_other_choices_or_forms():
    env = Remembers(human_action_space())
    with pytest.raises(ValueError, match="'dict' or 'multi_discrete'"):
        JointActions(env, to="discrete")
    with pytest.raises(ValueError, match="also has place"):
        JointActions(Remembers(spaces.Dict({**env.action_space.spaces, "place": spaces.Discrete(3)})))
