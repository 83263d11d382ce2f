"""Two worlds side by side: hand-computed differences, and the command."""

from types import SimpleNamespace

import numpy as np
import pytest

from neuralsim.evaluation import compare as module
from neuralsim.evaluation.compare import CompareConfig, compare, differences
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


@pytest.fixture
def faked(monkeypatch):
    """Worlds, clips and turns without a game: what is asked of them is written down."""
    asked = []
    world = SimpleNamespace(
        dynamics=SimpleNamespace(context_length=4), config=SimpleNamespace(probes="pong"), check_steps=asked.append
    )
    right = {"0 before": np.array([True, True, False]), "1 after": np.array([True, True, True])}
    for name, fake in (
        ("World", SimpleNamespace(load=lambda source: world)),
        ("EpisodeStore", SimpleNamespace(open=lambda path: None)),
        ("check_held_out", lambda *_: None),
        ("open_loop", lambda world, store, probes, clips, horizons, k, **_: measured([k], [True], [True])),
        ("after_turns", lambda world, store, probes, count, k, *_, **__: {m: x[:count] for m, x in right.items()}),
    ):
        monkeypatch.setattr(module, name, fake)
    return asked


def test_both_worlds_sample_as_they_are_told(faked):
    table = compare(CompareConfig("a", "b", horizons=(5,), second_sampling_steps=64))
    assert faked == [4, 64]
    assert table["psnr"]["5"]["difference"]["value"] == 60
    faked.clear()
    compare(CompareConfig("a", "b", horizons=(5,), sampling_steps=2))
    assert faked == [2, 2]


def test_turns_are_told_where_there_are_some(faked, capsys):
    table = compare(CompareConfig("a", "b", horizons=(5,)))
    assert table["ball after 3 turns"]["0 before"]["first"] == pytest.approx(2 / 3)
    assert table["ball after 3 turns"]["1 after"]["difference"]["value"] == 0
    assert "ball after 3 turns" in capsys.readouterr().out
    assert not any("turns" in name for name in compare(CompareConfig("a", "b", horizons=(5,), turns=1)))
    assert not any("turns" in name for name in compare(CompareConfig("a", "b", horizons=(5,), turns=0)))
    with pytest.raises(ValueError, match="turns is -1"):
        compare(CompareConfig("a", "b", turns=-1))
