"""Muon: orthogonalised steps for hidden layers, AdamW's own for all others."""

import dataclasses

import pytest
import torch
from torch import nn

from neuralsim.agents.pixels import PixelActor, PixelActorConfig
from neuralsim.training.loop import LoopConfig, TrainingRun, make_optimizer
from neuralsim.training.muon import Muon, hidden_weights, orthogonalised


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.position = nn.Parameter(torch.randn(1, 4, 1, 1))
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.conv_out = nn.Conv2d(4, 2, 3, padding=1)
        self.size = nn.Embedding(3, 4)
        self.heads = nn.Sequential(nn.Linear(2, 2))

    def forward(self, x):
        y = self.conv_out(torch.tanh(self.conv(x) + self.position + self.size.weight.sum(0)[:, None, None]))
        loss = (self.heads(y.mean((2, 3))) - x.mean((2, 3))).square().mean() + (y - 2 * x).square().mean()
        return loss, {"mean": y.detach().mean()}


@pytest.mark.parametrize("shape", [(8, 8), (4, 30), (30, 4), (1, 5)])
def test_singular_values_become_about_one_and_vectors_stay(shape):
    left, _ = torch.linalg.qr(torch.randn(shape[0], min(shape), generator=torch.Generator().manual_seed(1)))
    right, _ = torch.linalg.qr(torch.randn(shape[1], min(shape), generator=torch.Generator().manual_seed(2)))
    values = torch.logspace(0, -1.5, min(shape))
    found = left.T @ orthogonalised(left @ values.diag() @ right.T * 7.0) @ right
    assert found.diag().min() > 0.6
    assert found.diag().max() < 1.25
    assert (found - found.diag().diag()).abs().max() < 1e-4


def test_a_step_by_hand():
    # A gradient of rank one; its first Nesterov momentum points the same way, and nothing counts but the way.
    weight = nn.Parameter(torch.ones(2, 1, 1, 2))
    weight.grad = torch.tensor([[3.0, 4.0], [0.0, 0.0]]).reshape(2, 1, 1, 2)
    Muon([{"params": [weight], "weight_decay": 0.5, "muon": True}], lr=0.1, betas=(0.9, 0.98)).step()
    towards = torch.tensor([[0.6, 0.8], [0.0, 0.0]])
    moved = (1 - 0.1 * 0.5) * torch.ones(2, 2) - weight.detach().reshape(2, 2)
    length = float((moved * towards).sum()) / (0.1 * 0.2 * 2**0.5)
    assert 0.6 < length < 1.25
    torch.testing.assert_close(moved, towards * length * 0.1 * 0.2 * 2**0.5, atol=1e-6, rtol=0)
    assert weight.grad is not None


def test_hidden_layers_alone_are_muons():
    net = Net()
    assert [id(p) for p in hidden_weights(net)] == [id(net.conv.weight)]
    actor = PixelActor(PixelActorConfig(channels=4, hidden=8), parameters=3)
    own = {id(p) for p in hidden_weights(actor)}
    adamws = [name for name, p in actor.named_parameters() if name.endswith("weight") and id(p) not in own]
    assert adamws == ["out_policy.weight", "out_value.weight"]
    net.conv.weight.requires_grad_(False)
    assert hidden_weights(net) == []


def test_all_others_step_as_with_adamw():
    nets, x = [Net(), Net()], torch.randn(5, 2, 4, 4)
    config = LoopConfig(learning_rate=1e-2, weight_decay=0.1)
    optimizers = [
        make_optimizer(nets[0], config),
        make_optimizer(nets[1], dataclasses.replace(config, optimizer="muon")),
    ]
    for net, optimizer in zip(nets, optimizers, strict=True):
        for _ in range(2):
            # Gradients of untouched weights, so that nothing but the optimisers differs.
            for parameter, gradient in zip(net.parameters(), gradients_of_a_new_net(x), strict=True):
                parameter.grad = gradient
            optimizer.step()
    for (name, adamw), muon in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(adamw, muon) == (name != "conv.weight"), name


def gradients_of_a_new_net(x):
    net = Net()
    net(x)[0].backward()
    return [parameter.grad for parameter in net.parameters()]


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    config = LoopConfig(
        steps=12, warmup_steps=2, checkpoint_every=5, log_every=1, evaluate_every=6, device="cpu", optimizer="muon"
    )

    def run(folder, die_at=None):
        def draw(step):
            if step == die_at:
                raise RuntimeError("killed")
            return torch.randn(5, 2, 4, 4, generator=torch.Generator().manual_seed(step))

        training = TrainingRun(Net(), draw, folder, config, {"kind": "test", "loop": dataclasses.asdict(config)})
        training.run()
        return training

    whole = run(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path / "parts", die_at=8)
    resumed = run(tmp_path / "parts")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_closure_is_refused():
    weight = nn.Parameter(torch.ones(2, 2))
    with pytest.raises(ValueError, match="closure"):
        Muon([{"params": [weight], "muon": True}], lr=0.1, betas=(0.9, 0.98)).step(lambda: 0.0)
