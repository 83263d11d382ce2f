"""Events: hand-computed matches and calibration, and heads that see or are blind are called what they are."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import build_tiny_world
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from neuralsim.actions import space_to_json
from neuralsim.data.episodes import DatasetInfo, Episode, EpisodeStore
from neuralsim.evaluation.events import (
    Judged,
    calibration,
    judge_episode,
    matches,
    summarise,
    teacher_forced_events,
)
from neuralsim.world import World


def rewards(length=20, **at):
    values = np.zeros(length, np.float32)
    for step, value in at.items():
        values[int(step[1:])] = value
    return values


def test_an_event_told_late_counts_from_that_lag_on():
    real, said = rewards(_3=1, _10=-1), rewards(_4=1, _12=-1)
    assert [matches(said, real, lag) for lag in (0, 1, 2)] == [0, 1, 2]


def test_another_value_is_another_event():
    assert matches(rewards(_3=-1), rewards(_3=1), 2) == 0


def test_an_event_told_twice_counts_once():
    assert matches(rewards(_3=1, _4=1), rewards(_3=1), 2) == 1


def test_neighbouring_events_do_not_share_a_word():
    assert matches(rewards(_4=1), rewards(_3=1, _5=1), 1) == 1
    assert matches(rewards(_4=1, _6=1), rewards(_3=1, _5=1), 1) == 2


@given(st.lists(st.integers(-1, 1), min_size=1, max_size=12), st.lists(st.integers(-1, 1), min_size=12, max_size=12))
def test_lag_only_helps_and_nothing_matches_more_than_there_is(said, real):
    said, real = np.array(said, float), np.array(real[: len(said)], float)
    counts = [matches(said, real, lag) for lag in range(4)]
    assert counts == sorted(counts)
    assert counts[0] == int(((said == real) & (real != 0)).sum())
    assert counts[-1] <= min((said != 0).sum(), (real != 0).sum())


def test_calibration_by_hand():
    probability = np.array([0.05, 0.05, 0.9, 0.9])
    happened = np.array([False, False, True, False])
    result = calibration(probability, happened, bins=10)
    assert result["ece"] == pytest.approx(0.5 * 0.05 + 0.5 * 0.4)
    assert [row[2] for row in result["bins"]] == [2, 2]
    assert calibration(np.array([1.0]), np.array([True]))["ece"] == 0
    assert math.isnan(calibration(np.array([]), np.array([], bool))["ece"])


def judged(said, real, end_probability=None):
    never = np.zeros(len(real))
    return Judged(
        real, said, (said != 0) * 0.9, never.astype(bool), never if end_probability is None else end_probability
    )


def test_precision_and_recall_by_hand():
    real = rewards(_3=1, _10=-1, _15=1, _19=1)
    result = summarise([judged(rewards(_3=1, _10=1, _16=1), real)])["reward"]
    assert (result["said"], result["real"]) == (3, 4)
    assert result["precision"] == pytest.approx(1 / 3)
    assert result["recall"] == pytest.approx(1 / 4)
    assert result["f1"] == pytest.approx(2 / 7)
    assert result["lags"]["1"]["recall"] == pytest.approx(2 / 4)


def test_blindness_to_rewards_shows():
    real = rewards(_3=1, _10=-1)
    result = summarise([judged(np.zeros(20), real)])["reward"]
    assert result["recall"] == result["f1"] == 0
    assert math.isnan(result["precision"])
    assert result["calibration"]["ece"] == pytest.approx(0.1)  # 2 of 20 came, none was expected


def test_ends_that_never_come_are_no_figure():
    end = summarise([judged(np.zeros(5), np.zeros(5, np.float32))])["end"]
    assert math.isnan(end["recall"])
    assert (end["said"], end["real"]) == (0, 0)


def test_a_word_of_nothing_matches_no_small_reward():
    assert matches(np.zeros(4), np.array([0, 0.0005, 0, 0]), 0) == 0


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Action a pays a - 2 and the frame after it has that brightness."""
    info = DatasetInfo("Pay-v0", space_to_json(spaces.Discrete(6)), (48, 64, 3), 10.0)
    store = EpisodeStore.create(tmp_path_factory.mktemp("events") / "data", info)
    actions = np.random.default_rng(0).integers(6, size=40)
    ends = np.arange(40) == 39
    store.add(
        Episode(np.zeros((41, 48, 64, 3), np.uint8), actions, actions.astype(np.float32) - 2, ends, ~ends & False)
    )
    return store


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("blind", [False, True])
def test_heads_are_judged_by_what_they_say(store, dtype, blind):
    tiny = build_tiny_world()
    parts = (tiny.tokenizer, tiny.dynamics, tiny.heads)
    config = dataclasses.replace(tiny.config, reward_values=[-2.0, -1.0, 0.0, 1.0, 2.0, 3.0], reward_range=(-2.0, 3.0))
    world = World(config, *parts, tiny.starts, "cpu", dtype)
    judge = world.heads.forward

    def see(before, latent, action):
        out = judge(before, latent, action)  # sizes and types must fit
        value = action.argmax(-1).float() - 2
        logits = 30 * world.heads.two_hot.encode(value)
        return out._replace(
            reward=value * (not blind), reward_logits=logits, continue_logit=torch.full_like(value, 5.0)
        )

    world.heads.forward = see
    figures = teacher_forced_events(world, store)
    assert figures["reward"]["recall"] == (0 if blind else 1)
    assert figures["reward"]["calibration"]["ece"] < 1e-3
    assert figures["end"]["recall"] == 0
    assert figures["end"]["real"] == 1


def test_rewards_too_small_for_the_bins_have_no_calibration(store):
    judged = judge_episode(build_tiny_world(), store, 0, least=0.05)
    assert np.isnan(judged.reward_probability).all()
    assert math.isnan(summarise([judged])["reward"]["calibration"]["ece"])
