"""The fast way of group normalisation gives what PyTorch's gives."""

import pytest
import torch
from torch import nn

from neuralsim.group_norm import ENOUGH, GroupNorm


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("lanes", [1, 4, 9])
def test_both_ways_agree(affine: bool, lanes: int):
    torch.manual_seed(0)
    ours, theirs = GroupNorm(4, 24, affine=affine), nn.GroupNorm(4, 24, affine=affine)
    for parameter in ours.parameters():
        nn.init.normal_(parameter)
    theirs.load_state_dict(ours.state_dict())
    x = (3 * torch.randn(lanes, 24, 16, 16) + torch.randn(24, 1, 1)).to(memory_format=torch.channels_last)
    x[0] = 2.0  # no variance
    with torch.inference_mode():
        fast = ours(x)
    assert (lanes * 256 >= ENOUGH) == (lanes > 1)  # both ways are tried
    assert torch.allclose(fast, theirs(x), atol=2e-5)
    assert fast.is_contiguous(memory_format=torch.channels_last)


def test_gradients_take_pytorchs_way():
    norm = GroupNorm(2, 4)
    x = torch.randn(8, 4, 16, 16).to(memory_format=torch.channels_last).requires_grad_()
    norm(x).square().sum().backward()
    assert x.grad is not None
