"""A small MineRL that speaks the old gym API, faults included, for tests: ``install(monkeypatch)``.

It has the classes of spaces, the registry, the wrappers and the habits of gym 0.21 with minerl 1.0: four values from
``step``, a ``seed`` of its own that one reset uses up, "done" when time is up, a frame that is upside down in memory,
and a random observation when the connection is lost.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np


class Box:
    def __init__(self, low, high, shape, dtype):
        self.low, self.high = np.full(shape, low, dtype), np.full(shape, high, dtype)
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)

    def sample(self):
        return np.random.default_rng().integers(0, 200, self.shape).astype(self.dtype)


class Discrete:
    def __init__(self, n):
        self.n, self.shape, self.dtype = n, (), np.dtype(np.int64)


class Enum(Discrete):
    def __init__(self, *values, default):
        super().__init__(len(values))
        self.values, self.default = np.array(sorted(values)), default

    def sample(self):
        return self.values[0]


class Text:
    """What nobody can translate."""

    def sample(self):
        return "noise"


class Dict:
    def __init__(self, spaces):
        self.spaces = spaces

    def sample(self):
        return {name: part.sample() for name, part in self.spaces.items()}


class Task:
    max_episode_steps: int | None = None


class FakeMineRL:
    """Treechop, more or less: the reward is 1 for each tick of attack; death at ``dies``."""

    spec = None

    def __init__(self, size=(8, 12), buttons=("attack", "forward"), dies=None, fault=None, limit=None, choices=False):
        self.size, self.dies, self.fault = size, dies, fault
        self.task = Task()
        self.task.max_episode_steps = limit
        parts: dict[str, Any] = {name: Discrete(2) for name in buttons}
        parts["camera"] = Box(-180, 180, (2,), np.float32)
        if choices:
            parts["place"] = Enum("dirt", "none", "torch", default="none")
        self.action_space = Dict(parts)
        self.observation_space = Dict(
            {
                "pov": Box(0, 255, (*size, 3), np.uint8),
                "inventory": Dict({"log": Box(0, 2304, (), np.int32)}),
                "equipped": Dict({"type": Enum("air", "iron_axe", "other", default="air")}),
                **({"chat": Text()} if choices else {}),
            }
        )
        self._seed: int | None = None
        self.done = True
        self.told: list[Any] = []
        self.closed = False

    @property
    def unwrapped(self):
        return self

    def seed(self, seed=None):
        assert isinstance(seed, int)
        self._seed = seed

    def reset(self):
        if self.fault == "reset":
            raise ConnectionRefusedError("nobody listens")
        self.world, self._seed = np.random.default_rng(self._seed), None
        self.t, self.logs, self.done = 0, 0, False
        return self._observe()

    def step(self, action):
        if self.done:
            raise RuntimeError("Attempted to step an environment server with done=True")
        assert type(action["camera"]) is np.ndarray
        assert all(isinstance(action[name], (int, str)) for name in action if name != "camera")
        self.told.append(action)
        self.t += 1
        if self.fault == ("noise", self.t):
            self.done = True
            return self.observation_space.sample(), 0, True, {"error": "Connection timed out!"}
        if self.fault == ("hidden", self.t):
            try:
                raise TimeoutError("timed out")
            except TimeoutError:
                raise TypeError("_clean_connection() missing 1 required positional argument") from None
        if self.fault == ("bug", self.t):
            raise KeyError("inventory")
        self.logs += action["attack"]
        self.done = self.t == self.dies
        done, observation = self.done, self._observe()
        if self.fault == ("silent", self.t):
            self.done = True  # and nothing in what is returned
        if self.fault == ("size", self.t):
            observation["pov"] = np.zeros((4, 4, 3), np.uint8)
        return observation, np.float64(action["attack"]), done, {"isGuiOpen": False}

    def render(self, mode="human"):
        self.told.append("rendered")

    def close(self):
        self.closed = True

    def _observe(self):
        self.pov = self.world.integers(0, 256, (*self.size, 3)).astype(np.uint8)
        return {
            "pov": self.pov[::-1],
            "inventory": {"log": float(self.logs)},
            "equipped": {"type": "iron_axe"},
            "chat": "hello",
        }


class TimeLimit:
    def __init__(self, env, limit):
        self.env, self.limit, self.spec = env, limit, types.SimpleNamespace(max_episode_steps=limit)

    def __getattr__(self, name):
        return getattr(self.env, name)

    def reset(self):
        self.t = 0
        return self.env.reset()

    def step(self, action):
        observation, reward, done, info = self.env.step(action)
        self.t += 1
        if self.t >= self.limit:
            info["TimeLimit.truncated"] = not done
            done = True
        return observation, reward, done, info


class ServerLimit(TimeLimit):
    """BASALT's, and Minecraft's own clock: "done", and not a word about why."""

    def __init__(self, env, limit, early=0):
        super().__init__(env, limit - early)
        self.spec = None
        env.task.max_episode_steps = limit

    def step(self, action):
        observation, reward, done, info = super().step(action)
        info.pop("TimeLimit.truncated", None)
        return observation, reward, done, info


def install(monkeypatch) -> None:
    """Puts the modules ``gym`` and ``minerl`` in place, and the ids away again."""
    import gymnasium

    makers = {
        "MineRLTreechop-v0": lambda limit=10, **kwargs: TimeLimit(FakeMineRL(**kwargs), limit),
        "MineRLObtain-v0": lambda **kwargs: FakeMineRL(choices=True, **kwargs),
        "MineRLBasalt-v0": lambda limit=10, early=0, **kwargs: ServerLimit(FakeMineRL(**kwargs), limit, early),
        "CartPole-v1": lambda: None,
    }
    gym = types.ModuleType("gym")
    gym.make = lambda env_id, **kwargs: makers[env_id](**kwargs)  # type: ignore[attr-defined]
    gym.envs = types.SimpleNamespace(registry=types.SimpleNamespace(env_specs=makers))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gym", gym)
    monkeypatch.setitem(sys.modules, "minerl", types.ModuleType("minerl"))
    for env_id in makers:
        if env_id.startswith("MineRL"):
            monkeypatch.delitem(gymnasium.registry, env_id, raising=False)
