"""Diagnostics: every rule at its limit, findings told once, gauges by hand, and a run that stays what it is."""

import dataclasses
import json
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from neuralsim.dynamics.base import ClipBatch
from neuralsim.training import memory
from neuralsim.training.diagnostic_rules import RULES, Rule
from neuralsim.training.diagnostics import Diagnostics, active_findings, not_finite
from neuralsim.training.gauges import LOOKED_AT, WINDOW, Gauges, check_clips, frozen_gradients
from neuralsim.training.loop import LoopConfig, TrainingDivergedError, TrainingRun

LATE = 100_000

CASES = {
    # rule: (figures that break it, figures that just do not)
    "loss_high": ({"loss": 100.5}, {"loss": 100}),
    "gradient_high": ({"gradient_norm": 100.5}, {"gradient_norm": 100}),
    "gradient_vanished": ({"gradient_norm": 0.9e-6}, {"gradient_norm": 1e-6}),
    "always_clipped": ({"clipped": 1.0}, {"clipped": 0.99}),
    "data_starving": ({"waiting": 0.31}, {"waiting": 0.3}),
    "memory_full": ({"memory": 0.93}, {"memory": 0.92}),
    "device_memory_full": ({"device_memory": 0.96}, {"device_memory": 0.95}),
    "frozen_gradients": ({"frozen_gradients": 1}, {"frozen_gradients": 0}),
    "latent_dead": ({"latent_std": 0.009}, {"latent_std": 0.01}),
    "reward_imbalance": ({"reward_majority": 0.91}, {"reward_majority": 0.9}),
    "prediction_collapsed": ({"prediction_std": 0.009}, {"prediction_std": 0.01}),
    "reward_prediction_constant": ({"reward_prediction_std": 0.0}, {"reward_prediction_std": 0.001}),
    "worse_than_copying": ({"error_1": 1.01}, {"error_1": 1.0}),
    "cloning_failed": ({"cloning_accuracy": 0.049}, {"cloning_accuracy": 0.05}),
    "policy_collapsed": ({"policy_entropy": 0.009}, {"policy_entropy": 0.01}),
    "policy_stuck": ({"policy_max_probability": 1.0}, {"policy_max_probability": 0.999}),
    "advantages_zero": ({"advantage_std": 0.0}, {"advantage_std": 1e-3}),
    "few_positive": ({"positive_samples": 9}, {"positive_samples": 10}),
    "few_negative": ({"negative_samples": 9}, {"negative_samples": 10}),
    "value_far": ({"value_error": 2.1, "return_std": 2.0}, {"value_error": 2.0, "return_std": 2.0}),
}


def names(findings):
    return [finding.name for finding in findings]


def test_every_rule_has_a_case():
    assert sorted(CASES) == sorted(rule.name for rule in RULES)


@pytest.mark.parametrize("name", CASES)
def test_rules_at_their_limits(name):
    wrong, right = CASES[name]
    begun, over = Diagnostics().look(wrong, LATE)
    assert names(begun) == [name]
    assert over == []
    assert f"{next(iter(wrong.values())) / wrong.get('return_std', 1):.3g}" in begun[0].message
    assert begun[0].advice
    assert Diagnostics().look(right, LATE) == ([], [])


@pytest.mark.parametrize("name", ["cloning_failed", "worse_than_copying", "reward_prediction_constant", "value_far"])
def test_what_takes_time_to_learn_is_judged_from_step_1000_on(name):
    wrong, _ = CASES[name]
    assert Diagnostics().look(wrong, 999) == ([], [])
    assert names(Diagnostics().look(wrong, 1000)[0]) == [name]


def test_values_are_not_judged_without_returns_to_compare_with():
    assert Diagnostics().look({"value_error": 5.0}, LATE) == ([], [])
    assert Diagnostics().look({"value_error": 5.0, "return_std": 0.0}, LATE) == ([], [])


def test_a_finding_is_told_once_until_it_has_been_away():
    diagnostics = Diagnostics()
    assert names(diagnostics.look({"gradient_norm": 120}, 1)[0]) == ["gradient_high"]
    assert diagnostics.look({"gradient_norm": 300}, 2) == ([], [])
    assert diagnostics.look({"gradient_norm": 95}, 3) == ([], [])  # within the limit, but hovering
    assert diagnostics.look({"gradient_norm": 101}, 4) == ([], [])
    assert diagnostics.look({"loss": 1.0}, 5) == ([], [])  # not measured: stays as it was
    assert diagnostics.active == {"gradient_high"}
    assert diagnostics.look({"gradient_norm": 90}, 6) == ([], ["gradient_high"])
    assert diagnostics.active == set()
    assert names(diagnostics.look({"gradient_norm": 101}, 7)[0]) == ["gradient_high"]


def test_a_lower_limit_has_a_margin_too():
    diagnostics = Diagnostics()
    assert names(diagnostics.look({"positive_samples": 9}, 1)[0]) == ["few_positive"]
    assert diagnostics.look({"positive_samples": 10.9}, 2) == ([], [])
    assert diagnostics.look({"positive_samples": 11}, 3) == ([], ["few_positive"])


def test_what_is_not_finite_is_found_by_name():
    diagnostics = Diagnostics()
    begun, _ = diagnostics.look({"flow": float("inf"), "loss": float("nan"), "gradient_norm": 1.0}, 1)
    assert names(begun) == ["not_finite/flow", "not_finite/loss"]
    assert diagnostics.look({"error_1": 0.5}, 1) == ([], [])  # an evaluation in between changes nothing
    assert diagnostics.look({"flow": 1.0, "loss": float("nan")}, 2) == ([], ["not_finite/flow"])


def test_what_there_was_none_of_is_not_wrong():
    assert Diagnostics().look({"ball_5": float("nan"), "error_1": float("nan")}, LATE) == ([], [])


def test_findings_are_read_back_from_the_log(tmp_path):
    log = tmp_path / "metrics.jsonl"
    assert active_findings(log) == {}
    rule = Rule("odd", "oddness", "the oddness", "make it even", above=1)
    rows = [
        {"step": 1, "kind": "train", "loss": 1.0},
        {"step": 1, "kind": "finding", **dataclasses.asdict(not_finite("flow", float("inf")))},
        {"step": 1, "kind": "finding", **dataclasses.asdict(rule.finding(3.0))},
        {"step": 2, "kind": "finding", "name": "not_finite/flow", "over": True},
    ]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 3, "ki')
    assert active_findings(log) == {"odd": rule.finding(3.0)}
    assert Diagnostics.resumed(log).active == {"odd"}


# -- gauges


def gauges_of(model, clip=1.0):
    return Gauges(model, clip, torch.device("cpu"))


def test_shares_of_a_hundred_steps():
    gauges = gauges_of(nn.Linear(1, 1), clip=2.0)
    for i in range(WINDOW - 1):
        gauges.saw_step(torch.tensor(3.0 if i % 2 else 1.0), 0.25, 1.0)
    assert {"clipped", "waiting"}.isdisjoint(gauges.read())
    gauges.saw_step(torch.tensor(3.0), 0.25, 1.0)
    figures = gauges.read()
    assert figures["clipped"] == 0.5
    assert figures["waiting"] == pytest.approx(0.25)
    for _ in range(WINDOW):
        gauges.saw_step(torch.tensor(3.0), 0.5, 1.0)
    assert gauges.read()["clipped"] == 1.0
    assert gauges.read()["waiting"] == pytest.approx(0.5)


def test_a_norm_of_several_parts_is_clipped_where_one_of_them_must_be():
    model = nn.Linear(1, 1)
    model.separate_parts = lambda: [nn.Linear(1, 1)] * 4
    gauges = gauges_of(model)
    for i in range(WINDOW):  # four parts of norm 1, none of them clipped, have norm 2
        gauges.saw_step(torch.tensor(2.0 if i < 75 else 2.01), 0.0, 1.0)
    assert gauges.read()["clipped"] == 0.25


def make_clips(lanes=4, length=5, channels=3, grid=(2, 2)):
    generator = torch.Generator().manual_seed(0)
    return ClipBatch(
        latents=torch.randn(lanes, length, *grid, channels, generator=generator),
        actions=torch.zeros(lanes, length - 1, 2),
        rewards=torch.zeros(lanes, length - 1),
        terminated=torch.zeros(lanes, length - 1),
        valid=torch.ones(lanes, length, dtype=torch.bool),
    )


def figures_of_batches(batch, count=LOOKED_AT):
    gauges = gauges_of(nn.Linear(1, 1))
    for _ in range(count):
        gauges.saw_batch(batch)
    return gauges.read(), gauges.read()


def test_the_commonest_reward_is_counted_in_episodes_only():
    batch = make_clips()
    batch.rewards[0] = 1.0
    first, again = figures_of_batches(batch)
    assert first["reward_majority"] == 0.75
    assert "reward_majority" not in again  # told once
    batch.valid[3, :4] = False  # four zeros that stand for nothing
    assert figures_of_batches(batch)[0]["reward_majority"] == pytest.approx(8 / 12)
    assert "reward_majority" not in figures_of_batches(batch, LOOKED_AT - 1)[0]


def test_the_quietest_latent_channel():
    batch = make_clips()
    assert 0.7 < figures_of_batches(batch)[0]["latent_std"] < 1.3
    batch.latents[..., 1] = 0.5
    assert figures_of_batches(batch)[0]["latent_std"] == 0.0
    gauges = gauges_of(nn.Linear(1, 1))
    for i in range(LOOKED_AT):  # a channel that wakes up in one batch is not dead
        gauges.saw_batch(make_clips() if i == 7 else batch)
    assert gauges.read()["latent_std"] > 0.7


def test_batches_that_are_no_clips_are_left_alone():
    figures, _ = figures_of_batches(torch.zeros(4, 8, 8, 3))
    assert {"latent_std", "reward_majority"}.isdisjoint(figures)


def test_clips_that_do_not_fit_the_dynamics_are_refused():
    model = nn.Module()
    model.dynamics = SimpleNamespace(latent_shape=(2, 2, 3), clip_length=5)
    check_clips(model, make_clips())
    with pytest.raises(ValueError, match=r"latents of shape \(2, 2, 4\).*built for \(2, 2, 3\)"):
        gauges_of(model).saw_batch(make_clips(channels=4))
    with pytest.raises(ValueError, match=r"have 6 frames.*needs 5"):
        gauges_of(model).saw_batch(make_clips(length=6))


def test_gradients_on_frozen_parts():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    model(torch.ones(3, 2)).sum().backward()
    assert frozen_gradients(model) == 0
    model[0].weight.grad = torch.ones(2, 2)
    assert frozen_gradients(model) == 1
    model[0].weight.grad = None
    model.frozen_parts = lambda: [model[1]]  # named as frozen, but it learns: weight and bias
    assert frozen_gradients(model) == 2


def test_memory(tmp_path, monkeypatch):
    files = {"meminfo": "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 400 kB\n", "limit": "500\n", "use": "480\n",
             "memory.stat": "cache 7\ninactive_file 80\n"}  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "MACHINE", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CONTAINERS", ((str(tmp_path / "limit"), str(tmp_path / "use"), "inactive_file"),))
    assert memory.memory_share() == pytest.approx(0.8)  # the container's, without files that can be let go
    (tmp_path / "limit").write_text("max\n")
    assert memory.memory_share() == pytest.approx(0.6)  # the machine's
    monkeypatch.setattr(memory, "MACHINE", tmp_path / "nowhere")
    assert memory.memory_share() is None
    assert memory.device_memory_share(torch.device("cpu")) is None


# -- in the loop


class Loud(nn.Module):
    """A regression whose gradient is far too long, and which says how sure its policy is."""

    def __init__(self, scale=1e4):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 4)
        self.scale = scale

    def forward(self, x):
        loss = self.scale * (self.layer(x + 0.1 * torch.randn_like(x)) - x).square().mean()
        return loss, {"policy_entropy": torch.tensor(0.0)}


CONFIG = LoopConfig(steps=12, warmup_steps=2, checkpoint_every=5, log_every=1, evaluate_every=6, device="cpu")


def draw_batch(step):
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(step))


def make_run(out, draw=draw_batch, scale=1e4, config=CONFIG):
    return TrainingRun(Loud(scale), draw, out, config, {"kind": "test", "loop": dataclasses.asdict(config)})


def rows(out, kind):
    every = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row for row in every if row["kind"] == kind]


def test_findings_reach_console_log_and_tensorboard_once(tmp_path, capsys):
    make_run(tmp_path).run()
    found = rows(tmp_path, "finding")
    assert [(row["step"], row["name"]) for row in found] == [
        (1, "loss_high"),
        (1, "gradient_high"),
        (1, "policy_collapsed"),
    ]
    assert all(row["level"] == "warning" and row["message"] and row["seconds"] >= 0 for row in found)
    text = " ".join(capsys.readouterr().out.split())
    assert text.count("warning at step 1: the gradient norm is") == 1
    assert text.count(" ".join(found[1]["advice"].split())) == 1

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.value for event in board.Scalars("findings/active")] == [3.0] * CONFIG.steps
    assert "findings/gradient_high/text_summary" in board.Tags()["tensors"]


def test_a_calm_run_has_no_findings(tmp_path, capsys):
    run = make_run(tmp_path, scale=0.1)
    run.model.forward = lambda x: (0.1 * (run.model.layer(x) - x).square().mean(), {})
    run.run()
    assert rows(tmp_path, "finding") == []
    assert "warning" not in capsys.readouterr().out
    assert rows(tmp_path, "train")[-1]["frozen_gradients"] == 0


def test_findings_are_yellow(tmp_path, monkeypatch, capsys):
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("rich._console", None)  # the one console there is has looked at these already
    make_run(tmp_path, config=dataclasses.replace(CONFIG, steps=1)).run()
    assert "\x1b[33mwarning at step 1" in capsys.readouterr().out


def test_evaluations_are_watched_too(tmp_path):
    run = make_run(tmp_path, scale=0.1)
    run.evaluate = lambda model, step, folder: {"error_5": float("inf") if step == 6 else 0.5}
    run.run()
    found = [(row["step"], row["name"], row.get("over")) for row in rows(tmp_path, "finding")]
    assert found == [(1, "policy_collapsed", None), (6, "not_finite/error_5", None), (12, "not_finite/error_5", True)]


def test_time_spent_waiting_for_data(tmp_path, monkeypatch):
    clock = [0.0]

    def draw_slowly(step):
        clock[0] += 1.0
        return draw_batch(step)

    config = dataclasses.replace(CONFIG, steps=WINDOW, log_every=10)
    run = make_run(tmp_path, draw_slowly, 0.1, config)
    learn = run.model.forward

    def forward(x):
        clock[0] += 1.0
        return learn(x)

    run.model.forward = forward
    monkeypatch.setattr(
        "neuralsim.training.loop.time", SimpleNamespace(perf_counter=lambda: clock[0], monotonic=time.monotonic)
    )
    run.run()
    shares = {row["step"]: row.get("waiting") for row in rows(tmp_path, "train")}
    assert shares[WINDOW - 10] is None
    assert shares[WINDOW] == 0.5
    assert (WINDOW, "data_starving") in [(row["step"], row["name"]) for row in rows(tmp_path, "finding")]


def test_a_resumed_run_tells_nothing_twice_and_follows_the_same_curve(tmp_path):
    make_run(tmp_path / "whole").run()

    def draw_then_die(step):
        if step == 8:
            raise RuntimeError("killed")
        return draw_batch(step)

    with pytest.raises(RuntimeError, match="killed"):
        make_run(tmp_path / "parts", draw_then_die).run()
    make_run(tmp_path / "parts").run()
    whole, parts = ([(r["step"], r["loss"], r["gradient_norm"]) for r in rows(tmp_path / name, "train")]
                    for name in ("whole", "parts"))  # fmt: skip
    assert parts == whole
    told, told_in_parts = ([(r["step"], r["name"], r.get("over")) for r in rows(tmp_path / name, "finding")]
                           for name in ("whole", "parts"))  # fmt: skip
    assert told_in_parts == told
    assert told


def test_gauges_change_no_weight(tmp_path, monkeypatch):
    watched = make_run(tmp_path / "watched")
    watched.run()
    for name in ("saw_batch", "saw_step"):
        monkeypatch.setattr(Gauges, name, lambda *args: None)
    monkeypatch.setattr(Gauges, "read", lambda self: {})
    plain = make_run(tmp_path / "plain")
    plain.run()
    assert all(torch.equal(value, plain.model.state_dict()[k]) for k, value in watched.model.state_dict().items())


def test_a_run_that_diverged_says_so_in_its_log_until_it_is_past_it(tmp_path):
    def draw_bad(step):
        return draw_batch(step) * (float("nan") if step == 6 else 1)

    with pytest.raises(TrainingDivergedError):
        make_run(tmp_path, draw_bad).run()
    last = rows(tmp_path, "finding")[-1]
    assert (last["step"], last["name"], last["level"]) == (6, "not_finite/loss", "error")
    assert "diverged_batch" in last["message"]
    make_run(tmp_path).run()
    assert "not_finite/loss" not in active_findings(tmp_path / "metrics.jsonl")


def test_a_run_that_diverged_at_its_checkpoint_gets_past_it_too(tmp_path):
    def draw_bad(step):
        return draw_batch(step) * (float("nan") if step == 5 else 1)

    with pytest.raises(TrainingDivergedError):
        make_run(tmp_path, draw_bad).run()
    assert "not_finite/loss" in active_findings(tmp_path / "metrics.jsonl")
    make_run(tmp_path).run()
    assert [row["step"] for row in rows(tmp_path, "finding") if row.get("over")] == [6]
    assert "not_finite/loss" not in active_findings(tmp_path / "metrics.jsonl")
