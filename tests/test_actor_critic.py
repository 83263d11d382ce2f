"""Actor-critic: REINFORCE's gradient, the clip, and the running spread of returns."""

import pytest
import torch
from gymnasium import spaces

from neuralsim.actions import ActionCodec
from neuralsim.agents.action_distribution import ActionDistribution
from neuralsim.agents.actor_critic import ReturnRange, actor_critic_loss

CHOICE = ActionDistribution(ActionCodec(spaces.Discrete(4)))


def test_where_the_policy_is_still_the_same_the_gradient_is_that_of_reinforce():
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(10, 4, generator=rng, requires_grad=True)
    actions = CHOICE.sample(logits.detach(), rng)
    advantage = 3 * torch.randn(10, generator=rng)
    log_prob, entropy = CHOICE.log_prob(logits, actions), CHOICE.entropy(logits)
    loss = actor_critic_loss(log_prob, log_prob.detach(), advantage, entropy, entropy_weight=0.1)
    (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (expected,) = torch.autograd.grad(-(advantage * log_prob + 0.1 * entropy).mean(), logits)
    assert torch.allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "flows"),
    [
        (1.5, 1.0, False),  # already likelier, and good: enough
        (1.5, -1.0, True),  # already likelier, but bad: back
        (0.5, -1.0, False),  # already less likely, and bad: enough
        (0.5, 1.0, True),  # already less likely, but good: back
        (1.1, 1.0, True),
        (0.9, -1.0, True),
    ],
)
def test_the_clip_stops_the_gradient_on_the_favourable_side_only(ratio, advantage, flows):
    old = torch.tensor([-2.0])
    log_prob = (old + torch.tensor([ratio]).log()).requires_grad_(True)
    loss = actor_critic_loss(log_prob, old, torch.tensor([advantage]), torch.zeros(1), clip=0.2)
    (gradient,) = torch.autograd.grad(loss, log_prob)
    assert float(gradient) == pytest.approx(-advantage * ratio if flows else 0.0)


def test_nothing_flows_into_the_old_policy_or_the_advantage():
    log_prob, old, advantage = (torch.full((3,), -1.0, requires_grad=True) for _ in range(3))
    actor_critic_loss(log_prob, old, advantage, torch.zeros(3)).backward()
    assert old.grad is None
    assert advantage.grad is None
    assert bool((log_prob.grad != 0).all())


def test_entropy_is_worth_its_weight():
    logits = torch.tensor([[2.0, 0.0, 0.0, 0.0]], requires_grad=True)
    nothing = torch.zeros(1)
    loss = actor_critic_loss(nothing, nothing, nothing, CHOICE.entropy(logits), entropy_weight=0.5)
    assert float(loss.detach()) == pytest.approx(-0.5 * float(CHOICE.entropy(logits.detach())))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert float(gradient[0, 0]) > 0  # descent makes the likeliest less likely


def test_steps_without_weight_count_nothing():
    log_prob = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    old, advantage, entropy = torch.tensor([-1.1, -2.0, -9.0]), torch.tensor([1.0, -2.0, 50.0]), torch.ones(3)
    weight = torch.tensor([1.0, 1.0, 0.0])
    loss = actor_critic_loss(log_prob, old, advantage, entropy, weight=weight)
    same = actor_critic_loss(log_prob[:2], old[:2], advantage[:2], entropy[:2])
    assert float(loss.detach()) == pytest.approx(float(same.detach()))
    (gradient,) = torch.autograd.grad(loss, log_prob)
    assert float(gradient[2]) == 0
    assert float(actor_critic_loss(log_prob, old, advantage, entropy, weight=torch.zeros(3)).detach()) == 0


def test_the_first_look_is_believed_and_later_ones_are_averaged():
    scale = ReturnRange(decay=0.6)
    # 0 to 100 in steps of 1: the 5th percentile is 5, the 95th is 95.
    returns = torch.arange(101.0)
    assert float(scale(returns)) == pytest.approx(90)
    assert float(scale(2 * returns)) == pytest.approx((90 + 180) / 2)  # a plain mean at first
    assert float(scale(0 * returns)) == pytest.approx(0.6 * 135)  # 1/3 is less than 1 - decay
    assert float(scale(returns)) == pytest.approx(0.6 * 0.6 * 135 + 0.4 * 90)


def test_outliers_do_not_count():
    calm, wild = torch.arange(101.0), torch.arange(101.0)
    wild[100] = 1e6
    assert float(ReturnRange()(wild)) == float(ReturnRange()(calm))


def test_a_small_spread_counts_as_the_least():
    # Dividing by it would blow up the noise of a game that hardly ever pays.
    scale = ReturnRange(least=2.0)
    assert float(scale(torch.zeros(10, 5))) == 2
    assert float(scale(0.1 * torch.arange(101.0).reshape(101, 1))) >= 2
    assert float(ReturnRange().eval()(torch.zeros(3))) == 1  # before the first look


def test_in_evaluation_the_spread_stays():
    scale = ReturnRange()
    scale(torch.arange(101.0))
    scale.eval()
    assert float(scale(1000 * torch.arange(101.0))) == pytest.approx(90)
    assert int(scale.count) == 1


def test_the_spread_is_saved_with_the_weights():
    first, second = ReturnRange(decay=0.5), ReturnRange(decay=0.5)
    for factor in (1, 4, 2):
        first(factor * torch.arange(101.0))
    second.load_state_dict(first.state_dict())
    assert float(second.eval()(torch.zeros(2))) == float(first.eval()(torch.zeros(2)))
    # and goes on alike: the count is part of it
    assert float(second.train()(torch.arange(101.0))) == float(first.train()(torch.arange(101.0)))


def test_no_gradient_flows_into_the_scale():
    returns = torch.arange(101.0, requires_grad=True)
    assert not ReturnRange()(returns).requires_grad
