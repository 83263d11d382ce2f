"""What a Gymnasium environment promises, for every registered dream."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import pickle
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import build_tiny_world
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from gymnasium.vector.utils import concatenate, create_empty_array
from gymnasium.wrappers import FrameStackObservation, RecordVideo, TimeLimit
from torch import nn

import neuralsim
from neuralsim.dynamics.base import Dynamics
from neuralsim.envs.dream import DreamEnv
from neuralsim.envs.dream_vector import DreamVectorEnv
from neuralsim.envs.flatten_actions import FlattenActions
from neuralsim.heads import HeadsOutput
from neuralsim.registration import BUNDLED_WORLDS, OWN_WORLD
from neuralsim.tokenizers.base import Tokenizer
from neuralsim.world import World
from neuralsim.world_files import bundled_worlds

PRESENT = [env_id for env_id, world in BUNDLED_WORLDS.items() if world in bundled_worlds()]


FIRST_PERSON = "first person"


@pytest.fixture(params=[OWN_WORLD, FIRST_PERSON, *PRESENT])
def dream(request: pytest.FixtureRequest, tiny_world: Path, minerl_world: Path) -> tuple[str, dict]:
    """Id and arguments of each registered dream whose world is there."""
    own = {
        OWN_WORLD: {"world": str(tiny_world)},
        FIRST_PERSON: {"world": str(minerl_world), "obs_key": "pov"},
    }
    return (OWN_WORLD, own[request.param]) if request.param in own else (request.param, {})


@contextlib.contextmanager
def no_warnings():
    """Warnings are errors, but for one: a camera that turns by degrees is no joystick."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*symmetric and normalized")
        yield


def test_bundled_worlds_are_registered():
    assert set(bundled_worlds()) <= set(BUNDLED_WORLDS.values())


def play(env: gym.Env, steps: int, seed: int = 0) -> list[tuple]:
    env.action_space.seed(seed)
    seen = []
    for _ in range(steps):
        seen.append(env.step(env.action_space.sample()))
        if seen[-1][2] or seen[-1][3]:
            seen.append(env.reset())
    return seen


def pixels(observation) -> np.ndarray:
    """The frame of an observation, or those of a batch."""
    return observation["pov"] if isinstance(observation, dict) else observation


def moves(env: gym.Env, count: int, seed: int = 0) -> list:
    """Actions of an environment."""
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(count)]


def together(space: gym.Space, actions: list):
    """Actions as one batch."""
    return concatenate(space, actions, create_empty_array(space, len(actions)))


def fingerprint(results: list[tuple]) -> str:
    sha = hashlib.sha256()
    for observation, *rest in results:
        sha.update(pixels(observation).tobytes())
        sha.update(repr(rest).encode())
    return sha.hexdigest()


# -- checkers


def test_gymnasium_checker(dream: tuple[str, dict]):
    env_id, arguments = dream
    with no_warnings():
        gymnasium_check_env(gym.make(env_id, disable_env_checker=True, **arguments).unwrapped)


def test_gymnasium_checker_on_latents(tiny_world: Path):
    with no_warnings():
        gymnasium_check_env(gym.make(OWN_WORLD, world=str(tiny_world), obs_type="latent").unwrapped)


def test_passive_checker(dream: tuple[str, dict]):
    env_id, arguments = dream
    with no_warnings():
        env = gym.make(env_id, render_mode="rgb_array", **arguments)
        env.reset(seed=0)
        play(env, 5)
        env.render()


def test_stable_baselines3_checker(dream: tuple[str, dict]):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    env_id, arguments = dream
    with no_warnings():
        env = gym.make(env_id, render_mode="rgb_array", **arguments).unwrapped
        if isinstance(env.action_space, gym.spaces.Dict):  # which Stable-Baselines3 does not know
            env = FlattenActions(env, bins=5)
        checker.check_env(env, skip_render_check=False)


# -- determinism


def test_same_seed_same_dream(dream: tuple[str, dict]):
    env_id, arguments = dream
    prints = []
    for seed in (3, 3, 4):
        env = gym.make(env_id, **arguments)
        prints.append(fingerprint([env.reset(seed=seed), *play(env, 20)]))
    assert prints[0] == prints[1] != prints[2]


def test_same_dream_in_another_process(dream: tuple[str, dict]):
    env_id, arguments = dream
    code = f"""
import gymnasium as gym, neuralsim, torch
from test_contract import fingerprint, play
torch.set_num_threads({torch.get_num_threads()})
env = gym.make({env_id!r}, **{arguments!r})
print(fingerprint([env.reset(seed=3), *play(env, 20)]))
"""
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(neuralsim.__file__).parents[1])])
    out = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    env = gym.make(env_id, **arguments)
    assert out.stdout.strip() == fingerprint([env.reset(seed=3), *play(env, 20)])


def test_a_lane_is_the_single_environment(dream: tuple[str, dict]):
    env_id, arguments = dream
    envs, single = gym.make_vec(env_id, num_envs=3, **arguments), gym.make(env_id, **arguments)
    observations, _ = envs.reset(seed=7)
    observation, _ = single.reset(seed=9)
    assert np.array_equal(pixels(observations)[2], pixels(observation))
    for action in moves(single, 4):
        batch = envs.step(together(single.action_space, [action] * 3))
        alone = single.step(action)
        # Batched arithmetic rounds differently; a level or two is all that may come of it.
        assert np.abs(pixels(batch[0])[2].astype(int) - pixels(alone[0])).max() <= 2
        assert batch[1][2] == alone[1]
        assert (batch[2][2], batch[3][2]) == (alone[2], alone[3])
        assert batch[4]["uncertainty"][2] == pytest.approx(alone[4]["uncertainty"], abs=1e-3)
        if alone[2]:
            break


def test_restore_replays_bit_for_bit(dream: tuple[str, dict]):
    env_id, arguments = dream
    env = gym.make(env_id, **arguments)
    env.reset(seed=0)
    play(env, 100)
    env.reset()
    state = env.unwrapped.clone_state(include_rng=True)
    first = fingerprint(play(env, 25, seed=1))
    play(env, 5)
    env.reset()
    env.unwrapped.restore_state(pickle.loads(pickle.dumps(state)))
    assert fingerprint(play(env, 25, seed=1)) == first


# -- living with the rest of Gymnasium


def test_spec(dream: tuple[str, dict]):
    env_id, arguments = dream
    env = gym.make(env_id, sampling_steps=1, max_episode_steps=3, **arguments)
    assert env.spec.max_episode_steps == 3
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert again.spec == env.spec
    assert np.array_equal(*(pixels(e.reset(seed=1)[0]) for e in (env, again)))


def test_time_limit(dream: tuple[str, dict]):
    env_id, arguments = dream
    for env in (gym.make(env_id, max_episode_steps=3, **arguments), TimeLimit(gym.make(env_id, **arguments), 3)):
        env.reset(seed=0)
        ends = []
        for action in moves(env, 3):
            *_, terminated, truncated, _ = env.step(action)
            ends.append(truncated)
            if terminated:
                break
        assert terminated or ends == [False, False, True]


def test_frame_stack(dream: tuple[str, dict]):
    env_id, arguments = dream
    env = FrameStackObservation(gym.make(env_id, **arguments), 4)
    observation, _ = env.reset(seed=0)
    assert pixels(observation).shape == (4, *env.unwrapped.world.frame_shape)
    stepped = env.step(*moves(env, 1))[0]
    assert np.array_equal(pixels(stepped)[2], pixels(observation)[3])


def test_pickle(dream: tuple[str, dict]):
    env_id, arguments = dream
    env = gym.make(env_id, **arguments)
    env.reset(seed=0)
    data = pickle.dumps(env)
    again = pickle.loads(data)
    assert len(data) < 2_000_000
    assert again.spec == env.spec
    assert fingerprint(play(env, 5)) == fingerprint(play(again, 5))


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_gymnasiums_own_vector_environments(dream: tuple[str, dict], mode: str):
    env_id, arguments = dream
    envs = gym.make_vec(env_id, num_envs=2, vectorization_mode=mode, **arguments)
    try:
        observations, _ = envs.reset(seed=0)
        single = gym.make(env_id, **arguments)
        assert np.array_equal(pixels(observations)[1], pixels(single.reset(seed=1)[0]))
        actions = moves(single, 2)
        batch = together(single.action_space, actions)
        observations, *_ = envs.step(batch)
        # A worker computes in one thread, this process maybe in several.
        assert np.abs(pixels(observations)[1].astype(int) - pixels(single.step(actions[1])[0])).max() <= 2
    finally:
        envs.close()


def test_record_video(dream: tuple[str, dict], tmp_path: Path):
    pytest.importorskip("moviepy")
    av = pytest.importorskip("av")
    env_id, arguments = dream
    env = RecordVideo(
        gym.make(env_id, render_mode="rgb_array", max_episode_steps=6, **arguments), str(tmp_path), disable_logger=True
    )
    observations = [pixels(env.reset(seed=0)[0])]
    ended = False
    while not ended:
        observation, _, terminated, truncated, _ = env.step(*moves(env, 1))
        observations.append(pixels(observation))
        ended = terminated or truncated
    env.close()
    (film,) = tmp_path.glob("*.mp4")
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate) == env.metadata["render_fps"]
        films = [frame.to_ndarray(format="gray") for frame in container.decode(stream)]
    # moviepy drops some film's last frame, and the codec keeps brightness better than colour.
    assert len(observations) - len(films) in (0, 1)
    for filmed, observation in zip(films, observations, strict=False):
        brightness = observation @ np.array([0.299, 0.587, 0.114])
        assert np.corrcoef(filmed.ravel(), brightness.ravel())[0, 1] > 0.8


def test_play(dream: tuple[str, dict], monkeypatch: pytest.MonkeyPatch):
    """``gymnasium.utils.play`` knows which keys to use."""
    pygame = pytest.importorskip("pygame")
    from gymnasium.utils.play import play as play_by_keyboard

    env_id, arguments = dream
    env = gym.make(env_id, render_mode="rgb_array", **arguments)
    if env.unwrapped.world.config.keys_to_action is None:
        pytest.skip("this world has no keys")
    steps = []

    def count(*step):
        steps.append(step)
        if len(steps) == 3:
            pygame.event.post(pygame.event.Event(pygame.QUIT))

    play_by_keyboard(env, callback=count, fps=1000)
    assert len(steps) == 3


# -- resources


class StillTokenizer(Tokenizer):
    """Cuts pictures into latents without computing."""

    def encode_raw(self, frames):
        return frames[..., :2] * 2 - 1

    def decode_raw(self, latents):
        return torch.cat([latents, latents[..., :1]], dim=-1) / 2 + 0.5


class DriftDynamics(Dynamics):
    """Adds a little noise: next to no work, so that thousands of steps are quick."""

    latent_shape = (8, 8, 2)
    action_size = 6
    context_length = clip_length = 2
    noise_slots = 1
    max_steps = 4

    def forward(self, batch):
        raise NotImplementedError

    def start(self, latents, actions):
        return {"latent": latents[:, -1]}

    def step(self, state, action, noise, steps, bounds):
        latent = (state["latent"] + 0.1 * noise[:, 0]).clamp(-1, 1)
        return latent, {"latent": latent}, latent.new_zeros(len(latent))


class NoHeads(nn.Module):
    """Pays nothing and never ends."""

    def look_back(self, latents):
        return latents[:, :, None]

    def forward(self, before, latent, action):
        nothing = latent.new_zeros(len(latent))
        return HeadsOutput(nothing, nothing[:, None], nothing + 1)


def test_twenty_thousand_steps_leak_no_memory():
    tiny = build_tiny_world(frame_size=(32, 32))
    config = type(tiny.config)(**{**vars(tiny.config), "frame_shape": (8, 8, 3), "sampling_steps": 1})
    starts = [type(start)(start.frames[:, :8, :8], start.actions, start.kind) for start in tiny.starts]
    world = World(config, StillTokenizer((8, 8, 3), (8, 8, 2)), DriftDynamics(), NoHeads(), starts, "cpu", "float32")

    def memory() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    if not Path("/proc/self/statm").exists():
        pytest.skip("this system does not tell a process's memory")
    env = DreamEnv(world, starts="any", max_episode_steps=50)
    envs = DreamVectorEnv(15, world, starts="any", max_episode_steps=50, autoreset_mode="SameStep")
    env.reset(seed=0)
    envs.reset(seed=0)

    def play_both(steps: int) -> None:
        for i in range(steps):
            *_, truncated, _ = env.step(i % 6)
            if truncated:
                env.reset()
            envs.step(np.full(15, i % 6))

    play_both(250)
    before, objects = memory(), len(gc.get_objects())
    for _ in range(5):
        play_both(250)  # 16 lanes: 20,000 steps
    # One frame kept per step would be 4 MB; one object, 1250.
    assert memory() - before < 2 * 2**20
    assert len(gc.get_objects()) - objects < 500


def test_making_in_a_loop_is_cheap(dream: tuple[str, dict]):
    env_id, arguments = dream
    make = partial(gym.make, env_id, **arguments)
    worlds = {id(make().unwrapped.world) for _ in range(20)}
    assert len(worlds) == 1


def test_threads_are_left_alone(dream: tuple[str, dict]):
    env_id, arguments = dream
    before = torch.get_num_threads()
    env = gym.make(env_id, **arguments)
    env.reset(seed=0)
    env.step(*moves(env, 1))
    assert torch.get_num_threads() == before
