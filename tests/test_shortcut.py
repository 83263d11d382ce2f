"""Shortcut forcing: each test pins a bug that open implementations have shipped (numbers: world_model checks)."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralsim.dynamics.shortcut import Schedule, bootstrap_target, half_step, mix, sample, shortcut_loss

SCHEDULE = Schedule(64)


def every_tau_and_d(k_max: int):
    for size in range(int(math.log2(k_max))):
        for i in range(2**size):
            yield i / 2**size, 2.0**-size


def test_division_free_target_equals_velocity_form():  # check 1
    torch.manual_seed(0)
    z, f1, f2 = torch.randn(3, 5, dtype=torch.float64).unbind(0)
    for tau, d in every_tau_and_d(64):
        t, s = torch.tensor(tau, dtype=torch.float64), torch.tensor(d, dtype=torch.float64)
        v1 = (f1 - z) / (1 - tau)
        moved = z + v1 * d / 2
        v2 = (f2 - moved) / (1 - tau - d / 2)
        velocity = z + (1 - tau) * (v1 + v2) / 2
        torch.testing.assert_close(half_step(z, f1, t, s), moved)
        torch.testing.assert_close(bootstrap_target(f1, f2, t, s), velocity)


def test_target_weights_sum_to_one_and_last_step_is_second_prediction():  # check 1
    one = torch.ones(4, dtype=torch.float64)
    for tau, d in every_tau_and_d(64):
        t, s = torch.tensor(tau, dtype=torch.float64), torch.tensor(d, dtype=torch.float64)
        torch.testing.assert_close(bootstrap_target(one, one, t, s), one)
        if tau == 1 - d:
            torch.testing.assert_close(bootstrap_target(7 * one, 3 * one, t, s), 3 * one)


@pytest.mark.parametrize("bootstrap", [False, True])
def test_oracle_has_zero_loss(bootstrap):  # check 2
    torch.manual_seed(0)
    clean = torch.randn(32, 4, 4, 2)
    level, size = SCHEDULE.draw(torch.full((32,), bootstrap))
    terms = shortcut_loss(lambda z, m, i: clean, clean, torch.randn_like(clean), level, size, SCHEDULE)
    assert float(terms.flow) == 0
    assert float(terms.bootstrap) < 1e-12


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 64])
def test_oracle_is_sampled_exactly(steps):  # checks 2 and 3
    clean = torch.randn(3, 4, 4, 2)
    result, first = sample(lambda z, m, i: clean, torch.randn_like(clean), steps, SCHEDULE)
    torch.testing.assert_close(result, clean, atol=1e-6, rtol=0)
    assert torch.equal(first, clean)


@pytest.mark.parametrize("steps", [1, 2, 4, 64])
def test_sampler_asks_only_for_trained_levels_and_sizes(steps):  # checks 3 and 4
    asked = []

    def predict(z, level, size):
        asked.append((int(level[0]), int(size[0])))
        return torch.zeros_like(z)

    sample(predict, torch.randn(1, 2, 2, 1), steps, SCHEDULE)
    d_level = 64 // steps
    assert asked == [(i * d_level, int(math.log2(steps))) for i in range(steps)]
    trained = set()
    torch.manual_seed(0)
    for flag in (False, True):
        level, size = SCHEDULE.draw(torch.full((20_000,), flag))
        trained |= set(zip(level.tolist(), size.tolist(), strict=True))
    assert set(asked) <= trained
    assert (0, 0) in trained  # d = 1 is reached


def test_levels_are_multiples_of_the_step_size():  # check 4
    torch.manual_seed(0)
    level, size = SCHEDULE.draw(torch.rand(5000) < 0.5)
    tau, d = SCHEDULE.tau(level), SCHEDULE.step_size(size)
    assert torch.equal(tau, level / 64)
    assert torch.equal((tau / d).round() * d, tau)
    assert bool((tau + d <= 1).all())


def test_context_noise_is_a_lerp():  # check 5
    torch.manual_seed(0)
    z, eps = torch.randn(2, 200_000).unbind(0)
    std = mix(z, eps, torch.tensor(0.9)).std()
    assert abs(float(std) - 0.906) < 0.005


def test_flow_entries_keep_place_and_label_in_the_teacher():  # check 6
    torch.manual_seed(0)
    clean, noise = torch.randn(2, 6, 5, 3, 3, 1).unbind(0)  # lanes and frames are entries
    flow = torch.rand(6, 5) < 0.5
    level, size = SCHEDULE.draw(~flow)
    calls = []

    def teacher(z, m, i):
        calls.append((z, m, i))
        return torch.zeros_like(z)

    shortcut_loss(lambda z, m, i: z, clean, noise, level, size, SCHEDULE, teacher=teacher)
    (z1, m1, i1), (z2, m2, i2) = calls
    assert torch.equal(z1[flow], z2[flow])
    assert torch.equal(m1[flow], m2[flow])
    assert torch.equal(m1[flow], level[flow])
    assert torch.equal(i1[flow], size[flow])
    assert torch.equal(i2[~flow], size[~flow] + 1)
    assert torch.equal(SCHEDULE.tau(m2[~flow]), SCHEDULE.tau(level[~flow]) + SCHEDULE.step_size(size[~flow]) / 2)


def test_terms_are_averaged_by_their_own_count_and_teacher_has_no_gradient():  # check 7
    clean = torch.zeros(4, 1, 1, 1)
    weight = torch.tensor(2.0, requires_grad=True)
    level, size = torch.zeros(4, dtype=torch.long), torch.tensor([6, 6, 6, 0])
    terms = shortcut_loss(
        lambda z, m, i: weight * torch.ones_like(z),
        clean,
        clean,
        level,
        size,
        SCHEDULE,
        ramp=0.0,
        teacher=lambda z, m, i: 3 * weight * torch.ones_like(z),
    )
    assert float(terms.flow.detach()) == pytest.approx(4.0)  # (2 - 0)^2 over three entries, not diluted by the fourth
    assert float(terms.bootstrap.detach()) == pytest.approx(16.0)  # (2 - 6)^2
    (gradient,) = torch.autograd.grad(terms.bootstrap, weight)
    assert float(gradient) == pytest.approx(2 * (2 - 6))  # with a gradient through the teacher it would be 16


@given(st.integers(0, 6), st.integers(0, 2**31))
def test_zero_fraction_one_starts_every_flow_entry_from_noise(exponent, seed):
    torch.manual_seed(seed)
    schedule = Schedule(2**exponent)
    level, size = schedule.draw(torch.zeros(50, dtype=torch.bool), zero_fraction=1.0)
    assert int(level.sum()) == 0
    assert bool((size == schedule.finest).all())


def test_wrong_step_counts_are_explained():
    with pytest.raises(ValueError, match="power of two"):
        Schedule(12)
    with pytest.raises(ValueError, match="3; it must be a power of two"):
        sample(lambda z, m, i: z, torch.zeros(1, 1), 3, SCHEDULE)
    with pytest.raises(ValueError, match="at most 64"):
        sample(lambda z, m, i: z, torch.zeros(1, 1), 128, SCHEDULE)


def test_the_spread_tells_a_model_that_always_says_the_same():
    clean = torch.randn(6, 2, 2, 3)
    level, size = torch.zeros(6, dtype=torch.long), torch.full((6,), SCHEDULE.finest)
    said = torch.randn(6, 2, 2, 3)
    spread = shortcut_loss(lambda z, m, i: said, clean, torch.randn_like(clean), level, size, SCHEDULE).spread
    assert spread == pytest.approx(float(said.var(0, correction=0).mean().sqrt()))
    single = shortcut_loss(lambda z, m, i: z, clean[:1], clean[:1], level[:1], size[:1], SCHEDULE).spread
    assert single.isnan()
    same = said[:1].expand_as(said)
    assert shortcut_loss(lambda z, m, i: same, clean, torch.randn_like(clean), level, size, SCHEDULE).spread == 0


def test_a_teacher_of_the_first_entries_teaches_the_same():
    torch.manual_seed(0)
    clean, noise = torch.randn(6, 2, 2, 1), torch.randn(6, 2, 2, 1)
    size = torch.tensor([2, 0, SCHEDULE.finest, *[SCHEDULE.finest] * 3])
    level = torch.tensor([16, 0, 5, 0, 63, 7])
    asked = []

    def predict(z, level, size):
        asked.append(len(z))
        return torch.tanh(z) + 0.1 * size.reshape(-1, 1, 1, 1) + 0.01 * level.reshape(-1, 1, 1, 1)

    told = [shortcut_loss(predict, clean, noise, level, size, SCHEDULE, taught=taught) for taught in (None, 2)]
    assert asked == [6, 6, 6, 2, 2, 6]
    for name in ("flow", "bootstrap", "error"):
        torch.testing.assert_close(getattr(told[0], name), getattr(told[1], name), rtol=0, atol=0)
