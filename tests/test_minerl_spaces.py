"""MineRL's spaces: what they hold, and how bad input is named."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from neuralsim.actions import ActionCodec, space_from_json, space_to_json
from neuralsim.envs.minerl_spaces import (
    BUTTONS,
    V0_BUTTONS,
    V0_CHOICES,
    action_space,
    check_action,
    check_pov,
    human_action_space,
    noop_action,
    observation_space,
    v0_action_space,
)


def test_the_human_interface_has_23_buttons_and_a_camera():
    space = human_action_space()
    assert len(BUTTONS) == 23
    assert set(space.spaces) == {*BUTTONS, "camera"}
    assert list(space.spaces) == sorted(space.spaces)
    assert all(space[name] == spaces.Discrete(2) for name in BUTTONS)
    assert space["camera"] == spaces.Box(-180, 180, (2,), np.float32)


def test_treechop_has_eight():
    space = v0_action_space("MineRLTreechop-v0")
    assert set(space.spaces) == {"attack", "back", "forward", "jump", "left", "right", "sneak", "sprint", "camera"}
    assert set(V0_BUTTONS) < set(BUTTONS)


@pytest.mark.parametrize("task", V0_CHOICES)
def test_doing_nothing_is_an_action_of_every_task(task: str):
    space = v0_action_space(task, camera_limit=10)
    nothing = noop_action(space)
    assert space.contains(nothing)
    assert not any(np.any(value) for value in nothing.values())
    assert all(items[0] == "none" for items in V0_CHOICES[task].values())
    assert space_from_json(space_to_json(space)) == space


def test_pictures_of_any_size():
    assert observation_space()["pov"].shape == (64, 64, 3)
    assert observation_space(360, 640)["pov"].shape == (360, 640, 3)
    with pytest.raises(ValueError, match="0x640"):
        observation_space(0, 640)


@pytest.mark.parametrize("space", [human_action_space(10), v0_action_space("MineRLObtainDiamond-v0", 10)])
def test_the_action_codec_encodes_them(space: spaces.Dict):
    codec = ActionCodec(space)
    space.seed(0)
    actions = [space.sample() for _ in range(20)]
    encoded = np.stack([codec.encode(action) for action in actions])
    assert encoded.shape == (20, codec.size)
    back = codec.decode(encoded)
    for name in space.spaces:
        np.testing.assert_allclose(back[name], np.stack([action[name] for action in actions]), atol=1e-5)
    # A turn of one degree is far from rest when the camera is limited to what people do.
    begin = next(begin for begin, _, kind in codec.blocks() if kind == "continuous")
    one = codec.encode({**noop_action(space), "camera": np.array([1.0, -1.0], np.float32)})
    np.testing.assert_allclose(one[begin : begin + 2], [0.1, -0.1], atol=1e-6)


def test_a_checked_action_has_the_types_of_the_space():
    space = v0_action_space()
    action = check_action({**noop_action(space), "attack": True, "jump": 1.0, "camera": [1, 2]}, space)
    assert space.contains(action)
    assert (action["attack"], action["jump"]) == (1, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"forwards": 1}, "unknown key 'forwards'.*did you mean 'forward'"),
        ({"xyzzy": 1}, "unknown key 'xyzzy'.*there are attack, back"),
        ({"attack": 2}, "'attack' is 2; it must be 0 .up. or 1 .pressed."),
        ({"attack": 0.5}, "'attack' is 0.5"),
        ({"attack": float("nan")}, "'attack' is nan"),
        ({"attack": "yes"}, "'attack' is 'yes'"),
        ({"camera": (0.0, 181.0)}, "camera yaw 181 is outside -180 to 180.*pitch, yaw.*degrees"),
        ({"camera": (float("nan"), 0.0)}, "camera pitch nan"),
        ({"camera": (1.0, 2.0, 3.0)}, r"shape \(3,\)"),
        ({"camera": "left"}, "got 'left'"),
        ({"camera": 3.0}, "pitch, yaw"),
        ({"place": 7}, "'place' is 7; it must be a whole number from 0 to 6"),
    ],
)
def test_bad_actions_are_named(change: dict, message: str):
    space = v0_action_space("MineRLObtainDiamond-v0")
    with pytest.raises(ValueError, match=message):
        check_action({**noop_action(space), **change}, space)


def test_missing_parts_are_named():
    with pytest.raises(ValueError, match=r"lacks 'back', 'forward'.*noop_action"):
        check_action({"attack": 1, "camera": (0, 0)}, action_space(["attack", "back", "forward"]))
    with pytest.raises(ValueError, match="is a dict with the keys attack, back"):
        check_action(3, v0_action_space())


def test_frames_of_another_size_are_named():
    pov = observation_space(64, 64)["pov"]
    frame = np.zeros((64, 64, 3), np.uint8)
    assert check_pov(frame[::-1], pov).flags.c_contiguous
    with pytest.raises(ValueError, match=r"360x640 pixels.*64x64 pixels.*Preprocess"):
        check_pov(np.zeros((360, 640, 3), np.uint8), pov)
    with pytest.raises(ValueError, match="float64"):
        check_pov(frame.astype(float), pov)


def test_bad_spaces_are_named():
    with pytest.raises(ValueError, match="did you mean MineRLTreechop-v0"):
        v0_action_space("MineRLTreeChop-v0")
    with pytest.raises(ValueError, match="'attack' stands twice"):
        action_space(["attack", "attack"])
    with pytest.raises(ValueError, match="camera_limit 200"):
        human_action_space(200)
