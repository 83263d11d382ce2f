"""Episodes on disk: one zarr zip file each, lossless, read by the chunk.

    DIR/dataset.json                  what was recorded: DatasetInfo
    DIR/episodes/00000012.zarr.zip    one episode

An episode of T actions holds T+1 frames and T rewards; action t leads from frame t to frame t+1. Frames lie in
chunks of 32, so that a training clip is read without reading its episode. A file gets its final name when it is
complete, so that a process killed at any moment leaves no half episode behind.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import uuid
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec
from zarr.storage import MemoryStore, ZipStore

from neuralsim.actions import space_from_json
from neuralsim.data.episode import (
    FORMAT,
    TIME_ARRAYS,
    DatasetInfo,
    Episode,
    check_episode,
    content_hash,
    flat_actions,
    nested_actions,
    stack_actions,
)

__all__ = ["CHUNK", "DatasetInfo", "Episode", "EpisodeStore", "content_hash", "new_store", "stack_actions"]

CHUNK = 32
"""Frames in one compressed chunk: a training clip touches one to three of them."""

_OPEN_FILES = 32  # episode files kept open by one store
_SUFFIX = ".zarr.zip"
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)  # what file systems without hard links say


class EpisodeStore:
    """A folder of episodes. Several processes may read and add at once.

    Args:
        path: The folder.
        info: What it holds.
    """

    def __init__(self, path: str | os.PathLike[str], info: DatasetInfo) -> None:
        self.path = Path(path)
        self.info = info
        self.space = space_from_json(info.action_space)
        self._metas: dict[int, dict[str, Any]] = {}
        self._open: OrderedDict[int, zarr.Group] = OrderedDict()

    @classmethod
    def create(cls, path: str | os.PathLike[str], info: DatasetInfo) -> EpisodeStore:
        """Makes an empty store.

        Raises:
            FileExistsError: If the folder already holds a dataset.
        """
        folder = Path(path)
        if (folder / "dataset.json").exists():
            raise FileExistsError(f"{folder} already holds a dataset; open it, or choose another folder")
        space_from_json(info.action_space)
        (folder / "episodes").mkdir(parents=True, exist_ok=True)
        store = cls(folder, info)
        store._write_info()
        return store

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> EpisodeStore:
        """Opens an existing store.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If ``dataset.json`` is damaged or was written by a newer version.
        """
        file = Path(path) / "dataset.json"
        if not file.is_file():
            raise FileNotFoundError(
                f"{path} holds no dataset (there is no dataset.json in it); "
                "make one with `neuralsim record` or `neuralsim data import`"
            )
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            version = content["format"]
        except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is damaged ({error!r}); restore it from a copy of the dataset") from None
        if version != FORMAT:
            raise ValueError(f"{file} has format {version!r} and this version reads {FORMAT}; upgrade neuralsim-gym")
        names = {f.name for f in fields(DatasetInfo)}
        unknown = sorted(set(content) - names)
        if unknown:
            raise ValueError(f"{file} has unknown entries {unknown}; known are {sorted(names)}")
        try:
            info = DatasetInfo(**content)
        except TypeError as error:
            raise ValueError(f"{file} is incomplete: {error}") from None
        return cls(path, info)

    def __repr__(self) -> str:
        return f"EpisodeStore({str(self.path)!r}, env_id={self.info.env_id!r}, episodes={len(self)})"

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self.ids)

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids)

    def __contains__(self, episode_id: object) -> bool:
        return isinstance(episode_id, int) and self._file(episode_id).is_file()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "info": self.info}  # open files stay with this process

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def ids(self) -> list[int]:
        """Sorted ids of the complete episodes."""
        names = (entry.name for entry in os.scandir(self.path / "episodes"))
        return sorted(int(n[: -len(_SUFFIX)]) for n in names if n.endswith(_SUFFIX) and n[: -len(_SUFFIX)].isdigit())

    @property
    def total_steps(self) -> int:
        """Actions in all episodes."""
        return sum(self.length(i) for i in self.ids)

    # Reading

    def meta(self, episode_id: int) -> dict[str, Any]:
        """``length``, ``policy``, ``seed``, ``return``, ``terminated``, ``truncated``, ``labels``, ``content_hash``.

        Raises:
            KeyError: If there is no such episode.
            ValueError: If its file is damaged.
        """
        if episode_id not in self._metas:
            with self._explained(episode_id), zipfile.ZipFile(self._file(episode_id)) as archive:
                self._metas[episode_id] = json.loads(archive.read("zarr.json"))["attributes"]
        return self._metas[episode_id]

    def short_hash(self, episode_id: int) -> str:
        """The first 16 digits of an episode's content hash: enough to tell recordings apart."""
        return str(self.meta(episode_id)["content_hash"])[:16]

    def length(self, episode_id: int) -> int:
        """Number of actions T of an episode."""
        return int(self.meta(episode_id)["length"])

    def frames(self, episode_id: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Frames ``start`` to ``stop`` (exclusive; all by default), ``(n, H, W, 3)`` uint8.

        Raises:
            IndexError: If the range leaves the episode's T+1 frames.
        """
        count = self.length(episode_id) + 1
        stop = count if stop is None else stop
        if not 0 <= start <= stop <= count:
            raise IndexError(f"frames {start} to {stop} of episode {episode_id}, which has frames 0 to {count}")
        return self._array(episode_id, "frames", slice(start, stop))

    def actions(self, episode_id: int) -> Any:
        """Actions ``(T, ...)``, or a dict or tuple of such arrays."""
        return nested_actions(self.space, lambda name: self._array(episode_id, f"actions{name}"))

    def rewards(self, episode_id: int) -> np.ndarray:
        """Rewards ``(T,)`` float32."""
        return self._array(episode_id, "rewards")

    def terminated(self, episode_id: int) -> np.ndarray:
        """``(T,)`` bool: the environment ended with this action."""
        return self._array(episode_id, "terminated")

    def truncated(self, episode_id: int) -> np.ndarray:
        """``(T,)`` bool: cut short after this action."""
        return self._array(episode_id, "truncated")

    def labels(self, episode_id: int) -> dict[str, np.ndarray]:
        """Ground truth by name, each ``(T+1, ...)``; empty if the environment offered none."""
        return {name: self._array(episode_id, f"labels/{name}") for name in self.meta(episode_id)["labels"]}

    def read(self, episode_id: int) -> Episode:
        """A whole episode."""
        meta = self.meta(episode_id)
        return Episode(
            frames=self.frames(episode_id),
            actions=self.actions(episode_id),
            rewards=self.rewards(episode_id),
            terminated=self.terminated(episode_id),
            truncated=self.truncated(episode_id),
            labels=self.labels(episode_id),
            policy=meta["policy"],
            seed=meta["seed"],
        )

    def verify(self, episode_id: int) -> None:
        """Reads an episode whole and compares it with its content hash.

        Raises:
            ValueError: If they differ.
        """
        found, expected = content_hash(self.read(episode_id)), self.meta(episode_id)["content_hash"]
        if found != expected:
            raise ValueError(
                f"{self._file(episode_id)} is damaged: its content hash is {found}, it was written as {expected}; "
                "delete the file and record again"
            )

    # Writing

    def add(self, episode: Episode, episode_id: int | None = None) -> int:
        """Writes an episode; it appears whole or not at all.

        Args:
            episode: The episode.
            episode_id: Its id, where the caller deals them out; by default the next free one.

        Returns:
            Its id.

        Raises:
            ValueError: If it does not fit the dataset.
            FileExistsError: If ``episode_id`` is taken.
            OSError: If it cannot be written (disk full); the store is as it was before.
        """
        check_episode(episode, self.info, self.space)
        folder = self.path / "episodes"
        temporary = folder / f".{uuid.uuid4().hex}.part"
        try:
            self._write(temporary, episode)
            return self._publish(temporary, episode_id)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise OSError(
                    error.errno,
                    f"no room to write an episode of {len(episode)} steps ({os.strerror(error.errno)}); the episodes "
                    "already there are intact: free some space and run the same command again",
                    str(folder),
                ) from error
            raise
        finally:
            temporary.unlink(missing_ok=True)

    def adopt(self, source: EpisodeStore, episode_id: int, new_id: int) -> None:
        """Takes in an episode of another store of the same kind, as it is: a link to its file, or a copy.

        Args:
            source: The other store.
            episode_id: Its id there.
            new_id: Its id here.

        Raises:
            KeyError: If there is no such episode.
            ValueError: If its file is damaged.
            FileExistsError: If ``new_id`` is taken.
            OSError: If it cannot be written (disk full); the store is as it was before.
        """
        source.meta(episode_id)
        temporary = self.path / "episodes" / f".{uuid.uuid4().hex}.part"
        try:
            link_or_copy(source._file(episode_id), temporary)
            self._publish(temporary, new_id)
        finally:
            temporary.unlink(missing_ok=True)

    def note_command(self, command: str) -> None:
        """Writes down the command by which more was recorded, in place of the one before."""
        self.info = replace(self.info, command=command)
        self._write_info()

    def note_source(self, source: dict[str, Any]) -> None:
        """Writes down where the episodes come from, in place of what was there."""
        self.info = replace(self.info, source=source)
        self._write_info()

    def _write_info(self) -> None:
        write_atomically(self.path / "dataset.json", json.dumps(asdict(self.info), indent=2) + "\n")

    def remove_partial_files(self) -> None:
        """Deletes what killed writers left. Only for a caller who knows that nobody else is writing."""
        for file in (self.path / "episodes").glob(".*.part"):
            file.unlink(missing_ok=True)

    def _write(self, file: Path, episode: Episode) -> None:
        attributes = {
            "format": FORMAT,
            "length": len(episode),
            "policy": episode.policy,
            "seed": int(episode.seed),
            "return": float(np.sum(episode.rewards, dtype=np.float64)),
            "terminated": bool(episode.terminated[-1]),
            "truncated": bool(episode.truncated[-1]),
            "labels": sorted(episode.labels),
            "content_hash": content_hash(episode),
        }
        arrays = {f"actions{name}": array for name, array in flat_actions(self.space, episode.actions)}
        arrays |= {name: getattr(episode, name) for name in TIME_ARRAYS}
        arrays |= {f"labels/{name}": array for name, array in episode.labels.items()}
        # Compressed in memory and written in one go: zarr's own writers go on in the background after an error.
        contents: dict[str, Any] = {}
        root = zarr.create_group(MemoryStore(contents), attributes=attributes)
        for name, array in [("frames", episode.frames), *arrays.items()]:
            array = np.ascontiguousarray(array)
            root.create_array(
                name,
                data=array,
                chunks=(CHUNK if name == "frames" else len(array), *array.shape[1:]),
                # Frames are bytes, which shuffling does not help.
                compressors=BloscCodec(
                    cname="zstd", clevel=5, shuffle="noshuffle" if array.itemsize == 1 else "shuffle"
                ),
            )
        with file.open("wb") as target:
            with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
                for key in sorted(contents):
                    archive.writestr(zipfile.ZipInfo(key), contents[key].to_bytes())
            target.flush()
            os.fsync(target.fileno())

    def _publish(self, temporary: Path, episode_id: int | None) -> int:
        wanted = episode_id
        candidate = wanted if wanted is not None else (self.ids or [-1])[-1] + 1
        while True:
            try:
                os.link(temporary, self._file(candidate))  # unlike a rename, it never replaces
                return candidate
            except FileExistsError:
                if wanted is not None:
                    raise FileExistsError(f"{self.path} already holds an episode {wanted}") from None
                candidate += 1
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                if self._file(candidate).exists() and wanted is not None:
                    raise FileExistsError(f"{self.path} already holds an episode {wanted}") from None
                os.replace(temporary, self._file(candidate))  # a file system without hard links
                return candidate

    # Files

    def _file(self, episode_id: int) -> Path:
        return self.path / "episodes" / f"{episode_id:08d}{_SUFFIX}"

    def _array(self, episode_id: int, name: str, part: slice = slice(None)) -> np.ndarray:
        with self._explained(episode_id):
            return np.asarray(self._group(episode_id)[name][part])  # type: ignore[index]

    def _group(self, episode_id: int) -> zarr.Group:
        if episode_id not in self._open:
            self._open[episode_id] = zarr.open_group(ZipStore(self._file(episode_id), mode="r"), mode="r")
            if len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)[1].store.close()
        self._open.move_to_end(episode_id)
        return self._open[episode_id]

    @contextlib.contextmanager
    def _explained(self, episode_id: int) -> Iterator[None]:
        file = self._file(episode_id)
        if not file.is_file():
            raise KeyError(f"there is no episode {episode_id} in {self.path}; ids are {_range(self.ids)}")
        try:
            yield
        except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, RuntimeError, EOFError) as error:
            raise ValueError(
                f"{file} is damaged or truncated ({type(error).__name__}: {error}); "
                "delete it and record again, or copy it again from its source"
            ) from error


@contextlib.contextmanager
def new_store(path: Path, info: DatasetInfo) -> Iterator[EpisodeStore]:
    """A store that is filled under another name and gets its own when it is whole, or is removed.

    Raises:
        FileExistsError: If there is something at ``path`` already.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path} is there already; choose another folder")
    folder = path.resolve()
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.part")
    try:
        store = EpisodeStore.create(temporary, info)
        yield store
        os.replace(temporary, folder)
        store.path = path
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Gives a file that never changes a second name; a copy where the file system knows no links, or it is another."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, *_NO_LINKS):
            raise
        shutil.copyfile(source, target)


def write_atomically(file: Path, text: str) -> None:
    """Replaces a text file in one move."""
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _range(ids: list[int]) -> str:
    return f"{ids[0]} to {ids[-1]} ({len(ids)} episodes)" if ids else "none: the dataset is empty"
