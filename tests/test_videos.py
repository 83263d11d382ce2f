import json

import numpy as np
import pytest
from gymnasium import spaces
from test_episodes import SPACES, assert_same, make_episode, make_store

from neuralsim.cli import main
from neuralsim.data.episodes import EpisodeStore
from neuralsim.data.interchange import ExportConfig, ImportConfig, export_data, import_data
from neuralsim.data.videos import _encode, read_table

av = pytest.importorskip("av")


def make_folder(path, frames=6, table="action\n0\n1\n2\n1\n0\n", name="one", shape=(8, 6, 3), fps=20.0):
    path.mkdir(exist_ok=True)
    pictures = np.random.default_rng(0).integers(0, 256, (frames, *shape), np.uint8)
    _encode(av, path / name, pictures, fps)
    if table is not None:
        (path / f"{name}.csv").write_text(table)
    return pictures


def read(folder, out, **changes):
    return import_data(ImportConfig(str(folder), out, **{"size": (8, 6), **changes}))


@pytest.mark.parametrize("space", SPACES, ids=lambda space: type(space).__name__)
def test_there_and_back_without_loss(tmp_path, space):
    episodes = [make_episode(40, space, (8, 6, 3), seed=1), make_episode(3, space, (8, 6, 3), seed=2)]
    make_store(tmp_path / "a", *episodes, space=space)
    export_data(ExportConfig(tmp_path / "a", str(tmp_path / "videos"), quiet=True))
    store = import_data(ImportConfig(str(tmp_path / "videos"), tmp_path / "b"))
    assert store.info == EpisodeStore.open(tmp_path / "a").info
    for episode_id, episode in enumerate(episodes):
        assert_same(store.read(episode_id), episode)


def test_odd_sizes_are_kept(tmp_path):
    episode = make_episode(5, shape=(7, 5, 3))
    make_store(tmp_path / "a", episode, shape=(7, 5, 3))
    export_data(ExportConfig(tmp_path / "a", str(tmp_path / "videos"), quiet=True))
    assert_same(import_data(ImportConfig(str(tmp_path / "videos"), tmp_path / "b")).read(0), episode)


def test_without_x264_ffv1_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", {"ffv1"})
    episode = make_episode(5)
    make_store(tmp_path / "a", episode)
    export_data(ExportConfig(tmp_path / "a", str(tmp_path / "videos"), quiet=True))
    assert (tmp_path / "videos" / "00000000.mkv").exists()
    assert_same(import_data(ImportConfig(str(tmp_path / "videos"), tmp_path / "b")).read(0), episode)


def test_ones_own_videos(tmp_path):
    table = "action,reward,terminated\n0,0,false\n2,-1.5,false\n1,1,True\n"
    pictures = make_folder(tmp_path / "mine", 4, table, shape=(16, 12, 3))
    store = read(tmp_path / "mine", tmp_path / "data", env_id="My-v0")
    episode = store.read(0)
    assert store.space == spaces.Discrete(3)
    assert store.info.fps == 20.0
    assert store.info.env_id == "My-v0"
    assert episode.frames.shape == (4, 8, 6, 3)
    np.testing.assert_allclose(
        episode.frames, pictures.reshape(4, 8, 2, 6, 2, 3).mean((2, 4)), atol=1.01
    )  # the mean of 2x2
    assert episode.actions.tolist() == [0, 2, 1]
    assert episode.rewards.tolist() == [0, -1.5, 1]
    assert episode.terminated.tolist() == [False, False, True]
    assert episode.policy == "video"


def test_only_actions(tmp_path):
    make_folder(tmp_path / "mine")
    episode = read(tmp_path / "mine", tmp_path / "data", fps=30.0).read(0)
    assert episode.truncated.tolist() == [False] * 4 + [True]
    assert not episode.rewards.any()
    assert not episode.terminated.any()


@pytest.mark.parametrize(
    ("table", "space"),
    [
        ("action_x,action_y\n0.5,-2\n0,0\n", spaces.Box(np.float32([-0.5, -2]), np.float32([0.5, 2]))),
        ("action.left,action.right\n0,1\n1,1\n", spaces.MultiBinary(2)),
        ("action\n0.25\n0.5\n", spaces.Box(-0.5, 0.5, (1,))),
    ],
)
def test_columns_of_actions(tmp_path, table, space):
    make_folder(tmp_path / "mine", 3, table)
    assert read(tmp_path / "mine", tmp_path / "data").space == space


def test_an_action_space_can_be_given(tmp_path):
    make_folder(tmp_path / "mine")
    store = read(tmp_path / "mine", tmp_path / "data", action_space='{"type": "Discrete", "n": 6}')
    assert store.space == spaces.Discrete(6)
    for wrong in ("{", '{"n": 3}', '{"type": "Discrete"}', "7"):
        with pytest.raises(ValueError, match=r"action|space"):
            read(tmp_path / "mine", tmp_path / "x", action_space=wrong)
    with pytest.raises(ValueError, match="2 lies outside"):
        read(tmp_path / "mine", tmp_path / "x", action_space='{"type": "Discrete", "n": 2}')


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("button\n1\n", r"no column of actions, only \['button'\]"),
        ("action,score\n1,2\n", r"unknown columns \['score'\]"),
        ("action\n", "no rows"),
        ("", "no column of actions"),
        ("action,reward\n1\n", "line 2: 1 values for 2 columns"),
        ("action\none\n", "line 2.*one"),
        ("action,action\n1,1\n", "twice"),
        ("action,terminated\n1,2\n", "terminated must be 0 or 1.*2"),
        ("action,terminated\n1,1\n1,0\n", "line 2, before the last"),
    ],
)
def test_tables_with_mistakes(tmp_path, table, message):
    file = tmp_path / "one.csv"
    file.write_text(table)
    with pytest.raises(ValueError, match=message):
        read_table(file)


def test_a_value_that_is_missing(tmp_path):
    make_folder(tmp_path / "mine", 3, "action,reward\n1,0\n,0\n")
    with pytest.raises(ValueError, match=r"line 3.*empty"):
        read(tmp_path / "mine", tmp_path / "data", action_space='{"type": "Discrete", "n": 2}')
    assert not (tmp_path / "data").exists()


def test_one_frame_more_than_rows(tmp_path):
    make_folder(tmp_path / "mine", 5)
    with pytest.raises(ValueError, match=r"5 frames and one\.csv 5 rows.*--drop-last"):
        read(tmp_path / "mine", tmp_path / "data")
    assert not (tmp_path / "data").exists()
    assert read(tmp_path / "mine", tmp_path / "data", drop_last=True).length(0) == 4
    make_folder(tmp_path / "short", 3)
    with pytest.raises(ValueError, match=r"3 frames and one\.csv 5 rows; there must be one frame more"):
        read(tmp_path / "short", tmp_path / "x")


def test_other_mistakes(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no videos"):
        read(tmp_path / "empty", tmp_path / "data")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read(tmp_path / "nowhere", tmp_path / "data", kind="videos")
    make_folder(tmp_path / "alone", table=None)
    with pytest.raises(ValueError, match=r"no table beside one\.mp4"):
        read(tmp_path / "alone", tmp_path / "data")
    make_folder(tmp_path / "two")
    make_folder(tmp_path / "two", table="action_x,action_y\n0,1\n", name="two")
    with pytest.raises(ValueError, match="must be the same"):
        read(tmp_path / "two", tmp_path / "data")
    make_folder(tmp_path / "rates")
    make_folder(tmp_path / "rates", name="two", fps=30.0)
    with pytest.raises(ValueError, match=r"20\.0, 30\.0.*--fps"):
        read(tmp_path / "rates", tmp_path / "data")
    make_folder(tmp_path / "broken")
    file = tmp_path / "broken" / "one.mp4"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"one\.mp4 cannot be read"):
        read(tmp_path / "broken", tmp_path / "data")
    make_folder(tmp_path / "note")
    (tmp_path / "note" / "neuralsim.json").write_text(json.dumps({"dataset": 3}))
    with pytest.raises(ValueError, match=r"neuralsim\.json is damaged"):
        read(tmp_path / "note", tmp_path / "data")


def test_nothing_is_overwritten(tmp_path):
    make_folder(tmp_path / "mine")
    make_store(tmp_path / "data", make_episode(3))
    with pytest.raises(FileExistsError, match="already holds a dataset"):
        read(tmp_path / "mine", tmp_path / "data")
    with pytest.raises(FileExistsError, match="not empty"):
        export_data(ExportConfig(tmp_path / "data", str(tmp_path / "mine"), quiet=True))
    make_store(tmp_path / "nothing")
    with pytest.raises(ValueError, match="no episodes"):
        export_data(ExportConfig(tmp_path / "nothing", str(tmp_path / "new")))


def test_missing_extra(tmp_path, monkeypatch):
    make_folder(tmp_path / "mine")
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ModuleNotFoundError, match=r"neuralsim-gym\[video\]"):
        read(tmp_path / "mine", tmp_path / "data")


def test_command_line(tmp_path, capsys):
    make_store(tmp_path / "a", make_episode(40))
    assert main(["data", "export", str(tmp_path / "a"), "--out", str(tmp_path / "v"), "--quiet"]) == 0
    assert main(["data", "import", str(tmp_path / "v"), "--out", str(tmp_path / "b")]) == 0
    assert "1 episodes, 40 steps" in capsys.readouterr().out
