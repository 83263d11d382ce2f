"""The doctor: silent about what is well, and it names what is not, on worlds, runs and recordings."""

import io
import json

import numpy as np
import pytest
import torch
from conftest import build_tiny_world
from gymnasium import spaces
from rich.console import Console
from test_episodes import make_episode, make_store
from test_training_loop import draw_batch, make_run

from neuralsim.cli import main
from neuralsim.tensor_files import read_tensors, write_tensors
from neuralsim.training.diagnostic_rules import Finding
from neuralsim.training.doctor import Diagnosis, examine, print_diagnosis, recognise
from neuralsim.training.loop import TrainingDivergedError
from neuralsim.training.recording_checks import check_actions, check_rewards
from neuralsim.training.run_checks import check_course, check_scale
from neuralsim.training.weight_checks import Check
from neuralsim.training.world_checks import check_latents, check_world


def well_world(**changes):
    """The tiny world with something in the layers that training begins with at zero."""
    world = build_tiny_world(**changes)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for part in (world.tokenizer, world.dynamics, world.heads):
            for value in part.parameters():
                if value.ndim >= 2 and bool((value == 0).all()):
                    value.normal_(std=0.1)
    return world


def found(checks):
    """Names of what is worse than a note."""
    return [finding.name for check in checks for finding in check.findings if finding.level != "note"]


def notes(checks):
    return [finding.name for check in checks for finding in check.findings if finding.level == "note"]


def doctor(path, capsys):
    status = main(["doctor", str(path)])
    return status, capsys.readouterr().out


# -- worlds


def test_a_world_that_is_well(tmp_path, capsys):
    status, text = doctor(well_world().save(tmp_path / "well"), capsys)
    assert status == 0
    lines = text.splitlines()
    for name in ("files", "weights", "layers", "latent shape", "latents", "dreams", "actions", "heads"):
        assert any(line.startswith(f"✓ {name}: ") for line in lines), name
    assert any(line.startswith("· card: ") for line in lines)
    assert lines[-1] == "9 checks, nothing wrong, 1 to know"


def test_an_untrained_world(tiny_world, capsys):
    status, text = doctor(tiny_world, capsys)
    assert status == 1
    assert "! layers: " in text
    assert "never trained" in text
    # Actions come in through layers that begin at zero.
    assert found(examine(*recognise(str(tiny_world)))) == ["layers_constant", "actions_ignored"]


def silence(layer):
    layer.weight.mul_(1e-7)
    layer.bias.mul_(1e-7)


def mute_channel(world):
    last = world.tokenizer.encoder[-1]
    last.weight[1] *= 1e-7


def make_blind(world):
    # Every action's embedding is that of the first.
    weight = world.dynamics.past.action.weight
    weight.copy_(weight[:, :1].expand_as(weight).clone())


def spoil(world):
    world.dynamics.past.conv_in.weight[0, 0, 0, 0] = float("nan")


def same_reward(world):
    out = world.heads.out_reward
    out.weight.copy_(out.weight[:1].expand_as(out.weight).clone())


BROKEN = {
    "latents zeroed": (lambda world: silence(world.tokenizer.encoder[-1]), ["latents_dead"], "all of 2 latent"),
    "one latent channel zeroed": (mute_channel, ["latents_dead"], "1 of 2 latent channels"),
    "NaN in a weight": (spoil, ["weights_not_finite"], "dynamics.past.conv_in.weight"),
    "blind to actions": (make_blind, ["actions_ignored"], "6 actions"),
    "one reward": (same_reward, ["reward_constant"], "15 real transitions"),
    "one continue": (lambda world: world.heads.out_continue.weight.mul_(1e-9), ["continue_constant"], "15 real"),
    "always over": (lambda world: world.heads.out_continue.bias.sub_(1000), ["ends_everywhere"], "100%"),
    "weights of one layer zeroed": (
        lambda world: world.dynamics.past.up1.weight.zero_(), ["layers_constant"], "dynamics.past.up1.weight",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_copies(name, tmp_path, capsys):
    change, expected, told = BROKEN[name]
    world = well_world()
    with torch.no_grad():
        change(world)
    folder = world.save(tmp_path / "broken")
    status, text = doctor(folder, capsys)
    assert status == 1
    assert told in text
    assert found(examine(*recognise(str(folder)))) == expected


def test_latents_that_tell_places_apart_but_not_frames():
    world = well_world()
    pattern = torch.rand(1, *world.latent_shape, generator=torch.Generator().manual_seed(0)) - 0.5
    world.tokenizer.encode_raw = lambda frames: pattern.expand(len(frames), -1, -1, -1)
    assert found([check_latents(world)]) == ["latents_dead"]

    def one_place(frames):
        raw = pattern.repeat(len(frames), 1, 1, 1)
        raw[:, 0, 0, 1] = frames[:, 0, 0, 0] - 0.5
        return raw

    world.tokenizer.encode_raw = one_place  # channel 1 serves a single place, which is enough
    assert "1 of 2 latent channels" in check_latents(world).findings[0].message


def test_dreams_that_all_look_alike():
    world = well_world()
    still = torch.randn(1, *world.latent_shape, generator=torch.Generator().manual_seed(0))

    def collapsed(state, action, noise, steps, bounds):
        return still.expand(len(action), -1, -1, -1), state, torch.zeros(len(action))

    world.dynamics.step = collapsed
    assert found(check_world(world)) == ["prediction_collapsed", "actions_ignored"]


def test_dreams_that_are_not_finite():
    world, step = well_world(), well_world().dynamics.step

    def explode(*args):
        latent, state, doubt = step(*args)
        return latent / 0.0, state, doubt

    world.dynamics.step = explode
    assert found(check_world(world)) == ["dreams_not_finite"]


def test_parts_of_other_grids():
    world = well_world()
    world.tokenizer.encode_raw = lambda frames: torch.zeros(len(frames), 3, 5, 2)
    checks = check_world(world)
    assert found(checks) == ["latent_grid"]
    assert "(3, 5, 2)" in checks[-1].findings[0].message


def test_a_game_that_pays_one_reward_needs_no_reward_head():
    world = well_world(reward_values=[0.0], reward_range=(0.0, 0.0))
    with torch.no_grad():
        same_reward(world)
    assert found(check_world(world)) == []


def test_a_game_with_one_action_cannot_ignore_it():
    world = well_world(action_space=spaces.Discrete(1), keys_to_action=None)
    checks = check_world(world)
    assert found(checks) == []
    assert "actions" not in [check.name for check in checks]


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1.0, 1.0, (2,), np.float32),
        spaces.Dict({"jump": spaces.Discrete(2), "camera": spaces.Box(-5.0, 5.0, (2,), np.float32)}),
    ],
    ids=lambda space: type(space).__name__,
)
def test_other_actions(space):
    world = well_world(action_space=space)
    assert found(check_world(world)) == []
    view = world.dynamics.view
    with torch.no_grad():
        # A camera's turns also come in by the frames that are turned.
        for layer in (world.dynamics.past.action, *([view.latent_out, view.flow_out, view.read] if view else [])):
            layer.weight.mul_(1e-7)
    assert found(check_world(world)) == ["actions_ignored"]


def test_a_world_without_starts():
    checks = check_world(well_world(starts=False))
    assert found(checks) == []
    assert notes(checks) == ["no_starts", "no_card"]


def psnr(dream, copy):
    return {"psnr": {"dream": {"value": dream}, "copy": {"value": copy}}}


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"1": psnr(20.0, 20.0)}, []),
        ({"1": psnr(19.9, 20.0)}, ["worse_than_copying"]),
        ({"10": psnr(10.0, 20.0), "2": psnr(30.0, 20.0)}, []),  # far ahead a sharp dream may well be worse
    ],
)
def test_a_card_that_tells_of_dreams_worse_than_copying(table, expected):
    world = well_world()
    world.card = {"open_loop": table}
    checks = check_world(world)
    assert found(checks) == expected
    assert notes(checks) == []


def test_a_world_that_cannot_be_read(tmp_path, capsys):
    folder = well_world().save(tmp_path / "cut")
    weights = folder / "world.safetensors"
    weights.write_bytes(weights.read_bytes()[:-20])
    status, text = doctor(folder, capsys)
    assert status == 1
    assert "truncated or damaged" in text
    weights.unlink()
    assert doctor(folder, capsys)[0] == 1


def test_the_bundled_world_is_well(capsys):
    status, text = doctor("pong", capsys)
    assert status == 0, text


# -- runs


@pytest.fixture
def run_folder(tmp_path):
    make_run(tmp_path / "run").run()
    return tmp_path / "run"


def add_rows(folder, *rows):
    with (folder / "metrics.jsonl").open("a") as log:
        log.writelines(json.dumps({"kind": "train", "seconds": 1.0, **row}) + "\n" for row in rows)


def test_a_run_that_is_well(run_folder, capsys):
    status, text = doctor(run_folder, capsys)
    assert status == 0, text
    for name in ("config", "figures", "course", "checkpoint.safetensors"):
        assert f"✓ {name}: " in text


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"loss": 5.0, "gradient_norm": 2.0, "waiting": 0.2}, []),
        ({"loss": float("nan")}, ["not_finite/loss"]),
        ({"loss": 1.0, "flow": float("inf")}, ["not_finite/flow"]),
        ({"loss": 1.0, "waiting": 0.6}, ["data_starving"]),
        ({"kind": "held-out", "error_1": 1.2}, ["worse_than_copying"]),
        ({"kind": "held-out", "error_1": 0.2, "ball_5": float("nan")}, []),
    ],
)
def test_the_last_figures_of_a_run(run_folder, row, expected):
    add_rows(
        run_folder, {"step": 2000, "loss": 5.0, "waiting": 0.9}, {"step": 2001, "loss": 1.0}, {"step": 2002, **row}
    )
    assert found(examine("run", run_folder)) == expected


def test_always_clipped_is_a_note(run_folder):
    add_rows(run_folder, {"step": 2000, "loss": 5.0, "clipped": 1.0})
    checks = examine("run", run_folder)
    assert (found(checks), notes(checks)) == ([], ["always_clipped"])


def test_what_was_found_on_the_way_and_is_not_over(run_folder, capsys):
    finding = {"kind": "finding", "name": "latent_dead", "level": "warning", "message": "m!", "advice": "do it"}
    add_rows(run_folder, {"step": 13, **finding})
    status, text = doctor(run_folder, capsys)
    assert status == 1
    assert "! figures: m!\n    do it" in text
    add_rows(run_folder, {"step": 14, "kind": "finding", "name": "latent_dead", "over": True})
    assert doctor(run_folder, capsys)[0] == 0


def test_a_loss_that_rises():
    def course(last):
        return check_course([{"loss": 1.0}] * 18 + [{"loss": last}] * 2 + [{"kind": "held-out"}])

    assert found([course(1.5)]) == []
    assert found([course(1.51)]) == ["loss_rising"]
    assert found([check_course([{"loss": 1.0}] * 17 + [{"loss": 9.0}] * 2)]) == []  # too short to tell


def test_a_run_whose_weights_are_not_finite(run_folder):
    path = run_folder / "checkpoint.safetensors"
    tensors, metadata = read_tensors(path)
    tensors["ema.layer.weight"][0, 0] = float("nan")
    write_tensors(path, tensors, {"checkpoint": metadata["checkpoint"]})
    checks = examine("run", run_folder)
    assert found(checks) == ["weights_not_finite"]
    assert "ema.layer.weight" in checks[-1].findings[0].message
    path.write_bytes(path.read_bytes()[:-20])
    assert found(examine("run", run_folder)) == ["file_damaged"]


def test_a_run_that_diverged(tmp_path, capsys):
    def draw_bad(step):
        return draw_batch(step) * (float("nan") if step == 6 else 1)

    with pytest.raises(TrainingDivergedError):
        make_run(tmp_path, draw=draw_bad).run()
    status, text = doctor(tmp_path, capsys)
    assert status == 1
    assert "✗ divergence: stopped at step 6" in text
    make_run(tmp_path).run()
    status, text = doctor(tmp_path, capsys)
    assert status == 0, text
    assert "got past it" in text


def test_a_run_that_has_not_begun(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"kind": "dynamics", "loop": {}}')
    assert recognise(str(tmp_path)) == ("run", tmp_path)
    status, text = doctor(tmp_path, capsys)
    assert status == 0
    assert "no figures yet" in text
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "config.json").write_text("{")
    assert found(examine("run", tmp_path)) == ["config_damaged"]


def test_parts_of_a_run(tmp_path, run_folder):
    world = well_world()
    write_tensors(run_folder / "tokenizer.safetensors", world.tokenizer.state_dict(), {})
    assert found(examine("run", run_folder)) == []
    with torch.no_grad():
        world.tokenizer.encoder[1].weight.zero_()
    write_tensors(run_folder / "tokenizer.safetensors", world.tokenizer.state_dict(), {})
    assert found(examine("run", run_folder)) == ["layers_constant"]


def test_latent_channels_without_scale():
    assert found([check_scale("x", torch.tensor([0.3, 0.0011]))]) == []
    check = check_scale("x", torch.tensor([0.3, 0.001]))
    assert found([check]) == ["latents_dead"]
    assert "channels 1 of 2" in check.findings[0].message


# -- recordings


def test_recordings_that_are_well(tmp_path, capsys):
    make_store(tmp_path, make_episode(40), make_episode(30, seed=1))
    status, text = doctor(tmp_path, capsys)
    assert status == 0
    assert "✓ episodes: 2 with 70 steps" in text


def test_actions_that_are_nearly_always_the_same(tmp_path, capsys):
    episode = make_episode(100)
    episode.actions[:] = 3
    episode.actions[:9] = 1
    make_store(tmp_path, episode)
    status, text = doctor(tmp_path, capsys)
    assert status == 1
    assert "! actions: 91.0% of 100 actions are 3" in text
    actions = episode.actions.copy()
    actions[9] = 1
    assert found([check_actions({"": actions})]) == []


def test_parts_of_an_action_are_judged_together():
    jump, turn = np.zeros(100), np.arange(100) % 2
    check = check_actions({"jump": jump, "turn": turn})
    assert (found([check]), notes([check])) == ([], ["action_part_imbalance"])
    assert found([check_actions({"jump": jump, "turn": jump})]) == ["action_imbalance"]


@pytest.mark.parametrize(
    ("counts", "wrong", "known"),
    [
        ({0.0: 90, 1.0: 10}, [], []),
        ({0.0: 91, 1.0: 9}, ["reward_imbalance"], []),
        ({0.0: 9950, 1.0: 30, -1.0: 20}, [], ["reward_imbalance"]),
        ({0.0: 9951, 1.0: 30, -1.0: 19}, ["reward_imbalance"], []),
        ({0.0: 100}, ["reward_imbalance"], []),
    ],
)
def test_rewards_that_are_nearly_always_the_same(counts, wrong, known):
    check = check_rewards(counts)
    assert (found([check]), notes([check])) == (wrong, known)


def test_rewards_are_counted_with_zeros(tmp_path):
    episode = make_episode(100)
    episode.rewards[:] = 0
    episode.rewards[0] = 1
    make_store(tmp_path, episode)
    checks = examine("recordings", tmp_path)
    assert found(checks) == ["reward_imbalance"]
    assert "99 of 100 rewards are 0" in checks[-1].findings[0].message


def test_recordings_that_are_empty_or_damaged(tmp_path):
    store = make_store(tmp_path)
    assert found(examine("recordings", tmp_path)) == ["no_episodes"]
    store.add(make_episode(20))
    file = next((tmp_path / "episodes").glob("*.zip"))
    file.write_bytes(file.read_bytes()[:200])
    assert found(examine("recordings", tmp_path)) == ["recordings_damaged"]


# -- paths and printing


def test_paths_that_are_none_of_these(tmp_path, capsys):
    file = tmp_path / "notes.txt"
    file.write_text("hello")
    for path, message in (
        (tmp_path / "nowhere", "there is no"),
        (file, f"give the folder it is in, {tmp_path}"),
        (tmp_path, "holds no world"),
        ("some/world", "there is no some/world"),  # never looked for on the hub
    ):
        assert main(["doctor", str(path)]) == 2
        assert message in capsys.readouterr().err


def test_terminals_without_ticks():
    checks = [Check("a", "fine"), Check("b", "", (Finding("n", "error", "it is [bad]", "mend it"),))]
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_diagnosis(Diagnosis("run", recognise("pong")[1], checks), Console(file=out, width=40))
    out.flush()
    lines = out.buffer.getvalue().decode().splitlines()
    assert lines[1:] == ["+ a: fine", "x b: it is [bad]", "    mend it", "2 checks, 1 thing to look into"]
