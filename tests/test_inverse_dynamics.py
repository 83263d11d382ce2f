"""Actions read off frames: a dot that obeys, one that does not, and hand-computed scores."""

import numpy as np
import pytest
from gymnasium import spaces

from neuralsim.actions import ActionCodec, space_to_json
from neuralsim.data.episodes import DatasetInfo, Episode, EpisodeStore
from neuralsim.evaluation.held_out import Cut, read_clips
from neuralsim.evaluation.inverse_dynamics import (
    ActionReader,
    action_classes,
    class_counts,
    idle_classes,
    macro_f1,
    part_names,
    pressed_f1,
    train_inverse_dynamics,
    windows_of,
)

SPACE = spaces.Discrete(3)
CODEC = ActionCodec(SPACE)


def dot_film(actions, seed):
    """A white dot that moves left, stays or moves right by the action, while it falls."""
    x = 16 + np.concatenate([[0], np.cumsum(actions - 1)])
    t = np.arange(len(x))
    frames = np.zeros((len(x), 16, 32, 3), np.uint8)
    for row in (0, 1):
        frames[t, (t // 3 + seed + row) % 16, x % 32] = 255
    return frames


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    info = DatasetInfo("Dot-v0", space_to_json(SPACE), (16, 32, 3), 10.0)
    store = EpisodeStore.create(tmp_path_factory.mktemp("inverse") / "data", info)
    for seed in range(6):
        actions = np.random.default_rng(seed).integers(3, size=400)
        nothing = np.zeros(400)
        flags = nothing.astype(bool)
        store.add(
            Episode(
                dot_film(actions, seed), actions, nothing.astype(np.float32), flags, flags, policy="random", seed=seed
            )
        )
    return store


@pytest.fixture(scope="module")
def model(store):
    return train_inverse_dynamics(store, [0, 1, 2, 3], CODEC, steps=300, batch=64)


def read(model, store, dreamed_from):
    reader = ActionReader(model, CODEC, unseen=[4, 5])
    clips = read_clips(store, [Cut(4, 10), Cut(5, 30), Cut(0, 5)], context=8, horizon=40)
    reader.see(dreamed_from(clips), clips)
    return reader.figures()


def test_a_dream_like_reality_shows_its_actions(model, store):
    figures = read(model, store, lambda clips: clips.future)
    assert figures["f1_real"] > 0.9
    assert figures["f1_ratio"] == 1
    assert figures["actions"] == 2 * 37  # windows of 4 in films of 40; the clip of a training episode does not count
    assert figures["distance"]["dream"] == pytest.approx(0, abs=1e-6)
    assert figures["distance"]["copy"] > 10 * figures["distance"]["past"] > 0


def test_a_dream_that_stands_still_shows_none(model, store):
    figures = read(model, store, lambda clips: np.repeat(clips.frames[:, 7:8], 40, axis=1))
    assert figures["f1_dream"] < 0.3 < 0.9 < figures["f1_real"]
    assert figures["distance"]["dream"] == pytest.approx(figures["distance"]["copy"])


def test_a_dream_of_other_actions_shows_those(model, store):
    """Films of another clip: they look right as a whole, and show the wrong actions."""
    figures = read(model, store, lambda clips: clips.future[[1, 0, 2]])
    assert figures["f1_dream"] < 0.6
    assert figures["distance"]["dream"] < 1e-6


def test_windows_are_about_the_action_between_their_middle_frames():
    film = np.arange(6, dtype=np.uint8)[None, :, None, None, None] * np.ones((1, 6, 2, 2, 3), np.uint8)
    windows = windows_of(film)
    assert windows.shape == (1, 3, 4, 2, 2, 3)
    assert windows[0, :, :, 0, 0, 0].tolist() == [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5]]


def test_nothing_to_judge_is_no_figure(model, store):
    reader = ActionReader(model, CODEC, unseen=[])
    clips = read_clips(store, [Cut(0, 0)], context=8, horizon=8)
    reader.see(clips.future, clips)
    assert reader.figures() == {"actions": 0}


def test_f1_by_hand():
    real, said = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1])
    # 0: 2 * 1 / (1 + 2); 1: 2 * 1 / (3 + 1); 2: none.
    assert macro_f1(said, real) == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)


def test_every_part_of_an_action_has_its_classes():
    codec = ActionCodec(
        spaces.Dict({"jump": spaces.Discrete(2), "camera": spaces.Box(-5.0, 5.0, (2,)), "keys": spaces.MultiBinary(2)})
    )
    actions = {
        "jump": np.array([1, 0]),
        "camera": np.float32([[0.1, 5], [-5, -0.1]]),
        "keys": np.array([[0, 1], [1, 0]]),
    }
    classes = dict(zip([kind for *_, kind in codec.blocks()], codec.blocks(), strict=True))
    assert set(classes) == {"choice", "continuous", "binary"}
    counts = class_counts(codec)
    rows = action_classes(codec, codec.encode(actions))
    # Gymnasium orders the keys of a Dict: camera, jump, keys.
    assert counts == [3, 3, 2, 2, 2]
    assert rows.tolist() == [[1, 2, 1, 0, 1], [0, 1, 0, 1, 0]]
    assert part_names(codec) == ["camera.0", "camera.1", "jump", "keys.0", "keys.1"]
    assert part_names(ActionCodec(spaces.Discrete(4))) == [""]
    assert part_names(ActionCodec(spaces.Tuple([spaces.Discrete(4), spaces.Discrete(2)]))) == ["0", "1"]


def test_what_is_idle():
    parts = {"camera": spaces.Box(-5.0, 5.0, (2,)), "craft": spaces.Discrete(5), "keys": spaces.MultiBinary(2)}
    assert idle_classes(ActionCodec(spaces.Dict(parts))) == [1, 1, 0, 0, 0]


def test_a_choice_that_is_never_made_is_left_out(model):
    codec = ActionCodec(spaces.MultiDiscrete([5, 5]))
    reader = ActionReader(model, codec, unseen=[0])
    real = np.array([[0, 2], [0, 0]])
    reader.real, reader.said = [real], {"dream": [real], "real": [real]}
    assert reader.figures()["parts"] == {"1": {"dream": 1.0, "real": 1.0, "times": 1}}


def test_f1_of_a_button_by_hand():
    assert pressed_f1(np.array([1, 1, 0, 0]), np.array([1, 0, 1, 0])) == 0.5
    assert pressed_f1(np.array([0, 0]), np.array([1, 0])) == 0
    assert np.isnan(pressed_f1(np.array([1, 0]), np.array([0, 0])))


def test_parts_are_told_apart(model, store):
    assert read(model, store, lambda clips: clips.future)["parts"] == {}  # an action is one choice
    codec = ActionCodec(spaces.MultiBinary(2))
    reader = ActionReader(model, codec, unseen=[0])
    said = np.array([[1, 0], [1, 0], [0, 0]])
    reader.real, reader.said = [np.array([[1, 0], [0, 0], [0, 0]])], {"dream": [said], "real": [said[::-1]]}
    parts = reader.figures()["parts"]
    assert parts == {"0": {"dream": pytest.approx(2 / 3), "real": 0.0, "times": 1}}
