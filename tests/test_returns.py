"""Returns of dreams: hand-computed, and of a world that pays what was really paid."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import build_tiny_world
from gymnasium import spaces

from neuralsim.actions import space_to_json
from neuralsim.data.episodes import DatasetInfo, Episode, EpisodeStore
from neuralsim.evaluation.returns import compare_returns, return_error

REAL = np.array([[0.0, 1, 0, 0], [0, 0, -1, -1]])


def values(row):
    return {name: cell["value"] for name, cell in row.items()}


def test_by_hand():
    dreamed = np.array([[1.0, 0, 0, 1], [0, 0, 0, -1]])
    table = compare_returns(dreamed, REAL, (2, 4))
    assert values(table["2"]) == {"error": 0, "bias": 0, "constant": 0.5}
    assert values(table["4"]) == {"error": 1, "bias": 1, "constant": 1.5}


def test_a_world_that_pays_nothing_is_no_better_than_a_constant():
    balanced = np.array([[0.0, 1], [0, -1]])
    row = values(compare_returns(np.zeros((2, 2)), balanced, (2,))["2"])
    assert row["error"] == row["constant"] == 1


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Every action a pays a."""
    info = DatasetInfo("Pay-v0", space_to_json(spaces.Discrete(6)), (48, 64, 3), 10.0)
    store = EpisodeStore.create(tmp_path_factory.mktemp("returns") / "data", info)
    for seed in range(2):
        actions = np.random.default_rng(seed).integers(6, size=30)
        none = np.zeros(30, bool)
        store.add(Episode(np.zeros((31, 48, 64, 3), np.uint8), actions, actions.astype(np.float32), none, none))
    return store


def paying_world(ends_after=None):
    """A world that pays as that game does, and ends its dreams when told."""
    world = build_tiny_world()
    step = world.step

    def pay(state, actions, steps):
        state, said = step(state, actions, steps=steps)
        over = state.step >= ends_after if ends_after else torch.zeros(state.lanes, dtype=torch.bool)
        return state, dataclasses.replace(said, reward=torch.tensor(actions).float(), terminated=over)

    world.step = pay
    return world


def test_a_world_that_pays_the_same_has_no_error(store):
    row = values(return_error(paying_world(), store, 5, (4, 10), steps=1, batch=2)["10"])
    assert row["error"] == row["bias"] == 0
    assert row["constant"] > 0


def test_nothing_is_paid_after_the_end_of_a_dream(store):
    table = return_error(paying_world(ends_after=4), store, 5, (4, 10), steps=1)
    assert values(table["4"])["error"] == 0
    assert values(table["10"])["bias"] < -5
