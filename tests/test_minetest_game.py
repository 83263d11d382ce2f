"""The game itself, where it is installed: lock-step, ground truth, rewards, and what happens when it dies."""

from __future__ import annotations

import gc
import math
import os
import signal

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from test_minetest_inputs import alive, gone

from neuralsim.agents.policies import make_policy
from neuralsim.envs.minerl_spaces import noop_action
from neuralsim.envs.minetest import MinetestEnv, MinetestGameError
from neuralsim.envs.minetest.needs import what_is_missing
from neuralsim.envs.minetest.tasks import Task
from neuralsim.envs.real import make_real, real_fps

pytestmark = pytest.mark.skipif(what_is_missing() is not None, reason=f"Minetest cannot run here: {what_is_missing()}")


def act(env: gym.Env, **change):
    return env.step({**noop_action(env.action_space), **change})  # type: ignore[arg-type]


def still(env: gym.Env, steps: int):
    for _ in range(steps):
        result = act(env)
    return result


def turned(before: float, after: float) -> float:
    return (after - before + 180) % 360 - 180


def pids(env: MinetestEnv) -> list[int]:
    assert env._game is not None
    assert env._display is not None
    return [env._game.process.process.pid, env._display.server.process.pid]


def aim(info: dict, at: np.ndarray, limit: float = 30.0) -> tuple[float, float]:
    """The turn (pitch, yaw) from where the player looks to a point."""
    x, y, z = at - info["position"] - (0, 1.625, 0)
    yaw = turned(info["yaw"], math.degrees(math.atan2(x, z)))
    pitch = -math.degrees(math.atan2(y, math.hypot(x, z))) - info["pitch"]
    return tuple(np.clip((pitch, yaw), -limit, limit))


@pytest.fixture(scope="module")
def env():
    env = gym.make("Minetest-Explore-v0", render_mode="rgb_array", buttons="human").unwrapped
    assert env.spec is not None
    env.reset(seed=3)
    yield env
    env.close()


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized")
def test_it_is_a_gymnasium_environment():
    env = gym.make("Minetest-Dig-v0", size=(36, 64), viewing_range=20).unwrapped
    check_env(env, skip_render_check=True)
    env.close()


def test_what_it_says(env):
    observation, reward, terminated, truncated, info = still(env, 1)
    assert env.observation_space.contains(observation)
    assert (type(reward), reward, terminated, truncated) == (float, 0.0, False, False)
    assert info["world_seed"] == 3
    assert info["behind_seconds"] == 0
    assert info["position"].shape == info["velocity"].shape == (3,)
    tools = {f"default:{kind}_steel": 1 for kind in ("pick", "shovel", "axe")}
    assert info["inventory"] == {**tools, "default:dirt": 99, "default:cobble": 99}
    assert set(info["labels"]) == {"x", "y", "z", "yaw", "pitch"}
    assert env.render().shape == (180, 320, 3)
    assert 30 < observation["pov"].mean() < 230  # noon: neither black nor white
    assert observation["pov"].std() > 10
    assert real_fps(env) == 20


def test_a_turn_is_as_many_degrees_as_it_says(env):
    *_, info = still(env, 1)
    act(env, camera=(-info["pitch"], 0))
    for turn in (15.0, -15.0, 90.0, -0.61, 0.01, -180.0, 10.0):
        before = still(env, 1)[-1]
        after = act(env, camera=(0, turn))[-1]
        assert abs(turned(turn, turned(before["yaw"], after["yaw"]))) < 1e-3  # in the very same frame
        assert after["pitch"] == pytest.approx(before["pitch"], abs=1e-3)
    for turn in (15.0, -30.0, 15.0, 3.21, -3.21):
        before = still(env, 1)[-1]
        after = act(env, camera=(turn, 0))[-1]
        assert after["pitch"] - before["pitch"] == pytest.approx(turn, abs=1e-3)
    assert act(env, camera=(180, 0))[-1]["pitch"] == pytest.approx(89.5, abs=1e-3)  # straight down, and no further
    assert act(env, camera=(-79.5, 0))[-1]["pitch"] == pytest.approx(10, abs=1e-3)


def test_an_action_shows_in_the_next_frame_and_in_no_earlier_one(env):
    """An impulse of each kind, from rest: the picture changes at once, and the pose tells by how much."""

    def change(before: np.ndarray, after: np.ndarray) -> float:
        return float(np.abs(after[:130].astype(float) - before[:130]).mean())  # above the hotbar

    still(env, 20)
    for impulse, feels in (({"camera": (0, 5)}, "yaw"), ({"camera": (5, 0)}, "pitch"), ({"forward": 1}, "velocity")):
        quiet = []
        frame, info = env.render(), still(env, 1)[-1]
        for _ in range(8):
            info = still(env, 1)[-1]
            quiet.append(change(frame, env.render()))
            frame = env.render()
        moved = act(env, **impulse)[-1]
        assert change(frame, env.render()) > max(0.5, 3 * float(np.median(quiet)))
        assert np.abs(np.subtract(moved[feels], info[feels])).max() > 0.5
        # Nor is anything left over for later: a turn is over with its frame.
        if feels != "velocity":
            frame, after = env.render(), still(env, 1)[-1]
            assert after[feels] == pytest.approx(moved[feels], abs=1e-6)
            assert change(frame, env.render()) < 0.5
        still(env, 12)


def test_walking_goes_where_one_looks(env):
    still(env, 10)
    before = act(env, camera=(0, 30))[-1]
    for _ in range(10):
        *_, after = act(env, forward=1, jump=1)
    x, _, z = after["position"] - before["position"]
    assert math.hypot(x, z) > 0.3
    assert abs(turned(before["yaw"], math.degrees(math.atan2(x, z)))) < 20
    still(env, 20)


def test_escape_ends_an_episode_and_another_begins_in_another_world(env):
    folder = env._game.folder
    assert act(env, ESC=1)[2] is True
    with pytest.raises(gym.error.ResetNeeded):
        act(env)
    observation, info = env.reset()
    assert info["world_seed"] != 3
    assert env.observation_space.contains(observation)
    assert env._game.folder != folder
    assert not folder.exists()


def test_a_seed_is_a_world():
    env = gym.make("Minetest-Dig-v0", size=(36, 64)).unwrapped
    _, here = env.reset(seed=7)
    with pytest.raises(ValueError, match="'flies'"):
        act(env, flies=1)
    _, there = env.reset(seed=7)
    np.testing.assert_allclose(here["position"], there["position"], atol=0.01)
    assert here["yaw"] == pytest.approx(there["yaw"])
    assert there["inventory"]["default:pick_diamond"] == 1

    # And it pays to dig: the block goes, then the reward comes, each once.
    act(env, camera=(89, 0))
    paid, dug = [], []
    for _ in range(40):
        _, reward, _, _, info = act(env, attack=1)
        paid.append(reward)
        dug.append(info["blocks_dug"])
    for _ in range(5):
        _, reward, _, _, info = act(env)
        paid.append(reward)
        dug.append(info["blocks_dug"])
    assert sum(paid) == info["blocks_dug"] >= 1
    assert np.array_equal(np.cumsum(paid), dug)
    assert info["position"][1] < there["position"][1] - 0.5  # fell into the hole
    assert sum(info["inventory"].values()) > sum(there["inventory"].values())
    # Killed in the middle: the next step says so, with the log, and nothing is left over.
    left, folder = pids(env), env._game.folder
    os.kill(left[0], signal.SIGKILL)
    with pytest.raises(MinetestGameError, match=r"(?s)has crashed \(it was ended by signal SIGKILL\); its log ends.*"):
        still(env, 2)
    assert not alive(left[0])
    assert not folder.exists()
    with pytest.raises(gym.error.ResetNeeded):
        act(env)
    env.reset()
    act(env)
    # Frozen: the step gives up, and ends the game.
    left, folder = pids(env), env._game.folder
    env._game.step_timeout = 0.5
    os.kill(left[0], signal.SIGSTOP)
    with pytest.raises(MinetestGameError, match=r"did not answer within 0\.5 s"):
        act(env)
    assert not alive(left[0])
    assert not folder.exists()
    assert alive(left[1])  # the display waits for the next game
    env.close()
    assert not alive(left[1])


def test_a_reward_for_a_log():
    env = MinetestEnv("treechop", size=(36, 64))
    for seed in (1, 2, 3):  # trees are not of the seed alone, and this is no clever player
        _, info = env.reset(seed=seed)
        assert info["inventory"] == {"default:axe_steel": 1}
        earned = chop(env, info)
        if earned:
            break
    assert earned == 1
    left, folder = pids(env), env._game.folder
    del env  # forgotten: nothing is left over
    gc.collect()
    assert all(gone(pid) for pid in left)
    assert not folder.exists()


def chop(env: MinetestEnv, info: dict) -> float:
    """Walks to the nearest log and digs it; attacks all the while, as leaves may be in the way."""
    for _ in range(300):
        near = math.hypot(*(info["target"] - info["position"])[[0, 2]]) < 2
        walk = {"forward": int(not near), "jump": int(not near)}
        _, reward, _, _, info = act(env, camera=aim(info, info["target"]), attack=1, **walk)
        if reward:
            return reward
    return 0.0


def test_two_games_side_by_side_and_the_reward_for_arriving():
    walk = MinetestEnv("navigate", size=(36, 64), goal_distance=8)
    other = MinetestEnv("explore", size=(36, 64), viewing_range=20)
    (seen, info), (_, elsewhere) = walk.reset(seed=2), other.reset(seed=4)
    assert walk._display.name != other._display.name
    assert walk._game.port != other._game.port
    assert 5 < math.hypot(*(info["target"] - info["position"])[[0, 2]]) < 11
    arrived, steps = False, 0
    while not arrived and steps < 400:
        turn = np.clip(seen["compass"]["angle"], -30, 30)
        seen, reward, arrived, _, info = act(walk, camera=(0, turn), forward=1, jump=1)
        assert reward == (100 if arrived else 0)
        assert walk.observation_space.contains(seen)
        _, _, _, _, now = act(other, camera=(0, 1))
        steps += 1
        assert abs(turned(now["yaw"], elsewhere["yaw"] + steps)) < 0.02 * steps  # nobody else's orders
    assert arrived
    left = [*pids(walk), *pids(other)]
    for env in (walk, walk, other):  # closing twice is fine
        env.close()
    assert not any(alive(pid) for pid in left)


def test_an_error_in_the_world_is_told():
    broken = MinetestEnv("explore", viewing_range=20)
    broken.task = Task("nonsense", "the mod knows no such task")
    with pytest.raises(MinetestGameError, match=r"(?s)could not begin an episode.*bad argument"):
        broken.reset(seed=1)
    broken.close()


def test_it_is_recorded_like_any_other():
    env = make_real("Minetest-Explore-v0", {"viewing_range": 20}, {"size": [48, 48]})
    frame, info = env.reset(seed=0)
    assert info["world_seed"] == 0
    assert frame.shape == (48, 48, 3)
    assert set(info["labels"]) == {"x", "y", "z", "yaw", "pitch"}
    env.close()


def test_the_programmed_player_fells_trees():
    env = gym.make("Minetest-Treechop-v0", camera_limit=10.0)
    player = make_policy("tree-feller", env)
    observation, info = env.reset(seed=3)
    player.reset(3)
    logs = 0.0
    for _ in range(400):
        observation, reward, *_, info = env.step(player.act(observation["pov"], info))
        logs += float(reward)
    env.close()
    assert logs >= 5  # 11 to 13 on an idle machine
    with pytest.raises(ValueError, match="Treechop"):
        make_policy("tree-feller", gym.make("Minetest-Explore-v0"))
