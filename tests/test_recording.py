import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import neuralsim.envs.recording as recording
from neuralsim.agents.policies import PlayerQuit, Policy
from neuralsim.cli import main
from neuralsim.data.episodes import EpisodeStore
from neuralsim.data.writer_lock import only_writer
from neuralsim.envs.real import make_real
from neuralsim.envs.recording import RecordConfig, record

TESTS = str(Path(__file__).parent)


def config(out, **changes):
    changes = {"steps": 70, "size": (10, 12), "quiet": True, **changes}
    return RecordConfig("tiny_game:Tiny-v0", out, **changes)


def hashes(store):
    return {i: store.meta(i)["content_hash"] for i in store.ids}


def test_records_exactly_so_many_steps(tmp_path, capsys):
    store = record(config(tmp_path, policy=("random:0.3", "sticky-random:0.7"), seed=40))
    assert store.total_steps == 70
    assert [store.length(i) for i in store.ids] == [20, 20, 20, 10]
    assert [store.meta(i)["seed"] for i in store.ids] == [40, 41, 42, 43]
    assert [store.meta(i)["terminated"] for i in store.ids] == [True, True, True, False]
    assert [store.meta(i)["truncated"] for i in store.ids] == [False, False, False, True]
    episode = store.read(0)
    assert episode.frames.shape == (21, 10, 12, 3)
    assert episode.rewards.tolist() == [float(t % 5 == 0) for t in range(1, 21)]
    np.testing.assert_array_equal(episode.labels["time"], np.arange(21))
    np.testing.assert_array_equal(episode.frames[:, 0, 0, 0], np.arange(21))  # frame t was seen after t actions
    info = EpisodeStore.open(tmp_path).info
    assert (info.env_id, info.fps, info.frame_shape) == ("tiny_game:Tiny-v0", 20.0, (10, 12, 3))
    assert info.action_meanings == ["STAY", "UP", "DOWN"]
    assert info.keys_to_action == [[["w"], 1], [["s"], 2]]
    assert capsys.readouterr().out == ""


def test_the_recipe_shows_the_live_game_as_recorded(tmp_path):
    store = record(config(tmp_path, size=(5, 6)))
    info, episode = store.info, store.read(1)
    env = make_real(info.env_id, info.env_kwargs, info.preprocessing)
    frame, _ = env.reset(seed=episode.seed)
    np.testing.assert_array_equal(frame, episode.frames[0])
    for action, expected in zip(episode.actions, episode.frames[1:], strict=True):
        np.testing.assert_array_equal(env.step(action)[0], expected)


def test_the_number_of_workers_changes_nothing(tmp_path):
    alone = record(config(tmp_path / "1", steps=100, policy=("random", "sticky-random")))
    together = record(config(tmp_path / "2", steps=100, policy=("random", "sticky-random"), workers=2))
    assert together.total_steps == 100
    a, b = hashes(alone), hashes(together)
    whole = [i for i in a if i in b and not (alone.meta(i)["truncated"] or together.meta(i)["truncated"])]
    assert len(whole) >= 3
    assert all(a[i] == b[i] for i in whole)


def test_continues_where_it_stopped(tmp_path):
    store = record(config(tmp_path, steps=45))
    before = hashes(store)
    assert hashes(record(config(tmp_path, steps=45))) == before  # nothing left to do
    os.remove(tmp_path / "episodes" / "00000001.zarr.zip")  # as if a worker had been killed
    store = record(config(tmp_path, steps=85))
    assert store.total_steps == 85
    assert "--steps 85" in EpisodeStore.open(tmp_path).info.command
    after = hashes(store)
    assert all(after[i] == before[i] for i in before)
    once = hashes(record(config(tmp_path / "once", steps=85)))
    assert after[1] == once[1]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"env_kwargs": '{"length": 9}'}, "env_kwargs"),
        ({"size": (5, 6)}, "frame_shape"),
        ({"fps": 7.0}, "fps"),
        ({"seed": 3}, "source"),
        ({"policy": ("noop",)}, "source"),
        ({"crop": (0, 0, 4, 4)}, "preprocessing"),
    ],
)
def test_another_recording_is_not_continued(tmp_path, changes, what):
    record(config(tmp_path, steps=5))
    with pytest.raises(ValueError, match=rf"recorded with {what} .*neuralsim record.*--out"):
        record(config(tmp_path, **changes))
    assert EpisodeStore.open(tmp_path).total_steps == 5


@pytest.mark.parametrize("actions", ["multi", "box", "dict"])
@pytest.mark.parametrize("pixels", ["grey", "dict"])
def test_other_spaces(tmp_path, actions, pixels):
    kwargs = json.dumps({"actions": actions, "pixels": pixels})
    store = record(config(tmp_path, steps=25, env_kwargs=kwargs, policy=("sticky-random",)))
    assert store.total_steps == 25
    assert EpisodeStore.open(tmp_path).space.contains(
        {key: values[0] for key, values in store.actions(0).items()} if actions == "dict" else store.actions(0)[0]
    )


def test_long_episodes_are_cut(tmp_path):
    store = record(config(tmp_path, steps=21, max_episode_steps=7))
    assert [store.length(i) for i in store.ids] == [7, 7, 7]
    assert all(store.meta(i)["truncated"] for i in store.ids)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps 0"),
        ({"workers": 0}, "workers 0"),
        ({"seed": -1}, "seed -1"),
        ({"max_episode_steps": 0}, "max-episode-steps 0"),
        ({"env_kwargs": "{"}, "no JSON"),
        ({"env_kwargs": "[1]"}, "no JSON object"),
        ({"env_kwargs": '{"colour": 3}'}, "does not take"),
        ({"env_kwargs": '{"pixels": "vector"}'}, "--source render"),
        ({"policy": ("clever",)}, "clever"),
        ({"policy": ("pong-mix",)}, "only Atari Pong"),
        ({"policy": ("keyboard",), "workers": 2}, "one person"),
        ({"fps": -3.0}, "fps -3"),
    ],
)
def test_mistakes_are_explained(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        record(config(tmp_path / "new", **changes))
    assert not (tmp_path / "new").exists()


def test_a_game_without_pixels_is_recorded_by_its_picture(tmp_path):
    kwargs = '{"pixels": "vector"}'
    store = record(config(tmp_path, steps=5, env_kwargs=kwargs, source="render"))
    np.testing.assert_array_equal(store.frames(0)[:, 0, 0, 0], np.arange(6))


def test_a_crash_of_the_game_keeps_what_was_finished(tmp_path):
    with pytest.raises(RuntimeError, match="crashed"):
        record(config(tmp_path, env_kwargs='{"length": 20, "fail_at": 15}'))
    assert EpisodeStore.open(tmp_path).total_steps == 0
    with pytest.raises(RuntimeError, match="crashed"):
        record(config(tmp_path / "two", env_kwargs='{"length": 20, "fail_at": 15}', workers=2))


def test_a_player_who_leaves_keeps_the_game_so_far(tmp_path, monkeypatch):
    class Player(Policy):
        name = "keyboard"

        def reset(self, seed=None):
            self.left = 8

        def act(self, frame, info):
            self.left -= 1
            if self.left < 0:
                raise PlayerQuit
            return 1

    monkeypatch.setattr(recording, "make_policy", lambda choice, env: Player())
    store = record(config(tmp_path, policy=("keyboard",)))
    assert [store.length(i) for i in store.ids] == [8]
    assert store.meta(0)["truncated"]


def test_killed_at_any_moment(tmp_path):
    command = [sys.executable, "-m", "neuralsim.cli", "record", "tiny_game:Tiny-v0", "--out", str(tmp_path / "data")]
    command += ["--steps", "100000000", "--size", "10", "12", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([TESTS, os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(command, env=environment)
    episodes = tmp_path / "data" / "episodes"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not episodes.exists() or len(list(episodes.glob("0*"))) < 3):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    store = EpisodeStore.open(tmp_path / "data")
    assert len(store) >= 3
    for episode_id in store.ids:
        store.verify(episode_id)
    steps = store.total_steps + 30
    assert record(config(tmp_path / "data", steps=steps)).total_steps == steps
    assert not list(episodes.glob(".*"))


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
@pytest.mark.parametrize("workers", [1, 2])
def test_disk_full(tmp_path, workers):
    program = f"""
        import resource, signal, sys
        sys.path.insert(0, {TESTS!r})
        from neuralsim.cli import main
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        if __name__ == "__main__":
            call = ["record", "tiny_game:Tiny-v0", "--out", {str(tmp_path / "data")!r}, "--quiet"]
            call += ["--size", "10", "12", "--workers", "{workers}"]
            assert main([*call, "--steps", "20"]) == 0
            resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
            sys.exit(main([*call, "--steps", "100"]))
    """
    file = tmp_path / "program.py"
    file.write_text(textwrap.dedent(program))
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert "no room to write" in done.stderr
    assert "free some space" in done.stderr
    store = EpisodeStore.open(tmp_path / "data")
    assert store.total_steps == 20
    store.verify(0)


def test_two_recordings_into_one_folder(tmp_path):
    store = record(config(tmp_path, steps=5))
    with only_writer(store), pytest.raises(ValueError, match="another process"):
        record(config(tmp_path, steps=10))


def test_command_line(tmp_path, capsys):
    call = ["record", "tiny_game:Tiny-v0", "--steps", "30", "--policy", "random:0.2", "noop:0.8"]
    call += ["--out", str(tmp_path), "--env-kwargs", '{"length": 10}', "--size", "10", "12"]
    assert main(call) == 0
    assert "3 episodes, 30 steps" in capsys.readouterr().out
    store = EpisodeStore.open(tmp_path)
    assert store.info.env_kwargs == {"length": 10}
    assert store.info.command.startswith("neuralsim record tiny_game:Tiny-v0 --steps 30 --policy random:0.2 noop:0.8")
    assert main(["record", "Nothing-v7", "--out", str(tmp_path / "x")]) == 2
    assert "unknown environment 'Nothing-v7'" in capsys.readouterr().err


def test_pong_with_ground_truth(tmp_path):
    pytest.importorskip("ale_py")
    out = tmp_path / "pong"
    settings = {"steps": 150, "policy": ("pong-mix",), "env_kwargs": '{"repeat_action_probability": 0.0}'}
    store = record(RecordConfig("ALE/Pong-v5", out, quiet=True, **settings))
    assert store.info.fps == 15.0
    assert store.info.action_meanings == ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"]
    labels = store.labels(0)
    assert {"ball_x", "ball_y", "ball_present", "player_y", "enemy_y", "player_score", "enemy_score"} <= set(labels)
    assert all(values.shape == (151,) and values.dtype == np.float32 for values in labels.values())
    seen = labels["ball_present"] > 0
    assert 0 < seen.mean() < 1
    assert np.isfinite(labels["ball_x"][seen]).all()
