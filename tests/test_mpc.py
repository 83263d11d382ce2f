"""Planners in tiny worlds: what plans are worth there, and control of dreams and of real games."""

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import build_tiny_world
from gymnasium import spaces
from test_agent import PREPROCESSING, make_agent
from tiny_game import ACTIONS

from neuralsim.actions import slice_actions
from neuralsim.agents.agent_evaluation import Players
from neuralsim.agents.planners import (
    CEM,
    ICEM,
    MPC,
    MPPI,
    BranchingMPC,
    BranchingReturn,
    DreamedReturn,
    MPCOptions,
    PlanSpace,
    Present,
    RandomShooting,
    RewardFunction,
    make_mpc,
    search,
)
from neuralsim.cli import main
from neuralsim.envs.dream import DreamEnv
from neuralsim.envs.dream_vector import DreamVectorEnv
from neuralsim.envs.real import make_real

SIZE = (16, 32)


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
    acts = world.actions.decode(
        np.stack([[world.actions.encode(space.sample()) for _ in range(4)] for _ in range(lanes)])
    )
    state = world.start(noise, acts, seeds)
    return Present(state, world.encode(noise)[:, -frames:])


def plans_of(space, count, lanes=1, seed=0):
    noise = torch.randn(lanes * count, space.horizon, space.size, generator=torch.Generator().manual_seed(seed))
    return space.uniform(noise).unflatten(0, (lanes, count))


def brightness(latents):
    return latents.mean((1, 2, 3))


LATENT = RewardFunction(brightness, "latents")


# -- what plans are worth


@pytest.mark.parametrize("kind", ACTIONS)
def test_plans_are_worth_what_they_pay_one_by_one(kind):
    world = tiny(ACTIONS[kind], reward_values=None)
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


# -- priors


def seeing_agent(space=None, **changes):
    """An agent of random parts that sees through the tokenizer of :func:`tiny`."""
    agent = make_agent(space, **changes)
    agent.tokenizer = tiny(space).tokenizer
    torch.nn.init.normal_(agent.value.out.weight, std=0.5)
    return agent


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
    with pytest.raises(ValueError, match="proposals is 8; the prior can make from 0 to 7"):
        MPC(world, CEM(candidates=8), prior=seeing_agent(), proposals=8)


# -- in reality


def frames_of(steps, lanes, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (steps, lanes, *SIZE, 3), dtype=np.uint8)


def small(world, planner=None, **settings):
    settings = {"horizon": 2, "repeat": 2, **settings}
    return MPC(world, planner or ICEM(candidates=8, iterations=2), **settings)


@pytest.mark.parametrize("kind", ACTIONS)
def test_actions_are_of_the_space_and_seeded(kind):
    world, frames = tiny(ACTIONS[kind]), frames_of(5, 2)
    mpc: Players = small(world, replan_every=1)

    def play(seed):
        mpc.reset(2, seed)
        return [mpc.act(frame) for frame in frames]

    first, again, other = play(3), play(3), play(4)
    for action in first:
        assert all(ACTIONS[kind].contains(slice_actions(action, i)) for i in range(2))
    tell = [json.dumps(played, default=lambda x: x.tolist()) for played in (first, again, other)]
    assert tell[0] == tell[1]
    if kind != "multi":  # with 8 plans of 6 actions the same may be found
        assert tell[0] != tell[2]


def test_the_world_begins_anew_from_every_real_frame(monkeypatch):
    world, frames = tiny(), frames_of(12, 2)
    contexts = []
    start = world.start_from_latents
    monkeypatch.setattr(world, "start_from_latents", lambda *what: contexts.append((what[0], what[1])) or start(*what))
    mpc = small(world, replan_every=3)
    mpc.reset(2, seed=0)
    taken = []
    for t, frame in enumerate(frames):
        taken.append(world.actions.encode(mpc.act(frame)))
        if t % 3 == 0:  # a plan was due
            latents, actions = contexts.pop()
            kept = min(t + 1, world.dynamics.context_length)
            assert torch.allclose(latents, world.encode(frames[t + 1 - kept : t + 1].swapaxes(0, 1)), atol=1e-5)
            before = taken[t + 1 - kept : t]
            assert actions.shape == (2, len(before), 3)
            assert all(np.array_equal(actions[:, i], action) for i, action in enumerate(before))
        assert contexts == []


def test_every_lane_plays_as_if_alone():
    world, frames = tiny(ACTIONS["box"]), frames_of(6, 2)
    mpc = small(world, replan_every=1)
    mpc.reset(2, seed=7)
    both = np.stack([mpc.act(frame) for frame in frames])
    for lane in (0, 1):
        mpc.reset(1, seed=7 + lane)
        assert np.allclose([mpc.act(frame[lane : lane + 1])[0] for frame in frames], both[:, lane], atol=1e-5)
    assert both.std(axis=(0, 1)).min() > 0.1


def test_a_new_episode_is_forgotten_into_in_its_lane_only():
    world, frames = tiny(), frames_of(6, 2)
    mpc = small(world)
    mpc.reset(2, seed=0)
    for t, frame in enumerate(frames):
        if t == 4:
            mpc.begin(np.array([False, True]))
        mpc.act(frame)
    assert [len(past) for past in mpc.history.latents] == [min(6, world.dynamics.context_length), 2]
    recent = mpc.history.recent(np.array([1]))
    assert torch.allclose(recent[0, -1], world.encode(frames[-1:, 1:2])[0, 0], atol=1e-5)


def test_planning_pays():
    # The real game is the dream itself, so that the best is known to be there.
    world, returns = tiny(reward_values=None, reward_range=None), {}
    for name, planner in (("planned", ICEM(candidates=24)), ("drawn", RandomShooting(candidates=1))):
        mpc, total = MPC(world, planner, horizon=3, repeat=1, warm_start=name == "planned"), 0.0
        for seed in (0, 1):
            env = DreamEnv(world, starts="any", sampling_steps=1)
            env.reset(seed=seed, options={"start": 2})
            total += sum(env.step(mpc.act_in_dream(env))[1] for _ in range(10))
        returns[name] = total
    assert returns["planned"] > returns["drawn"] + 0.01


# -- in the dream itself


def test_a_dream_is_planned_in_from_its_state_and_left_as_it_is():
    world = tiny()
    env = gym.wrappers.TimeLimit(DreamEnv(world, starts="any"), 50)
    env.reset(seed=1, options={"start": 3})
    mpc = small(world, replan_every=1)
    before = env.unwrapped.clone_state()
    actions = [mpc.act_in_dream(env) for _ in range(3)]
    after = env.unwrapped.clone_state()
    assert before.state.to_bytes() == after.state.to_bytes()
    assert all(isinstance(action, int) for action in actions)
    frame, *_ = env.step(actions[0])
    assert frame.shape == (*SIZE, 3)


@pytest.mark.parametrize("foresee", [True, False])
def test_foreseen_dreams_come_true(foresee):
    world = tiny(reward_values=None)
    env = DreamEnv(world, starts="any", sampling_steps=1)
    for seed in range(3):
        env.reset(seed=seed, options={"start": 3})
        mpc = MPC(world, RandomShooting(candidates=9), horizon=3, repeat=2, replan_every=6, gamma=1.0)
        total = sum(env.step(mpc.act_in_dream(env, foresee))[1] for _ in range(6))
        expected = mpc.horizon.games[0].search.best_return
        assert (total == pytest.approx(expected, abs=1e-4)) == foresee


def test_many_dreams_are_planned_in_together():
    world = tiny()
    envs = DreamVectorEnv(3, world=world, starts="any")
    envs.reset(seed=0)
    mpc = small(world)
    for _ in range(4):
        actions = mpc.act_in_dream(envs)
        assert actions.shape == (3,)
        envs.step(actions)
    assert mpc.horizon.plans == 6
    single = DreamEnv(world, starts="any")
    single.reset(seed=0)
    with pytest.raises(ValueError, match=r"plays 3 lanes, the environment 1: call reset\(1\)"):
        mpc.act_in_dream(single)


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


def test_what_can_be_set_back_is_planned_in_without_a_world():
    env = make_real("paying_game:Paying-v0", {}, {"size": (48, 64)})
    env.reset(seed=0)
    mpc = BranchingMPC(env, CEM(candidates=40, iterations=4), horizon=3, repeat=2, seed=1)
    rewards = [env.step(mpc.act())[1] for _ in range(6)]
    assert sum(rewards) >= 28  # of 30: the game pays the number of the action
    env.reset()
    mpc.begin()
    assert env.action_space.contains(mpc.act())
    with pytest.raises(ValueError, match="cannot be set back"):
        BranchingMPC(make_real("tiny_game:Tiny-v0", {}, PREPROCESSING), CEM())


# -- mistakes


def test_worlds_without_rewards_are_refused():
    with pytest.raises(ValueError, match=r"every step of the world 'tiny' pays 0\.0.*RewardFunction"):
        small(tiny(reward_values=[0.0]))
    untrained = tiny()
    with torch.no_grad():
        untrained.heads.out_reward.weight.zero_()
        untrained.heads.out_reward.bias.zero_()
    with pytest.raises(ValueError, match=r"reward head of the world 'tiny' was never trained.*RewardFunction"):
        small(untrained)
    small(untrained, reward=LATENT)
    broken = tiny()
    with torch.no_grad():
        broken.heads.out_reward.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="no finite numbers"):
        small(broken)


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
    mpc = small(tiny(), RandomShooting(candidates=1), reward=reward)
    with pytest.raises(ValueError, match=message):
        mpc.act(frames_of(1, 1)[0])


def test_what_does_not_fit_is_refused():
    world = tiny()
    mpc = small(world)
    with pytest.raises(ValueError, match="'sounds'; it can see 'frames', 'latents' or whole 'transitions'"):
        RewardFunction(brightness, "sounds")
    with pytest.raises(ValueError, match=r"Discrete\(3\).*Discrete\(6\)"):
        mpc.check_fits("tiny", spaces.Discrete(6), spaces.Box(0, 255, (*SIZE, 3), np.uint8))
    with pytest.raises(ValueError, match=r"reads frames \(16, 32, 3\).*\(48, 64, 3\)"):
        mpc.check_fits("tiny", ACTIONS["discrete"], spaces.Box(0, 255, (48, 64, 3), np.uint8))
    with pytest.raises(ValueError, match=r"Discrete\(6\).*Discrete\(3\)"):
        DreamedReturn(world, PlanSpace(build_tiny_world(frame_size=SIZE).actions, 2))
    for settings, message in (
        ({"gamma": 1.5}, r"gamma is 1\.5"),
        ({"sampling_steps": 3}, "sampling_steps is 3"),
        ({"replan_every": 5}, "replan_every is 5; it must be from 1 to the 4 steps"),
        ({"horizon": 0}, "horizon is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            small(world, **settings)
    mpc.reset(2)
    with pytest.raises(ValueError, match=r"2 lanes and sees frames \(lanes, 16, 32, 3\) uint8, got \(1, 16, 32, 3\)"):
        mpc.act(frames_of(1, 1)[0])
    with pytest.raises(ValueError, match="is no dream"):
        mpc.act_in_dream(make_real("tiny_game:Tiny-v0", {}, PREPROCESSING))
    other = DreamEnv(tiny(starts=True), starts="any")
    other.world.config.weights_sha256 = "another"
    other.reset(seed=0)
    with pytest.raises(ValueError, match="dreams another world"):
        small(world).act_in_dream(other)
    with pytest.raises(ValueError, match=r"unknown planner 'cme'; did you mean cem\?.*mpc=shooting"):
        make_mpc(world, MPCOptions(), "cme")


# -- on the command line


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a world of the tiny game, and an agent that sees through its tokenizer."""
    folder = tmp_path_factory.mktemp("planning")
    world = tiny(env_id="tiny_game:Tiny-v0", env_kwargs={"length": 8}, preprocessing=PREPROCESSING, max_episode_steps=6)
    world.save(folder / "world")
    seeing_agent().save(folder / "agent.safetensors")
    return folder


SMALL = ["--mpc.candidates", "6", "--mpc.iterations", "1", "--mpc.horizon", "2", "--mpc.repeat", "2"]


def told_by(out, *words):
    assert main(["agent", "evaluate", *map(str, words), "--out", str(out)]) == 0
    return json.loads(out.read_text())


@pytest.mark.parametrize("name", ["mpc", "mpc=cem", "mpc=icem", "mpc=mppi", "mpc=shooting"])
def test_planners_are_evaluated_in_the_real_game(place, tmp_path, capsys, name):
    words = [name, "--world", place / "world", "--env", "tiny_game:Tiny-v0", "--episodes", 2, *SMALL]
    told = told_by(tmp_path / "told.json", *words)
    assert (told["returns"], told["length"]["value"]) == ([1, 1], 8)
    assert told["env_kwargs"] == {"length": 8}  # as the world's recordings had it
    assert (told["agent"], told["world"], told["mpc"]["candidates"]) == (name, str(place / "world"), 6)
    assert "8 plans of" in capsys.readouterr().out  # 2 games of 8 steps, 2 taken of each plan


def test_planners_are_evaluated_in_the_dream_they_plan_in(place, tmp_path):
    words = ["mpc", "--env", place / "world", "--episodes", 2, "--mpc.prior", place, "--mpc.proposals", 2, *SMALL]
    told = told_by(tmp_path / "a.json", *words)
    assert told["length"]["value"] <= 6
    assert told["world"] == str(place / "world")
    assert told == told_by(tmp_path / "b.json", *words)


def test_games_that_are_over_are_not_planned_for():
    from neuralsim.agents.agent_evaluation import play_episodes

    envs = gym.vector.SyncVectorEnv(
        [lambda n=n: make_real("tiny_game:Tiny-v0", {"length": n}, PREPROCESSING) for n in (2, 8)]
    )
    mpc = small(tiny(), RandomShooting(candidates=2), repeat=1)
    _, lengths, over = play_episodes(envs, mpc, 0, 100)
    assert (lengths.tolist(), over.all(), mpc.horizon.plans) == ([2, 8], True, 10)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mpc", "--env", "tiny_game:Tiny-v0"], "say in which, for example --world Dream-Pong-v0"),
        (["random", "--world", "pong", "--env", "tiny_game:Tiny-v0"], "random is no planner"),
        (["mpc=cme", "--world", "WORLD", "--env", "tiny_game:Tiny-v0"], "did you mean cem?"),
        (
            ["mpc", "--world", "WORLD", "--env", "tiny_game:Tiny-v0", "--env-kwargs", '{"actions": "multi"}'],
            "MultiDiscrete",
        ),
        (["mpc", "--world", "WORLD", "--env", "tiny_game:Tiny-v0", "--mpc.prior", "nowhere"], "nowhere"),
        (["mpc", "--world", "nowhere", "--env", "tiny_game:Tiny-v0"], "nowhere"),
        (["mpc", "--world", "WORLD", "--env", "paying_game:Paying-v0"], "Discrete(6)"),
        (["mpc", "--world", "WORLD", "--mpc.candidates", "0"], "candidates is 0"),
    ],
)
def test_calls_that_make_no_sense_end_with_status_2(place, words, message, capsys):
    words = [str(place / "world") if word == "WORLD" else word for word in words]
    assert main(["agent", "evaluate", *words, "--episodes", "1"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
