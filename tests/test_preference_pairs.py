"""Pairs of recorded segments: drawn, shown, chosen between by people and scripts, and kept in a file."""

import json
import math
import shutil

import numpy as np
import pytest
from walks import SEGMENT, SIZE, make_store, walk, words

from neuralsim.agents.preferences.labelling import LabelConfig, LabellingSession, RewardLabeller, label
from neuralsim.agents.preferences.pairs import Label, Pair, PairSampler, PreferencePairs, Segment
from neuralsim.cli import main
from neuralsim.data.episodes import EpisodeStore
from neuralsim.envs.keyboard import BACKSPACE, DOWN, ESCAPE, LEFT, RIGHT, SPACE


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("walks") / "data")


# -- pairs


def test_pairs_are_two_segments_inside_their_episodes_and_apart(tmp_path):
    store = make_store(tmp_path, (12, 5, 40, 10))
    sampler = PairSampler(store, 10, seed=3)
    drawn = [sampler.draw(i) for i in range(400)]
    for pair in drawn:
        for segment in (pair.left, pair.right):
            assert segment.start >= 0
            assert segment.stop <= store.length(segment.episode)
        assert pair.left.episode != pair.right.episode or abs(pair.left.start - pair.right.start) >= 10
    seen = {(segment.episode, segment.start) for pair in drawn for segment in (pair.left, pair.right)}
    assert seen == {(0, 0), (0, 1), (0, 2), (3, 0), *((2, start) for start in range(31))}  # every one there is
    assert drawn == [PairSampler(store, 10, seed=3).draw(i) for i in range(400)]
    assert drawn[:20] != [PairSampler(store, 10, seed=4).draw(i) for i in range(20)]


def test_segments_overlap_only_where_there_is_no_other_way(tmp_path):
    sampler = PairSampler(make_store(tmp_path, (11,)), 10)
    pairs = [sampler.draw(i) for i in range(10)]
    assert {(pair.left.start, pair.right.start) for pair in pairs} == {(0, 1), (1, 0)}


@pytest.mark.parametrize(
    ("lengths", "segment", "message"),
    [
        ((), 10, "holds no episodes: record some"),
        ((5, 8), 10, "segment is 10 steps, but the longest of the 2 episodes in .* has 8: lower --segment"),
        ((10,), 10, "holds a single segment of 10 steps, and a pair takes two"),
        ((10,), 0, "segment is 0; it must be at least 1"),
    ],
)
def test_recordings_that_make_no_pairs_say_so(tmp_path, lengths, segment, message):
    with pytest.raises(ValueError, match=message):
        PairSampler(make_store(tmp_path, lengths), segment)


def test_what_is_no_pair_is_refused():
    with pytest.raises(ValueError, match="3 and 4 steps"):
        Pair(Segment(0, 0, 3), Segment(1, 0, 4))
    for wrong in ((0, -1, 3), (0, 0, 0), (0, 1.5, 3), (True, 0, 3)):
        with pytest.raises(ValueError, match="make no segment"):
            Segment(*wrong)
    with pytest.raises(ValueError, match="'better'"):
        Label(Pair(Segment(0, 0, 3), Segment(1, 0, 3)), "better")


# -- the file

SOME = [
    Label(Pair(Segment(0, 3, 10), Segment(1, 0, 10)), "left", "Ada"),
    Label(Pair(Segment(2, 7, 5), Segment(2, 30, 5)), "tie"),
    Label(Pair(Segment(4, 0, 60), Segment(5, 0, 60)), "skip"),
    Label(Pair(Segment(0, 9, 1), Segment(3, 9, 1)), "right"),
]


def filled(path, store) -> PreferencePairs:
    pairs = PreferencePairs(path, store, create=True)
    for one in SOME:
        pairs.add(one)
        assert PreferencePairs(path, store).labels[-1] == one  # on disk at once
    return pairs


def test_labels_are_kept_and_taken_back(tmp_path, store):
    path = tmp_path / "new" / "labels.jsonl"
    pairs = filled(path, store)
    again = PreferencePairs(path, store)
    assert again.labels == SOME
    assert again.judged == [SOME[0], SOME[1], SOME[3]]
    assert again.fingerprint() == pairs.fingerprint()
    assert again.summary().endswith("3 labels (1 left, 1 right, 1 equally good), 1 skipped")
    assert again.undo() == SOME[3]
    assert PreferencePairs(path, store).labels == SOME[:3]
    assert again.fingerprint() != pairs.fingerprint()
    again.add(SOME[0])
    assert PreferencePairs(path, store).labels == [*SOME[:3], SOME[0]]
    for _ in range(4):
        again.undo()
    assert path.read_bytes() == b""
    with pytest.raises(IndexError, match="no label to take back"):
        again.undo()


@pytest.mark.parametrize("missing", [1, 2, 40])
def test_a_last_line_that_was_cut_off_is_told_and_not_counted(tmp_path, store, missing):
    path = tmp_path / "labels.jsonl"
    filled(path, store)
    whole = path.read_bytes()
    path.write_bytes(whole[:-missing])
    pairs = PreferencePairs(path, store)
    assert pairs.labels == SOME[:3]
    assert "was cut off" in pairs.note
    assert path.read_bytes() == whole[:-missing]  # reading changes nothing
    pairs.add(SOME[3])
    assert path.read_bytes() == whole
    path.write_bytes(whole[:-missing])
    pairs = PreferencePairs(path, store)
    pairs.undo()
    assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:2])


def test_a_file_that_was_cut_off_in_its_first_line_is_empty(tmp_path, store):
    path = tmp_path / "labels.jsonl"
    path.write_bytes(b'{"left": {"epi')
    pairs = PreferencePairs(path, store)
    assert len(pairs) == 0
    assert "was cut off" in pairs.note


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line[:30],
        lambda line: b"",
        lambda line: b"[1]",
        lambda line: line.replace(b'"left": {', b'"left": "x", "l": {'),
        lambda line: line.replace(b'"tie"', b'"better"'),
        lambda line: line.replace(b'"start": 7', b'"start": -7'),
        lambda line: line.replace(b'"start": 7', b'"start": 58'),
        lambda line: line.replace(b'"length": 5', b'"length": 6', 1),
        lambda line: line.replace(b'"by"', b'"because"'),
        lambda line: b"\xff" + line,
    ],
)
def test_damage_within_names_the_line(tmp_path, store, change):
    path = tmp_path / "labels.jsonl"
    filled(path, store)
    lines = path.read_bytes().splitlines()
    lines[1] = change(lines[1])
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(ValueError, match=r"labels.jsonl, line 2 is damaged .*delete that line"):
        PreferencePairs(path, store)


def test_labels_of_other_recordings_are_refused(tmp_path, store):
    path = tmp_path / "labels.jsonl"
    filled(path, store)
    with pytest.raises(ValueError, match=r"line 1 is about episode 0 with content \w+, .*other recordings.*--data"):
        PreferencePairs(path, make_store(tmp_path / "other", seed=1))
    with pytest.raises(ValueError, match=r"line 3 is about episode 4 .*does not have"):
        PreferencePairs(path, make_store(tmp_path / "fewer", (60,) * 4))
    shutil.copytree(store.path, tmp_path / "more")
    more = EpisodeStore.open(tmp_path / "more")
    more.add(walk(77))
    assert PreferencePairs(path, more).labels == SOME  # what was added later does not matter


def test_segments_that_are_not_there_are_not_labelled(tmp_path, store):
    pairs = PreferencePairs(tmp_path / "labels.jsonl", store, create=True)
    for segment in (Segment(99, 0, 5), Segment(0, 56, 5)):
        with pytest.raises(ValueError, match="is not in"):
            pairs.add(Label(Pair(segment, Segment(1, 0, 5)), "left"))
    assert len(pairs) == 0


def test_two_programs_do_not_write_over_each_other(tmp_path, store):
    path = tmp_path / "labels.jsonl"
    first = filled(path, store)
    second = PreferencePairs(path, store)
    second.add(SOME[0])
    for change in (lambda: first.add(SOME[1]), first.undo):
        with pytest.raises(ValueError, match="another program changed"):
            change()
    assert PreferencePairs(path, store).labels == [*SOME, SOME[0]]


def test_a_full_disk_loses_no_label(tmp_path, store, monkeypatch):
    path = tmp_path / "labels.jsonl"
    pairs = filled(path, store)

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("neuralsim.agents.preferences.pairs.os.fsync", full)
        with pytest.raises(OSError, match=r"No space left on device.*those before it are"):
            pairs.add(SOME[0])
    assert PreferencePairs(path, store).labels == SOME
    pairs.add(SOME[0])
    assert PreferencePairs(path, store).labels == [*SOME, SOME[0]]


def test_labels_that_are_missing_tell_how_to_make_some(tmp_path, store):
    with pytest.raises(FileNotFoundError, match="neuralsim preferences label --data"):
        PreferencePairs(tmp_path / "nothing.jsonl", store)


# -- who chooses


def test_the_scripted_labeller_goes_by_the_rewards(store):
    labeller, sampler = RewardLabeller(store), PairSampler(store, SEGMENT)
    for i in range(100):
        pair = sampler.draw(i)
        left, right = (
            float(store.rewards(s.episode)[s.start : s.start + 10].astype(float).sum()) for s in (pair.left, pair.right)
        )
        expected = "tie" if abs(left - right) < 1e-6 else "left" if left > right else "right"
        assert labeller.choose(pair, i) == expected
        swapped = {"left": "right", "right": "left", "tie": "tie"}[expected]
        assert labeller.choose(Pair(pair.right, pair.left), i) == swapped


def test_the_scripted_labeller_errs_as_often_as_it_is_told(store):
    sampler = PairSampler(store, SEGMENT)
    pairs = [sampler.draw(i) for i in range(600)]
    right, wrong = RewardLabeller(store), RewardLabeller(store, error_rate=0.25, seed=5)
    told = [(right.choose(pair, i), wrong.choose(pair, i)) for i, pair in enumerate(pairs)]
    clear = [a != b for a, b in told if a != "tie"]
    assert all(b == "tie" for a, b in told if a == "tie")
    assert abs(np.mean(clear) - 0.25) < 5 * math.sqrt(0.25 * 0.75 / len(clear))
    assert told == [(right.choose(pair, i), wrong.choose(pair, i)) for i, pair in enumerate(pairs)]
    always = RewardLabeller(store, error_rate=1.0)
    assert all(always.choose(pairs[i], i) != a for i, (a, _) in enumerate(told) if a != "tie")
    for rate in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match="error_rate"):
            RewardLabeller(store, rate)


def test_labelling_by_script_goes_on_where_it_stopped(tmp_path, store, capsys):
    def run(name, *more):
        arguments = words("preferences", "label", "--data", store.path, "--out", tmp_path / name, "--segment", SEGMENT,
                          "--labeller", "reward", "--error-rate", 0.2, *more)  # fmt: skip
        assert main(arguments) == 0
        return (tmp_path / name).read_bytes()

    once = run("once.jsonl", "--pairs", 30)
    assert "30 labels" in capsys.readouterr().out
    part = run("twice.jsonl", "--pairs", 12)
    assert once.startswith(part)
    (tmp_path / "twice.jsonl").write_bytes(part[:-5])
    assert run("twice.jsonl", "--pairs", 30) == once
    out = capsys.readouterr().out
    assert "was cut off" in out
    assert "going on with" in out
    assert run("twice.jsonl", "--pairs", 20) == once  # more than enough: nothing is done
    assert run("other.jsonl", "--pairs", 30, "--seed", 1) != once
    assert json.loads(once.splitlines()[0])["by"] == "reward (error rate 0.2)"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--pairs", "0"], "pairs is 0; it must be at least 1"),
        (["--segment", "61"], "segment is 61 steps, but the longest of the 8 episodes"),
        (["--error-rate", "2"], "error_rate is 2"),
        (["--scale", "0"], "scale is 0"),
        (["--data", "no/such/folder"], "no/such/folder"),
    ],
)
def test_labelling_that_makes_no_sense_ends_with_status_2(tmp_path, store, more, message, capsys):
    place = words("--data", store.path, "--out", tmp_path / "labels.jsonl", "--labeller", "reward")
    assert main(["preferences", "label", *place, *more]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "labels.jsonl").exists()


# -- the window


@pytest.fixture
def window_of(monkeypatch, store, tmp_path):
    """Makes windows that nobody sees, and closes the display at the end."""
    pygame = pytest.importorskip("pygame")
    from neuralsim.agents.preferences.window import LabelWindow

    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    pygame.display.init()
    pygame.event.clear()

    def make(wanted=3, **kwargs):
        labels = PreferencePairs(tmp_path / "labels.jsonl", store, create=True)
        return LabelWindow(LabellingSession(store, labels, PairSampler(store, SEGMENT), wanted, "Ada"), **kwargs)

    yield make
    pygame.display.quit()


def press(window, *keys, now=0.0):
    import pygame

    for key in keys:
        window.handle(pygame.event.Event(pygame.KEYDOWN, key=key, mod=0, unicode=""), now)
        window.handle(pygame.event.Event(pygame.KEYUP, key=key, mod=0), now)


def choices(store, tmp_path):
    return [one.choice for one in PreferencePairs(tmp_path / "labels.jsonl", store).labels]


def test_keys_choose_skip_and_take_back(window_of, store, tmp_path):
    window, told = window_of(), lambda: choices(store, tmp_path)
    press(window, BACKSPACE)
    assert window.session.note == "there is nothing to take back"
    first = window.session.pair
    press(window, SPACE, ord("x"))
    assert (told(), window.session.pair) == ([], first)
    press(window, LEFT)
    assert told() == ["left"]
    second = window.session.pair
    assert second != first
    press(window, ord("s"), DOWN)
    assert told() == ["left", "skip", "tie"]
    assert window.session.judged == 2
    press(window, BACKSPACE, BACKSPACE)
    assert told() == ["left"]
    assert window.session.pair == second
    press(window, RIGHT, RIGHT)
    assert told() == ["left", "right", "right"]
    assert window.session.pair is None  # enough
    press(window, LEFT)
    assert len(told()) == 3
    window.tick(0.0)
    press(window, BACKSPACE, DOWN)
    assert told() == ["left", "right", "tie"]
    press(window, ESCAPE)
    assert not window.open
    saved = PreferencePairs(tmp_path / "labels.jsonl", store).labels
    assert [one.pair for one in saved] == [PairSampler(store, SEGMENT).draw(i) for i in range(3)]
    assert {one.by for one in saved} == {"Ada"}


def test_a_window_that_is_opened_again_goes_on(window_of, store, tmp_path):
    press(window_of(5), LEFT, ord("s"), RIGHT, ESCAPE)
    window = window_of(5)
    assert window.session.judged == 2
    assert window.session.pair == PairSampler(store, SEGMENT).draw(3)
    press(window, BACKSPACE)
    assert window.session.pair == PairSampler(store, SEGMENT).draw(2)


def test_clips_run_at_the_rate_of_the_recordings_over_and_over(window_of):
    window = window_of()
    window.tick(5.0)
    # 10 steps at 20 per second, and 0.6 s of rest at the last frame.
    seen = [window.frame(5.0 + i * 0.05 + 0.001) for i in range(45)]
    assert seen == [*range(10), *[10] * 12, *range(10), *[10] * 12, 0]
    press(window, SPACE, now=5.25)
    assert window.frame(5.251) == 0


def test_the_window_shows_both_clips(window_of, store):
    import pygame

    window = window_of(scale=8)
    session = window.session
    window.tick(0.0)
    window.draw(0.25)
    seen = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
    for side, segment in enumerate((session.pair.left, session.pair.right)):
        frame = store.frames(segment.episode)[segment.start + 5]
        large = frame.repeat(8, axis=0).repeat(8, axis=1)
        left = 16 + side * (SIZE[1] * 8 + 16)
        assert np.array_equal(seen[64 : 64 + SIZE[0] * 8, left : left + SIZE[1] * 8], large)
    for size in ((1500, 900), (360, 300)):
        pygame.display.set_mode(size, pygame.RESIZABLE)
        window.draw(0.3)


def test_labelling_end_to_end_in_a_window(monkeypatch, store, tmp_path, capsys):
    pygame = pytest.importorskip("pygame")
    from neuralsim.agents.preferences.window import LabelWindow

    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    keys = iter([LEFT, None, BACKSPACE, RIGHT, DOWN, ESCAPE])

    def tick(self, now, original=LabelWindow.tick):
        key = next(keys)
        if key is not None:
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key, mod=0, unicode=""))
        original(self, now)

    monkeypatch.setattr(LabelWindow, "tick", tick)
    label(LabelConfig(data=store.path, out=tmp_path / "labels.jsonl", segment=SEGMENT, pairs=5))
    assert choices(store, tmp_path) == ["right", "tie"]
    assert "2 labels (0 left, 1 right, 1 equally good)" in capsys.readouterr().out


def test_without_a_display_the_error_shows_the_way(monkeypatch, store, tmp_path, capsys):
    pytest.importorskip("pygame")
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    arguments = words("preferences", "label", "--data", store.path, "--out", tmp_path / "labels.jsonl")
    assert main(arguments) == 2
    assert "--labeller reward" in capsys.readouterr().err
    assert not (tmp_path / "labels.jsonl").exists()
