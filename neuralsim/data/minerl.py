"""Recordings of the MineRL v0.x data sets (Treechop, Navigate, Obtain...), read without the package ``minerl``.

    MineRLTreechop-v0/v3_<stream>/recording.mp4    what the player saw, at 20 frames per second
                                  rendered.npz     reward (N,), action$camera (N, 2), action$attack (N,), ...,
                                                   observation$inventory$log (N+1,), ...
                                  metadata.json    true_video_frame_count, success, total_reward, ...

There are N actions and N+1 observations. The video is longer: it began while the game was still loading, so that its
last frame belongs to the last observation and the first ``true_video_frame_count - (N + 1)`` frames to none.
Observations that are numbers become labels ("inventory.log"). Buttons that the v0.x tasks lack are never pressed;
crafting commands (``action$craft`` and its like) have no button and are reported.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuralsim.data.episodes import Episode, EpisodeStore
from neuralsim.data.minecraft_actions import checked_camera, no_actions
from neuralsim.data.recordings import Recording, import_recordings
from neuralsim.data.videos import decode_frames
from neuralsim.envs.minerl_spaces import BUTTONS
from neuralsim.envs.preprocessing import resize

if TYPE_CHECKING:
    from neuralsim.data.interchange import ImportConfig

_VIDEO, _ARRAYS, _META = "recording.mp4", "rendered.npz", "metadata.json"
_STREAM = re.compile(r"v\d+_.+")  # folder of a recording
_REWARD, _ACTION, _OBSERVATION = "reward", "action$", "observation$"


def import_minerl(config: ImportConfig) -> EpisodeStore:
    """Reads a folder of MineRL recordings, or of several such folders.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no recordings, or none can be read.
        ModuleNotFoundError: Without the extra ``video``.
    """
    return import_recordings(config, "minerl", find_minerl(Path(config.source)), read_minerl)


def find_minerl(folder: Path) -> list[Recording]:
    """The recordings below a folder: those that lack a file too, so that they are reported.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no recordings.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    found = {file.parent for name in (_VIDEO, _ARRAYS) for file in folder.rglob(name)}
    found |= {path for path in folder.rglob("v*_*") if path.is_dir() and _STREAM.fullmatch(path.name)}
    if not found:
        raise ValueError(f"{folder} holds no MineRL recordings: folders v3_* with {_VIDEO}, {_ARRAYS} and {_META}")
    names = {path: path.relative_to(folder).as_posix() for path in sorted(found)}
    return [Recording(path.name if name == "." else name, path) for path, name in names.items()]


def read_minerl(recording: Recording, config: ImportConfig) -> tuple[Episode, Counter[str]]:
    """Reads one recording.

    Returns:
        The episode, terminated if its player succeeded and truncated otherwise; and the actions that have no button,
        and turns that were cut, with the number of steps.

    Raises:
        ValueError: If a file is damaged, or does not fit the others; the message names file and value.
        OSError: If a file is missing.
    """
    folder = recording.path
    missing = [name for name in (_VIDEO, _ARRAYS, _META) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{' and '.join(missing)} missing")
    arrays, meta = _read_arrays(folder / _ARRAYS), _read_meta(folder / _META)
    rewards = _numbers(arrays, _REWARD, folder / _ARRAYS)
    if rewards.ndim != 1 or not len(rewards) or not np.isfinite(rewards).all():
        raise ValueError(f"{_ARRAYS}: reward has the shape {rewards.shape}; it must be (N,), finite numbers, N > 0")
    actions, left_out = _read_actions(arrays, len(rewards), folder / _ARRAYS, config)
    ended = np.arange(len(rewards)) == len(rewards) - 1
    success = bool(meta.get("success", False))
    return Episode(
        frames=_read_frames(folder / _VIDEO, meta["true_video_frame_count"], len(rewards) + 1, config),
        actions=actions,
        rewards=rewards.astype(np.float32),
        terminated=ended & success,
        truncated=ended & (not success),
        labels=_read_labels(arrays, len(rewards) + 1),
        policy="human",
        seed=-1,
    ), left_out


def _read_frames(video: Path, in_video: int, observations: int, config: ImportConfig) -> np.ndarray:
    loading = in_video - observations
    if loading < 0:
        raise ValueError(
            f"{_META} counts {in_video} video frames (true_video_frame_count), fewer than the {observations} "
            f"observations of {observations - 1} rewards in {_ARRAYS}"
        )
    height, width = config.size or (64, 64)
    frames = np.empty((observations, height, width, 3), np.uint8)
    count = 0
    for frame in decode_frames(video):
        if loading <= count < in_video:
            frames[count - loading] = resize(frame, (height, width), config.resample)
        count += 1
    if count != in_video:
        raise ValueError(
            f"{_VIDEO} has {count} frames and {_META} counts {in_video} (true_video_frame_count): frames and "
            "actions cannot be aligned; is the video whole?"
        )
    return frames


def _read_actions(
    arrays: dict[str, Any], steps: int, file: Path, config: ImportConfig
) -> tuple[dict[str, np.ndarray], Counter[str]]:
    actions, left_out = no_actions(steps), Counter[str]()
    given = [key.removeprefix(_ACTION) for key in arrays if key.startswith(_ACTION)]
    if not given:
        raise ValueError(f"{file.name} has no actions (keys that begin with {_ACTION}), only {sorted(arrays)}")
    for name in given:
        if name not in actions:
            left_out[f"action {name}"] += _used(arrays[_ACTION + name])
            continue
        values = _numbers(arrays, _ACTION + name, file)
        wanted = actions[name].shape
        if values.shape != wanted:
            raise ValueError(
                f"{file.name}: {_ACTION}{name} has the shape {values.shape} and {steps} rewards ask for {wanted}"
            )
        if name in BUTTONS and not np.isin(values, (0, 1)).all():
            wrong = values[~np.isin(values, (0, 1))][0]
            raise ValueError(f"{file.name}: {_ACTION}{name} is {wrong}; a button is 0 or 1")
        if name in BUTTONS:
            actions[name] = values.astype(np.int64)
        else:
            actions[name], cut = checked_camera(values, file, config.clip_camera, config.camera_limit)
            left_out += cut
    return actions, +left_out  # without those that were never used


def _used(values: np.ndarray | None) -> int:
    """In how many steps an action was other than "none" or 0."""
    if values is None:
        return 1
    idle = values == "none" if values.dtype.kind in "US" else values == 0
    return int((~np.asarray(idle, bool)).reshape(len(values), -1).any(1).sum()) if values.ndim else 1


def _read_labels(arrays: dict[str, Any], observations: int) -> dict[str, np.ndarray]:
    labels = {}
    for key, values in arrays.items():
        if key.startswith(_OBSERVATION) and values is not None and values.dtype.kind in "biuf":
            if values.ndim == 0 or len(values) != observations:
                raise ValueError(
                    f"{_ARRAYS}: {key} has the shape {values.shape}, and there are {observations} observations "
                    "(one more than rewards)"
                )
            labels[key.removeprefix(_OBSERVATION).replace("$", ".").replace("/", ".")] = values.astype(np.float32)
    return labels


def _numbers(arrays: dict[str, Any], key: str, file: Path) -> np.ndarray:
    values = arrays.get(key)
    if values is None or values.dtype.kind not in "biuf":
        what = "missing" if key not in arrays else "no array of numbers"
        raise ValueError(f"{file.name}: {key} is {what}; there are {sorted(arrays)}")
    return values


def _read_arrays(file: Path) -> dict[str, Any]:
    """All arrays by key; None for pickled objects, which are never loaded: they could run any code."""
    arrays: dict[str, Any] = {}
    try:
        with np.load(file, allow_pickle=False) as archive:
            for key in archive.files:
                try:
                    arrays[key] = archive[key]
                except ValueError as error:
                    if "allow_pickle" not in str(error):
                        raise
                    arrays[key] = None
    except (
        ValueError,
        EOFError,
        KeyError,
        AttributeError,
        TypeError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(f"{file.name} is damaged or cut off ({error})") from None
    return arrays


def _read_meta(file: Path) -> dict[str, Any]:
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
        count = meta["true_video_frame_count"]
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file.name} is damaged or cut off ({error})") from None
    except (KeyError, TypeError):
        raise ValueError(f"{file.name} has no true_video_frame_count, without which no frame has its action") from None
    if isinstance(count, bool) or not isinstance(count, int):
        raise ValueError(f"{file.name}: true_video_frame_count is {count!r}, no whole number")
    return meta
