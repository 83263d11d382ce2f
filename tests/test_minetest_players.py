"""The programmed players in a land of air, with one log that needs ten steps of digging."""

import math

import numpy as np
import pytest
from gymnasium import spaces

from neuralsim.agents.minetest_players import EYE_HEIGHT, REACH, MinetestMix, TreeFeller, angle_between
from neuralsim.envs.minerl_spaces import human_action_space, v0_action_space

FRAME = np.zeros((64, 64, 3), np.uint8)


class Land:
    """Flat ground at height 10, walked at 0.2 nodes a step; a wall may stand in the way."""

    def __init__(self, log: tuple[float, float, float] | None = None, wall_z: float = math.inf) -> None:
        self.position, self.yaw, self.pitch = np.array([0.0, 10.5, 0.0]), 90.0, 0.0
        self.log, self.wall_z = log, wall_z
        self.attacks = 0

    def info(self) -> dict:
        told = {"position": self.position.copy(), "yaw": self.yaw, "pitch": self.pitch}
        return told if self.log is None else {**told, "target": np.array(self.log)}

    def step(self, action: dict) -> dict:
        self.pitch = float(np.clip(self.pitch + action["camera"][0], -89, 89))
        self.yaw = (self.yaw + float(action["camera"][1])) % 360
        ahead = np.array([math.sin(math.radians(self.yaw)), 0, math.cos(math.radians(self.yaw))])
        moved = self.position + 0.2 * ahead * (action["forward"] - action["back"])
        if moved[2] < self.wall_z:
            self.position = moved
        self.attacks = self.attacks + 1 if self.log is not None and action["attack"] and self._aims() else 0
        if self.attacks == 10:
            self.log = None
        return self.info()

    def _aims(self) -> bool:
        x, y, z = np.array(self.log) - self.position - (0, EYE_HEIGHT, 0)
        off = abs(angle_between(self.yaw, math.degrees(math.atan2(x, z))))
        return math.dist((x, y, z), (0, 0, 0)) < REACH and (
            off < 8 and abs(self.pitch + math.degrees(math.atan2(y, math.hypot(x, z)))) < 8
        )


def play(policy, land, steps, seed=0):
    policy.reset(seed)
    info, actions = land.info(), []
    for _ in range(steps):
        actions.append(policy.act(FRAME, info))
        info = land.step(actions[-1])
    return actions


@pytest.mark.parametrize(("yaw", "other", "turn"), [(10, 20, 10), (350, 10, 20), (10, 350, -20), (0, 180, -180)])
def test_angles(yaw, other, turn):
    assert angle_between(yaw, other) == turn


def test_where_a_place_is():
    player = TreeFeller(v0_action_space())
    player.info = {"position": np.array([1.0, 2.0, 3.0])}
    eyes = np.array([1.0, 2.0 + EYE_HEIGHT, 3.0])
    assert player.look_at(eyes + (0, 0, 2)) == pytest.approx((0, 0, 2))
    assert player.look_at(eyes + (3, 3, 0)) == pytest.approx((90, -45, math.hypot(3, 3)))
    assert player.look_at(eyes + (-1, -1, 0)) == pytest.approx((270, 45, math.hypot(1, 1)))


@pytest.mark.parametrize("log", [(8.0, 11.0, 5.0), (-6.0, 12.0, 2.0), (0.0, 11.0, -3.0), (0.3, 14.0, 0.2)])
def test_the_feller_gets_its_log(log):
    land = Land(log)
    play(TreeFeller(v0_action_space(camera_limit=10)), land, 200)
    assert land.log is None


def test_a_log_out_of_reach_is_given_up_for_a_while():
    land = Land((0.0, 30.0, 4.0))
    play(TreeFeller(v0_action_space()), land, 400)
    assert math.hypot(*land.position[[0, 2]]) > 5


def test_who_meets_a_wall_jumps_and_then_turns_away():
    land = Land(wall_z=1.0)
    land.yaw = 0.0
    player = TreeFeller(v0_action_space())
    player.behaviour = (player.walk(0.0, 0.0) for _ in range(20))
    info, jumps = land.info(), []
    for _ in range(20):
        action = player.act(FRAME, info)
        jumps.append(action["jump"])
        info = land.step(action)
    assert jumps[:5] == [0] * 5
    assert jumps[-5:] == [1] * 5
    player.behaviour = player.stroll(200)
    for _ in range(200):
        info = land.step(player.act(FRAME, info))
    assert math.hypot(*land.position[[0, 2]]) > 5


@pytest.mark.parametrize("space", [v0_action_space(camera_limit=10), human_action_space()], ids=["v0", "human"])
def test_actions_of_the_mix(space):
    players = MinetestMix(space), MinetestMix(space)
    actions = play(players[0], Land((8.0, 11.0, 5.0)), 600, seed=4)
    assert all(space.contains(action) for action in actions)
    assert repr(actions) == repr(play(players[1], Land((8.0, 11.0, 5.0)), 600, seed=4))
    assert repr(actions) != repr(play(players[1], Land((8.0, 11.0, 5.0)), 600, seed=5))


def test_the_mix_does_everything():
    space = human_action_space(camera_limit=10)
    player, pressed, names, turns = MinetestMix(space), set(), set(), []
    for seed in range(30):
        actions = play(player, Land((8.0, 11.0, 5.0)), 300, seed)
        pressed |= {name for action in actions for name in player.buttons if action[name]}
        names.add(player.name)
        turns += [action["camera"] for action in actions]
    assert names == {f"minetest-mix/{name}" for name in MinetestMix.PERSONALITIES}
    assert pressed >= {"attack", "back", "forward", "jump", "left", "right", "sneak", "sprint", "use", "hotbar.1"}
    assert not pressed & {"ESC", "drop", "inventory"}
    spread = np.std(turns, axis=0)
    assert (spread > 0.5).all()
    assert (spread < 6).all()


@pytest.mark.parametrize(
    ("space", "task", "does"),
    [
        (human_action_space(), "explore", {"fell_some", "dig", "place"}),
        (v0_action_space(), "explore", {"fell_some", "dig"}),
        (v0_action_space(), "treechop", {"fell_some", "dig"}),
        (human_action_space(), "treechop", {"fell_some", "dig"}),
        (human_action_space(), "navigate", {"dig"}),  # the target is the goal, no tree
    ],
)
def test_what_the_mix_does_where(space, task, does, monkeypatch):
    player, done = MinetestMix(space, task), set()
    for name in ("fell_some", "dig", "place"):
        way = getattr(MinetestMix, name)
        monkeypatch.setattr(MinetestMix, name, lambda self, *a, way=way, name=name: done.add(name) or way(self, *a))
    for seed in range(30):
        play(player, Land((8.0, 11.0, 5.0)), 300, seed)
    assert done == does


def test_trees_are_felled_with_the_axe():
    player = MinetestMix(human_action_space(), "explore")
    player.reset(0)
    player.info = Land((8.0, 11.0, 5.0)).info()
    assert next(player.fell_some())["hotbar.3"] == 1


def test_a_behaviour_that_ends_at_once_is_a_rest():
    player = MinetestMix(v0_action_space())
    player.choose = lambda: iter(())
    assert player.act(FRAME, Land().info()) == player.press() | {"camera": pytest.approx(np.zeros(2))}


def test_who_is_in_water_swims():
    player = TreeFeller(v0_action_space())
    player.reset(0)
    player.info = {"position": np.array([0.0, -1.0, 0.0]), "yaw": 0.0, "pitch": 0.0}
    assert np.mean([player.walk(0.0, 0.0)["jump"] for _ in range(200)]) > 0.8
    player.info["position"] = np.array([0.0, 5.0, 0.0])
    assert not any(player.walk(0.0, 0.0)["jump"] for _ in range(20))


def test_what_they_cannot_play():
    with pytest.raises(ValueError, match="camera"):
        MinetestMix(spaces.Discrete(6))
    with pytest.raises(ValueError, match="info"):
        TreeFeller(v0_action_space()).act(FRAME, {})
