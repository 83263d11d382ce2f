import json
import re

import numpy as np
import pytest

from neuralsim.cli import main
from neuralsim.data.episodes import EpisodeStore
from neuralsim.data.interchange import ImportConfig, import_data
from neuralsim.data.join import JoinConfig, join
from neuralsim.data.videos import _encode
from neuralsim.envs.minerl_spaces import BUTTONS, human_action_space

av = pytest.importorskip("av")

N, LOADING = 6, 3  # actions, and video frames from before the first observation


def make_recording(folder, seed=0, meta=(), drop=(), in_video=LOADING + N + 1, **changed):
    """A recording as MineRL published them; frame i of the video is of the one grey level 10 * i + seed."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    levels = 10 * np.arange(in_video) + seed
    _encode(
        av,
        folder / "recording",
        np.broadcast_to(levels[:, None, None, None], (in_video, 16, 16, 3)).astype(np.uint8),
        20,
    )
    arrays = {
        "reward": np.eye(N)[N - 1],
        "action$camera": rng.normal(size=(N, 2)).astype(np.float32),
        "action$attack": rng.integers(0, 2, N),
        "action$forward": rng.integers(0, 2, N),
        "observation$inventory$log": np.arange(N + 1),
        "observation$equipped_items$mainhand$type": np.array(["none"] * (N + 1)),
        **changed,
    }
    np.savez(folder / "rendered.npz", **{key: value for key, value in arrays.items() if key not in drop})
    facts = {
        "success": True,
        "duration_ms": 50 * N,
        "total_reward": 1.0,
        "true_video_frame_count": in_video,
        **dict(meta),
    }
    (folder / "metadata.json").write_text(json.dumps({k: v for k, v in facts.items() if k not in drop}))
    return arrays


def read(folder, out, **changes):
    return import_data(ImportConfig(str(folder), out, **{"size": (8, 6), "quiet": True, **changes}))


def report(out):
    return json.loads((out / "import_report.json").read_text())


def test_a_recording(tmp_path):
    root = tmp_path / "MineRLTreechop-v0"
    arrays = make_recording(root / "v3_absolute_grape_changeling-1_0-99")
    store = read(root, tmp_path / "data")
    assert store.space == human_action_space(10.0)
    assert store.info.env_kwargs == {"camera_limit": 10.0}
    assert (store.info.env_id, store.info.fps, store.info.frame_shape) == ("MineRLTreechop-v0", 20.0, (8, 6, 3))
    episode = store.read(0)
    assert len(episode) == N
    # The ends of video and play meet: the first frames show the game loading.
    assert episode.frames[:, 4, 3, 0].tolist() == [10 * i for i in range(LOADING, LOADING + N + 1)]
    np.testing.assert_array_equal(episode.actions["camera"], arrays["action$camera"])
    assert episode.actions["camera"].dtype == np.float32
    for name in BUTTONS:
        np.testing.assert_array_equal(episode.actions[name], arrays.get(f"action${name}", np.zeros(N)))
    assert episode.rewards.tolist() == [0] * (N - 1) + [1]
    assert episode.terminated.tolist() == [False] * (N - 1) + [True]
    assert not episode.truncated.any()
    assert list(episode.labels) == ["inventory.log"]
    assert episode.labels["inventory.log"].tolist() == list(range(N + 1))
    assert episode.policy == "human"


def test_who_failed_was_cut_short(tmp_path):
    make_recording(tmp_path / "m" / "v3_a", meta={"success": False})
    episode = read(tmp_path / "m", tmp_path / "data").read(0)
    assert not episode.terminated.any()
    assert episode.truncated.tolist() == [False] * (N - 1) + [True]


def test_a_video_that_begins_with_the_play(tmp_path):
    make_recording(tmp_path / "m" / "v3_a", in_video=N + 1)
    frames = read(tmp_path / "m", tmp_path / "data").frames(0)
    assert frames[:, 0, 0, 0].tolist() == [10 * i for i in range(N + 1)]


def test_crafting_is_named_and_left_out(tmp_path):
    craft = np.array(["none", "planks", "none", "stick", "none", "none"])
    pickled = np.array([{"any": "code"}] * N, object)
    make_recording(
        tmp_path / "m" / "v3_a", **{"action$craft": craft, "action$place": np.zeros(N, int), "action$x": pickled}
    )
    read(tmp_path / "m", tmp_path / "data")
    assert report(tmp_path / "data")["left_out_steps"] == {"action craft": 2, "action x": 1}


WRONG = {
    "recording.mp4 missing": lambda f: (f / "recording.mp4").unlink(),
    "rendered.npz and metadata.json missing": lambda f: [(f / n).unlink() for n in ("rendered.npz", "metadata.json")],
    r"recording\.mp4 cannot be read as a video": lambda f: cut(f / "recording.mp4"),
    r"rendered\.npz is damaged or cut off": lambda f: cut(f / "rendered.npz"),
    r"metadata\.json is damaged or cut off": lambda f: cut(f / "metadata.json"),
}
WRONG_CONTENT = {
    "has no true_video_frame_count": {"drop": ("true_video_frame_count",)},
    "true_video_frame_count is 'ten', no whole number": {"meta": {"true_video_frame_count": "ten"}},
    "has 10 frames and metadata.json counts 12": {"meta": {"true_video_frame_count": 12}},
    "counts 5 video frames.*fewer than the 7 observations of 6 rewards": {"meta": {"true_video_frame_count": 5}},
    "reward is missing": {"drop": ("reward",)},
    r"reward has the shape \(0,\)": {"reward": np.zeros(0)},
    r"reward has the shape \(6,\); it must be .* finite": {"reward": np.full(N, np.nan)},
    "has no actions": {"drop": ("action$camera", "action$attack", "action$forward")},
    r"action\$attack has the shape \(7,\) and 6 rewards ask for \(6,\)": {"action$attack": np.zeros(N + 1)},
    r"action\$attack is 3": {"action$attack": np.full(N, 3)},
    r"action\$camera is no array of numbers": {"action$camera": np.full(N, "up")},
    r"camera of step 0 turns by \[0.0, 181.0\].*--clip-camera": {"action$camera": np.full((N, 2), (0, 181.0))},
    "camera of step 0 is .*no finite number": {"action$camera": np.full((N, 2), np.inf)},
    r"observation\$inventory\$log has the shape \(6,\)": {"observation$inventory$log": np.zeros(N)},
}


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("reason", [*WRONG, *WRONG_CONTENT])
def test_a_bad_recording_costs_itself_alone(tmp_path, capsys, reason):
    make_recording(tmp_path / "m" / "v3_bad", **WRONG_CONTENT.get(reason, {}))
    WRONG.get(reason, lambda f: None)(tmp_path / "m" / "v3_bad")
    make_recording(tmp_path / "m" / "v3_good")
    store = read(tmp_path / "m", tmp_path / "data", kind="minerl")
    assert store.ids == [1]
    assert sorted(file.name for file in (tmp_path / "data" / "episodes").iterdir()) == ["00000001.zarr.zip"]
    skipped = report(tmp_path / "data")["skipped"]
    assert list(skipped) == ["v3_bad"]
    assert re.search(reason, skipped["v3_bad"])
    out = capsys.readouterr().out
    assert "1 recordings read (6 steps), 0 already there, 1 skipped" in out
    assert "v3_bad: " in out


def test_the_camera_can_be_clipped(tmp_path):
    make_recording(tmp_path / "m" / "v3_a", **{"action$camera": np.full((N, 2), (-900.5, 181.0))})
    store = read(tmp_path / "m", tmp_path / "data", clip_camera=True, camera_limit=180)
    assert store.actions(0)["camera"][0].tolist() == [-180, 180]
    assert (store.space, store.info.env_kwargs) == (human_action_space(), {})


def test_fast_turns_are_cut_and_counted(tmp_path, capsys):
    turns = np.zeros((N, 2))
    turns[1], turns[3], turns[4] = (-90, 3), (10, -10), (0, 10.5)
    make_recording(tmp_path / "m" / "v3_a", **{"action$camera": turns})
    camera = read(tmp_path / "m", tmp_path / "data").actions(0)["camera"]
    assert camera[[1, 3, 4]].tolist() == [[-10, 3], [10, -10], [0, 10]]
    assert report(tmp_path / "data")["left_out_steps"] == {"turn beyond 10 degrees": 2}
    assert "turn beyond 10 degrees (2 steps)" in capsys.readouterr().out
    read(tmp_path / "m", tmp_path / "narrow", camera_limit=2.5)
    assert report(tmp_path / "narrow")["left_out_steps"] == {"turn beyond 2.5 degrees": 3}
    with pytest.raises(ValueError, match="already holds a dataset with action_space"):
        read(tmp_path / "m", tmp_path / "data", camera_limit=5)
    with pytest.raises(ValueError, match="--camera-limit 181 must be above 0 and at most 180"):
        read(tmp_path / "m", tmp_path / "wide", camera_limit=181)


def test_an_import_is_continued(tmp_path, capsys):
    make_recording(tmp_path / "m" / "v3_b", seed=1)
    make_recording(tmp_path / "m" / "v3_c", seed=2)
    (tmp_path / "m" / "v3_c" / "metadata.json").rename(tmp_path / "kept")
    store = read(tmp_path / "m", tmp_path / "data")
    before = (tmp_path / "data" / "episodes" / "00000000.zarr.zip").stat().st_mtime_ns
    assert store.ids == [0]
    # One came, one was repaired, and a killed import left a half episode.
    make_recording(tmp_path / "m" / "v3_a", seed=3)
    (tmp_path / "kept").rename(tmp_path / "m" / "v3_c" / "metadata.json")
    (tmp_path / "data" / "episodes" / ".half.part").write_bytes(b"half")
    store = read(tmp_path / "m", tmp_path / "data")
    assert "2 recordings read (12 steps), 1 already there, 0 skipped" in capsys.readouterr().out
    assert store.info.source["names"] == ["v3_b", "v3_c", "v3_a"]
    assert [int(store.frames(i)[0, 0, 0, 0]) - 10 * LOADING for i in range(3)] == [1, 2, 3]
    assert (tmp_path / "data" / "episodes" / "00000000.zarr.zip").stat().st_mtime_ns == before
    assert not list((tmp_path / "data" / "episodes").glob(".*"))
    with pytest.raises(ValueError, match=r"already holds a dataset with frame_shape \(8, 6, 3\).*choose another --out"):
        read(tmp_path / "m", tmp_path / "data", size=(6, 8))
    with pytest.raises(ValueError, match="clip_camera"):
        read(tmp_path / "m", tmp_path / "data", clip_camera=True)


def test_no_import_goes_on_with_what_was_joined(tmp_path):
    parts = []
    for seed, name in enumerate(("a", "b")):
        make_recording(tmp_path / name / "m" / "v3_a", seed=seed)
        parts.append(read(tmp_path / name / "m", tmp_path / f"data_{name}").path)
    join(JoinConfig(tuple(parts), tmp_path / "joined"))
    with pytest.raises(ValueError, match=r"already holds a dataset with source .*; choose another --out"):
        read(tmp_path / "a" / "m", tmp_path / "joined")


def test_the_number_of_workers_changes_nothing(tmp_path):
    for i, name in enumerate(("v3_a", "v3_b", "v3_c")):
        make_recording(tmp_path / "m" / name, seed=i)
    cut(tmp_path / "m" / "v3_b" / "rendered.npz")
    one, two = (read(tmp_path / "m", tmp_path / f"by{n}", workers=n) for n in (1, 2))
    assert one.info == two.info
    assert one.ids == two.ids == [0, 2]
    assert [one.meta(i) for i in one] == [two.meta(i) for i in two]
    assert report(tmp_path / "by1") == report(tmp_path / "by2")


def test_other_mistakes(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read(tmp_path / "nowhere", tmp_path / "data", kind="minerl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no MineRL recordings"):
        read(tmp_path / "empty", tmp_path / "data", kind="minerl")
    make_recording(tmp_path / "m" / "v3_a", drop=("reward",))
    with pytest.raises(ValueError, match=r"none of the 1 recordings in .* could be read:\n  v3_a: .*reward is missing"):
        read(tmp_path / "m", tmp_path / "data")
    assert not (tmp_path / "data").exists()
    with pytest.raises(ValueError, match="--workers 0"):
        read(tmp_path / "m", tmp_path / "data", workers=0)
    with pytest.raises(ValueError, match="--action-space is not for minerl"):
        read(tmp_path / "m", tmp_path / "data", action_space="{}")


def test_missing_extra(tmp_path, monkeypatch):
    make_recording(tmp_path / "m" / "v3_a")
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ModuleNotFoundError, match=r"neuralsim-gym\[video\]"):
        read(tmp_path / "m", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_disk_full_is_no_fault_of_a_recording(tmp_path, monkeypatch):
    make_recording(tmp_path / "m" / "v3_a")

    def no_room(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(EpisodeStore, "_write", no_room)
    with pytest.raises(OSError, match="no room to write"):
        read(tmp_path / "m", tmp_path / "data")
    monkeypatch.undo()
    assert len(read(tmp_path / "m", tmp_path / "data")) == 1


def test_an_interruption_keeps_what_was_read(tmp_path, monkeypatch):
    for name in ("v3_a", "v3_b"):
        make_recording(tmp_path / "m" / name)
    add = EpisodeStore.add

    def add_one(store, episode, episode_id):
        if episode_id == 1:
            raise KeyboardInterrupt
        return add(store, episode, episode_id)

    monkeypatch.setattr(EpisodeStore, "add", add_one)
    with pytest.raises(KeyboardInterrupt):
        read(tmp_path / "m", tmp_path / "data")
    monkeypatch.undo()
    assert EpisodeStore.open(tmp_path / "data").ids == [0]
    assert read(tmp_path / "m", tmp_path / "data").ids == [0, 1]
    assert report(tmp_path / "data")["already_there"] == 1


def test_only_one_writes(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    make_recording(tmp_path / "m" / "v3_a")
    read(tmp_path / "m", tmp_path / "data")
    with (tmp_path / "data" / ".recording").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is writing"):
            read(tmp_path / "m", tmp_path / "data")


def test_command_line(tmp_path, capsys):
    make_recording(tmp_path / "root" / "MineRLTreechop-v0" / "v3_a")
    assert main(["data", "import", str(tmp_path / "root"), "--out", str(tmp_path / "d"), "--size", "8", "8"]) == 0
    out = capsys.readouterr().out
    assert "1 recordings read (6 steps)" in out
    assert "1 episodes, 6 steps" in out
    assert EpisodeStore.open(tmp_path / "d").info.source["names"] == ["MineRLTreechop-v0/v3_a"]
