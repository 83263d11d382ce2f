"""Packing: weights that are blended."""

import pytest
import torch
from torch import nn

from neuralsim.training.pack import PackConfig, blend, pack, read_shares


def test_blended_weights_are_a_weighted_mean():
    own, *others = (nn.Linear(2, 2) for _ in range(3))
    before = own.weight.detach().clone()
    blend(own, [(others[0], 0.25), (others[1], 0.5)])
    assert torch.allclose(own.weight, 0.25 * before + 0.25 * others[0].weight + 0.5 * others[1].weight)
    before = own.weight.detach().clone()
    blend(own, [])
    assert torch.equal(own.weight, before)


def test_what_cannot_be_blended_is_refused():
    with pytest.raises(ValueError, match="other sizes"):
        blend(nn.Linear(2, 2), [(nn.Linear(2, 3), 0.5)])


def test_shares_are_read():
    assert read_shares(()) == {}
    assert read_shares(("runs/first=0.3", "a=b=0.25")) == {"runs/first": 0.3, "a=b": 0.25}
    for wrong in ("runs/first", "runs/first=much", "=0.3", "runs/first=1.5", "runs/first=0"):
        with pytest.raises(ValueError, match="FOLDER=SHARE"):
            read_shares((wrong,))
    with pytest.raises(ValueError, match="names a twice"):
        read_shares(("a=0.3", "a=0.4"))
    with pytest.raises(ValueError, match=r"a=0\.5 b=0\.5 leave nothing"):
        pack(PackConfig(blend=("a=0.5", "b=0.5")))
