"""Actions of MineRL in other forms, for agents and libraries that cannot take its dict of buttons and a float camera.

- :class:`LimitCamera`: the same dict, with a camera that turns by at most 10 degrees.
- :class:`BinCamera`: the same dict, with the camera as one of 121 classes, or as a bin per axis.
- :func:`multi_discrete`: one MultiDiscrete for everything.
- :class:`ChosenActions`: one Discrete, each number a combination of buttons and a turn that you chose.
- :class:`JointActions`: VPT's joint classes of buttons and of the camera, as a dict or as one MultiDiscrete.

They fit every environment with actions like MineRL's: the live one, and dreams of it. Each has ``reverse_action``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from neuralsim.envs.flatten_actions import FlattenActions
from neuralsim.envs.minerl_camera import CameraBins
from neuralsim.envs.minerl_spaces import check_action, check_keys, limit_camera, noop_action
from neuralsim.envs.minerl_vpt import BUTTON_CLASSES, UNUSED_BUTTONS, VPT_BUTTONS, VPTActions

TREECHOP_ACTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"attack": 1},
    {"forward": 1},
    {"forward": 1, "attack": 1},
    {"forward": 1, "jump": 1},
    {"back": 1},
    {"left": 1},
    {"right": 1},
    {"camera": (-5.0, 0.0)},
    {"camera": (5.0, 0.0)},
    {"camera": (0.0, -5.0)},
    {"camera": (0.0, 5.0)},
    {"attack": 1, "camera": (-5.0, 0.0)},
    {"attack": 1, "camera": (5.0, 0.0)},
)
"""Enough to walk, look around and fell trees; for :class:`ChosenActions`."""


class LimitCamera(gym.ActionWrapper, RecordConstructorArgs):
    """Narrows the camera's range, so that agents explore turns that people make.

    People turn by less than 10 degrees in almost every tick, and everything that scales actions by their bounds sees
    the camera at rest where these are 180 degrees.

    Args:
        env: An environment with MineRL's actions.
        limit: Most degrees per tick about each axis.

    Raises:
        ValueError: If there is no camera, or it turns by less than that already.
    """

    def __init__(self, env: gym.Env, limit: float = 10.0) -> None:
        RecordConstructorArgs.__init__(self, limit=limit)
        gym.ActionWrapper.__init__(self, env)
        space, _ = _camera_space(env)
        self.limit = float(limit)
        self.action_space = limit_camera(space, self.limit)

    def action(self, action: dict[str, Any]) -> dict[str, Any]:
        """The action itself.

        Raises:
            ValueError: For an action outside the narrowed space.
        """
        assert isinstance(self.action_space, spaces.Dict)
        return check_action(action, self.action_space)

    def reverse_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """The action, with turns beyond the limit cut to it."""
        return {**action, "camera": np.clip(action["camera"], -self.limit, self.limit).astype(np.float32)}


class BinCamera(gym.ActionWrapper, RecordConstructorArgs):
    """Gives the camera mu-law bins.

    Args:
        env: An environment with MineRL's actions.
        joint: One Discrete for both axes (121 classes with the usual bins) instead of a MultiDiscrete with a bin each.
        maxval: See :class:`~neuralsim.envs.minerl_camera.CameraBins`, here and below.
        binsize: Mean size of a bin in degrees.
        mu: How much finer the bins are near 0.

    Raises:
        ValueError: If there is no camera, or bins that do not fit it.
    """

    def __init__(
        self, env: gym.Env, joint: bool = True, maxval: float = 10.0, binsize: float = 2.0, mu: float = 10.0
    ) -> None:
        RecordConstructorArgs.__init__(self, joint=joint, maxval=maxval, binsize=binsize, mu=mu)
        gym.ActionWrapper.__init__(self, env)
        self.bins = CameraBins(maxval, binsize, mu)
        self.joint = joint
        space, camera = _camera_space(env)
        if maxval > camera.high.min():
            raise ValueError(f"bins up to {maxval:g} degrees, and {env} turns by at most {camera.high.min():g}")
        binned = spaces.Discrete(self.bins.classes) if joint else spaces.MultiDiscrete([self.bins.bins] * 2)
        self.action_space = spaces.Dict({**space.spaces, "camera": binned})

    def action(self, action: dict[str, Any]) -> dict[str, Any]:
        """The environment's action: the camera turns by the centre of its bin.

        Raises:
            ValueError: For unknown or missing keys, or a camera that is no bin.
        """
        check_keys(action, list(self.env.action_space.spaces))  # type: ignore[attr-defined]
        turn = self.bins.from_class(action["camera"]) if self.joint else self.bins.decode(action["camera"])
        return {**action, "camera": turn}

    def reverse_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """The binned action that comes nearest to one of the environment's."""
        turn = action["camera"]
        return {**action, "camera": np.int64(self.bins.to_class(turn)) if self.joint else self.bins.encode(turn)}


def multi_discrete(env: gym.Env, joint: bool = True) -> FlattenActions:
    """MineRL's actions as one MultiDiscrete: a number per button and choice, and one (or two) for the camera.

    Args:
        env: An environment with MineRL's actions.
        joint: See :class:`BinCamera`.

    Returns:
        The environment in two wrappers, so that the number of an action is
        ``env.reverse_action(env.env.reverse_action(action))``.
    """
    return FlattenActions(BinCamera(env, joint=joint))


class ChosenActions(gym.ActionWrapper, RecordConstructorArgs):
    """Offers a list of actions as one Discrete.

    All combinations would be too many for that: 30,976 in Treechop alone.

    Args:
        env: An environment with MineRL's actions.
        actions: What to offer; each a dict of the parts that are not at rest, such as ``{"forward": 1, "jump": 1}``.

    Attributes:
        meanings: A few words for each number.

    Raises:
        ValueError: For an action that the environment does not have, or one that stands there twice.
    """

    def __init__(self, env: gym.Env, actions: Sequence[Mapping[str, Any]] = TREECHOP_ACTIONS) -> None:
        RecordConstructorArgs.__init__(self, actions=actions)
        gym.ActionWrapper.__init__(self, env)
        space, _ = _camera_space(env)
        if not actions:
            raise ValueError("no actions to choose from: give at least one, {} is to do nothing")
        self.meanings = [_meaning(parts) for parts in actions]
        self.chosen: list[dict[str, Any]] = []
        self._numbers: dict[tuple[Any, ...], int] = {}
        for number, parts in enumerate(actions):
            try:
                action = check_action({**noop_action(space), **parts}, space)
            except ValueError as error:
                raise ValueError(f"action {number} of the list: {error}") from error
            same = self._numbers.setdefault(_identity(action), number)
            if same != number:
                raise ValueError(f"actions {same} and {number} of the list are the same: {dict(parts)}")
            self.chosen.append(action)
        self.action_space = spaces.Discrete(len(self.chosen))

    def action(self, action: int | np.integer) -> dict[str, Any]:
        """The environment's action that a number stands for.

        Raises:
            ValueError: If it stands for none.
        """
        if not self.action_space.contains(action):
            raise ValueError(f"action {action!r} is outside 0 to {len(self.chosen) - 1}")
        chosen = self.chosen[int(action)]
        return {**chosen, "camera": chosen["camera"].copy()}  # an array, which nobody else may change

    def reverse_action(self, action: dict[str, Any]) -> int:
        """The number that stands for an action of the environment.

        Raises:
            ValueError: If none does.
        """
        full = check_action(action, self.env.action_space)  # type: ignore[arg-type]
        number = self._numbers.get(_identity(full))
        if number is None:
            raise ValueError(f"none of the {len(self.chosen)} chosen actions is {full}")
        return number


class JointActions(gym.ActionWrapper, RecordConstructorArgs):
    """VPT's actions: a class of all buttons (8,641) and a class of the camera (121).

    Args:
        env: An environment with the full human interface.
        to: ``"dict"``: ``{"buttons": Discrete(8641), "camera": Discrete(121)}``, as VPT's models have it;
            ``"multi_discrete"``: ``MultiDiscrete([8641, 121])``.

    Raises:
        ValueError: If the environment lacks some of VPT's buttons.
    """

    def __init__(self, env: gym.Env, to: str = "dict") -> None:
        RecordConstructorArgs.__init__(self, to=to)
        gym.ActionWrapper.__init__(self, env)
        space, _ = _camera_space(env)
        lacking = [button for button in VPT_BUTTONS if button not in space.spaces]
        foreign = sorted(set(space.spaces) - {*VPT_BUTTONS, *UNUSED_BUTTONS, "camera"})
        if lacking or foreign:
            raise ValueError(
                f"VPT's actions are those of the full human interface; {env} "
                + (f"lacks {', '.join(lacking)}" if lacking else f"also has {', '.join(foreign)}")
                + ": use neuralsim.envs.minerl_wrappers.multi_discrete instead"
            )
        self.vpt = VPTActions()
        self.action_space: spaces.Space
        if to == "dict":
            camera = spaces.Discrete(self.vpt.camera.classes)
            self.action_space = spaces.Dict({"buttons": spaces.Discrete(BUTTON_CLASSES), "camera": camera})
        elif to == "multi_discrete":
            self.action_space = spaces.MultiDiscrete([BUTTON_CLASSES, self.vpt.camera.classes])
        else:
            raise ValueError(f"to is {to!r}; it must be 'dict' or 'multi_discrete'")
        self.to = to

    def action(self, action: Any) -> dict[str, Any]:
        """The environment's action that a pair of classes stands for.

        Raises:
            ValueError: For a number that is no class.
        """
        pair = (action["buttons"], action["camera"]) if self.to == "dict" else (action[0], action[1])
        decoded = self.vpt.decode(*pair)
        # As the space's own samples have them: scalars, and an array for the camera.
        return {name: decoded[name] if name == "camera" else decoded[name][()] for name in self._keys()}

    def reverse_action(self, action: dict[str, Any]) -> Any:
        """The pair of classes that stands for an action of the environment, as nearly as VPT's classes can."""
        buttons, camera = self.vpt.encode(action)
        if self.to == "dict":
            return {"buttons": np.int64(buttons), "camera": np.int64(camera)}
        return np.array([buttons, camera], np.int64)

    def _keys(self) -> list[str]:
        return list(self.env.action_space.spaces)  # type: ignore[attr-defined]


def _camera_space(env: gym.Env) -> tuple[spaces.Dict, spaces.Box]:
    space = env.action_space
    camera = space.spaces.get("camera") if isinstance(space, spaces.Dict) else None
    if not isinstance(space, spaces.Dict) or not isinstance(camera, spaces.Box) or camera.shape != (2,):
        raise ValueError(
            f"{env} has the actions {space}; these wrappers need MineRL's, a Dict with the camera as a Box of "
            "(pitch, yaw): put them on before any other that changes actions"
        )
    return space, camera


def _identity(action: dict[str, Any]) -> tuple[Any, ...]:
    # + 0.0 as -0.0 and 0.0 are the same turn.
    return tuple(tuple((np.ravel(value) + 0.0).tolist()) for value in action.values())


def _meaning(parts: Mapping[str, Any]) -> str:
    words = []
    for name, value in parts.items():
        if name == "camera":
            pitch, yaw = np.ravel(value).tolist()
            words.append(f"camera {pitch:g} {yaw:g}")
        else:
            words.append(name if value == 1 else f"{name} {value}")
    return "+".join(words) or "nothing"
