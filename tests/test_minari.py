import json

import numpy as np
import pytest
from gymnasium import spaces
from test_episodes import SPACES, assert_same, make_episode, make_store

from neuralsim.data.episodes import EpisodeStore
from neuralsim.data.interchange import ExportConfig, ImportConfig, export_data, import_data

pytest.importorskip("h5py")
minari = pytest.importorskip("minari")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def export(store_path, name="tiny/mix-v0"):
    export_data(ExportConfig(store_path, name, to="minari", quiet=True))


@pytest.mark.parametrize("space", SPACES, ids=lambda space: type(space).__name__)
def test_there_and_back_without_loss(tmp_path, space):
    episodes = [make_episode(40, space, seed=1), make_episode(3, space, seed=2)]
    episodes[1].labels = {}
    make_store(tmp_path / "a", *episodes, space=space)
    export(tmp_path / "a")
    store = import_data(ImportConfig("tiny/mix-v0", tmp_path / "b"))
    assert store.info == EpisodeStore.open(tmp_path / "a").info
    for episode_id, episode in enumerate(episodes):
        assert_same(store.read(episode_id), episode)


def test_minari_reads_the_same_frames(tmp_path):
    episode = make_episode(5, shape=(16, 16, 3))
    make_store(tmp_path / "a", episode, shape=(16, 16, 3))
    export(tmp_path / "a")
    dataset = minari.load_dataset("tiny/mix-v0")
    assert dataset.total_steps == 5
    np.testing.assert_array_equal(dataset[0].observations, episode.frames)  # jpeg would differ
    np.testing.assert_array_equal(dataset[0].actions, episode.actions)
    folder = tmp_path / "minari" / "tiny" / "mix-v0"
    assert json.loads((folder / "data" / "metadata.json").read_text())["jpeg_encoding"] is False
    assert_same(import_data(ImportConfig(str(folder), tmp_path / "b")).read(0), episode)  # a folder works too


def make_foreign(observation_space, observations, name="other-v0"):
    from minari.data_collector import EpisodeBuffer

    buffer = EpisodeBuffer(
        observations=observations, actions=[0, 1, 2], rewards=[0.0, 1.0, 0.0], terminations=[False] * 3,
        truncations=[False] * 3, infos={"anything": [1, 2, 3, 4]},
    )  # fmt: skip
    minari.create_dataset_from_buffers(
        name, [buffer], observation_space=observation_space, action_space=spaces.Discrete(3), jpeg_encoding=False
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_dataset_of_somebody_else(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (4, 128, 128, 3), np.uint8)
    make_foreign(spaces.Box(0, 255, (128, 128, 3), np.uint8), list(frames))
    with pytest.raises(ValueError, match="--fps"):
        import_data(ImportConfig("other-v0", tmp_path / "b"))
    store = import_data(ImportConfig("other-v0", tmp_path / "b", fps=10.0))
    assert store.info.frame_shape == (64, 64, 3)
    assert store.info.env_id == "other-v0"
    episode = store.read(0)
    np.testing.assert_allclose(episode.frames, frames.reshape(4, 64, 2, 64, 2, 3).mean((2, 4)), atol=1.01)
    assert episode.truncated.tolist() == [False, False, True]
    assert episode.labels == {}
    store = import_data(ImportConfig("other-v0", tmp_path / "c", fps=10.0, size=(128, 128)))
    np.testing.assert_array_equal(store.frames(0), frames)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pixels_under_a_key_and_none_at_all(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    pixels = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    health = spaces.Box(0, 1, (1,), np.float32)
    make_foreign(
        spaces.Dict({"pov": pixels, "health": health}),
        {"pov": list(frames), "health": [np.ones(1, np.float32)] * 4},
        "dict-v0",
    )
    store = import_data(ImportConfig("dict-v0", tmp_path / "b", fps=10.0, size=(8, 8)))
    np.testing.assert_array_equal(store.frames(0), frames)
    make_foreign(health, [np.ones(1, np.float32)] * 4, "none-v0")
    with pytest.raises(ValueError, match="no pixels"):
        import_data(ImportConfig("none-v0", tmp_path / "c", fps=10.0))
    assert not (tmp_path / "c").exists()


def test_mistakes(tmp_path):
    with pytest.raises(FileNotFoundError, match="--download"):
        import_data(ImportConfig("nothing/here-v0", tmp_path / "b"))
    make_store(tmp_path / "a", make_episode(3))
    export(tmp_path / "a")
    with pytest.raises(FileExistsError, match="mix-v0 already"):
        export(tmp_path / "a")
    with pytest.raises(ValueError, match="no-version"):
        export(tmp_path / "a", "no-version")


def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch):
    store = make_store(tmp_path / "a", make_episode(3), make_episode(4))
    file = store._file(1)
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ValueError, match="damaged"):
        export(tmp_path / "a")
    assert minari.list_local_datasets() == {}


def test_missing_extra(tmp_path, monkeypatch):
    make_store(tmp_path / "a", make_episode(3))
    monkeypatch.setitem(__import__("sys").modules, "minari", None)
    with pytest.raises(ModuleNotFoundError, match=r"neuralsim-gym\[minari\]"):
        export(tmp_path / "a")
