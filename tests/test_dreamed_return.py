"""What plans are worth in tiny worlds: dreamed, tried, proposed by a prior."""

import numpy as np
import pytest
import torch
from conftest import build_tiny_world
from gymnasium import spaces
from test_agent import SIZE, make_agent
from tiny_game import ACTIONS

from neuralsim.agents.planners import (
    CEM,
    ICEM,
    MPPI,
    BranchingReturn,
    DreamedReturn,
    PlanSpace,
    Present,
    RandomShooting,
    RewardFunction,
    search,
)
from neuralsim.envs.dream import DreamEnv

WHOLE = spaces.Box(-2, 2, (2,), np.int64)


def tiny(space=None, going_on=20.0, **changes):
    """A tiny world whose dreams hardly ever end, unless told otherwise."""
    world = build_tiny_world(space or ACTIONS["discrete"], SIZE, **changes)
    with torch.no_grad():
        world.heads.out_continue.weight.zero_()
        world.heads.out_continue.bias.fill_(going_on)
    return world


def present(world, lanes=1, seeds=0, frames=1):
    noise = np.random.default_rng(1).integers(0, 256, (lanes, 5, *SIZE, 3), dtype=np.uint8)
    space = world.action_space
    space.seed(1)
    acts = world.actions.decode(
        np.stack([[world.actions.encode(space.sample()) for _ in range(4)] for _ in range(lanes)])
    )
    state = world.start(noise, acts, seeds)
    return Present(state, world.encode(noise)[:, -frames:])


def plans_of(space, count, lanes=1, seed=0):
    noise = torch.randn(lanes * count, space.horizon, space.size, generator=torch.Generator().manual_seed(seed))
    return space.uniform(noise).unflatten(0, (lanes, count))


def seeing_agent(space=None, **changes):
    """An agent of random parts that sees through the tokenizer of :func:`tiny`."""
    agent = make_agent(space, **changes)
    agent.tokenizer = tiny(space).tokenizer
    torch.nn.init.normal_(agent.value.out.weight, std=0.5)
    return agent


# -- what plans are worth


@pytest.mark.parametrize("kind", [*ACTIONS, "whole"])
def test_plans_are_worth_what_they_pay_one_by_one(kind):
    world = tiny({**ACTIONS, "whole": WHOLE}[kind], reward_values=None)
    space = PlanSpace(world.actions, 3, repeat=2)
    start, plans = present(world, 2, seeds=[7, 8]), plans_of(space, 6, 2)
    told = DreamedReturn(world, space, gamma=0.9)(start, plans)
    assert told.shape == (2, 6)
    for game in (0, 1):
        for n in range(6):
            state, total = start.state.select([game]), 0.0
            for t, encoded in enumerate(plans[game, n].repeat_interleave(2, 0)):
                state, said = world.step(state, world.actions.decode(encoded[None].numpy()), steps=1)
                total += 0.9**t * float(said.reward)
            assert float(told[game, n]) == pytest.approx(total, abs=1e-4)
    assert told.std() > 1e-4


def test_candidates_are_dreamed_side_by_side(monkeypatch):
    world = tiny()
    space, lanes = PlanSpace(world.actions, 3, repeat=2), []
    step = world.step
    monkeypatch.setattr(
        world, "step", lambda state, *rest, **more: lanes.append(state.lanes) or step(state, *rest, **more)
    )
    model = DreamedReturn(world, space)
    everything = torch.cartesian_prod(*[torch.arange(3)] * 3)
    plans = torch.eye(3)[everything][None]
    together = model(present(world), plans)
    # All 27 plans: one dream for each different beginning, one forward pass for each step.
    assert lanes == [3, 3, 9, 9, 27, 27]
    assert model.dreamed == sum(lanes)
    alone = torch.cat([model(present(world), plans[:, i : i + 1]) for i in range(27)], dim=1)
    assert torch.allclose(together, alone, atol=1e-4)
    lanes.clear()
    model(present(world), plans[:, [4, 4, 4]])
    assert lanes == [1] * 6


def test_continuous_plans_share_no_dream():
    world = tiny(ACTIONS["box"])
    space = PlanSpace(world.actions, 2)
    model = DreamedReturn(world, space)
    model(present(world), plans_of(space, 5))
    assert model.dreamed == 10


def test_rewards_and_values_are_discounted_by_hand():
    world, agent = tiny(), seeing_agent()
    space = PlanSpace(world.actions, 2, repeat=3)
    ones = RewardFunction(lambda latents: torch.ones(len(latents)), "latents")
    plans = plans_of(space, 4)
    paid = sum(0.9**t for t in range(6))
    start = present(world, frames=3)
    assert DreamedReturn(world, space, ones, gamma=0.9)(start, plans).tolist() == [pytest.approx([paid] * 4)]
    agent.value = Constant(10.0)
    told = DreamedReturn(world, space, ones, agent, terminal_value=True)(start, plans)
    assert told.tolist() == [pytest.approx([paid + 0.9**6 * 10] * 4)]  # the agent's gamma is 0.9
    # A value is about the game's rewards: beside others it counts only when asked to.
    assert DreamedReturn(world, space, ones, agent)(start, plans).tolist() == [pytest.approx([paid] * 4)]
    assert DreamedReturn(world, space, prior=agent).value is not None
    assert DreamedReturn(world, space, prior=agent, terminal_value=False).value is None


class Constant(torch.nn.Module):
    def __init__(self, worth):
        super().__init__()
        self.worth = worth

    def value(self, recent):
        assert recent.shape[1] == 3
        return torch.full((len(recent),), self.worth)


@pytest.mark.parametrize(("going_on", "share"), [(0.0, 0.5), (-30.0, 0.0), (1.0986123, 0.75)])
def test_what_may_have_ended_counts_less(going_on, share):
    world, agent = tiny(going_on=going_on), seeing_agent()
    agent.value = Constant(10.0)
    space = PlanSpace(world.actions, 4)
    ones = RewardFunction(lambda latents: torch.ones(len(latents)), "latents")
    model = DreamedReturn(world, space, ones, agent, terminal_value=True, gamma=0.9)
    # The step that ends an episode pays; those after it do not, nor is there anything to come.
    expected = sum((0.9 * share) ** t for t in range(4)) + (0.9 * share) ** 4 * 10
    assert model(present(world, frames=3), plans_of(space, 3)).tolist() == [pytest.approx([expected] * 3, rel=1e-4)]


def test_rewards_of_frames_see_decoded_frames():
    world, seen = tiny(), []

    def mean(frames):
        seen.append((tuple(frames.shape), frames.dtype))
        return frames.float().mean((1, 2, 3)) / 255

    space = PlanSpace(world.actions, 1)
    start, plans = present(world), torch.eye(3)[:, None][None]
    told = DreamedReturn(world, space, mean)(start, plans)
    assert seen == [((3, *SIZE, 3), torch.uint8)]
    _, said = world.step(start.state.select([0, 0, 0]), np.arange(3), steps=1)
    assert told[0].tolist() == pytest.approx(
        (world.decode(said.latent).float().mean((1, 2, 3)) / 255).tolist(), abs=1e-3
    )
    arrays = RewardFunction(lambda frames: frames.numpy().mean((1, 2, 3)))
    assert DreamedReturn(world, space, arrays)(start, plans)[0] == pytest.approx(255 * told[0], rel=1e-3)


def test_rewards_of_transitions_see_what_was_the_action_and_what_came():
    world, seen = tiny(), []

    def first_action(before, action, after):
        seen.append((before, action, after))
        return action[:, 0]

    space = PlanSpace(world.actions, 1)
    start, plans = present(world), torch.eye(3)[:, None][None]
    told = DreamedReturn(world, space, RewardFunction(first_action, "transitions"))(start, plans)
    assert told.tolist() == [[1, 0, 0]]
    ((before, action, after),) = seen
    assert torch.equal(before, start.state.recent.float().expand_as(before))
    assert torch.equal(action.sort(dim=0).values, torch.tensor([[0.0] * 3, [0.0] * 3, [1.0] * 3]))
    _, said = world.step(start.state.select([0, 0, 0]), action.argmax(1).numpy(), steps=1)
    torch.testing.assert_close(after, said.latent.float())


def test_the_best_of_all_plans_is_found():
    world = tiny(reward_range=None)
    space = PlanSpace(world.actions, 3)
    model, start = DreamedReturn(world, space), present(world)
    everything = torch.eye(3)[torch.cartesian_prod(*[torch.arange(3)] * 3)][None]
    worth = model(start, everything)
    assert len(worth[0].unique()) > 20
    best = float(worth.max())
    for planner in (ICEM(candidates=40), RandomShooting(candidates=200), CEM(executes="best"), MPPI()):
        (found,) = search(planner, space, lambda plans: model(start, plans), [torch.Generator().manual_seed(0)])
        assert found.best_return == pytest.approx(best, abs=1e-5)


def test_branches_of_a_dream_are_worth_what_is_dreamed_side_by_side():
    world = tiny(reward_values=None)
    env = DreamEnv(world, starts="any", sampling_steps=1)
    env.reset(seed=4, options={"start": 1})
    space = PlanSpace(world.actions, 3, repeat=2)
    plans = plans_of(space, 7)
    state = env.clone_state().state
    together = DreamedReturn(world, space, gamma=0.95)(Present(state, state.recent[:, -1:]), plans)
    one_by_one = BranchingReturn(env, space, gamma=0.95)(plans)
    assert torch.allclose(together, one_by_one, atol=1e-4)
    assert state.to_bytes() == env.clone_state().state.to_bytes()


# -- priors


@pytest.mark.parametrize("kind", ACTIONS)
def test_a_prior_proposes_what_it_would_play(kind):
    world, agent = tiny(ACTIONS[kind]), seeing_agent(ACTIONS[kind])
    space = PlanSpace(world.actions, 3, repeat=2)
    model, start = DreamedReturn(world, space, prior=agent), present(world, 2, frames=3)
    streams = [torch.Generator().manual_seed(s) for s in (1, 2)]
    plans, worth = model.propose(start, 5, streams)
    assert (plans.shape, worth.shape) == ((2, 5, 3, space.size), (2, 5))
    first = agent.distribution.mode(agent.policy(start.recent.clone())[:, 0])
    assert torch.allclose(plans[:, 0, 0], first)
    again = model(start, plans)
    assert torch.allclose(worth, again, atol=1e-4)  # judged as any other plan
    second = model.propose(start, 5, [torch.Generator().manual_seed(s) for s in (1, 2)])
    assert torch.equal(plans, second[0])
    with pytest.raises(ValueError, match="give a prior"):
        DreamedReturn(world, space).propose(start, 5, streams)


def test_priors_that_do_not_fit_are_refused():
    world = tiny()
    space = PlanSpace(world.actions, 3)
    with pytest.raises(ValueError, match=r"Discrete\(4\).*Discrete\(3\)"):
        DreamedReturn(world, space, prior=seeing_agent(spaces.Discrete(4)))
    with pytest.raises(ValueError, match="another tokenizer"):
        DreamedReturn(world, space, prior=make_agent(seed=1))
    with pytest.raises(ValueError, match=r"gamma is 0\.5, and the prior's values have 0\.9"):
        DreamedReturn(world, space, prior=seeing_agent(), gamma=0.5)
    assert DreamedReturn(world, space, prior=seeing_agent(), gamma=0.5, terminal_value=False).gamma == 0.5


# -- mistakes


def test_worlds_without_rewards_are_refused():
    def model(world, reward=None):
        return DreamedReturn(world, PlanSpace(world.actions, 2), reward)

    with pytest.raises(ValueError, match=r"every step of the world 'tiny' pays 0\.0.*RewardFunction"):
        model(tiny(reward_values=[0.0]))
    untrained = tiny()
    with torch.no_grad():
        untrained.heads.out_reward.weight.zero_()
        untrained.heads.out_reward.bias.zero_()
    with pytest.raises(ValueError, match=r"reward head of the world 'tiny' was never trained.*RewardFunction"):
        model(untrained)
    model(untrained, RewardFunction(lambda latents: latents.mean((1, 2, 3)), "latents"))
    broken = tiny()
    with torch.no_grad():
        broken.heads.out_reward.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="no finite numbers"):
        model(broken)


def nothing(frames):
    return frames.float().mean((1, 2, 3)) / 0 * 0


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (nothing, "the reward function nothing returned nan for 1 of 1 frames"),
        (lambda frames: frames.float().mean(), r"returned shape \(\) for 1 frames; return one number for each"),
        (lambda frames: frames @ frames, r"fails on frames \(1, 16, 32, 3\) torch.uint8"),
        (lambda frames: None, "fails on frames"),
        (RewardFunction(lambda latents: latents, "latents"), "for 1 latents; return one number for each"),
    ],
)
def test_rewards_that_are_no_numbers_are_refused(reward, message):
    world = tiny()
    space = PlanSpace(world.actions, 2)
    with pytest.raises(ValueError, match=message):
        DreamedReturn(world, space, reward)(present(world), plans_of(space, 1))


def test_questions_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="'sounds'; it can see 'frames', 'latents' or whole 'transitions'"):
        RewardFunction(nothing, "sounds")
    space = PlanSpace(build_tiny_world(frame_size=SIZE).actions, 2)
    with pytest.raises(ValueError, match=r"Discrete\(6\).*Discrete\(3\)"):
        DreamedReturn(tiny(), space)
