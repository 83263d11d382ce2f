"""Long dreams: what is described window by window, and worlds that drift."""

import itertools

import numpy as np
import pytest
import torch
from conftest import build_tiny_world

from neuralsim.agents.policies import make_policy
from neuralsim.evaluation import playing
from neuralsim.evaluation.long_dreams import (
    EVERY,
    WINDOW,
    LongPlay,
    alien_limit,
    compare_long,
    ks_distance,
    round_trip_error,
)
from neuralsim.evaluation.playing import Moment, Play, dream_play, real_game, real_play
from neuralsim.evaluation.probes import Probes, Thing

DOT = Probes("test_evaluation", (Thing("dot", "there", ("x", "y"), 1.0),))


def test_distances_between_distributions_by_hand():
    assert ks_distance(np.array([1.0, 2]), np.array([1.0, 2])) == 0
    assert ks_distance(np.array([1.0, 2]), np.array([3.0, 4])) == 1
    assert ks_distance(np.array([1.0, 3]), np.array([2.0, 4])) == 0.5
    assert np.isnan(ks_distance(np.array([]), np.array([1.0])))


def moments(steps, brightness, rewards=(), ends=()):
    """One lane of even frames."""
    for t in range(steps):
        frame = np.full((1, 48, 64, 3), brightness(t), np.uint8)
        yield Moment(frame, np.array([float(t in rewards)]), np.array([t in ends]))


def test_windows_and_episodes_by_hand():
    world = build_tiny_world()
    steps = 2 * WINDOW
    seen = LongPlay(world, None, alien=np.inf).see(
        moments(steps, lambda t: 100 if t < WINDOW else 50, rewards=(3, 4, 700), ends=(9, 29))
    )
    figures = seen.figures()
    assert figures["windows"]["brightness"] == [100, 50]
    assert figures["windows"]["contrast"] == [0, 0]
    assert figures["windows"]["alien"] == [0, 0]
    assert figures["windows"]["points_per_1000"] == [2 * 1000 / WINDOW, 1000 / WINDOW]
    assert figures["episodes"] == {"lengths": [10, 20], "returns": [2.0, 0.0]}


def test_drift_is_told_in_deviations():
    world = build_tiny_world()

    def seen(brightness, steps=2 * WINDOW):
        return LongPlay(world, DOT, np.inf).see(moments(steps, brightness))

    real = seen(lambda t: 100 if t < WINDOW else 104)  # mean 102, deviation 2
    figures = compare_long(seen(lambda t: 102 if t < WINDOW else 112), real, (WINDOW, 2 * WINDOW, 3 * WINDOW))
    assert set(figures["drift"]) == {str(WINDOW), str(2 * WINDOW)}  # it did not last longer
    assert figures["drift"][str(WINDOW)]["brightness"] == pytest.approx(0)
    assert figures["drift"][str(2 * WINDOW)]["brightness"] == pytest.approx(5)
    assert np.isnan(figures["distance"]["lengths"])
    assert "dot_present" in figures["dream"]["windows"]


def test_frames_that_the_tokenizer_does_not_know_are_alien():
    world = build_tiny_world()
    real = np.random.default_rng(0).integers(0, 60, (200, 48, 64, 3)).astype(np.uint8)
    limit = alien_limit(world, real)
    shown = world.decode(world.encode(real[:, None])[:, 0]).numpy()
    assert (round_trip_error(world, shown) > limit).mean() == 0.01  # 2 of 200
    assert (round_trip_error(world, 255 - real) > limit).all()


def test_a_dream_that_fades_is_seen_to_fade():
    """The same player in a world whose latents shrink with every step."""
    world = build_tiny_world(env_id="paying_game:Paying-v0", preprocessing={"size": (48, 64)})
    torch.nn.init.constant_(world.heads.out_continue.bias, 100.0)  # no dream ends
    step = world.dynamics.step

    def fading(state, *rest):
        latent, following, uncertainty = step(state, *rest)
        return latent * 0.5, {**following, "latents": following["latents"] * 0.5}, uncertainty

    steps, norms = 4 * EVERY, []
    for change in (step, fading):
        world.dynamics.step = change
        play = dream_play(world, [make_policy("random", real_game(world))], steps, 1)
        norms.append(LongPlay(world, None, np.inf).see(play).rows["latent_norm"])
    assert norms[1][-1] < 0.5 * norms[0][-1]


def test_real_play_and_dreams_have_one_shape():
    world = build_tiny_world(env_id="paying_game:Paying-v0", env_kwargs={"length": 4}, preprocessing={"size": (48, 64)})
    env = real_game(world)
    real = Play.of(real_play(world, [make_policy("noop", env), make_policy("random", env)], 10))
    assert real.frames.shape == (2, 10, 48, 64, 3)
    assert real.ended.sum(1).tolist() == [2, 2]
    assert real.ended[:, 3].all()
    assert real.rewards[0].sum() == 0
    assert real.rewards[1].sum() > 0
    dreamed = Play.of(dream_play(world, [make_policy("noop", env), make_policy("random", env)], 10, 1))
    assert dreamed.frames.shape == real.frames.shape


def test_lanes_whose_first_episode_is_over_are_not_dreamed_on():
    world = build_tiny_world(env_id="paying_game:Paying-v0", env_kwargs={"length": 4}, preprocessing={"size": (48, 64)})
    torch.nn.init.constant_(world.heads.out_continue.bias, 100.0)
    ends, lanes, taken = {1: [0, 2], 3: [0]}, [], []  # after which steps which of the lanes that are left end
    step = world.step

    def ending(state, actions, steps):
        state, said = step(state, actions, steps=steps)
        lanes.append(state.lanes)
        taken.append(int(actions[-1]))
        said.terminated[ends.get(len(lanes), [])] = True
        said.reward[:] = 1
        return state, said

    def play(once):
        lanes.clear()
        taken.clear()
        return dream_play(world, [make_policy("random", real_game(world)) for _ in range(4)], 6, 1, once=once)

    world.step = ending
    whole, of_last = Play.of(play(False)), list(taken)
    once = list(play(True))
    assert lanes == [4, 2, 2, 1, 1, 1]
    assert taken == of_last
    first_two = [[True, False, True, False]] * 2
    assert [moment.ended.tolist() for moment in once] == first_two + [[True, True, True, False]] * 4
    assert [moment.rewards.tolist() for moment in once] == [[1] * 4] + [[0, 1, 0, 1]] * 2 + [[0, 0, 0, 1]] * 3
    for moment in once[1:]:
        assert np.array_equal(moment.frames[0], once[0].frames[0])
    # A lane that goes on is as if no other had ended, but for rounding.
    last = np.stack([moment.frames[3] for moment in once]).astype(int)
    assert abs(last - whole.frames[3]).max() <= 1


def test_real_lanes_whose_first_episode_is_over_are_not_played_on(monkeypatch):
    worlds = [
        build_tiny_world(env_id="paying_game:Paying-v0", env_kwargs={"length": n}, preprocessing={"size": (48, 64)})
        for n in (2, 4)
    ]
    games = [real_game(world) for world in worlds]
    players = [make_policy("random", game) for game in games]
    left = iter(games)
    monkeypatch.setattr(playing, "real_game", lambda world: next(left))
    play = list(real_play(worlds[0], players, 10, once=True))
    assert [moment.ended.tolist() for moment in play] == [[False, False], [True, False], [True, False], [True, True]]
    assert all(moment.rewards[0] == 0 for moment in play[2:])
    assert all(np.array_equal(moment.frames[0], play[1].frames[0]) for moment in play[2:])


@pytest.mark.parametrize("play", [dream_play, real_play])
def test_players_may_keep_the_frames_they_were_shown(play):
    world = build_tiny_world(env_id="paying_game:Paying-v0", env_kwargs={"length": 3}, preprocessing={"size": (48, 64)})
    shown, copies = [], []

    def act(frame, info):
        shown.append(frame)
        copies.append(frame.copy())
        return world.action_space.sample()

    player = make_policy("random", real_game(world))
    player.act = act
    list(play(world, [player], 8, *((1,) if play is dream_play else ())))
    assert any(not np.array_equal(one, other) for one, other in itertools.pairwise(copies))
    assert all(map(np.array_equal, shown, copies))


def test_dreams_have_the_time_limit_of_the_game():
    world = build_tiny_world(env_id="paying_game:Paying-v0", preprocessing={"size": (48, 64)}, max_episode_steps=3)
    torch.nn.init.constant_(world.heads.out_continue.bias, 100.0)
    play = Play.of(dream_play(world, [make_policy("noop", real_game(world))], 7, 1))
    assert play.ended[0].tolist() == [False, False, True, False, False, True, False]


def test_a_dream_that_ends_begins_again():
    world = build_tiny_world(env_id="paying_game:Paying-v0", preprocessing={"size": (48, 64)})
    torch.nn.init.constant_(world.heads.out_continue.bias, -100.0)  # every step is the last
    torch.nn.init.zeros_(world.heads.out_continue.weight)
    play = list(dream_play(world, [make_policy("noop", real_game(world))], 3, 1))
    assert all(moment.ended.all() for moment in play)
    # Each step is the first after the same start, with other noise.
    assert not torch.equal(play[0].latents, play[1].latents)
    assert (play[0].latents - play[1].latents).abs().mean() < (play[0].latents).abs().mean()
