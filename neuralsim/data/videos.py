"""A folder of videos with a table of actions beside each: the simplest form of a recording.

Layout and columns are explained by :class:`neuralsim.data.interchange.ImportConfig`. An export adds
``neuralsim.json`` (what the store knows) and ``NAME.labels.csv`` (a row per frame), which an import reads back.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, fields
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from neuralsim.actions import space_to_json
from neuralsim.data.episodes import DatasetInfo, Episode, EpisodeStore, new_store, write_atomically
from neuralsim.envs.preprocessing import resize
from neuralsim.extras import require

if TYPE_CHECKING:
    from neuralsim.data.interchange import ImportConfig

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")
"""Videos that are looked for."""

_NOTE = "neuralsim.json"
_KNOWN = ("reward", "terminated", "truncated")


def import_videos(config: ImportConfig) -> EpisodeStore:
    """Reads a folder of videos and tables.

    Raises:
        ValueError: If a table or a video does not hold what it should; the message names file, row and value.
        ModuleNotFoundError: Without the extra ``video``.
    """
    av = require("av", extra="video", why="reading videos")
    folder = Path(config.source)
    pairs = _find(folder)
    note, abouts = _read_note(folder)
    tables = [read_table(table) for _, table in pairs]
    space = config.space() or (note and EpisodeStore(folder, note).space) or infer_space(tables, pairs)
    size = config.size or (note.frame_shape[:2] if note else (64, 64))
    fps = config.fps or (note.fps if note else None) or _common_rate(av, [video for video, _ in pairs])
    if note is not None and tuple(size) == note.frame_shape[:2]:
        info = note
        info.fps, info.action_space = fps, space_to_json(space)
    else:
        info = DatasetInfo(
            env_id=config.env_id or folder.resolve().name,
            action_space=space_to_json(space),
            frame_shape=(size[0], size[1], 3),
            fps=fps,
            preprocessing={"size": list(size), "resample": config.resample, "crop": None,
                           "source": "observation", "key": None},
            source={"imported": "videos", "names": [video.name for video, _ in pairs]},
        )  # fmt: skip
    with new_store(config.out, info) as store:
        for (video, table), columns in zip(pairs, tables, strict=True):
            frames = np.stack([resize(f, (size[0], size[1]), config.resample) for f in decode_frames(video)])
            rows = len(next(iter(columns.values())))
            if config.drop_last and len(frames) == rows:
                columns, rows = {name: values[:-1] for name, values in columns.items()}, rows - 1
            if len(frames) != rows + 1:
                raise ValueError(_count_error(video, table, len(frames), rows))
            about = abouts.get(video.stem, {})
            episode = _episode(frames, columns, space, table)
            episode.policy, episode.seed = about.get("policy", "video"), about.get("seed", -1)
            episode.labels = _read_labels(video.with_suffix(".labels.csv"), len(frames))
            store.add(episode)
    return store


def export_videos(store: EpisodeStore, folder: Path, quiet: bool = False) -> None:
    """Writes a video (lossless) and a table for each episode.

    Raises:
        FileExistsError: If the folder exists and is not empty.
        ModuleNotFoundError: Without the extra ``video``.
    """
    from neuralsim.data.interchange import progress

    av = require("av", extra="video", why="writing videos")
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; choose a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    abouts = {}
    for episode_id in progress(store.ids, "exporting", quiet):
        name = f"{episode_id:08d}"
        episode = store.read(episode_id)
        abouts[name] = {"policy": episode.policy, "seed": int(episode.seed)}
        _encode(av, folder / name, episode.frames, store.info.fps)
        columns = _columns(store.space, episode.actions)
        columns |= {"reward": episode.rewards, "terminated": episode.terminated, "truncated": episode.truncated}
        _write_table(folder / f"{name}.csv", columns)
        flat = {key: values for key, values in episode.labels.items() if values.ndim == 1}
        if flat:
            _write_table(folder / f"{name}.labels.csv", flat)
    note = {"dataset": asdict(store.info), "episodes": abouts}
    write_atomically(folder / _NOTE, json.dumps(note, indent=2) + "\n")


def read_table(file: Path) -> dict[str, np.ndarray]:
    """Reads a table of actions: arrays by column.

    Raises:
        ValueError: For missing or unknown columns, rows of another length, or a value that is no number.
    """
    columns = _read_csv(file)
    actions = [name for name in columns if name.startswith("action")]
    unknown = [name for name in columns if name not in (*_KNOWN, *actions)]
    if not actions:
        raise ValueError(
            f"{file} has no column of actions, only {list(columns)}; the first line must name the columns: "
            '"action", or several that begin with "action", and if you like reward, terminated, truncated'
        )
    if unknown:
        raise ValueError(
            f"{file} has unknown columns {unknown}; known are {', '.join(_KNOWN)} and names that begin with "
            '"action": rename or remove them'
        )
    if not len(columns[actions[0]]):
        raise ValueError(f"{file} has no rows")
    for name in ("terminated", "truncated"):
        values = columns.get(name)
        if values is not None and not np.isin(values, (0, 1)).all():
            wrong = values[~np.isin(values, (0, 1))][0]
            raise ValueError(f"{file}: {name} must be 0 or 1 (or false, true), not {wrong}")
        if values is not None and values[:-1].any():
            row = int(np.flatnonzero(values[:-1])[0])
            raise ValueError(f"{file}: {name} in line {row + 2}, before the last; split the video and its table there")
    return columns


def infer_space(tables: list[dict[str, np.ndarray]], pairs: list[tuple[Path, Path]]) -> spaces.Space:
    """The smallest usual action space that holds all actions of the tables."""
    names = [name for name in tables[0] if name.startswith("action")]
    for (_, file), table in zip(pairs, tables, strict=True):
        found = [name for name in table if name.startswith("action")]
        if found != names:
            raise ValueError(f"{file} has the columns {found} and {pairs[0][1]} has {names}; they must be the same")
    values = [np.concatenate([table[name] for table in tables]) for name in names]
    whole = all((v == np.round(v)).all() and (v >= 0).all() for v in values)
    if len(names) == 1 and whole:
        return spaces.Discrete(max(2, int(values[0].max()) + 1))
    if whole and max(v.max() for v in values) <= 1:
        return spaces.MultiBinary(len(names))
    low, high = np.array([v.min() for v in values], np.float32), np.array([v.max() for v in values], np.float32)
    bound = np.maximum(np.maximum(np.abs(low), np.abs(high)), 1e-6)  # symmetric, so that 0 is the middle
    return spaces.Box(-bound, bound, dtype=np.float32)


def _find(folder: Path) -> list[tuple[Path, Path]]:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    videos = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    if not videos:
        raise ValueError(f"{folder} holds no videos ({', '.join(SUFFIXES)})")
    missing = [video.name for video in videos if not video.with_suffix(".csv").is_file()]
    if missing:
        raise ValueError(
            f"{folder}: no table beside {', '.join(missing[:5])}; each NAME.mp4 needs a NAME.csv with a row per action "
            "(`neuralsim data import --help` shows one)"
        )
    return [(video, video.with_suffix(".csv")) for video in videos]


def _read_note(folder: Path) -> tuple[DatasetInfo | None, dict[str, Any]]:
    file = folder / _NOTE
    if not file.is_file():
        return None, {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        names = {f.name for f in fields(DatasetInfo)}
        return DatasetInfo(**{k: v for k, v in content["dataset"].items() if k in names}), content["episodes"]
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is damaged ({error!r}); delete it, the videos can be read without it") from None


def _read_csv(file: Path) -> dict[str, np.ndarray]:
    words = {"true": "1", "false": "0", "": "nan"}
    with file.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.reader(lines)
        header = [name.strip() for name in next(reader, [])]
        if len(set(header)) != len(header):
            raise ValueError(f"{file} names a column twice: {header}")
        rows: list[list[float]] = []
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise ValueError(
                    f"{file}, line {reader.line_num}: {len(row)} values for {len(header)} columns {header}"
                )
            try:
                rows.append([float(words.get(value.strip().lower(), value)) for value in row])
            except ValueError as error:
                raise ValueError(f"{file}, line {reader.line_num}: {error}; all values are numbers") from None
    table = np.array(rows, np.float64).reshape(len(rows), len(header))
    return {name: table[:, i] for i, name in enumerate(header)}


def _episode(frames: np.ndarray, columns: dict[str, np.ndarray], space: spaces.Space, file: Path) -> Episode:
    steps = len(frames) - 1
    terminated = columns.get("terminated", np.zeros(steps)).astype(bool)
    truncated = columns.get("truncated", np.zeros(steps)).astype(bool)
    truncated[-1] |= not terminated[-1]  # the video ends here, whatever the game did
    return Episode(
        frames=frames,
        actions=_gather(space, columns, "action", file),
        rewards=columns.get("reward", np.zeros(steps)).astype(np.float32),
        terminated=terminated,
        truncated=truncated & ~terminated,
    )


def _columns(space: spaces.Space, actions: Any, name: str = "action") -> dict[str, np.ndarray]:
    if isinstance(space, spaces.Dict):
        parts = [_columns(part, actions[key], f"{name}.{key}") for key, part in space.spaces.items()]
        return {key: values for part in parts for key, values in part.items()}
    if isinstance(space, spaces.Tuple):
        parts = [_columns(part, actions[i], f"{name}.{i}") for i, part in enumerate(space.spaces)]
        return {key: values for part in parts for key, values in part.items()}
    if not space.shape:
        return {name: np.asarray(actions)}
    flat = np.asarray(actions).reshape(len(actions), -1)
    return {f"{name}.{i}": flat[:, i] for i in range(flat.shape[1])}


def _gather(space: spaces.Space, columns: dict[str, np.ndarray], name: str, file: Path) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _gather(part, columns, f"{name}.{key}", file) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_gather(part, columns, f"{name}.{i}", file) for i, part in enumerate(space.spaces))
    mine = [column for column in columns if column == name or column.startswith((f"{name}.", f"{name}_"))]
    if name == "action":
        mine = [column for column in columns if column.startswith("action")]
    wanted = int(np.prod(space.shape or (), dtype=int))
    if len(mine) != wanted:
        raise ValueError(f"{file} has {len(mine)} columns {mine} for the action space {space}, which asks for {wanted}")
    values = np.stack([columns[column] for column in mine], axis=1)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(f"{file}, line {row + 2}: {mine[column]} is empty or not finite")
    if np.issubdtype(space.dtype, np.integer) and (values != np.round(values)).any():
        raise ValueError(f"{file}: action {values[values != np.round(values)][0]} is no whole number, as {space} asks")
    return values.astype(space.dtype).reshape(len(values), *(space.shape or ()))


def _read_labels(file: Path, frames: int) -> dict[str, np.ndarray]:
    if not file.is_file():
        return {}
    labels = {name: values.astype(np.float32) for name, values in _read_csv(file).items()}
    rows = len(next(iter(labels.values()), ()))
    if rows != frames:
        raise ValueError(f"{file} has {rows} rows, and the video {frames} frames; labels have a row per frame")
    return labels


def _write_table(file: Path, columns: dict[str, np.ndarray]) -> None:
    temporary = file.with_name(f".{file.name}.part")
    with temporary.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(columns)
        # Whole numbers stay whole, floats are written so that they read back as the same float.
        writer.writerows(
            zip(*([int(v) if v == np.round(v) else repr(float(v)) for v in c] for c in columns.values()), strict=True)
        )
    os.replace(temporary, file)


def _encode(av: Any, stem: Path, frames: np.ndarray, fps: float) -> None:
    rgb264 = "libx264rgb" in av.codecs_available
    codec, pixels, suffix = ("libx264rgb", "rgb24", ".mp4") if rgb264 else ("ffv1", "bgr0", ".mkv")
    temporary = stem.with_name(f".{stem.name}.part{suffix}")
    with av.open(str(temporary), "w") as container:
        options = {"crf": "0", "preset": "veryfast"} if rgb264 else {}
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    os.replace(temporary, stem.with_suffix(suffix))


def decode_frames(file: Path) -> Iterator[np.ndarray]:
    """The frames ``(H, W, 3)`` uint8 of a video, one after the other.

    Raises:
        ValueError: If it cannot be read, or a frame of it is damaged.
        ModuleNotFoundError: Without the extra ``video``.
    """
    av = require("av", extra="video", why="reading videos")
    count = 0
    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                raise ValueError(f"{file} holds no video")
            for frame in container.decode(video=0):
                if frame.is_corrupt:
                    raise ValueError(f"{file} is damaged at frame {count}")
                count += 1
                yield frame.to_ndarray(format="rgb24")
    except (av.error.FFmpegError, EOFError) as error:
        raise ValueError(f"{file} cannot be read as a video: {error}") from error
    if not count:
        raise ValueError(f"{file} holds no frames")


def _common_rate(av: Any, videos: list[Path]) -> float:
    rates = {}
    for file in videos:
        try:
            with av.open(str(file)) as container:
                rates[file.name] = float(container.streams.video[0].average_rate or 0)
        except (av.error.FFmpegError, IndexError) as error:
            raise ValueError(f"{file} cannot be read as a video: {error}") from error
    found = sorted(set(rates.values()))
    if len(found) > 1 or not found[0]:
        raise ValueError(f"the videos run at {found} frames per second; say with --fps which rate is right")
    return found[0]


def _count_error(video: Path, table: Path, frames: int, rows: int) -> str:
    text = (
        f"{video.name} has {frames} frames and {table.name} {rows} rows; there must be one frame more than rows: "
        "the frame before the first action, then the frame after each action"
    )
    if frames == rows:
        text += ". If row i belongs to frame i, the last action leads to no frame: --drop-last drops it"
    return text
