"""Distributions over actions of every space: checked against sums over all actions, not against themselves."""

import itertools
import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from neuralsim.actions import ActionCodec
from neuralsim.agents.action_distribution import BINS, ActionDistribution, mu_law_centers

SPACES = {
    "discrete": spaces.Discrete(4),
    "shifted": spaces.Discrete(3, start=-1),
    "multi": spaces.MultiDiscrete([2, 3]),
    "binary": spaces.MultiBinary(3),
    "box": spaces.Box(np.float32([-5, 0]), np.float32([5, 1])),
    "whole": spaces.Box(0, 10, (2,), np.int32),
    "dict": spaces.Dict(
        {"jump": spaces.Discrete(2), "camera": spaces.Box(-5.0, 5.0, (1,), np.float32), "keys": spaces.MultiBinary(2)}
    ),
}
COUNT = {"discrete": 4, "shifted": 3, "multi": 6, "binary": 8, "box": BINS**2, "whole": BINS**2, "dict": 2 * BINS * 4}


def make(name):
    codec = ActionCodec(SPACES[name])
    return codec, ActionDistribution(codec)


def all_actions(codec):
    """Every encoded action of a space, one per bin of a continuous number."""
    columns = []
    for _, size, kind in codec.blocks():
        if kind == "choice":
            columns.append(torch.eye(size).unbind())
        else:
            values = torch.tensor([0.0, 1.0]) if kind == "binary" else mu_law_centers()
            columns += [values[:, None].unbind()] * size
    return torch.stack([torch.cat(parts) for parts in itertools.product(*columns)])


def draw_logits(distribution, rows, seed=0):
    return 2 * torch.randn(rows, distribution.parameters, generator=torch.Generator().manual_seed(seed))


def of_chances(*chances):
    return torch.tensor([chances]).log()


@pytest.mark.parametrize("name", SPACES)
def test_samples_and_modes_lie_in_the_space(name):
    codec, distribution = make(name)
    logits = draw_logits(distribution, 200)
    for encoded in (distribution.sample(logits, torch.Generator().manual_seed(0)), distribution.mode(logits)):
        assert encoded.shape == (200, codec.size)
        actions = codec.decode(encoded.numpy())
        for i in range(200):
            one = {key: value[i] for key, value in actions.items()} if isinstance(actions, dict) else actions[i]
            assert SPACES[name].contains(one), one


@pytest.mark.parametrize("name", SPACES)
def test_probabilities_of_all_actions_sum_to_one(name):
    codec, distribution = make(name)
    actions = all_actions(codec)
    assert len(actions) == COUNT[name]
    for row in draw_logits(distribution, 3):
        logs = distribution.log_prob(row.expand(len(actions), -1), actions)
        assert float(logs.exp().sum()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", SPACES)
def test_entropy_and_divergence_are_the_sums_over_all_actions(name):
    codec, distribution = make(name)
    actions = all_actions(codec)
    p, q = draw_logits(distribution, 2)
    log_p, log_q = (distribution.log_prob(row.expand(len(actions), -1), actions) for row in (p, q))
    assert float(distribution.entropy(p[None])) == pytest.approx(float(-(log_p.exp() * log_p).sum()), rel=1e-4)
    assert float(distribution.kl(p[None], q[None])) == pytest.approx(
        float((log_p.exp() * (log_p - log_q)).sum()), rel=1e-3
    )


@pytest.mark.parametrize("name", SPACES)
def test_the_mode_is_the_likeliest_of_all_actions(name):
    codec, distribution = make(name)
    actions = all_actions(codec)
    logits = draw_logits(distribution, 5)
    for row, mode in zip(logits, distribution.mode(logits), strict=True):
        best = actions[distribution.log_prob(row.expand(len(actions), -1), actions).argmax()]
        assert torch.equal(mode, best)


@pytest.mark.parametrize("name", ["discrete", "binary", "dict"])
def test_actions_are_drawn_as_often_as_they_are_likely(name):
    codec, distribution = make(name)
    row, count = draw_logits(distribution, 1)[0], 20_000
    drawn = distribution.sample(row.expand(count, -1), torch.Generator().manual_seed(1))
    actions = all_actions(codec)
    likely = distribution.log_prob(row.expand(len(actions), -1), actions).exp()
    often = (drawn[:, None] == actions).all(-1).float().mean(0)
    assert float(often.sum()) == pytest.approx(1)  # nothing else is drawn
    assert float((often - likely).abs().max()) < 0.015  # four standard deviations


def test_the_divergence_of_a_coin_is_the_one_of_the_book():
    # KL[(.9, .1) || (.5, .5)] = .9 ln 1.8 + .1 ln .2; the other way round it is 0.511.
    expected = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    assert expected == pytest.approx(0.368, abs=1e-3)
    coin = ActionDistribution(ActionCodec(spaces.Discrete(2)))
    bent, fair = of_chances(0.9, 0.1), of_chances(0.5, 0.5)
    assert float(coin.kl(bent, fair)) == pytest.approx(expected, rel=1e-5)
    assert float(coin.kl(fair, bent)) == pytest.approx(0.5108, abs=1e-3)
    button = ActionDistribution(ActionCodec(spaces.MultiBinary(1)))
    assert float(button.kl(torch.tensor([[math.log(9)]]), torch.zeros(1, 1))) == pytest.approx(expected, rel=1e-5)


@given(st.sampled_from(sorted(SPACES)), st.integers(0, 2**31), st.floats(0, 30))
def test_divergences_are_never_negative_and_zero_from_itself(name, seed, scale):
    _, distribution = make(name)
    p, q = scale * draw_logits(distribution, 1, seed), scale * draw_logits(distribution, 1, seed + 1)
    assert float(distribution.kl(p, p)) == 0
    assert float(distribution.kl(p, q)) >= -1e-4
    assert torch.isfinite(distribution.kl(p, q)).all()
    assert torch.isfinite(distribution.entropy(p)).all()


@pytest.mark.parametrize("name", SPACES)
def test_equal_logits_are_the_uniform_distribution(name):
    _, distribution = make(name)
    flat = torch.full((1, distribution.parameters), 0.0)
    assert float(distribution.entropy(flat)) == pytest.approx(math.log(COUNT[name]), rel=1e-5)


@pytest.mark.parametrize("name", SPACES)
def test_the_same_generator_draws_the_same(name):
    _, distribution = make(name)
    logits = draw_logits(distribution, 50)
    draw = lambda seed: distribution.sample(logits, torch.Generator().manual_seed(seed))  # noqa: E731
    torch.manual_seed(5)
    first = draw(3)
    assert torch.equal(first, draw(3))  # and torch's own stream, which has not moved, plays no part
    assert not torch.equal(first, draw(4))


@pytest.mark.parametrize("name", SPACES)
def test_more_leading_dimensions_mean_the_same(name):
    # Cloning scores (B, L, P) at once, imagination (B, P).
    codec, distribution = make(name)
    logits = draw_logits(distribution, 6)
    actions = distribution.sample(logits, torch.Generator().manual_seed(0))
    folded = logits.unflatten(0, (2, 3))
    for flat, deep in (
        (distribution.log_prob(logits, actions), distribution.log_prob(folded, actions.unflatten(0, (2, 3)))),
        (distribution.entropy(logits), distribution.entropy(folded)),
        (distribution.kl(logits, logits.flip(0)), distribution.kl(folded, logits.flip(0).unflatten(0, (2, 3)))),
        (distribution.mode(logits), distribution.mode(folded)),
    ):
        assert torch.allclose(flat, deep.flatten(0, 1), atol=1e-6)
    assert distribution.sample(folded).shape == (2, 3, codec.size)


@given(st.floats(-1, 1), st.integers(0, 2**31))
def test_a_recorded_continuous_action_scores_in_its_own_bin(value, seed):
    distribution = ActionDistribution(ActionCodec(spaces.Box(-1.0, 1.0, (2,))))
    logits = draw_logits(distribution, 1, seed)
    centers = mu_law_centers()
    mine = int((centers - value).abs().argmin())
    other = 3
    action = torch.tensor([[value, float(centers[other])]])
    logs = logits[0].unflatten(0, (2, BINS)).log_softmax(-1)
    expected = float(logs[0, mine] + logs[1, other])
    assert float(distribution.log_prob(logits, action)) == pytest.approx(expected, abs=1e-5)


def test_bins_are_symmetric_finer_near_zero_and_reach_the_bounds():
    centers = mu_law_centers()
    assert len(centers) == BINS
    assert torch.allclose(centers, -centers.flip(0), atol=1e-7)
    assert float(centers[BINS // 2]) == 0  # doing nothing is an action
    assert float(centers[-1]) == pytest.approx(1, abs=1e-6)
    gaps = centers.diff()[BINS // 2 :]
    assert bool((gaps > 0).all())
    assert bool((gaps.diff() > 0).all())
    # (11^0.2 - 1) / 10, by hand
    assert float(centers[BINS // 2 + 1]) == pytest.approx(0.06154, abs=1e-5)


@pytest.mark.parametrize("name", SPACES)
def test_likelier_actions_are_learned(name):
    """The gradient of ln pi reaches the logits of every part."""
    _, distribution = make(name)
    logits = torch.zeros(1, distribution.parameters, requires_grad=True)
    action = distribution.sample(draw_logits(distribution, 1), torch.Generator().manual_seed(0))
    before = distribution.log_prob(logits, action)
    (slope,) = torch.autograd.grad(before.sum(), logits)
    assert bool((slope != 0).all())
    assert float(distribution.log_prob(logits.detach() + 0.1 * slope, action)) > float(before.detach())
