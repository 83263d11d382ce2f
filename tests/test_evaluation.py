"""Evaluation: hand-computed figures, and worlds that must be called what they are."""

import json
import math

import numpy as np
import pytest

from neuralsim.evaluation.closed_loop import SERVE_WITHIN, Play, describe
from neuralsim.evaluation.intervals import psnr, share
from neuralsim.evaluation.open_loop import draw_clips, idle_actions, open_loop, shuffle_actions
from neuralsim.evaluation.probes import PROBES, Found, Probes, Thing, find
from neuralsim.evaluation.run import write_card

DOT = Probes("test_evaluation", (Thing("dot", "there", ("x", "y"), 1.0),))


def probe(frames):
    """Reads the one white pixel of black frames."""
    flat = frames[..., 0].reshape(len(frames), -1)
    y, x = np.divmod(flat.argmax(1), frames.shape[2])
    return {"there": (flat.max(1) > 100).astype(np.float32), "x": x.astype(np.float32), "y": y.astype(np.float32)}


def dot(x, y):
    frame = np.zeros((8, 8, 3), np.uint8)
    if x is not None:
        frame[y, x] = 255
    return frame


def test_share_counts_only_what_counts():
    hits = np.array([[True, False], [True, True]])
    of = np.array([[True, True], [True, False]])
    result = share(hits, of)
    assert result["value"] == pytest.approx(2 / 3)
    assert result["n"] == 3
    assert result["low"] <= 2 / 3 <= result["high"]
    assert math.isnan(share(hits, np.zeros_like(of))["value"])


def test_interval_of_a_sure_thing_is_a_point():
    result = share(np.ones((20, 3), bool), np.ones((20, 3), bool))
    assert (result["low"], result["value"], result["high"]) == (1.0, 1.0, 1.0)


def test_psnr_by_hand():
    black, grey = np.zeros((1, 2, 2, 3), np.uint8), np.full((1, 2, 2, 3), 51, np.uint8)
    assert psnr(grey, black)[0] == pytest.approx(-10 * math.log10(0.04), abs=1e-4)


def test_absent_things_are_infinitely_far():
    here = Found(np.array([True, True]), np.array([[1.0, 2.0], [np.nan, np.nan]]))
    there = Found(np.array([True, False]), np.array([[4.0, 6.0], [0.0, 0.0]]))
    assert here.distance(there).tolist() == [5.0, np.inf]


def test_find_keeps_leading_dimensions():
    frames = np.stack([[dot(1, 2), dot(3, 4)], [dot(None, None), dot(7, 0)]])
    found = find(DOT, frames)["dot"]
    assert found.present.tolist() == [[True, True], [False, True]]
    assert found.position[0, 1].tolist() == [3, 4]


def test_closed_loop_counts_serves_dead_lanes_and_jumps():
    steps = 3 * SERVE_WITHIN
    alive = np.stack([dot(t // 4 % 8, 3) for t in range(steps)])
    gone = alive.copy()
    gone[SERVE_WITHIN:] = 0
    alive[SERVE_WITHIN : SERVE_WITHIN + 20] = 0
    through = np.stack([dot(t // 4 % 8, 3) for t in range(steps)])
    rewards = np.zeros((3, steps))
    rewards[0, SERVE_WITHIN] = 1  # the dot goes and comes back
    rewards[1, SERVE_WITHIN] = -1  # it never comes back
    rewards[2, SERVE_WITHIN] = -1  # it never went
    figures = describe(Play(np.stack([alive, gone, through]), rewards, np.zeros((3, steps), bool)), DOT)
    assert figures["served_again"] == pytest.approx(1 / 3)
    assert figures["served_again_of"] == 3
    assert figures["dead"] == pytest.approx(1 / 3)
    assert figures["dot_present"] == pytest.approx((steps - 20 + SERVE_WITHIN + steps) / (3 * steps))
    assert figures["points_per_1000"] == pytest.approx(1000 / steps)
    assert figures["points_won_per_1000"] == pytest.approx(1000 / (3 * steps))
    assert figures["jumps"] == 0


def test_a_point_too_near_the_end_is_not_judged():
    frames = np.stack([dot(1, 1)] * 30)[None]
    rewards = np.zeros((1, 30))
    rewards[0, 20] = 1
    assert describe(Play(frames, rewards, np.zeros((1, 30), bool)), DOT)["served_again_of"] == 0


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    pytest.importorskip("ale_py")
    from neuralsim.envs.recording import RecordConfig, record

    out = tmp_path_factory.mktemp("evaluation") / "data"
    return record(RecordConfig(env_id="ALE/Pong-v5", out=out, steps=150, policy=("random",), quiet=True))


def test_clips_are_cut_where_they_say(recording):
    clips = draw_clips(recording, 3, context=5, horizon=4)
    assert clips.frames.shape == (3, 9, 64, 64, 3)
    assert clips.actions.shape == (3, 8)
    whole = recording.frames(0, 0, 151)
    begin = next(t for t in range(143) if np.array_equal(whole[t : t + 9], clips.frames[0]))
    assert np.array_equal(recording.actions(0)[begin : begin + 8], clips.actions[0])


def test_baselines_change_only_what_follows_the_context(recording):  # check 20
    from conftest import build_tiny_world

    clips = draw_clips(recording, 3, context=5, horizon=4)
    shuffled, idle = shuffle_actions(clips), idle_actions(clips, build_tiny_world())
    for changed in (shuffled, idle):
        assert np.array_equal(changed[:, :4], clips.actions[:, :4])
    assert np.array_equal(shuffled[:, 4:], clips.actions[[1, 2, 0], 4:])
    assert not idle[:, 4:].any()


def test_a_card_is_json_also_where_nothing_was_measured(tmp_path):
    write_card(tmp_path, {"served_again": float("nan"), "rows": [{"value": 1.5}]}, "text")
    assert (tmp_path / "card.md").read_text() == "text"
    text = (tmp_path / "card.json").read_text()
    assert json.loads(text) == {"served_again": None, "rows": [{"value": 1.5}]}


def test_a_world_that_copies_is_called_a_copy(recording):
    """An untrained dynamics repeats the last frame: its figures are those of copying what the tokenizer shows."""
    from conftest import build_tiny_world

    world = build_tiny_world(frame_size=(64, 64))
    world.dynamics.denoiser.conv_out.weight.data.zero_()
    world.dynamics.config.dream_noise = 0.0
    table = open_loop(world, recording, PROBES["pong"], clips=4, horizons=(1, 3), steps=2)
    first = draw_clips(recording, 4, world.dynamics.context_length, 3, seed=11)
    last = first.frames[:, world.dynamics.context_length - 1]
    shown = world.decode(world.encode(last[:, None])[:, 0]).numpy()
    expected = psnr(shown, first.frames[:, world.dynamics.context_length + 2]).mean()
    assert table["3"]["psnr"]["dream"] == pytest.approx(float(expected), abs=0.01)


def test_recordings_of_another_game_are_refused(recording):
    from conftest import build_tiny_world

    from neuralsim.evaluation.run import check_same_game

    with pytest.raises(ValueError, match="env_id ALE/Pong-v5, but the world has Tiny-v0"):
        check_same_game(build_tiny_world(frame_size=(64, 64)), recording)


def test_clips_longer_than_the_episodes_are_explained(recording):
    with pytest.raises(ValueError, match="the longest of 1 episodes"):
        draw_clips(recording, 1, context=100, horizon=100)
