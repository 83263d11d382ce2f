"""Order of policies: hand-computed, in a game where some are better, and in dreams that do not know it."""

import copy
import dataclasses
import shutil

import numpy as np
import pytest
import torch
from conftest import build_tiny_world
from hypothesis import given
from hypothesis import strategies as st

from neuralsim.agents.actor import ActorConfig, PolicyNet, ValueNet
from neuralsim.agents.agent import Agent
from neuralsim.evaluation.plan import EvaluateConfig, agents_to_rank
from neuralsim.evaluation.ranking import (
    check_policies,
    compare_scores,
    labels,
    learned_here,
    mean_maximum_rank_violation,
    pearson,
    rank_policies,
    ranks,
    spearman,
)


def test_equal_values_share_their_rank():
    assert ranks(np.array([5.0, 1, 5, 9])).tolist() == [1.5, 0, 1.5, 3]


def test_correlations_by_hand():
    x, y = np.array([1.0, 2, 3]), np.array([1.0, 4, 9])
    assert spearman(x, y) == pytest.approx(1)
    assert spearman(x, -y) == pytest.approx(-1)
    # Deviations (-1, 0, 1) and (-11/3, -2/3, 13/3): 8 / sqrt(2 * 98/3).
    assert pearson(x, y) == pytest.approx(8 / np.sqrt(2 * 98 / 3))
    assert np.isnan(pearson(x, np.ones(3)))


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=8))
def test_spearman_does_not_care_for_scale(values):
    x = np.array(values, float)
    other = np.arange(len(x)) % 3
    first, second = spearman(x, other), spearman(3 * x + 7, other)
    assert first == pytest.approx(second, nan_ok=True)
    assert np.isnan(first) or -1 - 1e-9 <= first <= 1 + 1e-9


def test_rank_violation_by_hand():
    truth = np.array([0.0, 1, 10])
    assert mean_maximum_rank_violation(truth * 3, truth) == 0
    # The dream swaps the first two, which really lie 1 apart: 1, 1 and 0.
    assert mean_maximum_rank_violation(np.array([2.0, 1, 3]), truth) == pytest.approx(2 / 3)
    # It puts the best last: 10, 9 and 10.
    assert mean_maximum_rank_violation(np.array([1.0, 2, 0]), truth) == pytest.approx(29 / 3)


def test_a_dream_that_knows_and_one_that_does_not():
    names = ("a", "b", "c", "d")
    real = np.array([0.0, 1, 2, 3])[:, None] + np.array([-0.1, 0.0, 0.1])
    figures = compare_scores(names, 2 * real, real, -real)
    assert figures["spearman"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 4}
    assert figures["mmrv"]["value"] == figures["regret"] == 0
    assert figures["control"]["spearman"]["value"] == pytest.approx(-1)
    assert figures["policies"]["b"]["dream"]["value"] == pytest.approx(2)
    upside_down = compare_scores(names, -real, real, real)
    assert upside_down["regret"] == pytest.approx(3)
    blind = compare_scores(names, np.ones((4, 3)), real, real)
    assert np.isnan(blind["spearman"]["value"])


def world_of_paying_game(reward):
    """A dream of paying_game that pays ``reward(action)`` and never ends."""
    world = build_tiny_world(
        env_id="paying_game:Paying-v0", preprocessing={"size": (48, 64)}, weights_sha256="this world"
    )
    step = world.step

    def pay(state, actions, steps=None):
        state, said = step(state, actions, steps=steps)
        never = torch.zeros(state.lanes, dtype=torch.bool)
        return state, dataclasses.replace(said, reward=reward(torch.as_tensor(actions).float()), terminated=never)

    world.step = pay
    return world


POLICIES = ("noop", "random", "sticky-random")


def test_a_dream_that_pays_what_the_game_pays_has_its_order():
    ticks = []
    figures = rank_policies(
        world_of_paying_game(lambda actions: actions), POLICIES, 3, 20, 1, progress=lambda: ticks.append(1)
    )
    assert len(ticks) == 3 * 20
    for row in figures["policies"].values():
        assert row["dream"]["value"] == pytest.approx(row["real"]["value"])
    assert figures["policies"]["noop"]["real"]["value"] == 0
    assert figures["spearman"]["value"] == pytest.approx(1)
    assert figures["mmrv"]["value"] == figures["regret"] == 0


def test_in_the_control_nobody_gets_what_he_does():
    figures = rank_policies(world_of_paying_game(lambda actions: actions), POLICIES, 3, 20, 1)
    assert figures["policies"]["noop"]["control"]["value"] > 500  # paid for what others do


def test_a_dream_that_pays_nothing_or_the_opposite_is_called_so():
    blind = rank_policies(world_of_paying_game(torch.zeros_like), POLICIES, 2, 10, 1)
    assert np.isnan(blind["spearman"]["value"])
    liar = rank_policies(world_of_paying_game(lambda actions: -actions), POLICIES, 2, 10, 1)
    assert liar["spearman"]["value"] == pytest.approx(-1)
    assert liar["regret"] > 1000


def save_agent(world, path, steps, action, trained_in="this world"):
    """An agent of some age that always takes one action."""
    config = ActorConfig(*world.latent_shape, frames=2, channels=4, hidden=8, ahead=1, bins=3)
    policy = PolicyNet(config, world.actions.size)
    policy.out.bias.data[action] = 100.0
    facts = {
        "action_space": world.config.action_space,
        "env_id": world.config.env_id,
        "env_kwargs": {},
        "preprocessing": world.config.preprocessing,
        "world": trained_in,
        "trained": {"kind": "pmpo", "steps": steps},
    }
    agent = Agent(copy.deepcopy(world.tokenizer), policy, ValueNet(config), config, facts)
    return f"agent={agent.save(path / f'pmpo-{steps:07d}.safetensors')}"


def test_agents_that_learned_here_are_compared_with_themselves(tmp_path):
    honest = world_of_paying_game(lambda actions: actions)
    players = tuple(save_agent(honest, tmp_path, steps, action) for steps, action in ((20, 5), (0, 1), (10, 2)))
    stranger = save_agent(honest, tmp_path / "other", 30, 3, trained_in="another world")
    figures = rank_policies(honest, (*players, stranger), 2, 10, 1)
    assert list(figures["policies"]) == ["pmpo-0000020", "pmpo-0000000", "pmpo-0000010", "pmpo-0000030"]
    gap = figures["exploitation"]["pmpo"]
    assert list(gap["ages"]) == ["0", "10", "20"]
    assert gap["real_gain"]["value"] == gap["dream_gain"]["value"] == pytest.approx(4000)
    assert gap["exploitation"]["value"] == 0
    # The same agents in a dream that pays the oldest of them far too much.
    fooled = rank_policies(world_of_paying_game(lambda actions: actions + 10 * (actions == 5)), players, 2, 10, 1)
    assert fooled["exploitation"]["pmpo"]["exploitation"]["value"] == pytest.approx(10_000)


def test_agents_are_told_apart_by_what_their_files_say(tmp_path):
    world = world_of_paying_game(lambda actions: actions)
    first = [save_agent(world, tmp_path / "a.1" / "agents", steps, 1) for steps in (0, 10)]
    again = [save_agent(world, tmp_path / "b" / "agents", steps, 2) for steps in (0, 20)]
    final = f"agent={tmp_path / 'b'}"  # a run's folder, whose agent is called agent.safetensors
    shutil.copy(tmp_path / "b" / "agents" / "pmpo-0000020.safetensors", tmp_path / "b" / "agent.safetensors")
    assert labels((*first, *again)) == ("a.1/pmpo-0000000", "pmpo-0000010", "b/pmpo-0000000", "pmpo-0000020")
    assert labels(("random", final)) == ("random", "pmpo-0000020")
    found = learned_here(world, (again[0], final, *reversed(first), "random"))
    assert {kind: list(of_age) for kind, of_age in found.items()} == {"b/pmpo": [0, 20], "a.1/pmpo": [0, 10]}
    with pytest.raises(ValueError, match="b/pmpo-0000020 would be ranked twice"):
        check_policies(world, ("random", *again, final))
    nameless = world_of_paying_game(lambda actions: actions)
    nameless.config.weights_sha256 = ""
    other = [save_agent(world, tmp_path / "c" / "agents", steps, 2, trained_in="") for steps in (0, 20)]
    assert learned_here(nameless, tuple(other)) == {}  # what nobody recorded is not the same


def test_agents_are_found_in_a_run_and_in_the_worlds_folder(tmp_path):
    world = build_tiny_world(env_id="paying_game:Paying-v0", preprocessing={"size": (48, 64)})
    run = EvaluateConfig("pong", agents=(tmp_path,))
    with pytest.raises(FileNotFoundError, match="holds no agents"):
        agents_to_rank(run, world)
    older, younger = (save_agent(world, tmp_path / "agents", steps, 1) for steps in (500, 0))
    assert agents_to_rank(run, world) == [younger, older]
    assert agents_to_rank(EvaluateConfig("pong"), world) == []  # it lies in no folder
    world.source = tmp_path
    assert agents_to_rank(EvaluateConfig("pong"), world) == [younger, older]
    assert agents_to_rank(EvaluateConfig("pong", policies=("random",)), world) == []


def test_policies_that_cannot_be_ranked_are_refused():
    world = build_tiny_world(env_id="paying_game:Paying-v0", preprocessing={"size": (48, 64)})
    with pytest.raises(ValueError, match="at least 3 different"):
        check_policies(world, ("random", "noop"))
    with pytest.raises(ValueError, match="random would be ranked twice"):
        check_policies(world, ("random", "noop", "random"))
    with pytest.raises(ValueError, match="keyboard"):
        check_policies(world, ("random", "noop", "keyboard"))
    with pytest.raises(ValueError, match="only Atari Pong"):
        check_policies(world, ("random", "noop", "scripted=1"))
