"""Lambda-returns against sums written out by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralsim.agents.lambda_returns import lambda_returns

REWARDS = torch.tensor([[1.0, 0.0, 2.0]])
VALUES = torch.tensor([[5.0, 3.0, 4.0, 6.0]])
ON = torch.ones(1, 3)


def test_a_case_by_hand():
    # R_2 = 2 + .9 (.5 * 6 + .5 * 6)    = 7.4
    # R_1 = 0 + .9 (.5 * 4 + .5 * 7.4)  = 5.13
    # R_0 = 1 + .9 (.5 * 3 + .5 * 5.13) = 4.6585
    returns = lambda_returns(REWARDS, ON, VALUES, gamma=0.9, lam=0.5)
    assert returns[0].tolist() == pytest.approx([4.6585, 5.13, 7.4], rel=1e-6)


def test_lambda_zero_trusts_the_next_value_alone():
    returns = lambda_returns(REWARDS, ON, VALUES, gamma=0.9, lam=0.0)
    assert returns[0].tolist() == pytest.approx([1 + 0.9 * 3, 0.9 * 4, 2 + 0.9 * 6])


def test_lambda_one_trusts_the_rewards_and_the_last_value():
    returns = lambda_returns(REWARDS, ON, VALUES, gamma=0.9, lam=1.0)
    assert returns[0].tolist() == pytest.approx([1 + 0.81 * 2 + 0.729 * 6, 0.9 * 2 + 0.81 * 6, 2 + 0.9 * 6])


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_an_end_cuts_all_that_comes_after(lam):
    cut = torch.tensor([[1.0, 0.0, 1.0]])
    returns = lambda_returns(REWARDS, cut, VALUES, 0.9, lam)
    assert float(returns[0, 1]) == 0  # the reward of the step that ends, and nothing else
    wild = lambda_returns(torch.tensor([[1.0, 0.0, 99.0]]), cut, torch.tensor([[5.0, 3.0, 88.0, 77.0]]), 0.9, lam)
    assert torch.equal(returns[:, :2], wild[:, :2])


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_the_bootstrap_is_the_value_of_the_last_state(lam):
    values = VALUES.clone()
    values[0, 3] += 10  # of state H
    change = lambda_returns(REWARDS, ON, values, 0.9, lam) - lambda_returns(REWARDS, ON, VALUES, 0.9, lam)
    assert float(change[0, 2]) == pytest.approx(9, rel=1e-5)
    assert change[0].tolist() == pytest.approx([9 * (0.9 * lam) ** 2, 9 * 0.9 * lam, 9], rel=1e-5)


def test_the_value_of_the_first_state_plays_no_part():
    values = VALUES.clone()
    values[0, 0] = 1e6
    assert torch.equal(lambda_returns(REWARDS, ON, values, 0.9, 0.5), lambda_returns(REWARDS, ON, VALUES, 0.9, 0.5))


@given(st.integers(1, 6), st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 1))
def test_it_is_the_weighted_mean_of_all_n_step_returns(horizon, seed, gamma, lam):
    """The other definition: (1 - lambda) sum_n lambda^(n-1) G_n, the last one with all the weight that is left."""
    rng = torch.Generator().manual_seed(seed)
    rewards = torch.randn(2, horizon, generator=rng, dtype=torch.float64)
    values = torch.randn(2, horizon + 1, generator=rng, dtype=torch.float64)
    on = (torch.rand(2, horizon, generator=rng) < 0.8).double()
    returns = lambda_returns(rewards, on, values, gamma, lam)
    for row in range(2):
        for t in range(horizon):
            total, paid, alive = 0.0, 0.0, 1.0
            for n in range(1, horizon - t + 1):
                paid += gamma ** (n - 1) * alive * float(rewards[row, t + n - 1])
                alive *= float(on[row, t + n - 1])
                n_step = paid + gamma**n * alive * float(values[row, t + n])
                last = n == horizon - t
                total += (lam ** (n - 1) if last else (1 - lam) * lam ** (n - 1)) * n_step
            assert float(returns[row, t]) == pytest.approx(total, abs=1e-9)


def test_rows_do_not_mix():
    one = lambda_returns(REWARDS, ON, VALUES, 0.9, 0.5)
    both = lambda_returns(torch.cat([REWARDS, -REWARDS]), ON.repeat(2, 1), torch.cat([VALUES, -VALUES]), 0.9, 0.5)
    assert torch.equal(both[:1], one)
    assert torch.equal(both[1:], -one)


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 3), (2, 3), (2, 3)),  # the value of state H is missing
        ((2, 3), (2, 4), (2, 4)),
        ((2, 3), (2, 3), (1, 4)),
        ((2, 3), (2, 3), (2, 5)),
        ((3,), (3,), (4,)),  # one future without its row
    ],
)
def test_shapes_that_do_not_belong_together_are_refused(shapes):
    with pytest.raises(ValueError, match=r"H \+ 1"):
        lambda_returns(*(torch.zeros(shape) for shape in shapes), 0.9, 0.5)
