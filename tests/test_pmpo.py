"""PMPO: only the sign of an advantage counts, each set by its own number."""

import math

import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from neuralsim.actions import ActionCodec
from neuralsim.agents.action_distribution import ActionDistribution
from neuralsim.agents.pmpo import pmpo_loss

CHOICE = ActionDistribution(ActionCodec(spaces.Discrete(3)))


def slope(advantage, actions, logits=None, beta=0.0, weight=None, alpha=0.5, prior=None):
    """Gradient of the loss with respect to logits ``(N, 3)``, and the loss."""
    logits = (torch.zeros(len(actions), 3) if logits is None else logits.clone()).requires_grad_(True)
    log_prob = CHOICE.log_prob(logits, torch.eye(3)[torch.as_tensor(actions)])
    kl = CHOICE.kl(logits, torch.zeros_like(logits) if prior is None else prior)
    loss, _ = pmpo_loss(log_prob, torch.as_tensor(advantage), kl, alpha, beta, weight)
    return torch.autograd.grad(loss, logits)[0], loss.detach()


def test_what_turned_out_better_becomes_likelier():
    gradient, _ = slope([2.0], [1])
    assert float(gradient[0, 1]) < 0  # descent raises the logit of the action taken
    assert float(gradient[0, 0]) > 0


def test_what_turned_out_worse_becomes_less_likely():
    gradient, _ = slope([-2.0], [1])
    assert float(gradient[0, 1]) > 0
    assert float(gradient[0, 0]) < 0


def test_an_advantage_of_zero_counts_as_better():
    assert torch.equal(slope([0.0], [1])[0], slope([2.0], [1])[0])


def test_the_loss_by_hand():
    log_prob, kl = torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([0.3, 0.6, 0.9])
    loss, counts = pmpo_loss(log_prob, torch.tensor([5.0, -1.0, 0.1]), kl, alpha=0.25, beta=0.5)
    # .75 / 1 * (-2) - .25 / 2 * (-1 - 4) + .5 / 3 * 1.8
    assert float(loss) == pytest.approx(-1.5 + 0.625 + 0.3)
    assert {name: float(count) for name, count in counts.items()} == {"positive": 2, "negative": 1}


@given(st.floats(1e-3, 1e3), st.integers(0, 1000))
def test_the_size_of_advantages_changes_nothing(scale, seed):
    rng = torch.Generator().manual_seed(seed)
    advantage, actions = torch.randn(8, generator=rng), torch.randint(3, (8,), generator=rng)
    logits = torch.randn(8, 3, generator=rng)
    before, after = (slope(a, actions, logits, beta=0.3) for a in (advantage, scale * advantage))
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])


def test_a_set_counts_the_same_however_often_it_is_there():
    # As a sum over both sets, many bad actions would drown the few good ones.
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    advantage, actions = torch.tensor([1.0, 2.0, -1.0, -2.0, -3.0]), torch.tensor([0, 1, 2, 0, 1])
    once, loss = slope(advantage, actions, logits)
    index = torch.tensor([0, 1, 2, 3, 4, 2, 3, 4, 2, 3, 4])  # D- three times
    often, same = slope(advantage[index], actions[index], logits[index])
    summed = torch.zeros(5, 3).index_add(0, index, often)
    assert torch.allclose(summed, once, atol=1e-6)
    assert float(same) == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize("advantage", [[1.0, 2.0], [-1.0, -2.0]])
def test_an_empty_set_is_safe(advantage):
    gradient, loss = slope(advantage, [0, 1], beta=0.3)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
    sign = -1 if advantage[0] > 0 else 1
    assert math.copysign(1, float(gradient[0, 0])) == sign


def test_nothing_that_counts_is_safe():
    gradient, loss = slope([1.0, -2.0], [0, 1], beta=0.3, weight=torch.zeros(2))
    assert float(loss) == 0
    assert bool((gradient == 0).all())


def test_steps_without_weight_count_nothing():
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 3, generator=rng)
    advantage, actions = torch.tensor([1.0, -1.0, 2.0, 3.0, -2.0, 1.0]), torch.tensor([0, 1, 2, 0, 1, 2])
    kept = torch.tensor([0, 1, 2])
    weight = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    prior = torch.randn(6, 3, generator=rng)
    whole, loss = slope(advantage, actions, logits, 0.3, weight, prior=prior)
    part, same = slope(advantage[kept], actions[kept], logits[kept], 0.3, prior=prior[kept])
    assert torch.allclose(whole[:3], part, atol=1e-7)
    assert bool((whole[3:] == 0).all())
    assert float(loss) == pytest.approx(float(same), rel=1e-5)
    log_prob, kl = torch.full((6,), -1.0), torch.zeros(6)
    counts = pmpo_loss(log_prob, advantage, kl, weight=weight)[1]
    assert {name: float(count) for name, count in counts.items()} == {"positive": 2, "negative": 1}


def test_the_prior_pulls_the_policy_to_itself():
    prior = torch.tensor([[2.0, 0.0, -1.0]])
    logits = torch.tensor([[-1.0, 0.5, 1.0]])
    before = float(CHOICE.kl(logits, prior))
    for _ in range(300):
        # alpha 0 and no bad action: only the prior is left.
        gradient, _ = slope([1.0], [1], logits, beta=1.0, alpha=0.0, prior=prior)
        logits = logits - gradient
    assert before > 0.5
    assert float(CHOICE.kl(logits, prior)) < 1e-3
    assert torch.allclose(logits.softmax(-1), prior.softmax(-1), atol=0.02)


def test_beta_bounds_how_far_a_good_action_is_followed():
    def settled(beta):
        logits = torch.zeros(1, 3)
        for _ in range(300):
            logits = logits - slope([1.0], [0], logits, beta=beta)[0]
        return float(logits.softmax(-1)[0, 0])

    # Where -.5 ln p + beta KL is least: near p = .43 for beta 3, near .80 for .3.
    assert settled(3.0) == pytest.approx(best_share(3.0), abs=2e-3)
    assert settled(0.3) == pytest.approx(best_share(0.3), abs=2e-3)
    assert 1 / 3 < settled(3.0) < settled(0.3) < 1


def best_share(beta):
    share = torch.linspace(0.001, 0.999, 9981, dtype=torch.float64)
    kl = share * (3 * share).log() + (1 - share) * (1.5 * (1 - share)).log()
    return float(share[(beta * kl - 0.5 * share.log()).argmin()])
