"""Minetest with MineRL's observations and actions, behind Gymnasium's API."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from neuralsim.envs.minerl_spaces import (
    BUTTONS,
    CAMERA_LIMIT,
    TICKS_PER_SECOND,
    V0_BUTTONS,
    action_space,
    check_action,
    observation_space,
)
from neuralsim.envs.minetest.display import Display
from neuralsim.envs.minetest.game import Game, Report
from neuralsim.envs.minetest.inputs import Keyboard, camera_pixels
from neuralsim.envs.minetest.instance import WorldSettings, free_port
from neuralsim.envs.minetest.needs import find_compiler, find_display_server, find_game
from neuralsim.envs.minetest.processes import MinetestGameError
from neuralsim.envs.minetest.shim import shim_path
from neuralsim.envs.minetest.tasks import find_task
from neuralsim.envs.preprocessing import resize

BUTTON_SETS = {"v0": V0_BUTTONS, "human": BUTTONS}
"""Sets of buttons by name: those of MineRL's v0 tasks, and the full human interface."""


class MinetestEnv(gym.Env):
    """A task in Minetest, one frame per action, each 50 ms of game time after the last.

    **Observations**: ``pov`` ``(*size, 3)`` uint8, and in "navigate" ``compass`` with the ``angle`` from where the
    player looks to the goal, in degrees, right is positive.

    **Actions**: a dict of buttons, 0 or 1, and ``camera``, the turn (pitch, yaw) in degrees, down and right positive.

    **info**: ``position`` and ``velocity`` ``(3,)`` float64 in nodes (and nodes per second), the second is up; ``yaw``
    (0 looks along +z, 90 along +x) and ``pitch`` (down is positive) in degrees: all four as drawn in this very frame.
    ``inventory``, item -> count; ``world_seed``, read back from the world; ``target`` ``(3,)``, the goal of
    "navigate", or the nearest tree log of "treechop" and "explore", where there is one; ``blocks_dug``;
    ``behind_seconds``, the game time that the server lacks (0 but on an overloaded machine). ``labels`` has position,
    yaw and pitch as numbers, for recordings.

    **Time**: action t shows in observation t+1, and in no earlier one. A reward is paid with the frame after the one
    in which the block vanishes, as the server hears of it a packet later.

    **Determinism**: the seed fixes the land, the start and the goal. It does not fix the trees' shapes, which the
    engine draws from a generator of its own, nor the order in which threads make land and meshes in real time. The
    client is in lock-step, and the server lives through the same game time before a frame is handed out; but packets
    between both travel freely. So replays are alike and not identical, and the ids say ``nondeterministic``.

    Args:
        task: "treechop", "navigate", "dig" or "explore", see :mod:`neuralsim.envs.minetest.tasks`.
        size: Height and width of the observations.
        buttons: "v0" or "human", or names of buttons. Of the human interface, ``ESC`` ends an episode;
            ``inventory``, ``pickItem`` and ``swapHands`` do nothing.
        camera_limit: Most degrees of a turn in one step.
        render_size: Height and width at which the game draws; the view is then scaled down by area.
        viewing_range: In nodes; the main cost of a frame.
        hud: Whether hotbar, crosshair and hand are drawn.
        goal_distance: Nodes from the start to the goal of "navigate".
        render_mode: "rgb_array": :meth:`render` returns the view at ``render_size``.
        port: UDP port of the game's server; by default any free one.
        start_timeout: Seconds of real time that a start may take.
        step_timeout: Seconds of real time that a step may take.

    Raises:
        MinetestMissingError: If the game, Xvfb or a compiler is missing, or this is not Linux; it says what to install.
        ValueError: If an argument makes no sense.
        OSError: If ``port`` is in use.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": TICKS_PER_SECOND}  # noqa: RUF012

    def __init__(
        self,
        task: str = "explore",
        size: tuple[int, int] = (64, 64),
        buttons: str | tuple[str, ...] | list[str] = "v0",
        camera_limit: float = CAMERA_LIMIT,
        render_size: tuple[int, int] = (180, 320),
        viewing_range: int = 40,
        hud: bool = True,
        goal_distance: float = 64.0,
        render_mode: str | None = None,
        port: int | None = None,
        start_timeout: float = 120.0,
        step_timeout: float = 30.0,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode {render_mode!r}; choose one of {self.metadata['render_modes']}")
        self.task = find_task(task)
        self.size, self.render_size = (int(size[0]), int(size[1])), (int(render_size[0]), int(render_size[1]))
        self.viewing_range, self.hud, self.goal_distance = int(viewing_range), bool(hud), float(goal_distance)
        self.render_mode, self.port = render_mode, port
        self.start_timeout, self.step_timeout = float(start_timeout), float(step_timeout)
        self._check()
        self.observation_space = observation_space(*self.size)
        if self.task.compass:
            angle = spaces.Box(-180, 180, (), np.float32)
            parts = {"compass": spaces.Dict({"angle": angle}), **self.observation_space.spaces}
            self.observation_space = spaces.Dict(parts)
        self.action_space = action_space(_buttons(buttons), camera_limit=camera_limit)
        find_game()
        find_display_server()
        find_compiler()
        if port is not None:
            free_port(port)
        self._display: Display | None = None
        self._game: Game | None = None
        self._keyboard = Keyboard()
        self._paid = 0.0
        self._over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode in a fresh world; that takes some seconds, as the game starts anew.

        Args:
            seed: Of the world; without one it follows from the last seed given.
            options: ``{"world_seed": n}`` chooses the world apart from the seed.

        Returns:
            Observation and info.

        Raises:
            MinetestGameError: If the game does not start.
            ValueError: For other options.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        drawn = int(self.np_random.integers(2**31)) if seed is None else int(seed)
        world_seed = options.pop("world_seed", drawn)
        if options:
            raise ValueError(f"unknown options {', '.join(map(repr, options))}; there is 'world_seed'")
        if isinstance(world_seed, bool) or not isinstance(world_seed, (int, np.integer)) or not 0 <= world_seed < 2**63:
            raise ValueError(f"world_seed {world_seed!r} must be a whole number from 0 to 2**63 - 1")
        self._over = True
        if self._game is not None:
            self._game.close()
        settings = WorldSettings(
            self.task.name, int(world_seed), self.render_size, self.viewing_range, self.hud, self.goal_distance
        )
        shim = shim_path()
        if self._display is None or self._display.server.ending is not None:
            self._display = Display(self.render_size, shim)
        self._game = Game(settings, self._display, shim, self.port, self.start_timeout, self.step_timeout)
        told = int(self._game.report.says["seed"])
        if told != world_seed:
            raise MinetestGameError(f"Minetest made a world of seed {told} where {world_seed} was asked for")
        self._keyboard, self._paid, self._over = Keyboard(), 0.0, False
        return self._observe(self._game.report), self._info(self._game.report)

    def step(self, action: dict[str, Any]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Plays 50 ms of game time.

        Raises:
            ValueError: For an action outside the space; the message explains it.
            MinetestGameError: If the game crashed or did not answer; ``reset`` begins anew.
            gymnasium.error.ResetNeeded: After the end of an episode, or before the first.
        """
        if self._over or self._game is None:
            raise gym.error.ResetNeeded("no episode is running: call reset() before step()")
        assert isinstance(self.action_space, spaces.Dict)
        checked = check_action(action, self.action_space)
        try:
            report = self._game.step(self._keyboard.changes(checked), camera_pixels(checked["camera"]))
        except BaseException:
            self._over = True
            raise
        total = float(report.says["reward"])
        reward, self._paid = total - self._paid, total
        terminated = bool(checked.get("ESC", 0)) or (self.task.enough is not None and total >= self.task.enough)
        self._over = terminated
        return self._observe(report), reward, terminated, False, self._info(report)

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The view ``(*render_size, 3)`` uint8 with ``render_mode="rgb_array"``."""
        return None if self.render_mode is None or self._game is None else self._game.report.frame.copy()

    def close(self) -> None:
        """Ends the game and its X server; the next ``reset`` starts both again."""
        self._over = True
        for part in (self._game, self._display):
            if part is not None:
                part.close()
        self._game = self._display = None

    def _observe(self, report: Report) -> dict[str, Any]:
        observation: dict[str, Any] = {"pov": resize(report.frame, self.size)}
        if self.task.compass:
            assert report.pose is not None
            x, _, z = report.pose[:3]
            goal = report.says["target"]
            bearing = math.degrees(math.atan2(goal[0] - x, goal[2] - z))
            angle = (bearing - _yaw(report) + 180) % 360 - 180
            observation["compass"] = {"angle": np.array(angle, np.float32)}
        return observation

    def _info(self, report: Report) -> dict[str, Any]:
        assert report.pose is not None
        position, velocity = np.array(report.pose[:3]), np.array(report.pose[3:6])
        yaw, pitch = _yaw(report), 0.0 - math.degrees(report.pose[7])
        numbers = (*map(float, position), yaw, pitch)
        info: dict[str, Any] = {
            "position": position,
            "velocity": velocity,
            "yaw": yaw,
            "pitch": pitch,
            "inventory": dict(report.says.get("inventory") or {}),
            "blocks_dug": int(report.says["dug"]),
            "world_seed": int(report.says["seed"]),
            "behind_seconds": report.behind_seconds,
            "labels": dict(zip(("x", "y", "z", "yaw", "pitch"), numbers, strict=True)),
        }
        target = report.says.get("target")
        if target:
            info["target"] = np.array(target, np.float64)
        return info

    def _check(self) -> None:
        height, width = self.render_size
        if min(height, width) < 16 or width < 1.6 * height:
            raise ValueError(
                f"render_size {self.render_size} must be a height and a width of at least 16, and at least 1.6 times "
                "as wide as high: at other shapes Minetest widens the view, and degrees come out wrong"
            )
        if min(self.size) < 1 or self.size[0] > height or self.size[1] > width:
            raise ValueError(f"size {self.size} must lie between (1, 1) and render_size {self.render_size}")
        if not 10 <= self.viewing_range <= 1000:
            raise ValueError(f"viewing_range {self.viewing_range} must lie between 10 and 1000 nodes")
        if not 4 <= self.goal_distance <= 1000:
            raise ValueError(f"goal_distance {self.goal_distance:g} must lie between 4 and 1000 nodes")
        for name, seconds in (("start_timeout", self.start_timeout), ("step_timeout", self.step_timeout)):
            if not seconds > 0:
                raise ValueError(f"{name} {seconds:g} must be above 0 seconds")


def _buttons(buttons: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    if isinstance(buttons, str):
        if buttons not in BUTTON_SETS:
            raise ValueError(f"buttons {buttons!r}; choose one of {', '.join(BUTTON_SETS)}, or give names of buttons")
        return BUTTON_SETS[buttons]
    unknown = [name for name in buttons if name not in BUTTONS]
    if unknown:
        raise ValueError(f"unknown button {', '.join(map(repr, unknown))}; there are {', '.join(BUTTONS)}")
    return tuple(buttons)


def _yaw(report: Report) -> float:
    """Degrees to the right of +z, 0 to 360; the game counts radians to the left of +x."""
    assert report.pose is not None
    return (90 - math.degrees(report.pose[6])) % 360
