"""Control by planning: in real games, in dreams, and on the command line."""

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from test_agent import PREPROCESSING, SIZE, frames_of
from test_dreamed_return import WHOLE, seeing_agent, tiny
from tiny_game import ACTIONS

from neuralsim.actions import slice_actions
from neuralsim.agents.agent_evaluation import Players, play_episodes
from neuralsim.agents.planners import CEM, ICEM, MPC, BranchingMPC, MPCOptions, RandomShooting, make_mpc
from neuralsim.cli import main
from neuralsim.envs.dream import DreamEnv
from neuralsim.envs.dream_vector import DreamVectorEnv
from neuralsim.envs.real import make_real

# -- in reality


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


@pytest.mark.parametrize("space", [ACTIONS["discrete"], WHOLE])
def test_the_world_begins_anew_from_every_real_frame(monkeypatch, space):
    world, frames = tiny(space), frames_of(12, 2)
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
            assert actions.shape == (2, len(before), world.actions.size)
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


def test_a_new_episode_knows_nothing_of_the_last_one_in_its_lane():
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


def test_what_can_be_set_back_is_planned_in_without_a_world():
    env = make_real("paying_game:Paying-v0", {}, {"size": (48, 64)})
    env.reset(seed=0)
    mpc = BranchingMPC(env, CEM(candidates=40, iterations=4), horizon=3, repeat=2, seed=1)
    rewards = [env.step(mpc.act())[1] for _ in range(6)]
    assert sum(rewards) >= 28  # of 30: the game pays the number of the action
    env.reset()
    mpc.begin()
    assert env.action_space.contains(mpc.act())
    with pytest.raises(ValueError, match=r"gamma is 1\.5"):
        BranchingMPC(env, CEM(), gamma=1.5)
    fewer = gym.wrappers.TransformAction(env, lambda action: action + 3, spaces.Discrete(3))
    with pytest.raises(ValueError, match=r"Discrete\(3\).* plays Discrete\(6\) below its wrappers"):
        BranchingMPC(fewer, CEM())
    with pytest.raises(ValueError, match="cannot be set back"):
        BranchingMPC(make_real("tiny_game:Tiny-v0", {}, PREPROCESSING), CEM())


# -- mistakes


def test_what_does_not_fit_is_refused():
    world = tiny()
    mpc = small(world)
    with pytest.raises(ValueError, match=r"Discrete\(3\).*Discrete\(6\)"):
        mpc.check_fits("tiny", spaces.Discrete(6), spaces.Box(0, 255, (*SIZE, 3), np.uint8))
    with pytest.raises(ValueError, match=r"reads frames \(16, 32, 3\).*\(48, 64, 3\)"):
        mpc.check_fits("tiny", ACTIONS["discrete"], spaces.Box(0, 255, (48, 64, 3), np.uint8))
    for settings, message in (
        ({"gamma": 1.5}, r"gamma is 1\.5"),
        ({"sampling_steps": 3}, "sampling_steps is 3"),
        ({"replan_every": 5}, "replan_every is 5; it must be from 1 to the 4 steps"),
        ({"horizon": 0}, "horizon is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            small(world, **settings)
    with pytest.raises(ValueError, match="proposals is 8; the prior can make from 0 to 7"):
        small(world, prior=seeing_agent(), proposals=8)
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
        (["random", "--mpc.horizon", "3", "--env", "tiny_game:Tiny-v0"], "random is no planner"),
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
