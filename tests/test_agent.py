"""Agents as files and as players: saved, loaded, side by side, by name, and made by the command line."""

import json
import shutil

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import build_tiny_world
from gymnasium import spaces
from tiny_game import ACTIONS

from neuralsim import World
from neuralsim.actions import ActionCodec, slice_actions, space_to_json
from neuralsim.agents.action_distribution import ActionDistribution
from neuralsim.agents.actor import ActorConfig, PolicyNet, ValueNet
from neuralsim.agents.agent import Agent, agent_facts, ages, find_agent
from neuralsim.agents.agent_evaluation import AgentEvaluation, evaluate_agent, make_lanes
from neuralsim.agents.policies import Policy, make_policy
from neuralsim.cli import main
from neuralsim.data.episodes import EpisodeStore
from neuralsim.envs.real import make_real
from neuralsim.tensor_files import read_tensors, write_tensors

SIZE = (16, 32)
PREPROCESSING = {"size": list(SIZE), "resample": "box", "crop": None, "source": "observation", "key": None}


def make_agent(space=None, seed=0, deterministic=False, frames=3):
    """An agent of random parts with strong opinions, so that what it sees decides what it does."""
    space = space or ACTIONS["discrete"]
    tokenizer = build_tiny_world(frame_size=SIZE, starts=False, seed=seed).tokenizer
    tokenizer.fit_statistics(torch.from_numpy(frames_of(50, 1)[:, 0]))
    height, width, channels = tokenizer.latent_shape
    config = ActorConfig(height, width, channels, frames=frames, channels=4, hidden=16, ahead=2, bins=31)
    torch.manual_seed(seed)
    policy = PolicyNet(config, ActionDistribution(ActionCodec(space)).parameters)
    torch.nn.init.normal_(policy.out.weight, std=3.0)
    torch.nn.init.normal_(policy.trunk.hidden.weight, std=1.0)
    facts = {
        "action_space": space_to_json(space),
        "env_id": "tiny_game:Tiny-v0",
        "env_kwargs": {"length": 8},
        "preprocessing": PREPROCESSING,
        "world": None,
        "trained": {"kind": "clone", "gamma": 0.9},
    }
    return Agent(tokenizer, policy, ValueNet(config), config, facts, deterministic)


def frames_of(steps, lanes, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (steps, lanes, *SIZE, 3), dtype=np.uint8)


def play(agent, frames):
    return [agent.act(frame) for frame in frames]


def tell(actions):
    return json.dumps(actions, default=lambda x: x.tolist())


# -- in files


@pytest.mark.parametrize("space", ACTIONS.values(), ids=ACTIONS)
@pytest.mark.parametrize("deterministic", [False, True])
def test_a_loaded_agent_acts_as_the_saved_one(tmp_path, space, deterministic):
    agent, frames = make_agent(space, deterministic=deterministic), frames_of(12, 2)
    path = agent.save(tmp_path / "new" / "folder" / "agent.safetensors")
    loaded = Agent.load(path, deterministic)
    assert loaded.facts == agent.facts
    assert loaded.action_space == space
    assert loaded.config == agent.config
    for player in (agent, loaded):
        player.reset(2, seed=5)
    actions = play(agent, frames)
    assert tell(actions) == tell(play(loaded, frames))
    assert len({tell(action) for action in actions}) > 2
    for action in actions:
        assert all(space.contains(slice_actions(action, i)) for i in range(2))


def test_the_folder_of_a_run_holds_its_agent(tmp_path):
    make_agent().save(tmp_path / "agent.safetensors")
    assert find_agent(tmp_path) == find_agent(tmp_path / "agent.safetensors") == tmp_path / "agent.safetensors"
    assert Agent.load(str(tmp_path)).facts["env_id"] == "tiny_game:Tiny-v0"


def test_an_agent_that_is_not_there_names_the_way_out(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*neuralsim agent train"):
        Agent.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"holds no agent\.safetensors: train it to its end"):
        Agent.load(tmp_path)
    (tmp_path / "agents").mkdir()
    with pytest.raises(FileNotFoundError, match=r"or name one of .*agents"):
        Agent.load(tmp_path)


def test_damaged_and_other_files_are_refused_by_name(tmp_path):
    agent = make_agent()
    path = agent.save(tmp_path / "mine.safetensors")
    whole = path.read_bytes()
    for damaged in (whole[:-100], whole[: len(whole) // 2], b"hello, I am no agent", b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"mine\.safetensors"):
            Agent.load(path)
    write_tensors(path, agent.tokenizer.state_dict(), {"kind": "tokenizer", "config": "{}"})
    with pytest.raises(ValueError, match=r"mine\.safetensors holds no agent, but tokenizer"):
        Agent.load(path)
    write_tensors(path, {"x": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"mine\.safetensors holds no agent, but an unknown"):
        Agent.load(path)


def changed(path, change):
    tensors, metadata = read_tensors(path)
    told = json.loads(metadata["config"])
    change(tensors, told)
    write_tensors(path, tensors, {"kind": "agent", "config": json.dumps(told)})


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, told: tensors.pop("policy.out.weight"),
        lambda tensors, told: tensors.update({"policy.new": torch.zeros(1)}),
        lambda tensors, told: told["actor"].update(hidden=17),
        lambda tensors, told: told["actor"].update(sight=1),  # a field of a newer version
        lambda tensors, told: told.pop("actor"),
        lambda tensors, told: told.pop("action_space"),
        lambda tensors, told: told["tokenizer"].update(type="new"),
    ],
    ids=["missing weight", "unknown weight", "other size", "unknown field", "no sizes", "no actions", "new tokenizer"],
)
def test_an_agent_of_another_version_is_refused_by_name(tmp_path, change):
    path = make_agent().save(tmp_path / "mine.safetensors")
    changed(path, change)
    with pytest.raises(ValueError, match=r"mine\.safetensors"):
        Agent.load(path)


def test_ages_go_from_young_to_old(tmp_path):
    names = ["pmpo-0000500", "pmpo-0000000", "pmpo-0010000", "clone-0006000", "pmpo-0004000"]
    (tmp_path / "agents").mkdir()
    for name in names:
        (tmp_path / "agents" / f"{name}.safetensors").touch()
    (tmp_path / "agents" / "notes.txt").touch()
    assert [path.stem for path in ages(tmp_path)] == sorted(names)
    assert ages(tmp_path / "nowhere") == []


# -- at play


def test_every_lane_plays_as_if_alone():
    agent, frames = make_agent(), frames_of(30, 2)
    agent.reset(2, seed=7)
    both = np.stack(play(agent, frames))
    for lane in (0, 1):
        agent.reset(1, seed=7 + lane)
        assert np.stack(play(agent, frames[:, lane : lane + 1]))[:, 0].tolist() == both[:, lane].tolist()
    assert len(set(both[:, 1].tolist())) > 1
    agent.reset(2, seed=[8, 7])
    crossed = np.stack(play(agent, frames[:, ::-1]))
    assert crossed.tolist() == both[:, ::-1].tolist()


def test_seeds_restart_the_draws():
    agent = make_agent()
    frames = frames_of(1, 1).repeat(40, axis=0)  # nothing moves: only the draws differ
    torch.nn.init.zeros_(agent.policy.out.weight)

    def draws(seed):
        agent.reset(1, seed)
        return [int(action[0]) for action in play(agent, frames)]

    assert draws(3) == draws(3)
    assert draws(3) != draws(4)


def test_a_deterministic_agent_takes_the_likeliest_action():
    agent, frames = make_agent(deterministic=True), frames_of(6, 1)
    agent.reset(1, seed=0)
    first = tell(play(agent, frames))
    agent.reset(1, seed=1)
    assert first == tell(play(agent, frames))
    with torch.no_grad():
        latents = agent.tokenizer.encode(torch.from_numpy(frames[3:, 0]))
        best = agent.policy(latents[None])[0, 0].argmax()
    agent.reset(1)
    assert int(play(agent, frames)[-1][0]) == int(best)  # the last three frames, oldest first


def test_before_the_first_frame_it_is_repeated():
    # As in cloning: an agent that began with black frames would see what it was never shown.
    agent, frame = make_agent(deterministic=True), frames_of(1, 4)[0]
    agent.reset(4)
    with torch.no_grad():
        latents = agent.tokenizer.encode(torch.from_numpy(frame))[:, None].expand(-1, 3, -1, -1, -1)
        best = agent.policy(latents)[:, 0].argmax(-1)
    assert agent.act(frame).tolist() == best.tolist()


def test_a_new_episode_is_forgotten_into_in_its_lane_only():
    agent, frames = make_agent(deterministic=True), frames_of(20, 2)

    def alone(lane, begin):
        agent.reset(1)
        return [int(agent.act(frame)[0]) for frame in frames[begin:, lane : lane + 1]]

    agent.reset(2)
    played = []
    for t, frame in enumerate(frames):
        if t == 10:
            agent.begin(np.array([False, True]))
        played.append(agent.act(frame))
        if t == 10:
            latents = agent.tokenizer.encode(torch.from_numpy(frames[8:11])).transpose(0, 1)
            assert torch.allclose(agent.recent[0], latents[0], atol=1e-5)
            assert torch.allclose(agent.recent[1], latents[1, 2:].expand(3, -1, -1, -1), atol=1e-5)
    played = np.stack(played)
    assert played[:, 0].tolist() == alone(0, 0)
    assert played[10:, 1].tolist() == alone(1, 10)
    assert played[10:12, 1].tolist() != alone(1, 0)[10:12]  # what came before would have mattered


def test_begin_does_not_change_the_callers_array():
    agent = make_agent()
    agent.reset(2)
    over = np.array([False, True])
    agent.begin(over)
    agent.act(frames_of(1, 2)[0])
    assert over.tolist() == [False, True]


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 16, 16, 3), np.uint8),
        np.zeros((3, *SIZE, 3), np.uint8),
        np.zeros((2, *SIZE, 3), np.float32),
        np.zeros((*SIZE, 3), np.uint8),
    ],
    ids=["size", "lanes", "type", "one frame"],
)
def test_frames_that_do_not_fit_are_refused(frames):
    agent = make_agent()
    agent.reset(2)
    with pytest.raises(ValueError, match=r"2 lanes and sees frames \(lanes, 16, 32, 3\) uint8, got"):
        agent.act(frames)


def test_without_a_reset_the_frames_say_how_many_lanes_there_are():
    assert make_agent().act(frames_of(1, 5)[0]).shape == (5,)


def test_nothing_of_an_agent_learns():
    agent = make_agent()
    parts = (agent.tokenizer, agent.policy, agent.value)
    assert not any(p.requires_grad for part in parts for p in part.parameters())
    assert not any(part.training for part in parts)


# -- by name


@pytest.mark.parametrize("kind", ACTIONS)
def test_an_agent_is_a_policy(tmp_path, kind):
    path = make_agent(ACTIONS[kind]).save(tmp_path / "agent.safetensors")
    env = make_real("tiny_game:Tiny-v0", {"actions": kind}, PREPROCESSING)
    policy = make_policy(f"agent={path}", env)
    assert policy.name == "agent=agent.safetensors"

    def actions(seed):
        frame, info = env.reset(seed=0)
        policy.reset(seed)
        taken = []
        for _ in range(15):
            taken.append(policy.act(frame, info))
            assert env.action_space.contains(taken[-1])
            frame, *_, info = env.step(taken[-1])
        return tell(taken)

    assert actions(1) == actions(1)
    assert actions(1) != actions(2)
    policy.reset()  # a new episode in the same stream
    assert env.action_space.contains(policy.act(env.reset()[0], {}))


def test_two_policies_of_one_file_do_not_share_what_they_have_seen(tmp_path):
    path = make_agent().save(tmp_path / "agent.safetensors")
    env = make_real("tiny_game:Tiny-v0", {}, PREPROCESSING)
    first, second = (make_policy(f"agent={path}", env) for _ in range(2))
    frames = frames_of(20, 2)
    first.reset(3)
    alone = [first.act(frame[0], {}) for frame in frames]
    first.reset(3)
    second.reset(4)
    together = [(first.act(frame[0], {}), second.act(frame[1], {})) for frame in frames]
    assert [action for action, _ in together] == alone
    assert first.agent.policy is second.agent.policy  # only the weights are


def test_a_file_that_was_written_anew_is_read_anew(tmp_path):
    # Training goes on in the same process, as in a notebook: the policy of that name is the agent there is now.
    path, env = tmp_path / "agent.safetensors", make_real("tiny_game:Tiny-v0", {}, PREPROCESSING)
    make_agent(seed=0).save(path)
    make_policy(f"agent={path}", env)
    later = make_agent(seed=1)
    later.save(path)
    told = make_policy(f"agent={path}", env).agent.policy.state_dict()
    assert all(torch.equal(value, told[name]) for name, value in later.policy.state_dict().items())


def test_a_policy_that_plays_other_actions_is_refused(tmp_path):
    path = make_agent(spaces.Discrete(4)).save(tmp_path / "agent.safetensors")
    env = make_real("tiny_game:Tiny-v0", {}, PREPROCESSING)
    with pytest.raises(ValueError, match=r"Discrete\(4\).*Discrete\(3\)"):
        make_policy(f"agent={path}", env)
    with pytest.raises(ValueError, match="agent=PATH"):
        make_policy("agent", env)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        make_policy("agent=nowhere", env)


# -- evaluated


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an agent for the tiny game, and a dream of that game that it can play as well."""
    folder = tmp_path_factory.mktemp("evaluation")
    make_agent().save(folder / "agent.safetensors")
    world = build_tiny_world(ACTIONS["discrete"], SIZE, env_id="tiny_game:Tiny-v0", max_episode_steps=6)
    world.save(folder / "world")
    return folder


def told_by(out, *words):
    assert main(["agent", "evaluate", *map(str, words), "--out", str(out)]) == 0
    return json.loads(out.read_text())


def test_an_agent_is_evaluated_in_the_real_game(place, tmp_path, capsys):
    words = [place, "--env", "tiny_game:Tiny-v0", "--episodes", 3]
    told = told_by(tmp_path / "deep" / "told.json", *words)
    # As recorded, an episode has 8 steps, and the fifth pays 1.
    assert told["env_kwargs"] == {"length": 8}
    assert told["returns"] == [1, 1, 1]
    assert told["return"] == {"value": 1, "low": 1, "high": 1, "n": 3}
    assert (told["length"]["value"], told["unfinished"]) == (8, 0)
    assert (told["agent"], told["env"]) == (str(place), "tiny_game:Tiny-v0")
    assert "return 1.0 (1.0 to 1.0) over 3 episodes of 8 steps" in capsys.readouterr().out
    longer = told_by(tmp_path / "longer.json", *words, "--env-kwargs", '{"length": 10}')
    assert (longer["returns"], longer["length"]["value"]) == ([2, 2, 2], 10)


def test_an_agent_is_evaluated_in_a_dream(place, tmp_path):
    words = [place, "--env", place / "world", "--episodes", 4, "--seed", 3]
    told = told_by(tmp_path / "a.json", *words)
    assert len(told["returns"]) == 4
    assert told["length"]["value"] <= 6
    assert told["env_kwargs"] == {}  # those of the recordings are none of a dream's
    assert told == told_by(tmp_path / "b.json", *words)
    assert told["returns"] == played_one_by_one(place, 3, 4)


def played_one_by_one(place, seed, episodes):
    """The same by the single environment and a single lane."""
    returns = []
    env = gym.make("Dream-v0", world=str(place / "world"))
    agent = Agent.load(place)
    for i in range(seed, seed + episodes):
        frame, _ = env.reset(seed=i)
        agent.reset(1, i)
        total, over = 0.0, False
        while not over:
            frame, reward, terminated, truncated, _ = env.step(int(agent.act(frame[None])[0]))
            total, over = total + reward, terminated or truncated
        returns.append(total)
    return returns


@pytest.mark.parametrize("env", ["tiny_game:Tiny-v0", "world"])
def test_other_policies_are_evaluated_alike(place, tmp_path, env):
    env = place / "world" if env == "world" else env
    told = told_by(tmp_path / "told.json", "random", "--env", env, "--episodes", 2, "--max-steps", 25)
    assert len(told["returns"]) == 2
    if env != place / "world":
        assert (told["returns"], told["length"]["value"]) == ([4, 4], 20)


@pytest.mark.parametrize(("limit", "unfinished"), [(19, 2), (20, 0), (21, 0)])
def test_episodes_that_were_cut_off_are_told(limit, unfinished, capsys):
    # Tiny-v0 ends by itself with its 20th step.
    config = AgentEvaluation("random", "tiny_game:Tiny-v0", episodes=2, max_steps=limit)
    told = evaluate_agent(config)
    assert told["length"]["value"] == min(limit, 20)
    assert told["unfinished"] == unfinished
    assert ("cut off" in capsys.readouterr().out) == bool(unfinished)


def test_what_is_paid_after_an_episode_does_not_count(place):
    # Lanes go on until all have ended: the game begins anew and pays again.
    class Uneven(gym.Wrapper):
        def __init__(self, env):
            super().__init__(env)

        def reset(self, *, seed=None, options=None):
            result = self.env.reset(seed=seed, options=options)
            if seed is not None:
                self.unwrapped.length = 6 if seed == 0 else 30
            return result

    from neuralsim.agents.agent_evaluation import PolicyLanes, play_episodes

    envs = gym.vector.SyncVectorEnv([lambda: Uneven(make_real("tiny_game:Tiny-v0"))] * 2)
    returns, lengths, *_ = play_episodes(envs, PolicyLanes("noop", "tiny_game:Tiny-v0", 2, {}), 0, 100)
    envs.close()
    assert (returns.tolist(), lengths.tolist()) == ([1, 6], [6, 30])


class Told(Policy):
    """Does what it is told in info."""

    name, needs_info = "told", True

    def reset(self, seed=None):
        self.heard = []

    def act(self, frame, info):
        self.heard.append(info["step"].tolist())
        return 0


def test_policies_that_must_be_told_are_told_in_games_and_refused_in_dreams(place, monkeypatch):
    class Telling(gym.Wrapper):
        def __init__(self, env):
            super().__init__(env)

        def reset(self, *, seed=None, options=None):
            frame, info = self.env.reset(seed=seed, options=options)
            self.at = np.array([seed, 0])
            return frame, info | {"step": self.at}

        def step(self, action):
            *result, info = self.env.step(action)
            self.at = self.at + [0, 1]
            return (*result, info | {"step": self.at})

    from neuralsim.agents import agent_evaluation
    from neuralsim.evaluation import playing

    for module in (agent_evaluation, playing):
        monkeypatch.setattr(module, "make_policy", lambda name, env: Told())
    envs = gym.vector.SyncVectorEnv([lambda: Telling(make_real("tiny_game:Tiny-v0"))] * 2)
    players = agent_evaluation.PolicyLanes("told", "tiny_game:Tiny-v0", 2, {})
    agent_evaluation.play_episodes(envs, players, 5, 3)
    envs.close()
    assert [policy.heard for policy in players.policies] == [[[5, 0], [5, 1], [5, 2]], [[6, 0], [6, 1], [6, 2]]]
    with pytest.raises(ValueError, match="only the real game knows"):
        agent_evaluation.PolicyLanes("told", str(place / "world"), 2, {})
    with pytest.raises(ValueError, match="cannot play in a dream"):
        playing.make_players(World.load(place / "world"), ["told"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--episodes", "0"], "episodes is 0; it must be at least 1"),
        (["--max-steps", "0"], "max_steps is 0; it must be at least 1"),
        (["--env-kwargs", "[1]"], "no JSON object"),
        (["--env-kwargs", '{"speed": 3}'], "does not take the arguments"),
        (["--env-kwargs", '{"actions": "multi"}'], "MultiDiscrete"),
        (["--env", "no-such-game"], "no-such-game"),
    ],
)
def test_calls_that_make_no_sense_end_with_status_2(place, words, message, capsys):
    env = [] if "--env" in words else ["--env", "tiny_game:Tiny-v0"]
    assert main(["agent", "evaluate", str(place), *env, *words]) == 2
    assert message in capsys.readouterr().err


def test_arguments_that_a_dream_does_not_take_are_refused(place):
    with pytest.raises(ValueError, match="speed"):
        make_lanes(str(place / "world"), 1, {"speed": 3}, None)


def test_an_agent_in_an_environment_of_other_frames_or_actions_is_refused(place, tmp_path):
    build_tiny_world(ACTIONS["discrete"]).save(tmp_path / "large")
    with pytest.raises(ValueError, match=r"sees frames \(16, 32, 3\).*48, 64"):
        evaluate_agent(AgentEvaluation(str(place), str(tmp_path / "large"), episodes=1))
    build_tiny_world(frame_size=SIZE).save(tmp_path / "six")
    with pytest.raises(ValueError, match=r"Discrete\(3\).*Discrete\(6\)"):
        evaluate_agent(AgentEvaluation(str(place), str(tmp_path / "six"), episodes=1))


def test_a_missing_agent_is_no_traceback(capsys):
    assert main(["agent", "evaluate", "no/such/run", "--env", "tiny_game:Tiny-v0"]) == 2
    error = capsys.readouterr().err
    assert "there is no agent no/such/run" in error
    assert "Traceback" not in error


# -- the whole way

ON_CPU = ["--loop.device", "cpu", "--loop.log-every", "1"]
CLONE = ["--actor.channels", "4", "--actor.hidden", "16", "--actor.ahead", "2", "--actor.bins", "31",
         "--batch-size", "8", "--loop.steps", "4", "--loop.evaluate-every", "4", *ON_CPU]  # fmt: skip
DREAM = ["--imagination.dreams", "4", "--imagination.horizon", "3", "--imagination.updates", "2",
         "--imagination.batch-size", "8", "--loop.steps", "5", "--loop.evaluate-every", "2",
         "--loop.checkpoint-every", "3"]  # fmt: skip


def run(*words) -> None:
    assert main([str(word) for word in words]) == 0


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A recording, a world of random parts, a clone and an agent that has dreamed."""
    home = tmp_path_factory.mktemp("agents")
    run("record", "tiny_game:Tiny-v0", "--env-kwargs", '{"length": 12}', "--steps", 60, "--out", home / "data",
        "--size", *SIZE, "--quiet")  # fmt: skip
    info = EpisodeStore.open(home / "data").info
    game = {"env_id": info.env_id, "env_kwargs": info.env_kwargs, "preprocessing": info.preprocessing}
    build_tiny_world(ACTIONS["discrete"], SIZE, **game).save(home / "world")
    run("agent", "train", "clone", "--data", home / "data", "--tokenizer", home / "world", "--out", home / "clone",
        *CLONE)  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neuralsim.agents.imagination_training.LONG_STEPS", 10)
        run(*dreaming(home), *DREAM, *ON_CPU)
    return home


def dreaming(home, out="pmpo", prior="clone", env="world"):
    return ["agent", "train", "pmpo", "--env", home / env, "--prior", home / prior, "--data", home / "data",
            "--out", home / out]  # fmt: skip


@pytest.fixture
def short_dreams(monkeypatch):
    monkeypatch.setattr("neuralsim.agents.imagination_training.LONG_STEPS", 10)


def test_the_clone_knows_where_it_comes_from(home):
    clone, store, world = Agent.load(home / "clone"), EpisodeStore.open(home / "data"), World.load(home / "world")
    assert clone.facts["env_id"] == "tiny_game:Tiny-v0"
    assert clone.facts["env_kwargs"] == {"length": 12}
    assert clone.facts["preprocessing"] == store.info.preprocessing
    assert clone.facts["world"] is None
    assert clone.facts["trained"]["gamma"] == 0.99
    assert (clone.config.height, clone.config.width) == world.latent_shape[:2]
    for name, value in clone.tokenizer.state_dict().items():
        assert torch.equal(value, world.tokenizer.state_dict()[name]), name


def test_a_dreamer_knows_clone_and_world_and_is_kept_at_every_age(home):
    agent = Agent.load(home / "pmpo")
    assert agent.facts["world"] == World.load(home / "world").config.weights_sha256
    assert agent.facts["trained"]["kind"] == "pmpo"
    assert agent.facts["trained"]["prior"]["kind"] == "clone"
    assert agent.facts["trained"]["gamma"] == 0.99
    assert [agent_facts(path)["trained"]["steps"] for path in ages(home / "pmpo")] == [0, 2, 4, 5]
    first, last = Agent.load(ages(home / "pmpo")[0]), Agent.load(ages(home / "pmpo")[-1])
    frames = frames_of(10, 2)
    for player in (first, clone := Agent.load(home / "clone")):
        player.reset(2)
    assert tell(play(first, frames)) == tell(play(clone, frames))  # age 0 is the clone itself
    final, old = agent.policy.state_dict(), last.policy.state_dict()
    assert all(torch.equal(value.bfloat16().float(), old[name]) for name, value in final.items())  # half the size
    assert any(not torch.equal(value, final[name]) for name, value in clone.policy.state_dict().items())
    rows = [json.loads(line) for line in (home / "pmpo" / "metrics.jsonl").read_text().splitlines()]
    told = [row for row in rows if row["kind"] == "held-out"]
    assert [row["step"] for row in told] == [2, 4, 5]
    assert all("return_of_10" in row for row in told)


def test_the_dreamer_is_evaluated_recorded_and_dreams_on(home, tmp_path, short_dreams):
    told = told_by(tmp_path / "told.json", home / "pmpo", "--env", "tiny_game:Tiny-v0", "--episodes", 2)
    assert (told["returns"], told["length"]["value"]) == ([2, 2], 12)
    told_by(tmp_path / "dream.json", home / "pmpo", "--env", home / "world", "--episodes", 2, "--max-steps", 5)
    run("record", "tiny_game:Tiny-v0", "--policy", f"agent={home / 'pmpo'}", "--steps", 15, "--out", tmp_path / "data",
        "--size", *SIZE, "--quiet")  # fmt: skip
    store = EpisodeStore.open(tmp_path / "data")
    assert store.total_steps == 15
    assert store.meta(0)["policy"] == "agent=pmpo"
    run(*dreaming(home, out=tmp_path / "further", prior="pmpo"), *DREAM, *ON_CPU)


def test_the_other_objective_from_the_same_clone(home, tmp_path, short_dreams):
    words = ["actor-critic" if word == "pmpo" else word for word in dreaming(home, out=tmp_path)]
    run(*words, *DREAM, *ON_CPU)
    assert ages(tmp_path)[0].stem == "actor-critic-0000000"
    assert Agent.load(tmp_path).facts["trained"]["kind"] == "actor-critic"


def test_the_same_command_makes_the_same_agent_and_more_steps_go_on(home, tmp_path, short_dreams):
    run(*dreaming(home, out=tmp_path), *DREAM, *ON_CPU)
    first, second = (read_tensors(path / "agent.safetensors")[0] for path in (home / "pmpo", tmp_path))
    assert all(torch.equal(first[name], second[name]) for name in first)
    run(*dreaming(home, out=tmp_path), *DREAM, *ON_CPU, "--loop.steps", 6)
    assert [agent_facts(path)["trained"]["steps"] for path in ages(tmp_path)] == [0, 2, 4, 5, 6]


def test_a_clone_that_sees_more_frames_than_the_world_remembers_dreams_as_well(home, tmp_path, short_dreams):
    run("agent", "train", "clone", "--data", home / "data", "--tokenizer", home / "world", "--out", tmp_path / "clone",
        *CLONE, "--actor.frames", 6)  # fmt: skip
    assert World.load(home / "world").dynamics.context_length < 6
    run(*dreaming(home, out=tmp_path / "pmpo", prior=tmp_path / "clone"), *DREAM, *ON_CPU)


def test_a_world_in_bfloat16_has_the_tokenizer_of_its_clone(home, tmp_path, monkeypatch, short_dreams):
    """Where bfloat16 is fast, worlds are dreamed in it, and rounded weights must not count as another tokenizer."""
    from neuralsim.agents import imagination_run

    loaded = []

    def load(*args):
        loaded.append(World.load(*args))
        return loaded[-1]

    monkeypatch.setattr(imagination_run, "World", type("Noted", (), {"load": staticmethod(load)}))
    run(*dreaming(home, out=tmp_path), *DREAM, *ON_CPU, "--loop.dtype", "bfloat16")
    assert loaded[0].dtype == torch.bfloat16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_agents_are_trained_on_cuda(home, tmp_path, short_dreams):
    # Between the loop, the world and what is evaluated, some tensors lie on the CPU and some do not.
    on_cuda = ["--loop.device", "cuda"]
    run("agent", "train", "clone", "--data", home / "data", "--tokenizer", home / "world", "--out", tmp_path / "clone",
        *CLONE, *on_cuda)  # fmt: skip
    run(*dreaming(home, out=tmp_path / "pmpo", prior=tmp_path / "clone"), *DREAM, *on_cuda)
    run("agent", "evaluate", tmp_path / "pmpo", "--env", home / "world", "--episodes", 2, "--max-steps", 5)


def test_clones_that_do_not_belong_to_the_world_are_refused(home, tmp_path, capsys):
    def refused(message, **changes):
        gamma = changes.pop("gamma", 0.99)
        words = [*dreaming(home, **{"out": tmp_path / "out"} | changes), *DREAM, *ON_CPU, "--imagination.gamma", gamma]
        assert main([str(word) for word in words]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
        assert not (tmp_path / "out" / "agent.safetensors").exists()

    other = World.load(home / "world")
    with torch.no_grad():
        other.tokenizer.latent_scale.mul_(1.5)
    other.save(tmp_path / "other eyes")
    refused("sees through another tokenizer", env=tmp_path / "other eyes")
    other = build_tiny_world(spaces.Discrete(6), SIZE, env_id="tiny_game:Tiny-v0")
    other.tokenizer.load_state_dict(World.load(home / "world").tokenizer.state_dict())
    other.save(tmp_path / "other actions")
    refused("Discrete(6)", env=tmp_path / "other actions")
    refused("was kept to play alone", prior=ages(home / "pmpo")[0])
    build_tiny_world(ACTIONS["discrete"], SIZE, env_id="ALE/Tiny-v5").save(tmp_path / "other game")
    refused("plays tiny_game:Tiny-v0, the world ALE/Tiny-v5", env=tmp_path / "other game")
    refused("gamma 0.99, this run has 0.9", gamma=0.9)
    refused("nowhere", prior=tmp_path / "nowhere")
    refused("nowhere", env=tmp_path / "nowhere")


def test_a_run_of_another_kind_is_left_as_it_is(home, tmp_path, capsys, short_dreams):
    shutil.copytree(home / "pmpo", tmp_path / "pmpo")
    before = {path: path.read_bytes() for path in (tmp_path / "pmpo").rglob("*.safetensors")}
    words = [*dreaming(home, out=tmp_path / "pmpo"), *DREAM, *ON_CPU, "--imagination.beta", 0.7]
    assert main([str(word) for word in words]) == 2
    assert "another imagination" in capsys.readouterr().err
    shutil.copytree(home / "clone", tmp_path / "clone")
    before |= {path: path.read_bytes() for path in (tmp_path / "clone").rglob("*.safetensors")}
    assert main([str(word) for word in [*dreaming(home, out=tmp_path / "clone"), *DREAM, *ON_CPU]]) == 2
    after = {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")}
    assert after.keys() == before.keys()  # nor is anything laid beside it
    assert after == before
