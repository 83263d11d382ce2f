"""Planners apart from any world: on objectives whose optimum is known, by hand where that is possible."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from neuralsim.actions import ActionCodec
from neuralsim.agents.planners import CEM, ICEM, MPPI, PlanSpace, RandomShooting, search
from neuralsim.agents.planners.coloured_noise import coloured_noise
from neuralsim.agents.planners.mppi import path_weights
from neuralsim.agents.planners.receding_horizon import RecedingHorizon

DISCRETE = spaces.Discrete(4)
BOX = spaces.Box(-2.0, 2.0, (2,), np.float32)
MIXED = spaces.Dict({"buttons": spaces.MultiBinary(2), "camera": BOX, "tool": spaces.MultiDiscrete([2, 3])})
SPACES = {"discrete": DISCRETE, "box": BOX, "mixed": MIXED}
PLANNERS = {
    "shooting": RandomShooting(candidates=4000),
    "cem": CEM(candidates=200, iterations=10, elite_share=0.1),
    "cem-best": CEM(candidates=200, iterations=10, elite_share=0.1, executes="best"),
    "icem": ICEM(candidates=200, iterations=10, elite_share=0.1, colour=0.5),
    "mppi": MPPI(candidates=200, iterations=10, temperature=0.05),
}


def plan_space(space=DISCRETE, horizon=4, repeat=1):
    return PlanSpace(ActionCodec(space), horizon, repeat)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def target_of(space, seed=3):
    """A plan that is neither even nor the first of everything."""
    return space.uniform(torch.randn(1, space.horizon, space.size, generator=rng(seed)))[0] * 0.9


def near(target):
    """Worth 0 at the target, and less by the mean squared distance elsewhere."""
    return lambda plans: -(plans - target).square().mean((2, 3))


# -- the optimum is found


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("name", PLANNERS)
def test_every_planner_finds_the_optimum(name, kind):
    space = plan_space(SPACES[kind], horizon=3)
    target = target_of(space)
    (found,) = search(PLANNERS[name], space, near(target), [rng(1)])
    exact = [i for here, kind in space.blocks if kind != "continuous" for i in range(here.start, here.stop)]
    rest = [i for i in range(space.size) if i not in exact]
    if exact and name != "shooting":  # which draws 24 ** 3 x R^6 blindly
        assert torch.equal(found.plan[:, exact], space.likeliest(target / 0.9)[:, exact])
    elif exact and kind == "discrete":
        assert torch.equal(found.plan, space.likeliest(target))
    if rest:
        wrong = (found.plan - target)[:, rest].abs().max()
        assert wrong < {"shooting": 1.0, "mppi": 0.2}.get(name, 0.12)  # MPPI's mean is soft
    even = near(target)(space.likeliest(space.even)[None, None])
    assert near(target)(found.plan[None, None]) > (0.5 if name == "shooting" else 0.3) * even


def test_categorical_cem_converges():
    # Worth the number of right choices of 8: 4 ** 8 plans, of which 600 are looked at.
    space = plan_space(horizon=8)
    target = torch.eye(4)[torch.tensor([3, 1, 0, 2, 2, 3, 1, 0])]

    def objective(plans):
        return (plans * target).sum((2, 3))

    best = []
    for iterations in (1, 2, 6):
        planner = CEM(candidates=100, iterations=iterations, elite_share=0.1, least_chance=0.02)
        (found,) = search(planner, space, objective, [rng()])
        best.append(float((found.mean * target).sum()))
    assert best[0] < best[1] < best[2]
    assert torch.equal(found.plan, target)
    assert torch.allclose(found.mean.sum(1), torch.ones(8))
    assert float(found.mean.min()) >= 0.02 / 4 - 1e-6  # nothing is ruled out
    assert best[2] > 7.5


@pytest.mark.parametrize("name", PLANNERS)
def test_seeds_decide_everything(name):
    space = plan_space(MIXED, 3)
    planner = replace(PLANNERS[name], candidates=20, iterations=2)

    def found(*seeds):
        return search(planner, space, near(target_of(space)), [rng(s) for s in seeds])

    assert torch.equal(found(1)[0].plan, found(1)[0].plan)
    assert not torch.equal(found(1)[0].plan, found(2)[0].plan)
    # Among others a search finds what it would find alone.
    for alone, together in zip((found(1)[0], found(2)[0]), found(1, 2), strict=True):
        assert torch.equal(alone.plan, together.plan)
        assert torch.equal(alone.mean, together.mean)


@pytest.mark.parametrize("name", PLANNERS)
def test_warm_starts_beat_cold_ones_of_the_same_budget(name):
    # The target moves on by one action per search, as it does when the present does.
    planner = replace(PLANNERS[name], candidates=24, iterations=1)
    space = plan_space(horizon=6)
    long = torch.eye(4)[torch.randint(4, (30,), generator=rng(5))]
    worth = {}
    for warm in (False, True):
        total, last, draws = 0.0, None, rng(2)
        for t in range(20):
            target = long[t : t + 6]
            (found,) = search(
                planner, space, lambda plans, of=target: (plans * of).sum((2, 3)), [draws], [last if warm else None], 1
            )
            total, last = total + float((found.plan * target).sum()), found
        worth[warm] = total / 20
    assert worth[True] > worth[False] + (0.1 if name == "shooting" else 0.3)


def test_candidates_are_judged_in_one_call_per_iteration():
    space, seen = plan_space(), []

    def objective(plans):
        seen.append(tuple(plans.shape))
        return plans.sum((2, 3))

    search(CEM(candidates=30, iterations=3), space, objective, [rng(1), rng(2)])
    assert seen == [(2, 30, 4, 4)] * 3


# -- their parts, by hand


def test_mppi_weights_by_hand():
    # Differences 0, -ln 2 and -ln 4 at temperature 1 weigh 1, 1/2 and 1/4, of which the sum is 7/4.
    returns = torch.tensor([1.0, 1 - math.log(2), 1 - math.log(4)])
    assert path_weights(returns, 1.0).tolist() == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    assert path_weights(returns, 0.5).tolist() == pytest.approx([16 / 21, 4 / 21, 1 / 21])
    assert path_weights(returns + 1e4, 1.0).tolist() == pytest.approx([4 / 7, 2 / 7, 1 / 7], abs=1e-3)
    assert path_weights(torch.full((4,), 2.0), 0.1).tolist() == [0.25] * 4


def test_normalised_mppi_weights_know_no_scale_and_shift():
    returns = torch.tensor([1.0, 3.0])  # standard deviation 1: the difference is 2 of them
    expected = [1 / (1 + math.e**4), 1 / (1 + math.e**-4)]
    for scale, shift in ((1, 0), (1000, 0), (0.01, 7)):
        assert path_weights(returns * scale + shift, 0.5, True).tolist() == pytest.approx(expected, rel=1e-3)
    assert path_weights(torch.zeros(2), 0.5, True).tolist() == [0.5, 0.5]


def test_an_iteration_of_mppi_by_hand():
    space = plan_space(spaces.Box(-1.0, 1.0, (1,)), 1)
    planner = MPPI(temperature=1.0, least_std=0.0)
    plans, returns = torch.tensor([0.0, 0.5]).reshape(2, 1, 1), torch.tensor([0.0, math.log(3)])
    found = planner.improve(space, planner.begin(space), plans, returns)
    assert float(found.plan) == pytest.approx(0.375)  # weights 1/4 and 3/4
    assert float(found.std) == pytest.approx(math.sqrt(0.25 * 0.375**2 + 0.75 * 0.125**2))
    assert found.best_return == pytest.approx(math.log(3))


def test_an_iteration_of_cem_by_hand():
    space = plan_space(spaces.Discrete(3), 1)
    planner = CEM(elite_share=0.5, least_chance=0.0, momentum=0.25)
    plans = torch.eye(3)[torch.tensor([0, 1, 1, 2])][:, None]
    found = planner.improve(space, planner.begin(space), plans, torch.tensor([1.0, 3.0, 2.0, 0.0]))
    # Both elites are choice 1; a quarter of the old thirds stays.
    assert found.mean[0].tolist() == pytest.approx([1 / 12, 10 / 12, 1 / 12])
    assert found.plan[0].tolist() == [0, 1, 0]
    assert found.best_return == 3
    opened = replace(planner, momentum=0.0, least_chance=0.3)
    assert opened.improve(space, planner.begin(space), plans, torch.tensor([1.0, 3.0, 2.0, 0.0])).mean[
        0
    ].tolist() == pytest.approx([0.1, 0.8, 0.1])


def test_icem_looks_at_fewer_plans_each_time_and_keeps_elites():
    planner, space = ICEM(candidates=40, iterations=4), plan_space(BOX)
    assert [planner.population(i) for i in range(4)] == [40, 32, 26, 20]
    assert planner.elite_count(40) == planner.elite_count(26) == 10
    seen = []

    def objective(plans):
        seen.append(plans[0])
        return near(target_of(space))(plans)

    (found,) = search(planner, space, objective, [rng()])
    assert [len(plans) for plans in seen] == [40, 32, 26, 20]
    for before, after in itertools.pairwise(seen):
        best = before[near(target_of(space))(before[None])[0].argsort(descending=True)[:3]]
        assert torch.equal(after[:3], best)
    assert found.best_return == max(float(near(target_of(space))(plans[None]).max()) for plans in seen)
    seen.clear()
    search(planner, space, objective, [rng()], [found], 1)
    assert torch.allclose(seen[0][:3], space.shift(found.elites, 1)[:3])


def test_the_plan_in_execution_is_a_candidate_and_wins_draws():
    space = plan_space()
    planner = RandomShooting(candidates=10)
    (first,) = search(planner, space, near(target_of(space)), [rng()])
    (second,) = search(planner, space, lambda plans: torch.zeros(plans.shape[:2]), [rng(1)], [first], 2)
    assert torch.equal(second.plan, first.plan[[2, 3, 3, 3]])


def test_proposals_of_a_prior_are_candidates_and_shape_the_search():
    space, seen = plan_space(), []
    target = space.likeliest(target_of(space))

    def objective(plans):
        seen.append(plans)
        return (plans * target).sum((2, 3)) - 1

    proposed = (target.expand(1, 6, -1, -1), torch.full((1, 6), 3.0))
    (found,) = search(CEM(candidates=8, iterations=1, refresh=0.1), space, objective, [rng()], proposed=proposed)
    assert seen[0].shape[1] == 2  # of 8; what the 6 are worth is known
    assert (seen[0] * target).sum((2, 3)).mean() > 3  # drawn near them
    assert found.best_return == 3
    assert torch.equal(found.plan, target)


# -- plans


def test_chances_of_drawn_plans_are_those_of_the_mean():
    space = plan_space(spaces.Dict({"a": spaces.Discrete(3), "b": spaces.MultiBinary(1), "c": BOX}), 5)
    mean = torch.tensor([0.1, 0.7, 0.2, 0.25, 0.1, -0.2]).expand(5, -1)
    std = torch.full_like(mean, 0.2)
    for colour in (0.0, 2.0):
        plans = space.draw(mean, std, coloured_noise(20_000, 5, space.size, colour, rng()))
        assert torch.allclose(plans.mean(0), mean, atol=0.015)
        assert torch.allclose(plans[..., 4:].std(0), std[:, 4:], atol=0.01)
        assert torch.equal(plans[..., :3].sum(-1), torch.ones(20_000, 5))
    held = (plans[:, 1:, :3] == plans[:, :-1, :3]).all(-1).float().mean()
    assert held > 0.6  # with white noise 0.54: red noise holds on to choices


def test_uniform_plans_cover_the_space():
    space = plan_space(MIXED, 2)
    plans = space.uniform(torch.randn(20_000, 2, space.size, generator=rng()))
    assert torch.allclose(plans.mean(0), space.even, atol=0.02)
    camera = plans[..., 2:4]
    assert torch.allclose(camera.std((0, 1)), torch.full((2,), 1 / math.sqrt(3)), atol=0.01)
    assert float(camera.abs().max()) <= 1


@pytest.mark.parametrize("kind", SPACES)
def test_plans_are_actions_of_the_space(kind):
    space = plan_space(SPACES[kind], 3)
    (found,) = search(ICEM(candidates=12), space, near(target_of(space)), [rng()])
    action = space.actions.decode(found.plan[0].numpy())
    assert SPACES[kind].contains(int(action) if kind == "discrete" else action)


def test_plans_are_shifted_by_steps_of_the_environment():
    space = plan_space(spaces.Box(-1.0, 1.0, (1,)), 3, repeat=4)
    rows = torch.tensor([0.0, 0.4, 0.8])[:, None]
    assert space.steps == 12
    assert space.shift(rows, 4).ravel().tolist() == pytest.approx([0.4, 0.8, 0.8])
    assert space.shift(rows, 4, torch.zeros(1)).ravel().tolist() == pytest.approx([0.4, 0.8, 0.0])
    assert space.shift(rows, 1).ravel().tolist() == pytest.approx([0.1, 0.5, 0.8])
    assert space.shift(rows, 100, torch.zeros(1)).ravel().tolist() == [0, 0, 0]
    assert torch.allclose(space.shift(rows.expand(5, 3, 1), 4), space.shift(rows, 4).expand(5, 3, 1))


# -- noise


@pytest.mark.parametrize("horizon", [16, 33])
@pytest.mark.parametrize("colour", [0.0, 1.0, 2.0])
def test_coloured_noise_has_its_spectrum(colour, horizon):
    noise = coloured_noise(4000, horizon, 2, colour, rng())
    assert noise.shape == (4000, horizon, 2)
    assert torch.allclose(noise.mean((0, 2)), torch.zeros(horizon), atol=0.05)
    assert torch.allclose(noise.var((0, 2)), torch.ones(horizon), atol=0.08)  # at every step
    power = torch.fft.rfft(noise, dim=1).abs().square().mean((0, 2))
    frequency = torch.fft.rfftfreq(horizon)
    slope = np.polyfit(frequency[1:].log().numpy(), power[1:].log().numpy(), 1)[0]
    assert slope == pytest.approx(-colour, abs=0.06)
    assert float(power[0] / power[1]) == pytest.approx(1, abs=0.15)
    # What two numbers of an action do is independent.
    assert abs(float((noise[..., 0] * noise[..., 1]).mean())) < 0.05


def test_noise_is_seeded_and_short_plans_have_some():
    assert torch.equal(coloured_noise(3, 8, 2, 2.0, rng(1)), coloured_noise(3, 8, 2, 2.0, rng(1)))
    assert not torch.equal(coloured_noise(3, 8, 2, 2.0, rng(1)), coloured_noise(3, 8, 2, 2.0, rng(2)))
    assert coloured_noise(3, 1, 2, 2.0).shape == (3, 1, 2)
    assert coloured_noise(0, 8, 2, 2.0).shape == (0, 8, 2)
    assert coloured_noise(5000, 2, 1, 2.0, rng()).var() == pytest.approx(1, abs=0.1)


# -- receding horizon


def test_plans_are_made_when_due_and_actions_are_held():
    space = plan_space(horizon=3, repeat=2)
    target = torch.eye(4)[torch.tensor([1, 2, 3])]
    judged = []

    def judge(games, plans):
        judged.append(games.tolist())
        return (plans * target).sum((2, 3))

    horizon = RecedingHorizon(RandomShooting(candidates=500), space, replan_every=4)
    horizon.reset(2, seed=0)
    taken = np.stack([horizon.act(judge).argmax(-1) for _ in range(4)])
    assert taken.T.tolist() == [[1, 1, 2, 2]] * 2
    assert judged == [[0, 1]]
    horizon.begin(np.array([False, True]))  # a new episode is planned for at once, in its lane
    assert horizon.act(judge).argmax(-1).tolist() == [1, 1]
    assert judged[1:] == [[0, 1]]  # lane 0 was due anyway
    horizon.begin(np.array([False, True]))
    horizon.act(judge)
    assert judged[2:] == [[1]]
    horizon.retire(np.array([True, False]))
    for _ in range(8):
        horizon.act(judge)
    assert judged[3:] == [[1], [1]]
    assert (horizon.plans, horizon.seconds > 0) == (2 + 2 + 1 + 2, True)


# -- mistakes


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CEM(candidates=0), "candidates is 0"),
        (lambda: MPPI(iterations=0), "iterations is 0"),
        (lambda: MPPI(temperature=0.0), r"temperature is 0\.0"),
        (lambda: CEM(elite_share=1.5), r"elite_share is 1\.5"),
        (lambda: CEM(executes="worst"), "'worst'"),
        (lambda: ICEM(decay=0.5), r"decay is 0\.5"),
        (lambda: RandomShooting(refresh=-1.0), r"refresh is -1\.0"),
        (lambda: RandomShooting(colour=float("nan")), "colour is nan"),
        (lambda: plan_space(horizon=0), "horizon is 0"),
        (lambda: plan_space(repeat=0), "repeat is 0"),
        (lambda: RecedingHorizon(CEM(), plan_space(horizon=2), 3), "replan_every is 3; .* the 2 steps"),
        (lambda: plan_space(spaces.Box(-np.inf, np.inf, (1,))), "finite bounds"),
        (lambda: plan_space(spaces.Text(3)), "Text"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_objectives_that_are_not_finite_are_refused(value):
    def objective(plans):
        returns = torch.zeros(plans.shape[:2])
        returns[0, 2] = value
        return returns

    with pytest.raises(ValueError, match=f"1 of 64 plans are worth {value}"):
        search(CEM(), plan_space(), objective, [rng()])
    with pytest.raises(ValueError, match=r"one number per plan, \(1, 64\), got \(64,\)"):
        search(CEM(), plan_space(), lambda plans: torch.zeros(64), [rng()])


def test_a_prior_leaves_the_planner_something_to_do():
    proposed = (torch.zeros(1, 8, 4, 4), torch.zeros(1, 8))
    with pytest.raises(ValueError, match="proposes 8 of 8 candidates"):
        search(CEM(candidates=8), plan_space(), near(torch.zeros(4, 4)), [rng()], proposed=proposed)
