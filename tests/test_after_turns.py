"""Dreams that begin shortly before a turn: which turns count, and worlds that know the law of the wall or do not."""

from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch

from neuralsim.actions import space_to_json
from neuralsim.data.episode import DatasetInfo, Episode
from neuralsim.data.episodes import EpisodeStore
from neuralsim.evaluation.after_turns import AFTER, LEADS, after_turns, find_turns
from neuralsim.evaluation.probes import Probes, Thing

WALL = 40
BALL = Thing("ball", "there", ("x", "y"), 1.0, turns_along=("x",), turn_shares=(3, 1))
PROBES = Probes("test_after_turns", (BALL,))


def probe(frames):
    """The place of the brightest pixel."""
    flat = frames[..., 0].reshape(len(frames), -1)
    y, x = np.divmod(flat.argmax(1), frames.shape[2])
    return {"there": (flat.max(1) > 100).astype(np.float32), "x": x.astype(float), "y": y.astype(float)}


def labels_of(x):
    x = np.asarray(x, float)
    return {"there": np.isfinite(x).astype(np.float32), "x": x, "y": np.zeros(len(x))}


def paint(x, size=WALL + 24):
    frame = np.zeros((4, size, 3), np.uint8)
    frame[0, int(x)] = 255
    return frame


def to_and_fro(rounds):
    """From 0 up to the wall and back by twos, so many times; then once through it."""
    once = [*range(0, WALL, 2), *range(WALL, 0, -2)]
    return once * rounds + [*range(0, WALL + 22, 2)]


def test_turns_at_the_player_count_and_passing_does_not():
    found = find_turns(BALL, labels_of(to_and_fro(3)))
    assert found.tolist() == [20, 60, 100]  # at the wall; neither those at 0, nor the passing in frame 140


def test_turns_must_be_alone_and_seen_all_the_while():
    x = np.array(to_and_fro(2), float)
    twice = x.copy()
    twice[20 + 3 :] = 2 * twice[20 + 3] - twice[20 + 3 :]  # turned again after three steps
    assert 20 not in find_turns(BALL, labels_of(twice))
    hidden = x.copy()
    hidden[20 + AFTER] = np.nan
    assert find_turns(BALL, labels_of(hidden)).tolist() == [60]
    hidden[60 - max(LEADS)] = np.nan
    assert find_turns(BALL, labels_of(hidden)).tolist() == []
    assert find_turns(BALL, labels_of(x[20:])).tolist() == [40]  # nothing is known of what was before the first
    assert find_turns(BALL, {"other": x}).tolist() == []


def test_a_turn_in_mid_step_takes_two_and_has_no_last_frame_before():
    beyond = [*range(0, 44, 4), *range(38, -2, -4)]  # from 40 to 41 and back to 38
    assert find_turns(BALL, labels_of(beyond)).tolist() == []
    on_time = [*range(0, 44, 4), *range(36, -4, -4)]
    assert find_turns(BALL, labels_of(on_time)).tolist() == [10]


def test_in_two_dimensions_a_thing_may_glance_off():
    t = np.arange(40)
    labels = {"there": np.ones(40), "x": 3.0 * t, "y": 2.0 * abs(t - 20)}
    plain = Thing("ball", "there", ("x", "y"), 1.0)
    assert find_turns(plain, labels).tolist() == [20]


class Straight:
    """A world in which the ball flies on as it did, or turns back where the wall is."""

    def __init__(self, walled):
        self.walled = walled
        self.dynamics = SimpleNamespace(context_length=3)
        self.actions = SimpleNamespace(decode=lambda encoded: encoded)

    def start(self, frames, actions, seed):
        assert frames.shape[1] == actions.shape[1] + 1 == 3
        x = frames[:, :, 0, :, 0].argmax(-1)
        return x[:, -1], x[:, -1] - x[:, -2]

    def step(self, state, action, steps):
        x, speed = state
        if self.walled:
            speed = np.where(x >= WALL, -abs(speed), speed)
        x = x + speed
        return (x, speed), SimpleNamespace(latent=torch.from_numpy(np.stack([paint(place) for place in x])))

    def decode(self, latent):
        return latent


@pytest.fixture
def store(tmp_path):
    space = gymnasium.spaces.Discrete(2)
    store = EpisodeStore.create(tmp_path / "data", DatasetInfo("Wall-v0", space_to_json(space), (4, WALL + 24, 3), 20))
    for rounds in (2, 3):
        x = to_and_fro(rounds)
        steps = len(x) - 1
        store.add(
            Episode(
                frames=np.stack([paint(place) for place in x]),
                actions=np.zeros(steps, np.int64),
                rewards=np.zeros(steps, np.float32),
                terminated=np.zeros(steps, bool),
                truncated=np.arange(steps) == steps - 1,
                labels=labels_of(x),
                policy="none",
                seed=rounds,
            )
        )
    return store


def test_a_world_without_the_law_is_right_after_the_turn_only(store):
    right = after_turns(Straight(walled=False), store, PROBES, 100, 1)
    assert {moment: hits.tolist() for moment, hits in right.items()} == {
        "4 before": [False] * 5,
        "2 before": [False] * 5,
        "1 before": [False] * 5,
        "0 before": [False] * 5,
        "1 after": [True] * 5,
    }


def test_a_world_with_the_law_is_right_from_any_moment(store):
    beats = []
    right = after_turns(Straight(walled=True), store, PROBES, 3, 1, progress=lambda: beats.append(1))
    assert all(hits.tolist() == [True] * 3 for hits in right.values())
    assert len(beats) == 1


def test_without_ground_truth_there_are_no_turns(store):
    nobody = Probes("test_after_turns", (Thing("ball", "unknown", ("x", "y"), 1.0),))
    assert all(len(hits) == 0 for hits in after_turns(Straight(walled=True), store, nobody, 100, 1).values())
