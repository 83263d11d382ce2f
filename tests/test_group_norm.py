"""The fast way of group normalisation gives what PyTorch's gives."""

import pytest
import torch
from torch import nn

from neuralsim.group_norm import GroupNorm


def count_fast_calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    calls: list[torch.Tensor] = []
    fast = GroupNorm._by_channels
    monkeypatch.setattr(GroupNorm, "_by_channels", lambda self, x, *rest: calls.append(x) or fast(self, x, *rest))
    return calls


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("lanes", [1, 4, 9])
def test_both_ways_agree(affine: bool, lanes: int, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    ours, theirs = GroupNorm(4, 24, affine=affine), nn.GroupNorm(4, 24, affine=affine)
    for parameter in ours.parameters():
        nn.init.normal_(parameter)
    theirs.load_state_dict(ours.state_dict())
    x = (3 * torch.randn(lanes, 24, 16, 16) + torch.randn(24, 1, 1)).to(memory_format=torch.channels_last)
    x[0] = 2.0  # no variance
    calls = count_fast_calls(monkeypatch)
    with torch.inference_mode():
        fast = ours(x)
    assert len(calls) == (lanes > 1)
    assert torch.allclose(fast, theirs(x), atol=2e-5)
    assert fast.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("lanes", [1, 9])
def test_both_ways_modulate_alike(lanes: int, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    norm = GroupNorm(4, 24, affine=False)
    x = torch.randn(lanes, 24, 16, 16).to(memory_format=torch.channels_last)
    scale, shift = torch.randn(2, lanes, 24)
    calls = count_fast_calls(monkeypatch)
    with torch.inference_mode():
        modulated = norm(x, scale, shift)
    assert len(calls) == (lanes > 1)
    plain = nn.functional.group_norm(x, 4)
    assert torch.allclose(modulated, plain * (1 + scale[..., None, None]) + shift[..., None, None], atol=2e-5)


def test_gradients_take_pytorchs_way(monkeypatch: pytest.MonkeyPatch):
    calls = count_fast_calls(monkeypatch)
    norm = GroupNorm(2, 4)
    x = torch.randn(8, 4, 16, 16).to(memory_format=torch.channels_last).requires_grad_()
    norm(x).square().sum().backward()
    assert x.grad is not None
    assert not calls
