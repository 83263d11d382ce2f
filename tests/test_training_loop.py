"""The training loop: resumed equals uninterrupted, nothing half-written, divergence stops."""

import dataclasses
import json
import os
import signal

import pytest
import torch
from torch import nn

from neuralsim.tensor_files import read_tensors, write_tensors
from neuralsim.training.loop import (
    LoopConfig,
    TrainingDivergedError,
    TrainingRun,
    clip_gradients,
    filled,
    learning_rate_at,
)

CONFIG = LoopConfig(steps=12, warmup_steps=2, checkpoint_every=5, log_every=1, evaluate_every=6, device="cpu")


class Regression(nn.Module):
    """Noise in the forward pass, as a diffusion model has it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        y = self.norm(self.layer(x + 0.1 * torch.randn_like(x)))
        loss = (y - x).square().mean()
        return loss, {"mean": y.detach().mean()}


def draw_batch(step):
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(step))


def make_run(out, config=CONFIG, draw=draw_batch, **kwargs):
    return TrainingRun(Regression(), draw, out, config, {"kind": "test", "loop": dataclasses.asdict(config)}, **kwargs)


def losses(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows if row["kind"] == "train"}


def test_a_killed_and_resumed_run_continues_the_same_curve(tmp_path):
    whole = make_run(tmp_path / "whole")
    whole.run()

    def draw_then_die(step):
        if step == 8:  # after the checkpoint at 5, with three steps lost
            raise RuntimeError("killed")
        return draw_batch(step)

    with pytest.raises(RuntimeError, match="killed"):
        make_run(tmp_path / "parts", draw=draw_then_die).run()
    resumed = make_run(tmp_path / "parts")
    resumed.run()
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    for name, value in whole.ema.items():
        assert torch.equal(value, resumed.ema[name]), name
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_interrupt_saves_a_checkpoint(tmp_path):
    make_run(tmp_path / "whole").run()

    def draw_and_interrupt(step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)  # the step in hand is finished, then the run is saved
        return draw_batch(step)

    with pytest.raises(KeyboardInterrupt):
        make_run(tmp_path / "parts", draw=draw_and_interrupt).run()
    assert sorted(losses(tmp_path / "parts")) == [1, 2, 3, 4]
    make_run(tmp_path / "parts").run()
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_a_loss_that_is_not_finite_stops_and_saves_the_batch(tmp_path):
    def draw_bad(step):
        return draw_batch(step) * (float("nan") if step == 6 else 1)

    with pytest.raises(TrainingDivergedError, match="step 6"):
        make_run(tmp_path, draw=draw_bad).run()
    batch, metadata = read_tensors(tmp_path / "diverged_batch.safetensors")
    assert bool(batch["batch"].isnan().all())
    assert metadata["step"] == "6"
    tensors, _ = read_tensors(tmp_path / "checkpoint.safetensors")
    assert all(bool(value.isfinite().all()) for value in tensors.values())


def test_evaluation_sees_the_averaged_weights_and_leaves_no_trace(tmp_path):
    seen = []

    def evaluate(model, step, folder):
        seen.append((step, model.training, {k: v.clone() for k, v in model.state_dict().items()}))
        torch.randn(3)  # an evaluation that draws must not change the training after it
        return {"figure": 1.0}

    run = make_run(tmp_path / "a", evaluate=evaluate)
    run.run()
    plain = make_run(tmp_path / "b")
    plain.run()
    assert [(step, training) for step, training, _ in seen] == [(6, False), (12, False)]
    assert all(torch.equal(seen[-1][2][name], run.ema[name]) for name in run.ema)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


def test_another_configuration_in_the_same_folder_is_refused(tmp_path):
    make_run(tmp_path).run()
    other = make_run(tmp_path)
    other.description["kind"] = "something else"
    with pytest.raises(ValueError, match="another kind"):
        other.run()


def test_asking_for_more_steps_continues(tmp_path):
    make_run(tmp_path).run()
    longer = make_run(tmp_path, dataclasses.replace(CONFIG, steps=15))
    longer.run()
    assert longer.step == 15
    assert sorted(losses(tmp_path)) == list(range(1, 16))


def test_a_run_of_an_older_version_goes_on(tmp_path):
    make_run(tmp_path, dataclasses.replace(CONFIG, steps=6)).run()
    description = json.loads((tmp_path / "config.json").read_text())
    del description["loop"]["optimizer"]  # an option that came later
    (tmp_path / "config.json").write_text(json.dumps(description))
    make_run(tmp_path).run()
    assert max(losses(tmp_path)) == CONFIG.steps


def test_options_of_a_model_that_came_later_have_their_defaults(tmp_path):
    six = dataclasses.replace(CONFIG, steps=6)
    begun = make_run(tmp_path, six)
    begun.description["model"] = {"type": "deep", "config": {"channels": 4}}
    begun.run()
    defaults = {"model": {"config": {"channels": 48, "blocks": (2, 1)}}, "frozen": False}

    def later(**changes):
        run = make_run(tmp_path, six, defaults=defaults)
        config = {"channels": 4, "blocks": (2, 1)} | changes
        run.description |= {"model": {"type": "deep", "config": config}, "frozen": False}
        return run

    with pytest.raises(ValueError, match="another model"):
        later(blocks=(3, 1)).run()
    with pytest.raises(ValueError, match="another model"):
        later(channels=48).run()
    later().run()


def test_filled_by_hand():
    told = {"a": {"b": 1, "d": None}, "e": None}
    assert filled(told, {"a": {"b": 2, "c": 3, "d": {"x": 1}}, "e": {"y": 1}, "f": 4}) == {
        "a": {"b": 1, "c": 3, "d": None}, "e": None, "f": 4
    }  # fmt: skip


def test_another_learning_rate_is_another_run(tmp_path):
    make_run(tmp_path).run()
    with pytest.raises(ValueError, match=r"another loop\.learning_rate"):
        make_run(tmp_path, dataclasses.replace(CONFIG, learning_rate=0.5, log_every=3)).run()


def test_a_log_cut_off_in_a_line_does_not_stop_the_resumption(tmp_path):
    make_run(tmp_path).run()
    log = tmp_path / "metrics.jsonl"
    log.write_text(log.read_text()[:-10])
    make_run(tmp_path, dataclasses.replace(CONFIG, steps=14)).run()
    assert {13, 14} <= set(losses(tmp_path))


def test_damaged_checkpoint_is_named(tmp_path):
    make_run(tmp_path).run()
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is damaged"):
        make_run(tmp_path, dataclasses.replace(CONFIG, steps=15)).run()


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.zeros(2)})

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("neuralsim.tensor_files.save_file", full)
    with pytest.raises(OSError, match="No space"):
        write_tensors(path, {"a": torch.ones(2)})
    assert float(read_tensors(path)[0]["a"].sum()) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_learning_rate_warms_up_holds_and_decays():
    config = LoopConfig(steps=100, warmup_steps=10, decay_fraction=0.5, learning_rate=1.0, final_learning_rate=0.1)
    assert learning_rate_at(0, config) == pytest.approx(0.1)
    assert learning_rate_at(30, config) == 1.0
    assert learning_rate_at(75, config) == pytest.approx(0.55)
    assert learning_rate_at(100, config) == pytest.approx(0.1)


def test_parts_that_share_no_gradients_are_clipped_apart():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.calm, self.wild = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)

        def separate_parts(self):
            return [self.calm, self.wild]

    model = Two()
    model.calm.weight.grad, model.wild.weight.grad = torch.tensor([[0.5]]), torch.tensor([[40.0]])
    norm = clip_gradients(model, 1.0)
    assert float(model.calm.weight.grad) == 0.5
    assert float(model.wild.weight.grad) == pytest.approx(1.0, rel=1e-4)
    assert float(norm) == pytest.approx((0.5**2 + 40**2) ** 0.5)
