"""Packing: weights that are blended."""

import pytest
import torch
from torch import nn

from neuralsim.training.pack import PackConfig, blend, pack


def test_blended_weights_lie_between():
    own, other = nn.Linear(2, 2), nn.Linear(2, 2)
    before, others = own.weight.detach().clone(), other.weight.detach().clone()
    blend(own, other, 0.25)
    assert torch.allclose(own.weight, 0.75 * before + 0.25 * others)
    assert torch.equal(other.weight, others)


def test_what_cannot_be_blended_is_refused():
    with pytest.raises(ValueError, match="other sizes"):
        blend(nn.Linear(2, 2), nn.Linear(2, 3), 0.5)
    with pytest.raises(ValueError, match=r"blend_share is 1\.5"):
        pack(PackConfig(blend_share=1.5))
