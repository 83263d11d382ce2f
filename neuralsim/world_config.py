"""What a world says about itself: the content of its ``config.json``."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any

from neuralsim.json_parts import dump_parts

FORMAT = 1
"""Version of the layout of a world folder that this code writes, and the newest that it reads."""


@dataclass
class WorldConfig:
    """Everything about a world but its weights and starts; all of it is JSON.

    Attributes:
        name: Short name, e.g. ``"pong"``.
        frame_shape: ``(H, W, 3)``.
        action_space: As :func:`neuralsim.actions.space_to_json` describes it.
        tokenizer: ``{"type": ..., "config": {...}}`` for :func:`neuralsim.tokenizers.build_tokenizer`.
        dynamics: ``{"type": ..., "config": {...}}`` for :func:`neuralsim.dynamics.build_dynamics`.
        heads: ``{"config": {...}}``, the fields of :class:`neuralsim.heads.HeadsConfig`.
        fps: Steps per second at which the real environment plays.
        env_id: Gymnasium id of the environment it was learned from.
        env_kwargs: Arguments of ``gymnasium.make`` for it.
        preprocessing: From that environment's screen to frames, arguments of the preprocessing wrapper.
        action_meanings: Names of a Discrete space's actions, or None.
        keys_to_action: Pairs of pressed keys and the action they mean, or None.
        reward_values: All rewards there are; dreamed rewards are snapped to the nearest. None: any number.
        reward_range: Lowest and highest reward; dreamed rewards are clipped to it. None: no bounds.
        sampling_steps: Default number of sampling steps K per frame.
        max_episode_steps: Time limit of the real environment in steps, or None.
        probes: Which probes judge its dreams in evaluation, or None.
        trained_on: Where it comes from: data, commands, figures.
        notice: A sentence that everybody should see who uses it, such as which game the weights really come from; it
            stands at the head of the card and on the screen of ``neuralsim play``. Empty: there is nothing to say.
        weights_sha256: Checksum of ``world.safetensors``, filled in by ``World.save``.
        format: Version of the folder's layout.

    Raises:
        ValueError: If a field makes no sense; the message names it.
    """

    name: str
    frame_shape: tuple[int, int, int]
    action_space: dict[str, Any]
    tokenizer: dict[str, Any]
    dynamics: dict[str, Any]
    heads: dict[str, Any]
    fps: float
    env_id: str = ""
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    action_meanings: list[str] | None = None
    keys_to_action: list[Any] | None = None
    reward_values: list[float] | None = None
    reward_range: tuple[float, float] | None = None
    sampling_steps: int = 4
    max_episode_steps: int | None = None
    probes: str | None = None
    trained_on: dict[str, Any] = field(default_factory=dict)
    notice: str = ""
    weights_sha256: str = ""
    format: int = FORMAT

    def __post_init__(self) -> None:
        try:
            self.frame_shape = tuple(int(n) for n in self.frame_shape)  # type: ignore[assignment]
            self.fps = float(self.fps)
            if self.reward_range is not None:
                low, high = self.reward_range
                self.reward_range = (float(low), float(high))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"frame_shape, fps or reward_range of the world {self.name!r} is malformed: {error}"
            ) from None
        if len(self.frame_shape) != 3 or self.frame_shape[2] != 3 or min(self.frame_shape) < 1:
            raise ValueError(f"frame_shape {self.frame_shape} is not (height, width, 3)")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps {self.fps} must be a positive number of steps per second")
        if not isinstance(self.notice, str):
            raise ValueError(f"notice is {self.notice!r}; it must be a text, empty if there is nothing to say")
        if self.reward_values is not None and not self.reward_values:
            raise ValueError("reward_values is empty; use None for rewards that can be any number")
        if self.reward_range is not None and not self.reward_range[0] <= self.reward_range[1]:
            raise ValueError(f"reward_range {self.reward_range} is not (lowest, highest)")
        if self.max_episode_steps is not None and self.max_episode_steps < 1:
            raise ValueError(f"max_episode_steps is {self.max_episode_steps}; use None for no limit")
        for part, keys in (
            ("tokenizer", ("type", "config")),
            ("dynamics", ("type", "config")),
            ("heads", ("config",)),
        ):
            if not all(key in getattr(self, part) for key in keys):
                raise ValueError(f"{part} of a world must hold {' and '.join(keys)}, got {getattr(self, part)}")

    def to_json(self) -> str:
        """The text of ``config.json``.

        Raises:
            ValueError: If a field holds something that JSON cannot.
        """
        try:
            return dump_parts(dataclasses.asdict(self))
        except TypeError as error:
            raise ValueError(f"the config of the world {self.name!r} is not JSON: {error}") from error

    @classmethod
    def from_json(cls, text: str) -> WorldConfig:
        """Reads the text of a ``config.json``.

        Raises:
            ValueError: For invalid JSON, a newer format, and unknown, missing or malformed fields.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"not valid JSON ({error})") from error
        if not isinstance(values, dict):
            raise ValueError(f"holds a {type(values).__name__} where an object is expected")
        version = values.get("format")
        if not isinstance(version, int) or version < 1:
            raise ValueError(f"its field 'format' is {version!r}, so it is no world's config")
        if version > FORMAT:
            raise ValueError(
                f"has format {version}, but this version of neuralsim reads up to {FORMAT}: "
                "pip install --upgrade neuralsim-gym"
            )
        fields = {f.name: f for f in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(fields))
        if unknown:
            raise ValueError(f"has unknown fields {', '.join(unknown)}")
        required = [
            name
            for name, f in fields.items()
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        ]
        missing = [name for name in required if name not in values]
        if missing:
            raise ValueError(f"lacks the fields {', '.join(missing)}")
        return cls(**values)


def history(description: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs that a run began from, the last first, each with those before it."""
    runs = []
    while description := description.get("init_from") or {}:
        runs.append(description)
    return runs
