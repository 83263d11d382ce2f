"""The single dream environment: starts, seeds, latents, branching, rendering, mistakes."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import build_tiny_world
from gymnasium.error import ResetNeeded

import neuralsim  # noqa: F401
from neuralsim.envs.dream import DreamEnv
from neuralsim.envs.shared_worlds import shared_world


@pytest.fixture
def env(tiny_world: Path) -> DreamEnv:
    return DreamEnv(tiny_world, starts="any", device="cpu", dtype="float32")


def play(env: gym.Env, steps: int, seed: int = 0) -> list[tuple]:
    """Steps with random actions; episodes that end are begun anew."""
    rng = np.random.default_rng(seed)
    seen = []
    for _ in range(steps):
        result = env.step(int(rng.integers(6)))
        seen.append(result)
        if result[2] or result[3]:
            seen.append(env.reset())
    return seen


def same(first: list[tuple], second: list[tuple]) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(a[0], b[0]) and a[1:] == b[1:] for a, b in zip(first, second, strict=True)
    )


# -- resets


def test_reset_gives_frame_and_plain_info(env: DreamEnv):
    observation, info = env.reset(seed=0)
    assert observation.shape == (48, 64, 3)
    assert observation.dtype == np.uint8
    assert info == {"uncertainty": 0.0, "horizon_trust": 1.0, "step": 0, "start": info["start"]}
    json.dumps(info)


def test_seeds_repeat_dreams_and_their_successors(env: DreamEnv):
    first = [env.reset(seed=123), *play(env, 5), env.reset(), *play(env, 5)]
    second = [env.reset(seed=123), *play(env, 5), env.reset(), *play(env, 5)]
    other = [env.reset(seed=124), *play(env, 5), env.reset(), *play(env, 5)]
    assert same(first, second)
    assert not same(first, other)


def test_starts(tiny_world: Path):
    drawn = {
        kind: {DreamEnv(tiny_world, starts=kind).reset(seed=s)[1]["start"] for s in range(40)}
        for kind in ("beginning", "any")
    }
    assert drawn == {"beginning": {0, 1}, "any": {0, 1, 2, 3}}


def test_reset_at_a_start(env: DreamEnv):
    for i, start in enumerate(env.world.starts):
        observation, info = env.reset(options={"start": i})
        assert info["start"] == i
        shown = env.world.decode(env.world.encode(start.frames[None])[:, -1])[0].numpy()
        assert np.abs(observation.astype(int) - shown).max() <= 1


def test_the_start_does_not_change_the_noise_of_a_seed(env: DreamEnv):
    env.reset(seed=5)
    drawn = env.clone_state().state.seed
    env.reset(seed=5, options={"start": 3})
    assert env.clone_state().state.seed == drawn


def test_reset_from_frames(env: DreamEnv):
    start = env.world.starts[1]
    expected = [env.reset(seed=1, options={"start": 1}), *play(env, 3)]
    got = [env.reset(seed=1, options={"frames": start.frames, "actions": start.actions}), *play(env, 3)]
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(expected, got, strict=True))
    assert got[0][1]["start"] == -1
    single, _ = env.reset(seed=1, options={"frames": start.frames[-1]})
    assert single.shape == (48, 64, 3)
    also, _ = env.reset(seed=1, options={"frames": start.frames[-1:]})
    assert np.array_equal(single, also)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 4}, "start 4 is not there.*0 to 3"),
        ({"start": -1}, "start -1"),
        ({"start": "first"}, "must be an index"),
        ({"start": [0, 1]}, "must be an index"),
        ({"strat": 1}, "unknown reset options 'strat'"),
        ({"start": 0, "frames": np.zeros((48, 64, 3), np.uint8)}, "not both"),
        ({"actions": [1]}, "no 'frames'"),
        ({"frames": np.zeros((48, 64, 3), np.float32)}, "uint8"),
        ({"frames": np.zeros((64, 48, 3), np.uint8)}, "this world reads"),
        ({"frames": np.zeros((48, 64), np.uint8)}, "must be"),
        ({"frames": np.zeros((0, 48, 64, 3), np.uint8)}, "at least one frame"),
        ({"frames": np.zeros((2, 48, 64, 3), np.uint8)}, "needs the 1 actions"),
        ({"frames": np.zeros((3, 48, 64, 3), np.uint8), "actions": [1]}, "one action fewer"),
        ({"frames": np.zeros((2, 48, 64, 3), np.uint8), "actions": [9]}, "action 9"),
    ],
)
def test_wrong_options_leave_the_dream_as_it_was(env: DreamEnv, options: dict, message: str):
    env.reset(seed=0)
    before = env.clone_state().state
    with pytest.raises(ValueError, match=message):
        env.reset(options=options)
    assert env.clone_state().state is before


def test_a_world_without_starts(tmp_path: Path):
    env = DreamEnv(build_tiny_world(starts=False).save(tmp_path / "world"))
    with pytest.raises(ValueError, match="no starts of its own"):
        env.reset()
    observation, _ = env.reset(options={"frames": np.zeros((48, 64, 3), np.uint8)})
    assert observation.shape == (48, 64, 3)


def test_only_middles(tmp_path: Path):
    world = build_tiny_world()
    world.starts = world.starts[2:]
    folder = world.save(tmp_path / "world")
    with pytest.raises(ValueError, match="starts='any'"):
        DreamEnv(folder)
    DreamEnv(folder, starts="any").reset()


# -- steps


def test_step_returns_plain_values(env: DreamEnv):
    env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(2)
    assert observation.dtype == np.uint8
    assert type(reward) is float
    assert type(terminated) is bool
    assert type(truncated) is bool
    kinds = {"uncertainty": float, "horizon_trust": float, "step": int, "start": int}
    assert {name: type(value) for name, value in info.items()} == kinds
    assert info["step"] == 1


def test_observations_are_the_users_own(env: DreamEnv):
    first, _ = env.reset(seed=0, options={"start": 1})
    first[:] = 7
    again, _ = env.reset(seed=0, options={"start": 1})
    assert not (again == 7).all()
    observation = env.step(0)[0]
    kept = observation.copy()
    observation[:] = 7
    env.render_mode = "rgb_array"
    assert np.array_equal(env.render(), kept)


@pytest.mark.parametrize(
    ("action", "message"),
    [(6, "action 6 is outside Discrete"), (-1, "action -1"), (0.5, "integers"), ([1], "1 actions"), (None, "numbers")],
)
def test_wrong_actions(env: DreamEnv, action, message: str):
    env.reset(seed=0)
    before = env.clone_state().state
    with pytest.raises(ValueError, match=message):
        env.step(action)
    assert env.clone_state().state is before


def test_numpy_actions(env: DreamEnv):
    results = []
    for action in (3, np.int64(3), np.array(3), np.uint8(3)):
        env.reset(seed=0)
        results.append(env.step(action)[0])
    assert all(np.array_equal(results[0], other) for other in results)


def test_order(env: DreamEnv):
    with pytest.raises(ResetNeeded):
        env.step(0)
    with pytest.raises(ResetNeeded):
        env.clone_state()
    env.render_mode = "rgb_array"
    with pytest.raises(ResetNeeded):
        env.render()


def test_stepping_after_the_end(tiny_world: Path):
    env = DreamEnv(tiny_world, max_episode_steps=2)
    env.reset(seed=0)
    assert env.step(0)[3] is False
    assert env.step(0)[3] is True
    with pytest.raises(ResetNeeded, match="has ended"):
        env.step(0)
    env.reset()
    env.step(0)


def test_time_limits(tmp_path: Path):
    folder = build_tiny_world(max_episode_steps=3).save(tmp_path / "world")
    for given, expected in ((None, 3), (2, 2), (5, 3), (-1, None)):
        env = DreamEnv(folder, max_episode_steps=given)
        assert env._lanes.limit == expected
    env.reset(seed=0)
    assert not any(result[3] for result in play(env, 5) if len(result) == 5)


def test_termination_and_rewards_happen(env: DreamEnv):
    env.reset(seed=0)
    seen = [result for result in play(env, 150) if len(result) == 5]
    assert any(result[2] for result in seen)
    assert {result[1] for result in seen} <= {-1.0, 0.0, 1.0}
    assert len({result[1] for result in seen}) > 1


def test_sampling_steps(tiny_world: Path):
    results = []
    for steps in (None, 1, 2, 8):
        env = DreamEnv(tiny_world, sampling_steps=steps)
        env.reset(seed=0)
        results.append(env.step(1)[0])
    assert np.array_equal(results[0], results[2])  # the world's default is 2
    assert not np.array_equal(results[1], results[3])


def test_sampling_steps_may_change(env: DreamEnv):
    env.reset(seed=0)
    state, frames = env.clone_state(), []
    for steps in (8, 1):
        env.sampling_steps = steps
        env.restore_state(state)
        frames.append(env.step(1)[0])
    assert not np.array_equal(*frames)
    assert pickle.loads(pickle.dumps(env)).sampling_steps == 1
    with pytest.raises(ValueError, match="power of two"):
        env.sampling_steps = 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"world": None}, "which world"),
        ({"sampling_steps": 3}, "power of two"),
        ({"sampling_steps": 0}, "power of two"),
        ({"sampling_steps": 16}, "at most 8"),
        ({"obs_type": "ram"}, "'rgb' or 'latent'"),
        ({"starts": "end"}, "'beginning' or 'any'"),
        ({"device": "abacus"}, "unknown device"),
        ({"dtype": "int4"}, "unknown dtype"),
        ({"max_episode_steps": 0}, "max_episode_steps is 0"),
        ({"render_mode": "ansi"}, "render_mode is 'ansi'"),
        ({"render_scale": 0}, "render_scale is 0"),
    ],
)
def test_wrong_arguments(tiny_world: Path, arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        DreamEnv(**{"world": tiny_world, **arguments})


# -- latents


def test_latent_observations(tiny_world: Path, monkeypatch: pytest.MonkeyPatch):
    env = DreamEnv(tiny_world, obs_type="latent", starts="any", render_mode="rgb_array")
    decoded = []
    decode = env.world.tokenizer.decode
    monkeypatch.setattr(env.world.tokenizer, "decode", lambda z: decoded.append(1) or decode(z))
    assert np.isfinite(env.observation_space.low).all()
    observation, _ = env.reset(seed=0)
    for _ in range(30):
        assert observation.dtype == np.float32
        assert observation in env.observation_space
        observation, _, terminated, _, _ = env.step(env.action_space.sample())
        if terminated:
            observation, _ = env.reset()
    assert not decoded  # nobody looked
    frame = env.render()
    assert np.array_equal(frame, env.render())
    assert len(decoded) == 1  # drawn once per step, however often it is looked at
    assert np.array_equal(frame, env.world.decode(observation).numpy())


def test_both_observations_are_of_the_same_dream(tiny_world: Path):
    pixels, latents = DreamEnv(tiny_world), DreamEnv(tiny_world, obs_type="latent")
    frame, _ = pixels.reset(seed=4)
    latent, _ = latents.reset(seed=4)
    for action in (0, 3, 5):
        assert np.array_equal(frame, pixels.world.decode(latent).numpy())
        frame, latent = pixels.step(action)[0], latents.step(action)[0]


# -- branching


def test_restored_dreams_replay_bit_for_bit(env: DreamEnv):
    env.reset(seed=0)
    play(env, 100)
    env.reset()
    state = env.clone_state(include_rng=True)
    first = play(env, 30, seed=9)
    env.restore_state(state)
    assert same(first, play(env, 30, seed=9))


def test_a_clone_is_a_plain_value(env: DreamEnv, tiny_world: Path):
    env.reset(seed=0)
    play(env, 10)
    state = env.clone_state(include_rng=True)
    frozen = pickle.dumps(state)
    first = play(env, 60, seed=3)  # long enough for a reset or two
    other = DreamEnv(tiny_world, starts="any")
    other.restore_state(pickle.loads(frozen))
    assert same(first, play(other, 60, seed=3))
    env.restore_state(copy.deepcopy(state))
    assert same(first, play(env, 60, seed=3))


def test_cpus_dream_in_float32_also_where_bfloat16_is_native(tiny_world: Path, monkeypatch):
    monkeypatch.setattr("neuralsim.devices.has_native_bfloat16", lambda device: True)
    assert shared_world(tiny_world, "cpu").dtype == torch.float32
    assert shared_world(tiny_world, "cpu", "bfloat16").dtype == torch.bfloat16


def test_without_rng_later_resets_are_not_restored(env: DreamEnv):
    env.reset(seed=0)
    state = env.clone_state()
    env.reset()
    after = env.np_random.bit_generator.state
    env.restore_state(state)
    assert env.np_random.bit_generator.state == after


def test_restored_frame_is_rendered(tiny_world: Path):
    env = DreamEnv(tiny_world, render_mode="rgb_array")
    env.reset(seed=0)
    state, frame = env.clone_state(), env.render()
    env.step(1)
    assert not np.array_equal(env.render(), frame)
    env.restore_state(state)
    assert np.array_equal(env.render(), frame)


def test_states_that_do_not_fit(env: DreamEnv):
    with pytest.raises(ValueError, match="comes from clone_state"):
        env.restore_state({"latent": 1})
    stranger = DreamEnv(build_tiny_world(seed=1))
    stranger.reset(seed=0)
    stranger.world.config.weights_sha256 = "another"
    with pytest.raises(ValueError, match="other weights"):
        env.restore_state(stranger.clone_state())


# -- pickling and sharing


def test_a_pickled_env_goes_on_with_its_dream(env: DreamEnv):
    env.reset(seed=0)
    env.action_space.seed(0)
    play(env, 5)
    data = pickle.dumps(env)
    assert len(data) < 100_000  # no weights
    other, third = pickle.loads(data), copy.deepcopy(env)
    assert other.world is env.world
    assert np.array_equal(other.action_space.sample(), third.action_space.sample())
    expected = play(env, 60)
    assert same(expected, play(other, 60))
    assert same(expected, play(third, 60))


def test_an_unsaved_world_cannot_be_pickled():
    with pytest.raises(ValueError, match="never saved"):
        pickle.dumps(DreamEnv(build_tiny_world()))


def test_worlds_are_loaded_once(tiny_world: Path, tmp_path: Path):
    first, second = DreamEnv(tiny_world), DreamEnv(str(tiny_world), device="cpu")
    assert first.world is second.world
    assert first.action_space is not second.action_space  # seeding one must not seed the other
    folder = build_tiny_world().save(tmp_path / "world")
    old = shared_world(folder)
    build_tiny_world(seed=1).save(folder)
    assert shared_world(folder) is not old


# -- rendering and keys


def test_render(tiny_world: Path):
    env = DreamEnv(tiny_world, render_mode="rgb_array", render_scale=3)
    observation, _ = env.reset(seed=0)
    frame = env.render()
    assert frame.shape == (144, 192, 3)
    assert np.array_equal(frame[::3, ::3], observation)
    assert np.array_equal(frame[2::3, 2::3], observation)
    assert env.metadata["render_fps"] == 15
    assert type(env.metadata["render_fps"]) is int


def test_no_render_mode(env: DreamEnv):
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="without a render mode"):
        assert env.render() is None


def test_human(tiny_world: Path):
    pygame = pytest.importorskip("pygame")
    env = DreamEnv(tiny_world, render_mode="human")
    observation, _ = env.reset(seed=0)
    surface = pygame.display.get_surface()
    assert surface.get_size() == (640, 480)
    assert np.array_equal(pygame.surfarray.array3d(surface).swapaxes(0, 1)[::10, ::10], observation)
    observation = env.step(1)[0]
    assert np.array_equal(pygame.surfarray.array3d(surface).swapaxes(0, 1)[5::10, 5::10], observation)
    assert env.render() is None
    env.close()
    env.close()


def test_keys(env: DreamEnv, tmp_path: Path):
    assert env.get_keys_to_action() == {("w",): 2, ("s",): 3}
    silent = DreamEnv(build_tiny_world(keys_to_action=None))
    with pytest.raises(ValueError, match="does not say which keys"):
        silent.get_keys_to_action()
