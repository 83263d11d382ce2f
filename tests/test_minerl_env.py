"""The live MineRL environment, against a small one that speaks the old API, faults included."""

from __future__ import annotations

import sys
import types

import fake_minerl
import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from neuralsim.envs.minerl import MineRLConnectionError, make_minerl, minerl_ids
from neuralsim.envs.minerl_spaces import noop_action
from neuralsim.envs.real import make_real, real_fps
from neuralsim.envs.recording import RecordConfig, record


@pytest.fixture
def minerl(monkeypatch: pytest.MonkeyPatch):
    before = dict(gym.registry)
    fake_minerl.install(monkeypatch)
    yield
    for env_id in set(gym.registry) - set(before):
        del gym.registry[env_id]


def nothing(env: gym.Env, **change):
    return {**noop_action(env.action_space), **change}  # type: ignore[arg-type]


def test_without_minerl_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "minerl", None)
    for make in (make_minerl, make_real):
        with pytest.raises(ModuleNotFoundError, match="JDK 8") as caught:
            make("MineRLTreechop-v0")
        for word in ("0.4.4", "git+https://github.com/minerllabs/minerl", "gym==0.23.1", "numpy", "openjdk-8-jdk"):
            assert word in str(caught.value)


@pytest.mark.usefixtures("minerl")
def test_a_broken_installation_speaks_for_itself(monkeypatch: pytest.MonkeyPatch):
    def broken(name: str):
        raise ModuleNotFoundError("No module named 'xmltodict'", name="xmltodict")

    monkeypatch.setattr("neuralsim.envs.minerl.importlib.import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="xmltodict"):
        make_minerl("MineRLTreechop-v0")


@pytest.mark.usefixtures("minerl")
@pytest.mark.filterwarnings("error", "ignore:.*symmetric and normalized")
def test_it_is_a_gymnasium_environment():
    env = make_minerl("MineRLTreechop-v0", render_mode="rgb_array")
    assert env.observation_space["pov"] == spaces.Box(0, 255, (8, 12, 3), np.uint8)
    assert env.observation_space["inventory"]["log"] == spaces.Box(0, 2304, (), np.int32)
    assert env.action_space["attack"] == spaces.Discrete(2)
    assert env.metadata["render_fps"] == 20
    assert gym.envs.registration.EnvSpec.from_json(env.spec.to_json()).id == "MineRLTreechop-v0"
    check_env(env.unwrapped, skip_render_check=True)
    env.close()
    assert env.unwrapped.old.closed


@pytest.mark.usefixtures("minerl")
def test_steps_are_translated():
    env = make_minerl("MineRLTreechop-v0", render_mode="rgb_array")
    observation, info = env.reset(seed=7)
    assert info == {"world_seed": 7}
    assert env.observation_space.contains(observation)
    observation, reward, terminated, truncated, info = env.step(nothing(env, attack=1, camera=(1.0, -2.0)))
    assert env.observation_space.contains(observation)
    assert np.array_equal(observation["pov"], env.unwrapped.old.pov[::-1])
    assert np.array_equal(env.render(), observation["pov"])
    assert (type(reward), reward, terminated, truncated) == (float, 1.0, False, False)
    assert observation["inventory"]["log"] == 1
    assert env.unwrapped.observation_names["equipped.type"][observation["equipped"]["type"]] == "iron_axe"
    assert info == {"isGuiOpen": False}
    told = env.unwrapped.old.told[-1]
    assert (told["attack"], told["forward"], told["camera"].tolist()) == (1, 0, [1.0, -2.0])


@pytest.mark.usefixtures("minerl")
def test_worlds_follow_from_the_seed():
    def worlds():
        env = make_minerl("MineRLTreechop-v0")
        first = env.reset(seed=3)
        return [first, env.reset(), env.reset()]

    one, two = worlds(), worlds()
    assert [info["world_seed"] for _, info in one] == [info["world_seed"] for _, info in two]
    assert len({info["world_seed"] for _, info in one}) == 3
    assert all(np.array_equal(a["pov"], b["pov"]) for (a, _), (b, _) in zip(one, two, strict=True))


@pytest.mark.usefixtures("minerl")
@pytest.mark.parametrize(
    ("env_id", "kwargs", "length", "ends"),
    [
        ("MineRLTreechop-v0", {"limit": 5}, 5, "truncated"),
        ("MineRLTreechop-v0", {"limit": 5, "dies": 3}, 3, "terminated"),
        ("MineRLBasalt-v0", {"limit": 5}, 5, "truncated"),
        ("MineRLBasalt-v0", {"limit": 200, "early": 2}, 198, "truncated"),  # Minecraft's own clock
        ("MineRLBasalt-v0", {"limit": 200, "dies": 190}, 190, "terminated"),
        ("MineRLObtain-v0", {"dies": 4}, 4, "terminated"),
    ],
)
@pytest.mark.filterwarnings("ignore:'chat' is left out")
def test_time_that_is_up_truncates(env_id: str, kwargs: dict, length: int, ends: str):
    env = make_minerl(env_id, **kwargs)
    env.reset(seed=0)
    for step in range(1, length + 1):
        *_, terminated, truncated, _ = env.step(nothing(env))
        assert (terminated or truncated) == (step == length)
    assert (terminated, truncated) == (ends == "terminated", ends == "truncated")
    with pytest.raises(gym.error.ResetNeeded, match="over"):
        env.step(nothing(env))
    env.reset()
    env.step(nothing(env))


@pytest.mark.usefixtures("minerl")
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (("noise", 2), r"at step 1 \(Connection timed out!\).*random noise"),
        (("silent", 2), "after step 2"),
        (("hidden", 2), "at step 1 .*TimeoutError: timed out"),
    ],
)
def test_a_lost_connection_raises(fault: tuple[str, int], message: str):
    env = make_minerl("MineRLTreechop-v0", fault=fault, render_mode="rgb_array")
    env.reset(seed=0)
    env.step(nothing(env))
    seen = env.render()
    with pytest.raises(MineRLConnectionError, match=message):
        env.step(nothing(env))
    if fault[0] == "noise":
        assert np.array_equal(env.render(), seen)  # the noise is not even shown
    with pytest.raises(gym.error.ResetNeeded):
        env.step(nothing(env))
    env.unwrapped.old.env.fault = None
    env.reset()
    env.step(nothing(env))
    assert issubclass(MineRLConnectionError, ConnectionError)


@pytest.mark.usefixtures("minerl")
def test_other_faults():
    env = make_minerl("MineRLTreechop-v0", fault="reset")
    with pytest.raises(MineRLConnectionError, match=r"while it started an episode.*nobody listens"):
        env.reset(seed=0)
    env = make_minerl("MineRLTreechop-v0", fault=("bug", 1))
    env.reset(seed=0)
    with pytest.raises(KeyError, match="inventory"):  # not a matter of connections
        env.step(nothing(env))
    env = make_minerl("MineRLTreechop-v0", fault=("size", 1))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"4x4 pixels.*8x12 pixels"):
        env.step(nothing(env))


@pytest.mark.usefixtures("minerl")
def test_bad_actions_are_named_before_minecraft_sees_them():
    env = make_minerl("MineRLTreechop-v0")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"unknown key 'attak'.*'attack'"):
        env.step(nothing(env, attak=1))
    with pytest.raises(ValueError, match="camera pitch 200"):
        env.step(nothing(env, camera=(200, 0)))
    assert env.unwrapped.old.told == []


@pytest.mark.usefixtures("minerl")
def test_choices_are_numbers_with_names():
    with pytest.warns(UserWarning, match="'chat' is left out"):
        env = make_minerl("MineRLObtain-v0")
    assert env.unwrapped.action_names == {"place": ("none", "dirt", "torch")}
    assert "chat" not in env.observation_space.spaces
    env.reset(seed=0)
    env.step(nothing(env, place=2))
    assert env.unwrapped.old.told[-1]["place"] == "torch"
    env.step(nothing(env))
    assert env.unwrapped.old.told[-1]["place"] == "none"


@pytest.mark.usefixtures("minerl")
def test_unknown_ids_and_modes_are_named():
    assert minerl_ids() == ["MineRLBasalt-v0", "MineRLObtain-v0", "MineRLTreechop-v0"]
    with pytest.raises(ValueError, match="'MineRLTreeChop-v0'; did you mean MineRLTreechop-v0"):
        make_minerl("MineRLTreeChop-v0")
    with pytest.raises(ValueError, match=r"did you mean.*MineRLTreechop-v0"):
        make_real("MineRLTreeChop-v0")
    env = make_minerl("MineRLTreechop-v0", render_mode="human")
    env.reset(seed=0)
    assert env.unwrapped.old.told == ["rendered"]


@pytest.mark.usefixtures("minerl")
def test_it_is_recorded_as_every_other_game(tmp_path):
    config = RecordConfig(
        "MineRLTreechop-v0", tmp_path / "trees", steps=15, policy=("random",), size=(8, 8), quiet=True,
        env_kwargs='{"limit": 6, "camera_limit": 10}',
    )  # fmt: skip
    store = record(config)
    assert store.total_steps == 15
    assert store.info.fps == 20
    assert store.info.preprocessing["key"] == "pov"
    episode = store.read(store.ids[0])
    assert episode.frames.shape == (7, 8, 8, 3)
    assert episode.truncated[-1]
    assert not episode.terminated[-1]
    assert set(episode.actions) == {"attack", "forward", "camera"}
    assert store.space["camera"] == spaces.Box(-10, 10, (2,), np.float32)
    assert np.abs(episode.actions["camera"]).max() <= 10
    env = make_real("MineRLTreechop-v0", {}, {"size": (8, 8)})
    assert real_fps(env) == 20
    assert env.action_space["camera"] == spaces.Box(-180, 180, (2,), np.float32)


@pytest.mark.usefixtures("minerl")
def test_a_limited_camera():
    env = make_minerl("MineRLTreechop-v0", camera_limit=10)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="camera yaw 11 is outside -10 to 10"):
        env.step(nothing(env, camera=(0.0, 11.0)))
    env.step(nothing(env, camera=(0.0, -10.0)))
    assert env.unwrapped.old.told[-1]["camera"].tolist() == [0, -10]
    with pytest.raises(ValueError, match="camera limit 200 must be above 0 and at most 180 degrees"):
        make_minerl("MineRLTreechop-v0", camera_limit=200)


@pytest.mark.usefixtures("minerl")
def test_a_task_is_made_fresh_as_gym_cannot_copy_a_used_one():
    """With NumPy 1.24 and later gym 0.23 fails to copy spaces that were sampled, as after a lost connection."""
    calls = []
    maker = sys.modules["gym"].envs.registry.env_specs["MineRLTreechop-v0"]
    maker.kwargs = {"env_spec": types.SimpleNamespace(reset=lambda: calls.append("reset"))}
    make_minerl("MineRLTreechop-v0")
    assert calls == ["reset"]
