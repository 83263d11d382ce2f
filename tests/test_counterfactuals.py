"""Order of possible futures: hand-computed, and in a game that can be set back."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import build_tiny_world

from neuralsim.envs.real import make_real
from neuralsim.evaluation.counterfactuals import Futures, can_branch, compare_futures, counterfactuals
from neuralsim.evaluation.probes import Probes, Thing

DOT = Probes("test_evaluation", (Thing("dot", "there", ("x",), 1.0),))


def futures(returns, places):
    return Futures(np.array(returns, float)[..., None], {"dot": np.array(places, float)[..., None]})


def test_by_hand():
    real = futures([[0, 1, 2], [0, 0, -1]], [[0, 5, 5.5], [1, 2, 9]])
    dreamed = futures([[0, 2, 1], [0, 0, 0]], [[0, 3, 9], [np.nan, 2, 9]])
    figures = compare_futures(dreamed, real, DOT)
    outcome = figures["return"]
    # Pairs that differ: 3 and 2. The dream has 2 right and 1 wrong, then two ties, half right each.
    assert (outcome["pairs"], outcome["order"]["value"]) == (5, pytest.approx(3 / 5))
    # It takes the second where the third is best, and among equals all three.
    assert outcome["regret"]["value"] == pytest.approx((1 + 1 / 3) / 2)
    assert outcome["regret_random"]["value"] == pytest.approx((1 + 1 / 3) / 2)
    # 0-5 and 0-5.5 differ by more than 1, and 1-9 and 2-9; what the dream has lost is half right.
    assert (figures["things"]["x"]["pairs"], figures["things"]["x"]["order"]["value"]) == (4, pytest.approx(3.5 / 4))


def paying(reward, ends_after=None):
    world = build_tiny_world(env_id="paying_game:Paying-v0", preprocessing={"size": (48, 64)})
    step = world.step

    def pay(state, actions, steps=None):
        state, said = step(state, actions, steps=steps)
        over = state.step >= ends_after if ends_after else torch.zeros(state.lanes, dtype=torch.bool)
        return state, dataclasses.replace(said, reward=reward(torch.as_tensor(actions).float()), terminated=over)

    world.step = pay
    return world


def test_a_dream_that_pays_rightly_orders_rightly():
    ticks = []
    figures = counterfactuals(
        paying(lambda a: a), "random", None, 3, 4, 10, sampling_steps=1, progress=lambda: ticks.append(1)
    )
    assert (figures["moments"], figures["branches"], figures["horizon"], len(ticks)) == (3, 4, 10, 3)
    assert figures["return"]["pairs"] > 5
    assert figures["return"]["order"]["value"] == 1
    assert figures["return"]["regret"]["value"] == 0
    assert figures["return"]["regret_random"]["value"] > 0
    assert figures["things"] == {}


def test_dreams_that_pay_nothing_or_the_opposite_are_called_so():
    blind = counterfactuals(paying(torch.zeros_like), "random", None, 3, 4, 10, sampling_steps=1)["return"]
    assert blind["order"]["value"] == 0.5
    assert blind["regret"]["value"] == pytest.approx(blind["regret_random"]["value"])
    liar = counterfactuals(paying(lambda a: -a), "random", None, 3, 4, 10, sampling_steps=1)["return"]
    assert liar["order"]["value"] == 0
    assert liar["regret"]["value"] > liar["regret_random"]["value"]


def test_a_dream_that_has_ended_pays_no_more():
    world = paying(lambda a: a + 1, ends_after=4)
    short = counterfactuals(world, "noop", None, 2, 3, 12, sampling_steps=1)["return"]
    whole = counterfactuals(paying(lambda a: a + 1), "noop", None, 2, 3, 12, sampling_steps=1)["return"]
    assert whole["order"]["value"] == 1
    assert short["order"]["value"] < 1


def test_what_cannot_be_set_back_is_refused():
    assert can_branch(make_real("paying_game:Paying-v0"))
    short = build_tiny_world(env_id="paying_game:Paying-v0", env_kwargs={"length": 1}, preprocessing={"size": (48, 64)})
    with pytest.raises(ValueError, match=r"noop plays no episode of 4 frames"):
        counterfactuals(short, "noop", None, 2, 2, 5, sampling_steps=1)
    assert not can_branch(make_real("tiny_game:Tiny-v0"))
    with pytest.raises(ValueError, match=r"Tiny-v0 cannot be set back"):
        counterfactuals(build_tiny_world(env_id="tiny_game:Tiny-v0"), "random", None, 2, 2, 5, sampling_steps=1)


def test_the_emulator_of_pong_can_be_set_back():
    pytest.importorskip("ale_py")
    env = make_real("ALE/Pong-v5", {"repeat_action_probability": 0.0})
    assert can_branch(env)
    env.reset(seed=0)
    for _ in range(60):
        env.step(2)
    saved = env.unwrapped.clone_state(include_rng=True)
    first = [env.step(action)[0] for action in (2, 3, 3, 2, 2)]
    env.unwrapped.restore_state(saved)
    second = [env.step(action)[0] for action in (2, 3, 3, 2, 2)]
    assert np.array_equal(first, second)
    env.unwrapped.restore_state(saved)
    assert not np.array_equal(first, [env.step(action)[0] for action in (3, 3, 3, 3, 3)])
