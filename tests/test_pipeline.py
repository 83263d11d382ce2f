"""The whole way by the command line, on the real emulator with tiny models: record, train, pack, evaluate, dream."""

import json

import gymnasium as gym
import numpy as np
import pytest
import torch

from neuralsim.cli import COMMANDS, main
from neuralsim.tensor_files import read_tensors

pytest.importorskip("ale_py")

SMALL_TOKENIZER = ["--model.channels", "8", "--model.blocks", "1", "--loop.steps", "4", "--batch-size", "4"]
SMALL_DYNAMICS = ["--convolutional.channels", "8", "--convolutional.embedding", "16", "--convolutional.history", "1",
                  "2", "4", "--convolutional.rollout", "2", "--convolutional.max-steps", "8", "--batch-size", "2",
                  "--loop.steps", "3", "--heads.channels", "4", "--heads.hidden", "16"]  # fmt: skip
ON_CPU = ["--loop.device", "cpu", "--loop.log-every", "1", "--loop.evaluate-every", "2"]


def run(*words) -> None:
    assert main([str(word) for word in words]) == 0


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder in which every command has been run once."""
    home = tmp_path_factory.mktemp("pipeline")
    game = ["ALE/Pong-v5", "--env-kwargs", '{"repeat_action_probability": 0.0}', "--policy", "pong-mix"]
    run("record", *game, "--steps", 260, "--max-episode-steps", 130, "--out", home / "data", "--quiet")
    run("record", *game, "--steps", 120, "--max-episode-steps", 60, "--seed", 99, "--out", home / "held", "--quiet")
    data = ["--data", home / "data", "--held-out", home / "held"]
    run("train", "tokenizer", *data, "--out", home / "tokenizer", *SMALL_TOKENIZER, *ON_CPU)
    run("train", "dynamics", "--preset", "pong", *data, "--tokenizer", home / "tokenizer",
        "--out", home / "dynamics", *SMALL_DYNAMICS, *ON_CPU)  # fmt: skip
    run("world", "pack", "--data", home / "data", "--tokenizer", home / "tokenizer", "--dynamics", home / "dynamics",
        "--out", home / "world", "--beginnings", 2, "--middles", 2)  # fmt: skip
    packed = (home / "world" / "world.safetensors").read_bytes()
    run("evaluate", home / "world", "--data", home / "held", "--out", home / "report", "--clips", 3, "--lanes", 2,
        "--steps", 12, "--horizon", 20, "--save")  # fmt: skip
    assert (home / "world" / "world.safetensors").read_bytes() == packed  # --save adds the card and nothing else
    return home


def test_every_step_left_its_result(home):
    assert list((home / "tokenizer" / "pictures").glob("*.png"))
    assert list((home / "dynamics" / "pictures").glob("*.png"))
    assert list((home / "dynamics" / "tensorboard").iterdir())
    kinds = {json.loads(line)["kind"] for line in (home / "dynamics" / "metrics.jsonl").read_text().splitlines()}
    assert kinds == {"train", "held-out"}
    card = json.loads((home / "world" / "card.json").read_text())
    assert set(card["open_loop"]["1"]) >= {"psnr", "ball", "player", "enemy"}
    assert "World card" in (home / "world" / "card.md").read_text()


def test_the_world_dreams(home):
    import neuralsim  # noqa: F401

    env = gym.make("Dream-v0", world=str(home / "world"), max_episode_steps=5)
    frame, _ = env.reset(seed=0)
    assert frame.shape == (64, 64, 3)
    for _ in range(3):
        frame, reward, terminated, _, _ = env.step(env.action_space.sample())
        assert env.observation_space.contains(frame)
        assert reward in (-1.0, 0.0, 1.0)
        if terminated:
            break


def test_starts_are_real_frames_of_the_recording(home):
    from neuralsim import EpisodeStore, World

    world, store = World.load(home / "world"), EpisodeStore.open(home / "data")
    for start in world.starts:
        assert np.array_equal(start.frames, store.frames(start.episode, start.frame, start.frame + len(start)))
        recorded = store.actions(start.episode)[start.frame : start.frame + len(start) - 1]
        assert np.array_equal(start.actions, recorded)


def test_latents_on_disk_are_reused(home):
    files = list((home / "data" / "latents").rglob("*.safetensors"))
    assert files
    before = {path: path.stat().st_mtime_ns for path in files}
    run("train", "dynamics", "--preset", "pong", "--data", home / "data", "--held-out", home / "held",
        "--tokenizer", home / "tokenizer", "--out", home / "dynamics2", *SMALL_DYNAMICS, *ON_CPU)  # fmt: skip
    assert {path: path.stat().st_mtime_ns for path in files} == before
    first, second = (read_tensors(home / name / "dynamics.safetensors")[0] for name in ("dynamics", "dynamics2"))
    assert all(torch.equal(first[name], second[name]) for name in first)  # the same commands give the same world


def test_training_goes_on_from_a_world(home):
    run("train", "dynamics", "--data", home / "data", "--held-out", home / "held", "--tokenizer", home / "world",
        "--init-from", home / "world", "--out", home / "dynamics3", *SMALL_DYNAMICS, *ON_CPU,
        "--loop.learning-rate", 0)  # fmt: skip
    before, after = (read_tensors(home / name / "dynamics.safetensors")[0] for name in ("dynamics", "dynamics3"))
    names = [name for name in before if name.startswith("dynamics.past.")]
    assert names
    assert all(torch.equal(before[name], after[name]) for name in names)
    origin = json.loads((home / "dynamics3" / "config.json").read_text())["init_from"]
    assert origin["path"] == str(home / "world")
    assert origin["loop"]["steps"] == 3  # the world tells how it was trained, and so do those that go on from it


def test_heads_alone_leave_the_dynamics_as_it_is(home):
    run("train", "dynamics", "--data", home / "data", "--held-out", home / "held", "--tokenizer", home / "tokenizer",
        "--init-from", home / "dynamics", "--heads-only", "--out", home / "heads", *SMALL_DYNAMICS,
        *ON_CPU)  # fmt: skip
    before, after = (read_tensors(home / name / "dynamics.safetensors")[0] for name in ("dynamics", "heads"))
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("dynamics."))
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("heads."))


def test_worlds_can_be_compared(home, capsys):
    run("compare", home / "world", home / "world", "--data", home / "held", "--clips", 3, "--horizons", 1, 5)
    assert "+0.000 (+0.000 to +0.000)" in capsys.readouterr().out


def test_recordings_trained_on_are_refused(home, capsys):
    assert main(["evaluate", str(home / "world"), "--data", str(home / "data"), "--horizon", "20"]) == 2
    assert "evaluate on recordings of other seeds" in capsys.readouterr().err


def test_parts_that_do_not_belong_together_are_refused(home, capsys):
    run("train", "tokenizer", "--data", home / "data", "--out", home / "other", *SMALL_TOKENIZER, *ON_CPU,
        "--loop.seed", 5)  # fmt: skip
    assert main(["world", "pack", "--data", str(home / "data"), "--tokenizer", str(home / "other"), "--dynamics",
                 str(home / "dynamics"), "--out", str(home / "mixed")]) == 2  # fmt: skip
    assert "another tokenizer" in capsys.readouterr().err
    assert not (home / "mixed").exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_teaches(name, capsys):
    with pytest.raises(SystemExit) as done:
        main([*name.split(), "--help"])
    assert done.value.code == 0
    assert "neuralsim " + name in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fly"], "unknown command"),
        (["train", "dynamics", "--preset", "chess"], "unknown preset 'chess'; there are pong"),
        (["train", "tokenizer", "--data", "no/such/folder"], "no/such/folder"),
        (["train", "dynamics", "--data", "no/such/folder"], "no/such/folder"),
        (["evaluate", "no/such/world"], "no/such/world"),
    ],
)
def test_mistakes_end_with_status_2_and_no_traceback(words, message, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_usage_lists_every_command(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
