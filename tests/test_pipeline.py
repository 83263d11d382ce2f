"""The whole way by the command line, on the real emulator with tiny models: record, train, pack, evaluate, dream."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import get_args

import gymnasium as gym
import numpy as np
import pytest
import torch

from neuralsim.cli import COMMANDS, main, parse
from neuralsim.evaluation.plan import EvaluateConfig, Part, Plan
from neuralsim.tensor_files import read_tensors
from neuralsim.world import World

pytest.importorskip("ale_py")

SMALL_TOKENIZER = ["--model.channels", "8", "--model.blocks", "1", "--loop.steps", "4", "--batch-size", "4"]
SMALL_DYNAMICS = ["--convolutional.channels", "8", "--convolutional.embedding", "16", "--convolutional.history", "1",
                  "2", "4", "--convolutional.past-actions", "4", "--convolutional.rollout", "2",
                  "--convolutional.max-steps", "8", "--batch-size", "2", "--loop.steps", "3", "--heads.channels", "4",
                  "--heads.hidden", "16"]  # fmt: skip
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
    parts = [part for part in get_args(Part) if part != "cost"]
    run("evaluate", home / "world", "--data", home / "held", "--out", home / "report", "--parts", *parts, "--clips", 3,
        "--horizon", 20, "--lanes", 2, "--steps", 12, "--games", 2, "--game-steps", 12,
        "--policies", "noop", "random", "scripted=1",
        "--ranking-lanes", 2, "--ranking-steps", 10, "--moments", 2, "--branches", 2, "--branch-steps", 6,
        "--long-lanes", 1, "--long-steps", 1000, "--save")  # fmt: skip
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
    assert set(card["games"]) == {"scripted=0.7", "noop"}
    assert card["dreamed_events"]["span"] == 20
    assert set(card) >= {"events", "trust", "closed_loop", "ranking", "counterfactuals", "long_dreams"}
    assert set(card["ranking"]["policies"]) == {"noop", "random", "scripted=1"}
    assert card["counterfactuals"]["moments"] == 2
    assert card["not_measured"]["Cost"] == "left out (--parts)"
    assert card["not_measured"]["Dreams of 10,000 steps"] == "--long-steps is 1,000"
    page = (home / "world" / "card.md").read_text()
    for section in ("World card", "Trust while dreaming", "Order of policies", "Order of possible futures"):
        assert section in page
    assert (home / "report" / "dream_beside_real.png").is_file()


def test_an_interrupted_evaluation_goes_on(home, tmp_path, monkeypatch):
    from neuralsim.evaluation import run as module

    words = ["evaluate", home / "world", "--data", home / "held", "--out", tmp_path, "--horizon", 20, "--clips", 2,
             "--parts", "events", "returns"]  # fmt: skip
    events = module.MEASURES["events"]
    monkeypatch.setitem(module.MEASURES, "returns", lambda plan, tick: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main([str(word) for word in words]) == 130
    assert not (tmp_path / "card.json").exists()
    monkeypatch.setitem(module.MEASURES, "returns", lambda plan, tick: {"returns": {}})
    monkeypatch.setitem(module.MEASURES, "events", lambda plan, tick: pytest.fail("measured again"))
    run(*words)
    assert set(json.loads((tmp_path / "card.json").read_text())["events"]) == {"reward", "end"}
    monkeypatch.setitem(module.MEASURES, "events", events)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.json", "card.md", "report.html"]


def test_other_agents_to_rank_leave_all_else_as_it_is(home, tmp_path):
    config = EvaluateConfig(str(home / "world"), home / "held", tmp_path, parts=("ranking",), horizon=20)
    plan, more_lanes = Plan.of(config), Plan.of(dataclasses.replace(config, ranking_lanes=5))
    agent = tmp_path / "agent.safetensors"
    agent.write_bytes(b"of age 1")
    more_agents = dataclasses.replace(plan, policies=(*plan.policies, f"agent={agent}"))
    for other in (more_lanes, more_agents):
        assert other.fingerprint("games") == plan.fingerprint("games")
        assert other.fingerprint("ranking") != plan.fingerprint("ranking")
    longer = Plan.of(dataclasses.replace(config, horizon=21))
    assert longer.fingerprint("games") != plan.fingerprint("games")


def test_parts_measured_side_by_side_say_the_same(home, tmp_path, capsys):
    cards = []
    for workers in (1, 2):
        run("evaluate", home / "world", "--data", home / "held", "--out", tmp_path / str(workers), "--horizon", 20,
            "--clips", 2, "--parts", "events", "closed-loop", "cost", "--lanes", 2, "--steps", 15,
            "--workers", workers)  # fmt: skip
        told = capsys.readouterr().out
        assert all(len(re.findall(rf"(?m)^{part}: \d+ s$", told)) == 1 for part in ("events", "closed-loop", "cost"))
        cards.append(json.loads((tmp_path / str(workers) / "card.json").read_text(), parse_float=rounded))
    assert cards[0]["closed_loop"]["dream"]["player_present"] is not None
    assert all(cards[0][part] == cards[1][part] for part in ("events", "closed_loop"))


def rounded(number: str) -> float:
    return round(float(number), 3)  # processes share the threads, and other threads round otherwise


def test_the_world_dreams(home):
    import neuralsim  # noqa: F401

    env = gym.make("Dream-v0", world=str(home / "world"), max_episode_steps=5)
    frame, _ = env.reset(seed=0)
    assert frame.shape == (64, 64, 3)
    for _ in range(3):
        frame, reward, terminated, _, info = env.step(env.action_space.sample())
        assert 0 <= info["horizon_trust"] < 1  # as the card has measured it
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


def test_a_world_in_one_command(home, tmp_path, capsys):
    out = tmp_path / "worlds" / "small"
    words = ["train", "world", "--data", home / "data", "--held-out", home / "held", "--out", out,
             "--runs", tmp_path / "runs", "--share", "1e-5", "--device", "cpu"]  # fmt: skip
    run(*words)
    assert "3 of 5: dynamics pong-own-context, 1 steps" in capsys.readouterr().out
    world = World.load(out)
    assert world.config.name == "small"
    assert world.starts
    told = world.config.trained_on["dynamics"]
    assert told["heads_only"]
    assert told["init_from"]["path"] == str(tmp_path / "runs" / "pong-own-context")
    weights = (out / "world.safetensors").read_bytes()
    run(*words)  # resumed at its end
    assert (out / "world.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--share", "0"], "share is 0"),
        (["--stages", "minetest", "nonsense"], "no preset 'nonsense'"),
        (["--tokenizer", "voxels"], "no preset 'voxels'"),
        (["--data", "nowhere"], "nowhere holds no dataset"),
    ],
)
def test_a_world_that_cannot_be_trained_is_refused_at_once(home, words, said, capsys):
    assert main(["train", "world", "--data", str(home / "data"), "--out", str(home / "never"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (home / "never").exists()


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


@pytest.mark.parametrize("source", ["world", "dynamics"])
def test_training_goes_on_from_weights_that_saw_fewer_actions(home, source):
    run("train", "dynamics", "--data", home / "data", "--held-out", home / "held", "--tokenizer", home / "world",
        "--init-from", home / source, "--out", home / f"further-{source}", *SMALL_DYNAMICS, *ON_CPU,
        "--convolutional.past-actions", 7, "--loop.learning-rate", 0)  # fmt: skip
    name = "dynamics.past.action.weight"
    before, after = (
        read_tensors(home / run / "dynamics.safetensors")[0][name] for run in ("dynamics", f"further-{source}")
    )
    older = after.shape[1] - before.shape[1]
    assert older > 0
    assert torch.equal(after[:, older:], before)
    assert not after[:, :older].any()


def test_foresight_is_taken_along_where_it_fits_and_never_packed(home):
    def weights(folder: str, file: str = "dynamics.safetensors") -> dict[str, torch.Tensor]:
        tensors = read_tensors(home / folder / file)[0]
        return {name: value for name, value in tensors.items() if name.startswith("foresight.")}

    told = json.loads((home / "dynamics" / "config.json").read_text())["foresight"]
    assert [thing["name"] for thing in told["things"]] == ["ball", "player", "enemy"]
    assert weights("dynamics")
    assert not weights("world", "world.safetensors")
    again = ["train", "dynamics", "--data", home / "data", "--held-out", home / "held", "--tokenizer",
             home / "tokenizer", "--init-from", home / "dynamics", *SMALL_DYNAMICS, *ON_CPU,
             "--loop.learning-rate", 0]  # fmt: skip
    run(*again, "--out", home / "foresight1")
    assert all(torch.equal(value, weights("foresight1")[name]) for name, value in weights("dynamics").items())
    run(*again, "--out", home / "foresight2", "--foresight.channels", 16)
    assert len(weights("foresight2")["foresight.conv.bias"]) == 16
    run(*again, "--out", home / "foresight3", "--foresight.weight", 0)
    assert not weights("foresight3")


def test_heads_alone_leave_the_dynamics_as_it_is(home):
    run("train", "dynamics", "--data", home / "data", "--held-out", home / "held", "--tokenizer", home / "tokenizer",
        "--init-from", home / "dynamics", "--heads-only", "--out", home / "heads", *SMALL_DYNAMICS,
        *ON_CPU)  # fmt: skip
    before, after = (read_tensors(home / name / "dynamics.safetensors")[0] for name in ("dynamics", "heads"))
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("dynamics."))
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("heads."))
    run("world", "pack", "--data", home / "data", "--tokenizer", home / "tokenizer", "--dynamics", home / "dynamics",
        "--heads", home / "heads", "--out", home / "other heads", "--beginnings", 1, "--middles", 0)  # fmt: skip
    packed = read_tensors(home / "other heads" / "world.safetensors")[0]
    assert all(torch.equal(packed[name], after[name]) for name in after if name.startswith(("heads.", "dynamics.")))
    told = json.loads((home / "other heads" / "config.json").read_text())["trained_on"]
    assert (told["heads"]["heads_only"], told["dynamics"]["heads_only"]) == (True, False)
    run("world", "pack", "--data", home / "data", "--tokenizer", home / "tokenizer", "--dynamics", home / "dynamics",
        "--heads", home / "other heads", "--out", home / "heads of a world", "--beginnings", 1,
        "--middles", 0)  # fmt: skip
    again = read_tensors(home / "heads of a world" / "world.safetensors")[0]
    assert all(torch.equal(again[name], packed[name]) for name in packed)
    assert json.loads((home / "heads of a world" / "config.json").read_text())["trained_on"]["heads"] == told["heads"]


def test_heads_on_dreams_leave_the_dynamics_as_it_is_and_learn_otherwise(home):
    again = ["train", "dynamics", "--data", home / "data", "--held-out", home / "held", "--tokenizer",
             home / "tokenizer", "--init-from", home / "dynamics", "--heads-only", *SMALL_DYNAMICS,
             "--convolutional.self-start", 0, "--loop.seed", 3, *ON_CPU]  # fmt: skip
    run(*again, "--heads-on-dreams", "--out", home / "on dreams")
    logged = [json.loads(line) for line in (home / "on dreams" / "metrics.jsonl").read_text().splitlines()]
    # Own frames come in from the second step on.
    assert ["reward_dreamed" in line for line in logged if line["kind"] == "train"] == [False, True, True]
    before, after = (read_tensors(home / name / "dynamics.safetensors")[0] for name in ("dynamics", "on dreams"))
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("dynamics."))
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("heads."))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "--heads-only"),
        (["--heads-only", "--kind", "transformer"], "transformer does not"),
        (["--heads-only", "--convolutional.self-context", "0"], "self_context is 0.0"),
    ],
)
def test_heads_on_dreams_need_dreams(home, capsys, wrong, message):
    again = ["train", "dynamics", "--data", home / "data", "--tokenizer", home / "tokenizer", "--heads-on-dreams"]
    assert main([*map(str, again), *wrong, "--out", str(home / "nothing")]) == 2
    assert message in capsys.readouterr().err


def test_worlds_can_be_compared(home, capsys):
    run("compare", home / "world", home / "world", "--data", home / "held", "--clips", 3, "--horizons", 1, 5)
    assert "+0.000 (+0.000 to +0.000)" in capsys.readouterr().out
    run("compare", home / "world", home / "world", "--data", home / "held", "--clips", 3, "--horizons", 1,
        "--sampling-steps", 1, "--second-sampling-steps", 2)  # fmt: skip
    assert "K = 2" in capsys.readouterr().out


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
        (["trian", "dynamics"], "did you mean neuralsim train dynamics"),
        (["train"], "neuralsim train tokenizer"),
        (["train", "dynamics", "--preset", "chess"], "unknown preset 'chess'; there are minetest, pong"),
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


RECIPES = sorted((Path(__file__).parent.parent / "neuralsim" / "worlds").glob("*/recipe.py"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.parent.name)
def test_every_command_of_a_recipe_is_one(path):
    import importlib
    import runpy

    recipe = runpy.run_path(str(path))
    for words in recipe["commands"](Path("home")):
        name = next(" ".join(words[:n]) for n in (3, 2, 1) if " ".join(words[:n]) in COMMANDS)
        config = parse(importlib.import_module(COMMANDS[name].module), COMMANDS[name], name, words[len(name.split()) :])
        assert str(config).count("home") >= 1


def test_a_game_that_cannot_be_made_is_not_played_but_said(home, tmp_path):
    from neuralsim import EpisodeStore, World
    from neuralsim.evaluation.plan import PLAYED, EvaluateConfig, Plan

    world = World.load(home / "world")
    world.config = dataclasses.replace(world.config, env_id="my-videos", trained_on={})
    world.save(tmp_path / "world")
    shutil.copytree(home / "held", tmp_path / "held")
    for path in (tmp_path / "held").glob("*.json"):
        path.write_text(path.read_text().replace("ALE/Pong-v5", "my-videos"))
    assert EpisodeStore.open(tmp_path / "held").info.env_id == "my-videos"
    config = EvaluateConfig(str(tmp_path / "world"), tmp_path / "held", tmp_path / "report", horizon=20)
    plan = Plan.of(config)
    assert not plan.parts.intersection(PLAYED)
    assert "unknown environment 'my-videos'" in plan.not_measured["Order of policies"]
    with pytest.raises(ValueError, match="unknown environment 'my-videos'"):
        Plan.of(dataclasses.replace(config, parts=("ranking",)))


def test_a_card_does_not_lose_what_it_says(home, capsys):
    words = ["evaluate", home / "world", "--data", home / "held", "--horizon", 20, "--parts", "events", "--save"]
    assert main([str(word) for word in words]) == 2
    assert "would lose what it says of open-loop" in capsys.readouterr().err
