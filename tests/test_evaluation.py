"""Evaluation: hand-computed figures, and worlds that must be called what they are."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from neuralsim.data.episodes import EpisodeStore
from neuralsim.evaluation.closed_loop import SERVE_WITHIN, board_right, describe
from neuralsim.evaluation.controllability import controllability
from neuralsim.evaluation.held_out import Cut, check_held_out, choose_cuts, others_of, read_actions, read_clips
from neuralsim.evaluation.image_quality import psnr
from neuralsim.evaluation.intervals import mean, ratio, share
from neuralsim.evaluation.open_loop import OpenLoop, by_horizon, open_loop, wrong_actions
from neuralsim.evaluation.playing import Play
from neuralsim.evaluation.probes import PROBES, Found, Probes, Thing, comebacks, find, find_probes, turns
from neuralsim.evaluation.run import write_card
from neuralsim.evaluation.tokenizer import tokenizer_fidelity

DOT = Probes("test_evaluation", (Thing("dot", "there", ("x", "y"), 1.0),))


def probe(frames):
    """Reads the one white pixel of black frames."""
    flat = frames[..., 0].reshape(len(frames), -1)
    y, x = np.divmod(flat.argmax(1), frames.shape[2])
    return {
        "never": np.zeros(len(frames)),
        "there": (flat.max(1) > 100).astype(np.float32),
        "x": x.astype(np.float32),
        "y": y.astype(np.float32),
    }


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


def test_means_and_ratios_with_their_intervals():
    assert mean(np.array([1.0, 3.0]))["value"] == 2
    assert mean(np.full(9, 4.0)) == {"value": 4.0, "low": 4.0, "high": 4.0, "n": 9}
    assert math.isnan(mean(np.array([]))["value"])
    result = ratio(np.array([1.0, 5.0]), np.array([1.0, 2.0]))
    assert result["value"] == 2  # 6 / 3, not the mean of 1 and 2.5
    assert result["low"] <= 2 <= result["high"]


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


def test_the_board_is_right_while_it_shows_the_points_paid():
    steps = 60
    rewards = np.zeros((3, steps))
    rewards[:, 20] = [1, -1, 1]
    ended = np.zeros((3, steps), bool)
    board = np.tile(np.array([3.0, 0.0]), (3, steps, 1))
    board[0, 22:] = (4, 0)  # counts, two steps late
    board[1, 22:] = (3, 1)
    board[1, 50:] = (3, 8)  # and then changes by itself
    board[2, 40:] = np.nan  # never counts, and fades away
    ended[0, 54] = True  # what comes then is another game
    play = Play(np.zeros((3, steps, 1, 1, 3), np.uint8), rewards, ended)
    # Judged: steps 0 to 19 and 32 to 59 of each lane, to 53 of the first.
    assert board_right(play, board) == pytest.approx((20 + 22 + 20 + 18 + 20) / (42 + 48 + 48))
    assert board_right(play, board, begin=30) == pytest.approx((22 + 18) / (22 + 28 + 28))
    assert math.isnan(board_right(play, np.full_like(board, np.nan)))


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
    config = RecordConfig(
        env_id="ALE/Pong-v5", out=out, steps=150, max_episode_steps=75, policy=("random",), quiet=True
    )
    return record(config)


def test_clips_are_cut_where_they_say(recording):
    cuts = choose_cuts(recording, 2 * (75 + 2 - 9), 9)  # all that there are
    assert {(cut.episode, cut.begin) for cut in cuts} == {(i, t) for i in (0, 1) for t in range(75 + 2 - 9)}
    with pytest.raises(ValueError, match="137 clips of 9 frames do not fit"):
        choose_cuts(recording, 137, 9)
    clips = read_clips(recording, [Cut(1, 20)], context=5, horizon=4)
    assert np.array_equal(clips.frames[0], recording.frames(1, 20, 29))
    assert np.array_equal(clips.future[0], recording.frames(1, 25, 29))
    assert np.array_equal(clips.actions[0].argmax(-1), recording.actions(1)[20:28])
    assert np.array_equal(clips.rewards[0], recording.rewards(1)[20:28])


def test_baselines_change_only_what_follows_the_context(recording):  # check 20
    from conftest import build_tiny_world

    world = build_tiny_world(frame_size=(64, 64))
    clips = read_clips(recording, [Cut(0, 0), Cut(1, 0)], context=5, horizon=4)
    others = read_actions(recording, [Cut(0, 30), Cut(1, 30)], 8)
    changed = wrong_actions(world, clips, others, seed=0)
    for actions in changed.values():
        assert np.array_equal(actions[:, :4], clips.actions[:, :4])
        assert (actions[:, 4:].sum(-1) == 1).all()  # one-hot
    assert np.array_equal(changed["shuffled"][:, 4:], others[:, 4:])
    assert (changed["noop"][:, 4:].argmax(-1) == 0).all()
    assert not np.array_equal(changed["random"][:, 4:], clips.actions[:, 4:])


def test_a_card_is_json_also_where_nothing_was_measured(tmp_path):
    write_card(tmp_path, {"served_again": float("nan"), "rows": [{"value": 1.5}]}, "text")
    assert (tmp_path / "card.md").read_text() == "text"
    text = (tmp_path / "card.json").read_text()
    assert json.loads(text) == {"served_again": None, "rows": [{"value": 1.5}]}


def copying_world():
    """An untrained dynamics repeats the last frame, whatever the action."""
    from conftest import build_tiny_world

    world = build_tiny_world(frame_size=(64, 64))
    world.dynamics.denoiser.conv_out.weight.data.zero_()
    world.dynamics.config.dream_noise = 0.0
    return world


def test_a_world_that_copies_is_called_a_copy(recording):
    """Its figures are those of copying what the tokenizer shows."""
    world = copying_world()
    context = world.dynamics.context_length
    measured = open_loop(world, recording, PROBES["pong"], clips=4, horizons=(1, 3), steps=2, batch=3)
    clips = read_clips(recording, choose_cuts(recording, 4, context + 3, seed=11), context, 3)
    shown = world.decode(world.encode(clips.frames[:, context - 1 : context])[:, 0]).numpy()
    expected = psnr(shown, clips.future[:, 2])
    assert measured.values["psnr/dream"][:, 1] == pytest.approx(expected, abs=0.01)
    assert by_horizon(measured)["3"]["psnr"]["dream"]["value"] == pytest.approx(float(expected.mean()), abs=0.01)


def test_a_world_that_is_blind_to_actions_is_called_blind(recording):
    measured = open_loop(copying_world(), recording, None, clips=4, horizons=(1, 4), steps=2)
    figures = controllability(measured)
    assert figures["delta_psnr"]["value"] == 0
    assert all(cell["value"] == 1 for row in figures["error_ratio"].values() for cell in row.values())


def test_controllability_by_hand():
    decibels = {"dream": [30.0, 20.0], "random": [20.0, 10.0], "shuffled": [20.0, 20.0], "noop": [30.0, 20.0]}
    measured = OpenLoop((4,), ("psnr",), (), {f"psnr/{name}": np.array(v)[:, None] for name, v in decibels.items()})
    figures = controllability(measured)
    assert figures["delta_psnr"]["value"] == 10
    assert figures["error_ratio"]["random"]["4"]["value"] == pytest.approx(10)
    # Errors 0.01 + 0.01 over 0.001 + 0.01.
    assert figures["error_ratio"]["shuffled"]["4"]["value"] == pytest.approx(0.02 / 0.011)
    assert figures["error_ratio"]["noop"]["4"]["value"] == pytest.approx(1)


def test_observers_see_the_beginnings_of_dreams(recording):
    seen = []

    class Watcher:
        def see(self, dreamed, clips):
            seen.append((dreamed, clips))

    world = copying_world()
    open_loop(world, recording, None, clips=3, horizons=(1, 5), steps=1, observers=(Watcher(),), film=4, batch=2)
    assert [len(dreamed) for dreamed, _ in seen] == [2, 1]
    assert seen[0][0].shape == (2, 4, 64, 64, 3)
    assert (seen[0][0][:, 0] == seen[0][0][:, 3]).all()  # this world stands still


def test_recordings_of_another_game_are_refused(recording):
    from conftest import build_tiny_world

    with pytest.raises(ValueError, match="env_id ALE/Pong-v5, but the world has Tiny-v0"):
        check_held_out(build_tiny_world(frame_size=(64, 64)), recording, 10)


@pytest.fixture
def pong_world(recording):
    """A tiny world that says it was made from other recordings of the same game."""
    world = copying_world()
    info = recording.info
    world.config = dataclasses.replace(
        world.config,
        env_id=info.env_id,
        action_space=info.action_space,
        preprocessing=info.preprocessing,
        trained_on={"recordings": {"content": ["0123456789abcdef"]}},
    )
    return world


def test_recordings_that_the_world_was_trained_on_are_refused(recording, pong_world):
    check_held_out(pong_world, recording, 20)
    pong_world.config.trained_on["recordings"]["content"].append(recording.short_hash(1))
    with pytest.raises(ValueError, match=r"trained on 1 of the 2 episodes .* other seeds"):
        check_held_out(pong_world, recording, 20)


def test_recordings_of_seeds_that_the_world_was_trained_on_are_refused(recording, pong_world):
    seed = recording.meta(1)["seed"]
    pong_world.config.trained_on["recordings"]["seeds"] = [seed + 1000, seed]
    with pytest.raises(ValueError, match=rf"seeds of 1 of the 2 episodes .*the first is 1, seed {seed}\)"):
        check_held_out(pong_world, recording, 20)


def test_too_few_or_too_short_recordings_are_explained(recording, pong_world, tmp_path):
    with pytest.raises(ValueError, match=r"0 of the 2 episodes .* have the 99 steps .* longest has 75"):
        check_held_out(pong_world, recording, 100)
    single = EpisodeStore.create(tmp_path / "single", recording.info)
    single.add(recording.read(0))
    with pytest.raises(ValueError, match=r"1 of the 1 episodes .* at least 2 must"):
        check_held_out(pong_world, single, 20)


def test_turns_are_where_a_thing_leaves_its_course():
    labels = {
        "there": np.array([1, 1, 1, 1, 1, 1, 0, 1, 1, 1], np.float32),
        "x": np.array([0, 2, 4, 6, 4, 2, np.nan, 9, 9, 9.0]),
        "y": np.array([0, 1, 2, 3, 4, 5, np.nan, 0, 1, 2.0]),
    }
    # Frame 3 is the last on the old course: step 3 turns. Gone and back again is no turn.
    assert turns(DOT.things[0], labels).nonzero()[0].tolist() == [3]
    assert not turns(DOT.things[0], {"other": labels["x"]}).any()
    assert turns(DOT.things[0], labels, least=5).sum() == 0
    down = dataclasses.replace(DOT.things[0], turns_along=("y",))
    assert not turns(down, labels).any()  # it falls steadily all the while
    shares = dataclasses.replace(DOT.things[0], turn_shares=(3, 2))
    assert turns(shares, labels)[3] in (2, 3)
    mirrored = {**labels, "x": -np.asarray(labels["x"])}
    only_x = dataclasses.replace(shares, turns_along=("x",))
    assert turns(only_x, labels)[3] + turns(only_x, mirrored)[3] == 5


def test_passing_the_place_of_turns_counts_like_one():
    """Up to 10 and back again four times, then past it and away."""
    once = [0, 2, 4, 6, 8, 10, 8, 6, 4, 2]
    x = np.array([*once * 4, 0, 2, 4, 6, 8, 10, 12, 14, np.nan, np.nan])
    labels = {"there": np.isfinite(x).astype(float), "x": x, "y": np.zeros(len(x))}
    thing = dataclasses.replace(DOT.things[0], turns_along=("x",), turn_shares=(3, 1))
    found = turns(thing, labels)
    assert found.nonzero()[0].tolist() == [5, 10, 15, 20, 25, 30, 35, 40, 45]
    assert found[5] == 3  # at the top, towards lower coordinates
    assert found[10] == 1
    assert found[45] == 3  # missed: as often as what was met
    assert turns(thing, labels, passing=False).nonzero()[0].tolist() == [5, 10, 15, 20, 25, 30, 35, 40]
    assert turns(DOT.things[0], labels)[45] == 0  # in two dimensions nobody knows what would have turned it


def test_comebacks_are_where_a_thing_is_back_after_a_while():
    there = np.array([0, 0, 1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0], np.float32)
    found = comebacks(DOT.things[0], {"there": there}, least=3)
    # Gone from frame 4 on, back in frame 7; not from the beginning, not for one frame, not until the end.
    assert found.nonzero()[0].tolist() == [6]
    assert found[6] == 4
    assert not comebacks(DOT.things[0], {"other": there}).any()


def test_shuffled_actions_come_from_another_episode():
    cuts = [Cut(0, 1), Cut(0, 2), Cut(1, 3)]
    assert others_of(cuts) == [Cut(1, 3), Cut(1, 3), Cut(0, 1)]
    assert others_of(cuts[:2]) == cuts[:2]


def test_the_tokenizer_is_judged_on_different_frames_only(recording):
    world = copying_world()
    whole = tokenizer_fidelity(world, recording, None)
    assert whole["frames"] == 2 * 76
    assert tokenizer_fidelity(world, recording, None, count=10)["frames"] == 10


def test_a_thing_that_is_never_there_is_no_figure(recording):
    nowhere = Probes("test_evaluation", (Thing("dot", "never", ("x", "y"), 1.0),))
    figures = tokenizer_fidelity(copying_world(), recording, nowhere, count=4)
    assert figures["dot"] is None
    assert figures["no_ghost_dot"] == 1


def test_probes_of_ones_own_are_found_by_name():
    assert find_probes(None) is None
    assert find_probes("pong") is PROBES["pong"]
    assert find_probes("test_evaluation:DOT").things == DOT.things
    with pytest.raises(ValueError, match=r"unknown probes 'chess'; there are pong, and module:NAME"):
        find_probes("chess")
    with pytest.raises(ValueError, match="is no Probes but"):
        find_probes("test_evaluation:probe")
    with pytest.raises(ModuleNotFoundError, match="need the module no_such_module"):
        find_probes("no_such_module:PROBES")


def test_the_example_of_the_docs_finds_its_car(tmp_path, monkeypatch):
    text = (Path(__file__).parent.parent / "docs" / "probes.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    (tmp_path / "car_probes.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    frames = np.full((2, 20, 30, 3), 90, np.uint8)
    frames[0, 4:6, 10:13] = (220, 30, 20)
    found = find(find_probes("car_probes:PROBES"), frames)["car"]
    assert found.present.tolist() == [True, False]
    assert found.position[0] == pytest.approx([11, 4.5])
