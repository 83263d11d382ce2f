"""Two worlds side by side: hand-computed differences, and the command."""

import numpy as np
import pytest

from neuralsim.evaluation.compare import differences
from neuralsim.evaluation.open_loop import OpenLoop


def measured(psnr, ball, truth):
    values = {"psnr/dream": psnr, "ball/dream": ball, "ball/truth": truth}
    return OpenLoop((5,), ("psnr",), ("ball",), {name: np.array(v)[:, None] for name, v in values.items()})


def test_differences_by_hand():
    there = [True, True, False]
    first = measured([20.0, 30, 40], [True, False, False], there)
    second = measured([22.0, 31, 43], [True, True, False], there)
    table = differences(first, second)
    assert table["psnr"]["5"]["first"] == 30
    assert table["psnr"]["5"]["difference"]["value"] == pytest.approx(2)
    assert table["ball"]["5"]["first"] == 0.5
    assert table["ball"]["5"]["second"] == 1
    assert table["ball"]["5"]["difference"]["n"] == 2


def test_a_small_sure_difference_is_told_from_chance():
    """Clips differ a lot, worlds a little on every clip: only the paired interval sees that."""
    base = np.random.default_rng(0).normal(30, 5, 50)
    first, second = (measured(values, base > 0, base > 0) for values in (base, base + 0.5))
    gap = differences(first, second)["psnr"]["5"]["difference"]
    assert gap["low"] == pytest.approx(0.5)
    assert gap["high"] == pytest.approx(0.5)


def test_a_world_does_not_differ_from_itself():
    world = measured([20.0, 30, 40], [True, False, False], [True, True, False])
    gap = differences(world, world)["ball"]["5"]["difference"]
    assert (gap["low"], gap["value"], gap["high"]) == (0, 0, 0)
