import json
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from neuralsim.envs.preprocessing import Preprocess, find_pixels, resize
from neuralsim.envs.real import make_real, real_fps


def area_mean(frame, size):
    """The mean of the source pixels whose centres lie in each new pixel."""
    for axis in (0, 1):
        old, new = frame.shape[axis], size[axis]
        target = ((np.arange(old) + 0.5) * new / old).astype(int)
        frame = np.stack([frame.take(np.flatnonzero(target == i), axis).mean(axis) for i in range(new)], axis)
    return frame


@pytest.mark.parametrize("shape", [(210, 160, 3), (64, 64, 3), (100, 37, 3)])
def test_box_is_the_mean_over_the_area(shape):
    frame = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    small = resize(frame, (64, 32))
    assert small.shape == (64, 32, 3)
    assert small.dtype == np.uint8
    error = np.abs(small - area_mean(frame.astype(float), (64, 32)))
    assert np.median(error) < 0.5  # rounded in each direction
    assert (error > 1.01).mean() < 0.2  # a centre that lies on an edge may go to either side


def test_small_bright_things_survive():
    for row in range(60, 70):
        for column in range(60, 70):
            frame = np.zeros((210, 160, 3), np.uint8)
            frame[row : row + 4, column : column + 2] = 255
            mass = resize(frame, (64, 64))[..., 0].sum() / 255
            assert 0.6 < mass < 1.7


def test_grey_becomes_colour():
    grey = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
    for frame in (grey, grey[..., None]):
        small = resize(frame, (10, 15))
        assert small.shape == (10, 15, 3)
        assert (small == small[..., :1]).all()


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((8, 8, 3)), "float64"),
        (np.zeros((8, 8, 4), np.uint8), r"\(8, 8, 4\)"),
        (np.zeros(8, np.uint8), r"\(8,\)"),
    ],
)
def test_what_is_no_picture_is_refused(frame, message):
    with pytest.raises(ValueError, match=message):
        resize(frame, (4, 4))


@pytest.mark.parametrize("pixels", ["rgb", "grey", "dict"])
def test_live_frames(pixels):
    env = make_real("tiny_game:Tiny-v0", {"pixels": pixels}, {"size": (5, 6)})
    frame, _ = env.reset(seed=1)
    raw = env.unwrapped._observe()
    np.testing.assert_array_equal(frame, resize(raw["pov"] if pixels == "dict" else raw, (5, 6)))
    frame, *_ = env.step(0)
    assert env.observation_space.contains(frame)
    assert real_fps(env) == 20.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would rather check the unwrapped environment
        check_env(env, skip_render_check=True)


def test_settings_are_json_and_make_the_same_wrapper():
    env = make_real("tiny_game:Tiny-v0", {"pixels": "dict"}, {"size": (4, 4), "crop": (2, 1, 6, 8)})
    settings = json.loads(json.dumps(env.settings))
    assert settings == {
        "size": [4, 4],
        "resample": "box",
        "crop": [2, 1, 6, 8],
        "source": "observation",
        "key": "pov",
    }
    again = make_real("tiny_game:Tiny-v0", {"pixels": "dict"}, settings)
    np.testing.assert_array_equal(env.reset(seed=3)[0], again.reset(seed=3)[0])
    np.testing.assert_array_equal(env.reset(seed=3)[0], resize(env.unwrapped.screen[2:8, 1:9], (4, 4)))
    assert gym.make(env.spec).settings == env.settings


def test_render_where_observations_are_no_pixels():
    with pytest.raises(ValueError, match="--source render"):
        make_real("tiny_game:Tiny-v0", {"pixels": "vector"})
    env = make_real("tiny_game:Tiny-v0", {"pixels": "vector"}, {"size": (10, 12), "source": "render"})
    frame, _ = env.reset(seed=0)
    np.testing.assert_array_equal(frame, env.unwrapped.screen)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": (0, 4)}, "size"),
        ({"resample": "magic"}, "magic.*box"),
        ({"source": "radio"}, "radio"),
        ({"crop": (0, 0, 0, 4)}, "crop"),
        ({"key": "pov"}, None),
    ],
)
def test_wrong_settings(settings, message):
    env = gym.make("tiny_game:Tiny-v0")
    if message is None:
        Preprocess(env, **settings)  # a key is ignored where observations are the pixels
        return
    with pytest.raises(ValueError, match=message):
        Preprocess(env, **settings)


def test_a_crop_beyond_the_screen():
    env = make_real("tiny_game:Tiny-v0", None, {"crop": (0, 0, 11, 4)})
    with pytest.raises(ValueError, match="10x12"):
        env.reset()


def test_which_pixels():
    two = gym.make("tiny_game:Tiny-v0", pixels="two").observation_space
    with pytest.raises(ValueError, match=r"left.*right.*key"):
        find_pixels(two)
    assert find_pixels(two, "right") == "right"
    with pytest.raises(ValueError, match="'up'"):
        find_pixels(two, "up")


def test_unknown_environments_and_arguments():
    with pytest.raises(ValueError, match="did you mean CartPole-v1"):
        make_real("CartPol-v1")
    with pytest.raises(ValueError, match=r"does not take the arguments.*nonsense"):
        make_real("tiny_game:Tiny-v0", {"nonsense": 3})


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ale_py", None)
    with pytest.raises(ModuleNotFoundError, match=r"neuralsim-gym\[atari\]"):
        make_real("ALE/Pong-v5")


def test_an_environment_without_a_rate():
    env = make_real("tiny_game:Tiny-v0")
    env.unwrapped.metadata = {"render_modes": []}
    with pytest.raises(ValueError, match="--fps"):
        real_fps(env)


@pytest.mark.parametrize(("frameskip", "rate"), [(4, 15.0), (1, 60.0), ((2, 5), 60 / 3)])
def test_rate_of_atari(frameskip, rate):
    pytest.importorskip("ale_py")
    assert real_fps(make_real("ALE/Pong-v5", {"frameskip": frameskip})) == pytest.approx(rate)
