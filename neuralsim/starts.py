"""Starts: short pieces of real play in which dreams begin, stored losslessly as pictures.

``starts/000.png`` holds the frames of one start one below the other, ``starts/starts.json`` everything else,
so that anybody can look at them with an image viewer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from PIL import Image

from neuralsim.actions import map_actions

KINDS = ("beginning", "middle")


@dataclass(frozen=True, eq=False)
class Start:
    """A real context to dream on from.

    Attributes:
        frames: ``(T, H, W, 3)`` uint8, T >= 1; the dream goes on after the last one.
        actions: The T-1 actions between them, a batch in the format of the action space (None if T is 1).
        kind: ``"beginning"`` if the first frame is an episode's first one, else ``"middle"``.
        episode: Which recorded episode it was cut from.
        frame: Index of its first frame in that episode.
    """

    frames: np.ndarray
    actions: Any = None
    kind: str = "beginning"
    episode: int | str | None = None
    frame: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind of a start is {self.kind!r}; it must be {' or '.join(KINDS)}")
        if self.frames.dtype != np.uint8 or self.frames.ndim != 4 or self.frames.shape[-1] != 3 or not len(self.frames):
            raise ValueError(
                f"a start's frames are (T, H, W, 3) uint8 with T >= 1, got {self.frames.shape} {self.frames.dtype}"
            )

    def __len__(self) -> int:
        """Number of frames T."""
        return len(self.frames)


def save_starts(folder: Path, starts: list[Start]) -> None:
    """Writes starts into a new folder."""
    folder.mkdir(parents=True)
    entries = []
    for i, start in enumerate(starts):
        name = f"{i:03d}.png"
        length, _, width, _ = start.frames.shape
        Image.fromarray(start.frames.reshape(-1, width, 3)).save(folder / name, optimize=True)
        entries.append(
            {
                "file": name,
                "frames": length,
                "kind": start.kind,
                "episode": start.episode,
                "frame": start.frame,
                "actions": None if length == 1 else map_actions(np.ndarray.tolist, start.actions),
            }
        )
    (folder / "starts.json").write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def load_starts(folder: Path, frame_shape: tuple[int, int, int], action_space: spaces.Space) -> list[Start]:
    """Reads the starts of a world; a missing folder holds none.

    Raises:
        ValueError: If a file is damaged, missing or does not fit the world; the message names it.
    """
    index = folder / "starts.json"
    if not folder.is_dir():
        return []
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))
        return [_load_start(folder, entry, frame_shape, action_space) for entry in entries]
    except (OSError, SyntaxError, KeyError, TypeError, AttributeError, ValueError) as error:
        # Pillow reports damaged pictures by OSError or SyntaxError, the json module by ValueError.
        raise ValueError(
            f"the starts in {folder} are damaged: {type(error).__name__}: {error}; get the world again, "
            "or delete that folder to use the world without starts"
        ) from error


def _load_start(folder: Path, entry: dict[str, Any], frame_shape: tuple[int, int, int], space: spaces.Space) -> Start:
    name, length = Path(entry["file"]).name, int(entry["frames"])
    with Image.open(folder / name) as image:
        pixels = np.array(image.convert("RGB"))
    height, width, _ = frame_shape
    if pixels.shape != (length * height, width, 3):
        raise ValueError(
            f"{name} has {pixels.shape[1]}x{pixels.shape[0]} pixels, but {length} frames of "
            f"{width}x{height} make {width}x{length * height}"
        )
    actions = None if length == 1 else actions_from_json(entry["actions"], space, length - 1)
    return Start(pixels.reshape(length, *frame_shape), actions, entry["kind"], entry["episode"], entry["frame"])


def actions_from_json(values: Any, space: spaces.Space, count: int) -> Any:
    """The batch of ``count`` actions that was written as lists.

    Raises:
        ValueError: If there are not ``count`` of them, or they do not fit the space.
    """
    if isinstance(space, spaces.Dict):
        return {key: actions_from_json(values[key], part, count) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(actions_from_json(v, part, count) for v, part in zip(values, space.spaces, strict=True))
    return np.array(values, dtype=space.dtype).reshape((count, *(space.shape or ())))
