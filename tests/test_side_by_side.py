"""Parts of an evaluation in processes of their own: what they say, what they raise, and that none is left over."""

import multiprocessing
import os
from collections import Counter
from dataclasses import dataclass

import pytest

from neuralsim.evaluation.side_by_side import side_by_side


@dataclass
class Config:
    workers: int = 2
    world: str = "world"
    data: str = "data"
    told: str = "same"


@dataclass
class FakePlan:
    config: Config

    @classmethod
    def of(cls, config):
        return cls(config)

    def fingerprint(self, part):
        return part if self.config.told == "same" or multiprocessing.parent_process() is None else "another plan"


def count(plan, tick):
    for _ in range(3):
        tick()
    return {"counted": 3}


def fail(plan, tick):
    raise ValueError("this part cannot be measured")


def die(plan, tick):
    os._exit(3)


def measure(kept, told="same", **measures):
    """Measures; what was done before an error is left in ``kept``."""
    ticks = []
    try:
        for part, figures in side_by_side(FakePlan(Config(told=told)), measures, lambda *tick: ticks.append(tick)):
            kept[part] = figures
    finally:
        assert not multiprocessing.active_children()
    return ticks


def test_every_part_is_measured_and_tells_of_its_steps():
    kept = {}
    ticks = measure(kept, first=count, second=count, third=count)
    assert kept == {name: {"counted": 3} for name in ("first", "second", "third")}
    assert Counter(ticks) == {(part, step): times for part in kept for step, times in ((0, 1), (1, 3))}


def test_an_error_of_a_part_is_raised_and_leaves_no_process():
    kept = {}
    with pytest.raises(ValueError, match="this part cannot be measured"):
        measure(kept, first=fail, second=count)
    assert set(kept) <= {"second"}


def test_a_process_that_dies_is_told():
    with pytest.raises(ChildProcessError, match="fewer --workers"):
        measure({}, first=die, second=die)


def test_a_world_that_has_changed_is_not_measured_on():
    with pytest.raises(ValueError, match="has changed since the evaluation began"):
        measure({}, told="otherwise", first=count, second=count)
