"""PPO on pixels: what it collects, what it learns from it, runs that are resumed, and agents that play everywhere."""

import dataclasses
import json
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import build_tiny_world
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from tiny_game import ACTIONS

from neuralsim.agents import PPO, Agent
from neuralsim.agents.actor import ActorConfig, PolicyNet
from neuralsim.agents.actor_critic import actor_critic_loss
from neuralsim.agents.agent import ages
from neuralsim.agents.pixels import PixelActorConfig
from neuralsim.agents.policies import make_policy
from neuralsim.agents.ppo import PPOLoop
from neuralsim.agents.ppo_objective import advantages_and_returns, normalised, value_loss
from neuralsim.agents.ppo_training import PPOConfig
from neuralsim.agents.transitions import Transitions, autoreset_mode
from neuralsim.cli import main
from neuralsim.envs.dream_vector import DreamVectorEnv
from neuralsim.envs.real import make_real

SMALL = PixelActorConfig(frames=3, channels=8, hidden=32)
SIZE = (16, 32)


class Counting(gym.Env):
    """Every pixel is 20 episode + t, and so is what a step pays; every other episode is cut off after 2 steps."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, lane=0, bad_at=None):
        self.observation_space = spaces.Box(0, 255, (8, 8, 3), np.uint8)
        self.action_space = spaces.Discrete(2)
        self.lane, self.bad_at, self.episode, self.taken = lane, bad_at, -1, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = (self.episode + 1) % 12, 0
        return self.frame(), {}

    def step(self, action):
        self.t, self.taken = self.t + 1, self.taken + 1
        cut = bool((self.episode + self.lane) % 2)
        reward = math.nan if self.taken - 1 == self.bad_at else float(20 * self.episode + self.t)
        return self.frame(), reward, not cut and self.t == 4, cut and self.t == 2, {}

    def frame(self):
        return np.full((8, 8, 3), 20 * self.episode + self.t, np.uint8)


class Echo(gym.Env):
    """One of three blocks is lit; pays 1 for naming the one that was lit a step before. Ten steps."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self):
        self.observation_space = spaces.Box(0, 255, (8, 24, 3), np.uint8)
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.now = 0, int(self.np_random.integers(3))
        self.before = self.now
        return self.frame(), {}

    def step(self, action):
        reward = float(action == self.before)
        self.t, self.before, self.now = self.t + 1, self.now, int(self.np_random.integers(3))
        return self.frame(), reward, self.t == 10, False, {}

    def frame(self):
        frame = np.zeros((8, 24, 3), np.uint8)
        frame[:, 8 * self.now : 8 * self.now + 8] = 255
        return frame


def counting(mode="NextStep", lanes=2, bad_at=None):
    made = [lambda i=i: Counting(i, bad_at if i == lanes - 1 else None) for i in range(lanes)]
    return SyncVectorEnv(made, autoreset_mode=AutoresetMode(mode))


# -- transitions


MODES = [mode.value for mode in AutoresetMode]


def walk(mode, steps=30):
    """Per lane what was seen, paid and led to, of steps that count."""
    games = Transitions(counting(mode), "Counting")
    now = games.reset(seed=0)[:, 0, 0, 0]
    told = [[], []]
    for _ in range(steps):
        step = games.step(np.zeros(2, np.int64))
        led_to = step.last[:, 0, 0, 0]
        for lane in np.flatnonzero(step.counted):
            row = (now[lane], step.rewards[lane], led_to[lane], step.terminated[lane], step.truncated[lane])
            told[lane].append(tuple(map(float, row)))
        assert (step.frames[:, 0, 0, 0][step.begun] % 20 == 0).all()
        now = step.frames[:, 0, 0, 0]
    return told


@pytest.mark.parametrize("mode", MODES)
def test_all_autoreset_modes_are_the_same_transitions(mode):
    first = [(0, 1, 1, 0, 0), (1, 2, 2, 0, 0), (2, 3, 3, 0, 0), (3, 4, 4, 1, 0), (20, 21, 21, 0, 0), (21, 22, 22, 0, 1)]
    told, expected = walk(mode), walk("SameStep")
    assert told[0][:6] == first
    for mine, theirs in zip(told, expected, strict=True):
        assert mine == theirs[: len(mine)]
    # The step that only resets is none: 30 steps are fewer transitions where they are spent on it.
    assert len(expected[0]) == 30
    assert (len(told[0]) < 30) == (mode == "NextStep")


def test_modes_that_are_not_told_or_unknown():
    envs = counting()
    envs.metadata = {}
    del envs.autoreset_mode
    with pytest.warns(UserWarning, match="autoreset_mode"):
        assert autoreset_mode(envs) is AutoresetMode.NEXT_STEP
    envs.metadata = {"autoreset_mode": "Whenever"}
    with pytest.raises(ValueError, match="'Whenever'; it must be one of 'NextStep'"):
        autoreset_mode(envs)
    envs = counting("NextStep", lanes=1)
    envs.metadata = {**envs.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}
    envs.autoreset_mode = AutoresetMode.SAME_STEP  # which it does not do
    games = Transitions(envs, "Counting")
    envs._add_info = lambda *_: {}
    games.reset(0)
    for _ in range(3):
        games.step(np.zeros(1, np.int64))
    with pytest.raises(ValueError, match="final_obs"):
        games.step(np.zeros(1, np.int64))


# -- what is collected


def collected(mode, horizon=25):
    kept = PPO(counting(mode), PPOConfig(horizon=horizon, minibatches=1), SMALL).model.rollouts

    def judge(windows):  # the value of a state is the number in its last frame
        return torch.zeros(len(windows), 2), windows[:, -1, 0].float()

    torch.manual_seed(0)
    return kept, kept.collect(judge), judge


@pytest.mark.parametrize("mode", MODES)
def test_windows_hold_frames_of_one_episode_only(mode):
    kept, _, judge = collected(mode)
    for _ in range(2):  # the second time, windows begin in the first
        for lane in range(2):
            at = torch.arange(25)
            seen = kept.windows(torch.full_like(at, lane), at)[:, :, 0].int()
            now = seen[:, 2]
            # Two before, one before, now; before the first frame that one is repeated.
            expected = torch.stack([now - (now % 20).clamp(max=ago) for ago in (2, 1, 0)], dim=1)
            assert torch.equal(seen, expected)
        kept.collect(judge)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_cut_off_is_continued_from_its_own_last_frame(mode):
    kept, played, _ = collected(mode)
    cut = played.truncated
    assert cut.any()
    assert (played.beyond[cut] % 20 == 2).all()
    assert (played.beyond[~cut] == 0).all()
    assert torch.equal(played.beyond[cut], played.values[:, :-1][cut] + 1)
    _, returns = advantages_and_returns(*played, gamma=0.5, lam=1.0)
    # An episode from 20 k on that is cut off after two steps, by hand: a + b / 2 + v / 4.
    lane, t = (played.truncated[:, 1:] & kept.counted[:, :-1]).nonzero()[0].tolist()
    last = float(played.beyond[lane, t + 1])
    assert float(returns[lane, t]) == pytest.approx((last - 1) + 0.5 * last + 0.25 * last)
    over = played.terminated
    assert torch.equal(returns[over], played.rewards[over])


def test_returns_of_episodes_are_told():
    kept, _, _ = collected("NextStep")
    told = kept.recent_episodes()
    # Lane 0: 4 steps from 0 on, then 2 from 20 on; lane 1 the other way round.
    assert [10, 4] in told.tolist()
    assert [43, 2] in told.tolist()
    assert [3, 2] in told.tolist()


# -- what is learned from it


def test_advantages_by_hand():
    rewards = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    terminated, truncated = torch.tensor([[0, 1, 0, 0]]).bool(), torch.tensor([[0, 0, 1, 0]]).bool()
    values, beyond = torch.tensor([[0.5, 1.0, 1.5, 2.0, 2.5]]), torch.tensor([[99.0, 99.0, 10.0, 99.0]])
    advantages, returns = advantages_and_returns(rewards, terminated, truncated, values, beyond, 0.9, 0.8)
    # R_3 = 4 + .9 * 2.5; R_2 = 3 + .9 * 10, cut off; R_1 = 2, the end; R_0 = 1 + .9 (.2 * 1 + .8 * 2)
    assert returns[0].tolist() == pytest.approx([2.62, 2.0, 12.0, 6.25])
    assert advantages[0].tolist() == pytest.approx([2.12, 1.0, 10.5, 4.25])
    both = advantages_and_returns(rewards, terminated, truncated | terminated, values, beyond, 0.9, 0.8)
    assert torch.equal(both[1], returns)  # an end that is a time limit as well is an end


def test_advantages_are_those_of_the_usual_recursion():
    rng = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(3, 20, generator=rng), torch.randn(3, 21, generator=rng)
    over = torch.rand(3, 20, generator=rng) < 0.2
    advantages, _ = advantages_and_returns(rewards, over, torch.zeros_like(over), values, values[:, 1:], 0.97, 0.9)
    following = torch.zeros(3)
    for t in reversed(range(20)):
        on = (~over[:, t]).float()
        delta = rewards[:, t] + 0.97 * values[:, t + 1] * on - values[:, t]
        following = delta + 0.97 * 0.9 * on * following
        assert torch.allclose(advantages[:, t], following, atol=1e-5)


def test_the_clipped_objective_by_hand():
    ratio, advantage = torch.tensor([1.5, 1.5, 0.5, 0.5]), torch.tensor([1.0, -1.0, 1.0, -1.0])
    log_prob = ratio.log().requires_grad_()
    loss = actor_critic_loss(log_prob, torch.zeros(4), advantage, torch.zeros(4), 0.0, clip=0.2)
    # min(1.5, 1.2) + min(-1.5, -1.2) + min(.5, .8) + min(-.5, -.8)
    assert float(loss.detach()) == pytest.approx(-(1.2 - 1.5 + 0.5 - 0.8) / 4)
    loss.backward()
    assert log_prob.grad.tolist() == pytest.approx([0, 1.5 / 4, -0.5 / 4, 0])


def test_values_are_clipped_only_if_asked():
    values, old, returns = torch.tensor([3.0, 1.0]), torch.tensor([1.0, 1.0]), torch.tensor([4.0, 0.0])
    weight = torch.ones(2)
    assert float(value_loss(values, old, returns, weight)) == pytest.approx(0.5 * (1 + 1) / 2)
    # 3 counts as 1.5, which is further from 4.
    assert float(value_loss(values, old, returns, weight, clip=0.5)) == pytest.approx(0.5 * (2.5**2 + 1) / 2)
    assert float(value_loss(values, old, returns, torch.tensor([0.0, 1.0]))) == pytest.approx(0.5)


def test_advantages_are_normalised_among_those_that_count():
    gain = normalised(torch.tensor([1.0, 3.0, 1000.0]), torch.tensor([1.0, 1.0, 0.0]))
    assert gain[:2].tolist() == pytest.approx([-1, 1])


def test_steps_that_only_reset_teach_nothing():
    ppo = PPO(counting("NextStep"), PPOConfig(horizon=25, minibatches=1), SMALL).model
    torch.manual_seed(0)
    ppo(ppo.draw(0))
    kept = ppo.rollouts
    assert not kept.counted.all()

    def gradient():
        ppo.zero_grad()
        ppo.used.zero_()
        ppo(ppo.draw(0))[0].backward()
        return torch.cat([p.grad.flatten() for p in ppo.actor.parameters()])

    before = gradient()
    for told in (ppo.returns, ppo.advantages, kept.log_prob, kept.values):
        told[~kept.counted] = 5.0
    assert torch.equal(before, gradient())
    ppo.returns[kept.counted] += 5.0
    assert not torch.equal(before, gradient())


def test_every_step_is_learned_from_once_per_epoch():
    ppo = PPO(counting(), PPOConfig(horizon=6, epochs=2, minibatches=3), SMALL).model
    drawn = [ppo.draw(step).tolist() for step in range(12)]
    for epoch in range(4):
        assert sorted(n for part in drawn[3 * epoch : 3 * epoch + 3] for n in part) == list(range(12))
    assert drawn[:3] != drawn[3:6] != drawn[6:9]
    assert drawn == [ppo.draw(step).tolist() for step in range(12)]


# -- learning


def loop(**changes):
    """Options of a short run; evaluations only at its end."""
    return PPOLoop(
        **{"device": "cpu", "evaluate_every": 10**6, "checkpoint_every": 10**6, "log_every": 10**6} | changes
    )


def play(agent, envs, episodes=5):
    """Mean return of the first episodes."""
    frames, _ = envs.reset(seed=123)
    agent.reset(envs.num_envs, seed=7)
    returns, total = [], np.zeros(envs.num_envs)
    while len(returns) < episodes * envs.num_envs:
        frames, rewards, terminated, truncated, _ = envs.step(agent.act(frames))
        total += rewards
        over = terminated | truncated
        returns += total[over].tolist()
        total[over] = 0
        agent.begin(over)
    return float(np.mean(returns))


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_what_only_the_frame_before_tells_is_learned(mode):
    def make():
        return SyncVectorEnv([Echo] * 8, autoreset_mode=AutoresetMode(mode))

    config = PPOConfig(horizon=32, gamma=0.5, entropy=0.003)
    agent = PPO(make(), config, SMALL, seed=1).train(10_000, loop=loop(learning_rate=3e-3, decay_fraction=0.5))
    agent.deterministic = True
    assert play(agent, SyncVectorEnv([Echo] * 8, autoreset_mode=AutoresetMode.SAME_STEP)) > 9  # 10 at best, 3.3 by luck


def paying(world):
    """The same world, but action 4 pays 1, and nothing ends."""
    step = world.step

    def step_and_pay(state, actions, **kwargs):
        following, said = step(state, actions, **kwargs)
        paid = torch.from_numpy(np.asarray(actions) == 4).float()
        return following, dataclasses.replace(said, reward=paid, terminated=torch.zeros_like(said.terminated))

    world.step = step_and_pay
    return world


def test_a_tiny_dream_is_solved():
    world = paying(build_tiny_world(frame_size=SIZE, max_episode_steps=10))
    envs = DreamVectorEnv(num_envs=8, world=world, sampling_steps=1)
    config = PPOConfig(horizon=16, gamma=0.5, entropy=0.003)
    agent = PPO(envs, config, SMALL).train(4_000, loop=loop(learning_rate=3e-3, decay_fraction=0.5))
    same = DreamVectorEnv(num_envs=8, world=world, sampling_steps=1, autoreset_mode="SameStep")
    assert play(agent, same, episodes=2) > 9


def test_a_single_environment_will_do():
    agent = PPO(Echo(), PPOConfig(horizon=8, minibatches=2), SMALL).train(16, loop=loop())
    assert Echo().action_space.contains(agent.act(np.zeros((1, 8, 24, 3), np.uint8))[0])
    assert agent.facts["env_id"] == "SyncVectorEnv"


# -- runs


class Killed(RuntimeError):
    """Stands for a power failure."""


def killed_at(ppo, step):
    draw = ppo.model.draw

    def draw_or_die(asked):
        if asked == step:
            raise Killed
        return draw(asked)

    ppo.model.draw = draw_or_die
    return ppo


def rows_of(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "env_steps_per_second", "memory")
    return [{k: v for k, v in row.items() if k not in timed} for row in rows if row["kind"] == "train"]


@pytest.fixture(scope="module")
def dream_folder(tmp_path_factory):
    game = {"env_id": "tiny_game:Tiny-v0", "env_kwargs": {"length": 8}, "preprocessing": {"size": list(SIZE)}}
    world = build_tiny_world(ACTIONS["discrete"], SIZE, max_episode_steps=7, **game)
    return world.save(tmp_path_factory.mktemp("ppo") / "world")


@pytest.mark.parametrize("kill_at", [9, 12], ids=["amid a round", "between rounds"])
def test_a_killed_and_resumed_run_in_a_dream_goes_on_exactly(tmp_path, dream_folder, kill_at):
    options = loop(checkpoint_every=kill_at - 1 if kill_at == 9 else kill_at, log_every=1, learning_rate=1e-2)

    def make():
        envs = DreamVectorEnv(num_envs=3, world=str(dream_folder), device="cpu")
        return PPO(envs, PPOConfig(horizon=8, epochs=2, minibatches=2), SMALL, seed=3)

    whole = make()
    whole.train(5 * 24, tmp_path / "whole", options)
    with pytest.raises(Killed):
        killed_at(make(), kill_at).train(5 * 24, tmp_path / "parts", options)
    resumed = make()
    resumed.train(5 * 24, tmp_path / "parts", options)
    assert [row["step"] for row in rows_of(tmp_path / "whole")] == list(range(1, 21))
    assert rows_of(tmp_path / "parts") == rows_of(tmp_path / "whole")
    mine, theirs = resumed.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
    assert int(resumed.model.rollouts.episodes) > 6


def test_going_on_keeps_the_agent_that_knew_nothing(tmp_path):
    ppo = PPO(SyncVectorEnv([Echo] * 2), PPOConfig(horizon=8, epochs=1, minibatches=2), SMALL)
    ppo.train(16, tmp_path, loop(learning_rate=1e-2))
    newborn = ages(tmp_path)[0].read_bytes()
    ppo.train(32, tmp_path, loop(learning_rate=1e-2))
    assert ages(tmp_path)[0].read_bytes() == newborn


def test_a_real_game_goes_on_with_new_episodes_and_says_so_once(tmp_path, capsys):
    def make():
        return PPO(SyncVectorEnv([Echo] * 2), PPOConfig(horizon=8, epochs=1, minibatches=2), SMALL)

    with pytest.raises(Killed):
        killed_at(make(), 4).train(5 * 16, tmp_path, loop(checkpoint_every=2))
    assert "new episodes" not in capsys.readouterr().out
    make().train(5 * 16, tmp_path, loop(checkpoint_every=2))
    assert capsys.readouterr().out.count("cannot be set back to where it was: new episodes begin") == 1
    with pytest.raises(ValueError, match="another env_steps_per_step, ppo"):
        PPO(SyncVectorEnv([Echo] * 2), PPOConfig(horizon=8, gamma=0.5), SMALL).train(160, tmp_path, loop())


def test_a_reward_that_is_no_number_is_told_where_it_is_paid(tmp_path):
    ppo = PPO(counting(bad_at=21), PPOConfig(horizon=8, epochs=1, minibatches=1), SMALL)
    with pytest.raises(ValueError, match="SyncVectorEnv pays nan in lane 1 at step 28"):
        ppo.train(10**4, tmp_path, loop(checkpoint_every=1))
    assert not (tmp_path / "agent.safetensors").exists()
    assert not list(tmp_path.glob(".*"))
    # The checkpoint is the one before, and whole.
    again = PPO(counting(), PPOConfig(horizon=8, epochs=1, minibatches=1), SMALL)
    again.train(10 * 16, tmp_path, loop(checkpoint_every=1))
    assert int(again.model.rollouts.collected) == 10


def test_an_agent_goes_on_from_another(dream_folder):
    envs = DreamVectorEnv(num_envs=2, world=str(dream_folder), device="cpu")
    first = PPO(envs, PPOConfig(horizon=8), SMALL, seed=1).agent()
    second = PPO(envs, PPOConfig(horizon=8), seed=2, agent=first)
    assert second.sizes == first.config
    for name, value in second.model.actor.state_dict().items():
        assert torch.equal(value, first.policy.state_dict()[name])
    with pytest.raises(ValueError, match=r"Discrete\(3\).*Discrete\(2\)"):
        PPO(counting(), PPOConfig(horizon=8), agent=first)
    tokenizer = build_tiny_world(frame_size=SIZE).tokenizer
    sizes = ActorConfig(*tokenizer.latent_shape, channels=4, hidden=8)
    latents = Agent(tokenizer, PolicyNet(sizes, 3), None, sizes, first.facts)
    with pytest.raises(ValueError, match="PPO goes on from agents of pixels"):
        PPO(envs, agent=latents)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": 0}, "horizon is 0"),
        ({"gamma": 1.5}, "gamma is 1.5"),
        ({"clip": -0.1}, "clip is -0.1"),
        ({"reward_scale": 0}, "reward_scale is 0"),
        ({"horizon": 5, "minibatches": 4}, "2 lanes of 5 steps cannot be divided into 4 minibatches"),
    ],
)
def test_numbers_that_make_no_sense_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        PPO(counting(), PPOConfig(**changes), SMALL)


def test_observations_that_are_no_frames_are_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"CartPole-v1.*Preprocess"):
        PPO(gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync"))
    small = gym.wrappers.TransformObservation(Counting(), lambda x: x[:4], spaces.Box(0, 255, (4, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="4 x 8; an agent of pixels needs at least 8 x 8"):
        PPO(small)


# -- the command line


SHORT = ["--lanes", "2", "--steps", "64", "--ppo.horizon", "8", "--ppo.epochs", "1", "--ppo.minibatches", "2",
         "--actor.channels", "4", "--actor.hidden", "16", "--loop.device", "cpu", "--loop.evaluate-every", "4",
         "--loop.log-every", "1"]  # fmt: skip


def run(*words):
    assert main([str(word) for word in words]) == 0


def told_by(out, *words):
    run("agent", "evaluate", *words, "--out", out)
    return json.loads(out.read_text())


@pytest.mark.parametrize("actions", ACTIONS)
def test_any_actions_in_a_real_game(tmp_path, actions):
    """As in MineRL: pixels beside other observations, and with "dict" several actions at once."""
    kwargs = {"actions": actions, "pixels": "dict", "length": 6}
    run("agent", "train", "ppo", "--env", "tiny_game:Tiny-v0", "--env-kwargs", json.dumps(kwargs), "--size", *SIZE,
        "--out", tmp_path, *SHORT)  # fmt: skip
    agent = Agent.load(tmp_path)
    assert agent.facts["env_kwargs"] == kwargs
    assert agent.facts["preprocessing"]["size"] == list(SIZE)
    assert agent.facts["trained"]["kind"] == "ppo"
    assert agent.facts["trained"]["env_steps"] == 64
    told = told_by(tmp_path / "told.json", tmp_path, "--env", "tiny_game:Tiny-v0", "--episodes", 2)
    assert (told["returns"], told["length"]["value"]) == ([1, 1], 6)
    env = make_real("tiny_game:Tiny-v0", kwargs, agent.facts["preprocessing"])
    policy = make_policy(f"agent={tmp_path}", env)
    policy.reset(0)
    assert env.action_space.contains(policy.act(env.reset(seed=0)[0], {}))
    assert [path.stem for path in ages(tmp_path)] == ["ppo-0000000", "ppo-0000004", "ppo-0000008"]


def test_one_agent_in_dream_and_game(tmp_path, dream_folder, capsys):
    train = ["agent", "train", "ppo", "--env", dream_folder, "--out", tmp_path / "dreamed", *SHORT]
    run(*train)
    agent = Agent.load(tmp_path / "dreamed")
    assert agent.facts["env_id"] == "tiny_game:Tiny-v0"
    assert agent.facts["world"] == json.loads((dream_folder / "config.json").read_text())["weights_sha256"]
    told_by(tmp_path / "dream.json", tmp_path / "dreamed", "--env", dream_folder, "--episodes", 2)
    told = told_by(tmp_path / "real.json", tmp_path / "dreamed", "--env", "tiny_game:Tiny-v0", "--episodes", 2)
    assert told["length"]["value"] == 8  # with the arguments of the dream's recordings
    young = ages(tmp_path / "dreamed")[0]
    told_by(tmp_path / "young.json", young, "--env", "tiny_game:Tiny-v0", "--episodes", 1)
    # It goes on in the real game, seen as the dream shows it.
    run("agent", "train", "ppo", "--env", "tiny_game:Tiny-v0", "--like-world", dream_folder, "--init-from",
        tmp_path / "dreamed", "--out", tmp_path / "real", *SHORT)  # fmt: skip
    assert Agent.load(tmp_path / "real").facts["env_kwargs"] == {"length": 8}
    capsys.readouterr()
    run(*train, "--steps", 96)  # the last word counts
    assert "resuming" in capsys.readouterr().out
    assert Agent.load(tmp_path / "dreamed").facts["trained"]["env_steps"] == 96
    assert main(["doctor", str(tmp_path / "dreamed")]) in (0, 1)
    assert "file_damaged" not in capsys.readouterr().out
    assert main([*map(str, train), "--env-kwargs", '{"pessimism": 0.0, "max_episode_steps": 5}']) == 2
    assert "holds a run with another dream;" in capsys.readouterr().err


def test_an_agent_of_pixels_is_no_prior_for_imagination(tmp_path, dream_folder, capsys):
    run("agent", "train", "ppo", "--env", dream_folder, "--out", tmp_path / "ppo", *SHORT)
    run("record", "tiny_game:Tiny-v0", "--env-kwargs", '{"length": 8}', "--steps", 16, "--out", tmp_path / "data",
        "--size", *SIZE, "--quiet")  # fmt: skip
    words = ["agent", "train", "pmpo", "--env", dream_folder, "--prior", tmp_path / "ppo", "--data", tmp_path / "data",
             "--out", tmp_path / "pmpo", "--loop.device", "cpu"]  # fmt: skip
    assert main([str(word) for word in words]) == 2
    assert "sees pixels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--env", "no-such-game"], "no-such-game"),
        (["--env", "CartPole-v1"], "are no pixels"),
        (["--like-world", "Dream-Pong-v0"], "--like-world is for real games"),
        (["--lanes", "0"], "lanes is 0"),
        (["--init-from", "nowhere"], "there is no agent nowhere"),
        (["--ppo.lam", "2"], "lam is 2"),
    ],
)
def test_mistakes_end_with_status_2(tmp_path, dream_folder, words, message, capsys):
    env = [] if "--env" in words else ["--env", str(dream_folder)]
    try:
        status = main(["agent", "train", "ppo", "--out", str(tmp_path / "out"), *env, *SHORT, *words])
    except SystemExit as refused:  # by the parser
        status = refused.code
    assert status == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
