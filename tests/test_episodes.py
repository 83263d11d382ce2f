import json
import multiprocessing
import pickle
import subprocess
import sys
import textwrap
import threading
import zipfile

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuralsim.actions import space_to_json
from neuralsim.data.episodes import CHUNK, DatasetInfo, Episode, EpisodeStore, content_hash, stack_actions

SPACES = [
    spaces.Discrete(6),
    spaces.Discrete(3, start=-1),
    spaces.MultiDiscrete([3, 5]),
    spaces.MultiBinary(4),
    spaces.Box(-1.0, 1.0, (2,), np.float32),
    spaces.Dict({"jump": spaces.Discrete(2), "camera": spaces.Box(-180.0, 180.0, (2,), np.float32)}),
    spaces.Tuple([spaces.Discrete(4), spaces.MultiBinary(2)]),
]


def make_info(space=SPACES[0], shape=(8, 6, 3)):
    return DatasetInfo("Tiny-v0", space_to_json(space), shape, 15.0)


def make_episode(steps=40, space=SPACES[0], shape=(8, 6, 3), seed=0):
    rng = np.random.default_rng(seed)
    space.seed(seed)
    last = np.arange(steps) == steps - 1
    return Episode(
        frames=rng.integers(0, 256, (steps + 1, *shape), np.uint8),
        actions=stack_actions(space, [space.sample() for _ in range(steps)]),
        rewards=rng.normal(size=steps).astype(np.float32),
        terminated=last,
        truncated=np.zeros(steps, bool),
        labels={"ball_x": rng.normal(size=steps + 1).astype(np.float32)},
        policy="random",
        seed=seed,
    )


def make_store(path, *episodes, **info):
    store = EpisodeStore.create(path, make_info(**info))
    for episode in episodes:
        store.add(episode)
    return store


def leaves(actions):
    if isinstance(actions, dict):
        return [leaf for key in sorted(actions) for leaf in leaves(actions[key])]
    return [leaf for part in actions for leaf in leaves(part)] if isinstance(actions, tuple) else [actions]


def assert_same(a: Episode, b: Episode):
    for name in ("frames", "rewards", "terminated", "truncated"):
        x, y = getattr(a, name), getattr(b, name)
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)
    for x, y in zip(leaves(a.actions), leaves(b.actions), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)
    assert a.labels.keys() == b.labels.keys()
    for name, values in a.labels.items():
        np.testing.assert_array_equal(values, b.labels[name])
    assert (a.policy, a.seed) == (b.policy, b.seed)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.integers(1, 2 * CHUNK + 3), which=st.integers(0, len(SPACES) - 1), seed=st.integers(0, 99))
def test_what_is_written_is_read(tmp_path_factory, steps, which, seed):
    path = tmp_path_factory.mktemp("store")
    episode = make_episode(steps, SPACES[which], seed=seed)
    make_store(path, episode, space=SPACES[which])
    store = EpisodeStore.open(path)
    assert_same(store.read(0), episode)
    assert store.meta(0)["content_hash"] == content_hash(episode)
    store.verify(0)
    assert store.length(0) == steps == store.total_steps
    start = steps // 3
    np.testing.assert_array_equal(store.frames(0, start, steps), episode.frames[start:steps])


def test_meta_and_ids(tmp_path):
    store = make_store(tmp_path, make_episode(5), make_episode(7, seed=3))
    assert store.ids == [0, 1] == list(store)
    assert 1 in store
    assert 2 not in store
    assert store.total_steps == 12
    assert store.add(make_episode(4), 9) == 9
    assert store.add(make_episode(4)) == 10
    assert len(store) == 4
    meta = store.meta(1)
    assert (meta["length"], meta["policy"], meta["seed"], meta["terminated"], meta["truncated"]) == (
        7,
        "random",
        3,
        True,
        False,
    )
    assert meta["return"] == pytest.approx(float(store.rewards(1).sum()), abs=1e-5)
    with pytest.raises(FileExistsError, match="episode 9"):
        store.add(make_episode(4), 9)


def test_a_clip_reads_only_its_chunks(tmp_path, monkeypatch):
    store = make_store(tmp_path, make_episode(10 * CHUNK))
    store.frames(0, 0, 1)  # opens the file
    read = []
    original = zipfile.ZipFile.open
    monkeypatch.setattr(
        zipfile.ZipFile, "open", lambda self, name, *a, **k: (read.append(name), original(self, name, *a, **k))[1]
    )
    store.frames(0, 3 * CHUNK + 5, 4 * CHUNK + 5)
    chunks = {str(name) for name in read if "/c/" in str(name)}
    assert chunks == {"frames/c/3/0/0/0", "frames/c/4/0/0/0"}


def test_ranges_outside_an_episode_are_refused(tmp_path):
    store = make_store(tmp_path, make_episode(5))
    assert store.frames(0, 6, 6).shape == (0, 8, 6, 3)
    for start, stop in [(0, 7), (-1, 3), (4, 2)]:
        with pytest.raises(IndexError, match=r"0 to 6"):
            store.frames(0, start, stop)
    with pytest.raises(KeyError, match="no episode 5"):
        store.read(5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": np.zeros((41, 8, 6, 3), np.float32)}, "float32.*uint8"),
        ({"frames": np.zeros((41, 6, 8, 3), np.uint8)}, r"\(41, 6, 8, 3\).*\(8, 6, 3\)"),
        ({"frames": np.zeros((40, 8, 6, 3), np.uint8)}, "40 frames and 40 rewards"),
        ({"actions": np.zeros(39, np.int64)}, r"\(39,\)"),
        ({"actions": np.full(40, 6, np.int64)}, "action 6 lies outside"),
        ({"rewards": np.zeros(40, np.float64)}, "rewards are float64"),
        ({"rewards": np.full(40, np.nan, np.float32)}, "nan is not a finite"),
        ({"truncated": np.ones(40, bool)}, "before the last step"),
        ({"labels": {"ball": np.zeros(40, np.float32)}}, "'ball' has 40 values"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused(tmp_path, change, message):
    store = make_store(tmp_path)
    episode = make_episode(40)
    for name, value in change.items():
        setattr(episode, name, value)
    with pytest.raises(ValueError, match=message):
        store.add(episode)
    assert list((tmp_path / "episodes").iterdir()) == []


def test_dict_actions_without_a_part_are_refused(tmp_path):
    store = make_store(tmp_path, space=SPACES[5])
    episode = make_episode(4, SPACES[5])
    del episode.actions["camera"]
    with pytest.raises(ValueError, match="camera"):
        store.add(episode)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path, share):
    store = make_store(tmp_path, make_episode(40))
    file = next((tmp_path / "episodes").iterdir())
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"00000000\.zarr\.zip is damaged or truncated"):
        EpisodeStore.open(store.path).read(0)


def test_flipped_bytes_never_pass_unnoticed(tmp_path):
    make_store(tmp_path, make_episode(40))
    file = next((tmp_path / "episodes").iterdir())
    content = file.read_bytes()
    expected = EpisodeStore.open(tmp_path).read(0)
    refusals = []
    for place in np.linspace(0, len(content) - 1, 40).astype(int):
        broken = bytearray(content)
        broken[place] ^= 0x55
        file.write_bytes(bytes(broken))
        store = EpisodeStore.open(tmp_path)
        try:
            episode = store.read(0)
            store.verify(0)
        except ValueError as error:
            refusals.append(str(error))
        else:  # a byte that carries nothing, such as a date
            assert_same(episode, expected)
    assert len(refusals) > 20
    assert all("00000000.zarr.zip" in refusal for refusal in refusals)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', '{"no": "format"}'])
def test_a_damaged_description_is_named(tmp_path, content):
    make_store(tmp_path)
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(ValueError, match=r"dataset\.json"):
        EpisodeStore.open(tmp_path)


def test_other_folders_and_formats(tmp_path):
    with pytest.raises(FileNotFoundError, match="neuralsim record"):
        EpisodeStore.open(tmp_path)
    make_store(tmp_path)
    with pytest.raises(FileExistsError, match="already holds"):
        EpisodeStore.create(tmp_path, make_info())
    file = tmp_path / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 2}))
    with pytest.raises(ValueError, match="upgrade"):
        EpisodeStore.open(tmp_path)
    for change in ({"fps": 0.0}, {"frame_shape": (8, 6)}):
        with pytest.raises(ValueError, match=next(iter(change))):
            DatasetInfo(**{**vars(make_info()), **change})


def test_what_a_killed_writer_leaves_is_ignored_and_removed(tmp_path):
    store = make_store(tmp_path, make_episode(5))
    (tmp_path / "episodes" / ".abc.part").write_bytes(b"half an episode")
    assert store.ids == [0]
    store.remove_partial_files()
    assert [file.name for file in (tmp_path / "episodes").iterdir()] == ["00000000.zarr.zip"]


def _add_some(path):
    store = EpisodeStore.open(path)
    for seed in range(4):
        store.add(make_episode(5, seed=seed))


def test_several_processes_add_at_once(tmp_path):
    make_store(tmp_path)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_add_some, args=(tmp_path,)) for _ in range(2)]
    threads = [threading.Thread(target=_add_some, args=(tmp_path,)) for _ in range(2)]
    for worker in [*processes, *threads]:
        worker.start()
    for worker in [*processes, *threads]:
        worker.join()
    store = EpisodeStore.open(tmp_path)
    assert store.ids == list(range(16))
    for episode_id in store.ids:
        store.verify(episode_id)


def test_pickled_and_many_open_files(tmp_path):
    store = make_store(tmp_path, *(make_episode(3, seed=seed) for seed in range(40)))
    for episode_id in store.ids:
        store.frames(episode_id, 0, 1)
    copy = pickle.loads(pickle.dumps(store))
    assert_same(copy.read(39), store.read(39))


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_disk_full_leaves_the_store_intact(tmp_path):
    make_store(tmp_path, make_episode(5))
    program = f"""
        import resource, signal, sys
        sys.path.insert(0, {str(__file__.rsplit("/", 1)[0])!r})
        from test_episodes import EpisodeStore, make_episode
        store = EpisodeStore.open({str(tmp_path)!r})
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        try:
            store.add(make_episode(2000))
        except OSError as error:
            print("refused:", error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(store.ids, store.add(make_episode(2000)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True, timeout=120
    )
    assert "no room to write an episode of 2000 steps" in done.stdout
    assert "[0] 1" in done.stdout
    assert sorted(file.name for file in (tmp_path / "episodes").iterdir()) == [
        "00000000.zarr.zip",
        "00000001.zarr.zip",
    ]
