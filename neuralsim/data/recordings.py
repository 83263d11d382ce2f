"""Many recordings into one store: in parallel, resumable, and what cannot be read is skipped by name.

A format says which recordings a source holds and reads one of them (:mod:`neuralsim.data.minerl`,
:mod:`neuralsim.data.vpt`); this module does the rest. The store's ``source["names"]`` lists the recordings: episode i
is the recording of the i-th name, so that an import continues where it stopped, also after new recordings came to
the source. One bad recording costs no more than itself: its name and the reason stand in ``import_report.json``.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from neuralsim.actions import space_to_json
from neuralsim.data.episodes import DatasetInfo, Episode, EpisodeStore, write_atomically
from neuralsim.data.writer_lock import only_writer
from neuralsim.envs.minerl_spaces import CAMERA_LIMIT, TICKS_PER_SECOND, human_action_space
from neuralsim.extras import require
from neuralsim.processes import Workers

if TYPE_CHECKING:
    from neuralsim.data.interchange import ImportConfig

REPORT = "import_report.json"
"""Beside ``dataset.json``: what the last import read, skipped and left out."""

_SHOWN = 10  # lines of a list that the printed report shows; the file holds all


@dataclass(frozen=True)
class Recording:
    """One recording of a source.

    Attributes:
        name: By which the store and the report know it: its path below the source.
        path: The folder or file that a format's reader opens.
    """

    name: str
    path: Path


@dataclass(frozen=True)
class Outcome:
    """What became of one recording.

    Attributes:
        name: Of the recording.
        steps: Actions that were stored; 0 if it was skipped.
        reason: Why it was skipped; empty if it was stored.
        left_out: What a stored recording held that the store has no place for, and in how many steps.
    """

    name: str
    steps: int = 0
    reason: str = ""
    left_out: Counter[str] = field(default_factory=Counter)


Reader = Callable[[Recording, "ImportConfig"], tuple[Episode, "Counter[str]"]]
"""Reads one recording: its episode, and what was left out. ValueError and OSError say what is wrong with it.

Workers import it by its name: a function of a module, no lambda.
"""


def import_recordings(config: ImportConfig, kind: str, recordings: list[Recording], read: Reader) -> EpisodeStore:
    """Reads what is not in the store yet.

    Args:
        config: The settings of ``neuralsim data import``.
        kind: Name of the format.
        recordings: All recordings of the source.
        read: Reads one of them.

    Returns:
        The store; :data:`REPORT` lies in its folder.

    Raises:
        ValueError: If no recording could be read, or the folder holds a dataset of other settings.
        OSError: If the disk is full or a worker died; the episodes so far are kept.
        ModuleNotFoundError: Without the extra ``video``.
    """
    from neuralsim.data.interchange import progress

    require("av", extra="video", why=f"reading the videos of {kind} recordings")
    store = _open(config, _describe(config, kind))
    with only_writer(store):
        store.remove_partial_files()
        ids = _deal_ids(store, recordings)
        todo = [(recording, ids[recording.name]) for recording in recordings if ids[recording.name] not in store]
        work = _work_here if config.workers == 1 or len(todo) < 2 else _work_in_parallel
        outcomes = list(progress(work(config, store, todo, read), "importing", config.quiet, total=len(todo)))
        outcomes.sort(key=lambda outcome: outcome.name)
        if not len(store):
            _remove(store)
            reasons = "\n".join(f"  {outcome.name}: {outcome.reason}" for outcome in outcomes[:_SHOWN])
            raise ValueError(f"none of the {len(recordings)} recordings in {config.source} could be read:\n{reasons}")
        write_report(store, config.source, outcomes, there=len(recordings) - len(todo))
    return store


def write_report(store: EpisodeStore, source: str, outcomes: list[Outcome], there: int) -> None:
    """Writes the report of an import, and prints it.

    Args:
        store: The store that was filled.
        source: Where the recordings come from.
        outcomes: What became of the recordings of this import, sorted by name.
        there: How many were in the store before.
    """
    stored = {outcome.name: outcome.steps for outcome in outcomes if not outcome.reason}
    skipped = {outcome.name: outcome.reason for outcome in outcomes if outcome.reason}
    left_out: Counter[str] = sum((outcome.left_out for outcome in outcomes), Counter())
    content = {
        "source": source, "stored": stored, "already_there": there, "skipped": skipped,
        "left_out_steps": dict(left_out.most_common()),
    }  # fmt: skip
    write_atomically(store.path / REPORT, json.dumps(content, indent=2) + "\n")
    print(
        f"{len(stored)} recordings read ({sum(stored.values())} steps), {there} already there, {len(skipped)} skipped; "
        f"report: {store.path / REPORT}"
    )
    _print_list("skipped:", [f"{name}: {reason}" for name, reason in skipped.items()])
    _print_list("not kept, for want of room:", [f"{what} ({n} steps)" for what, n in left_out.most_common()])


def _print_list(title: str, lines: list[str]) -> None:
    if lines:
        more = [f"... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        print("\n  ".join([title, *lines[:_SHOWN], *more]))


# One recording after the other, or several at once


def _read_one(
    config: ImportConfig, store: EpisodeStore, read: Reader, recording: Recording, episode_id: int
) -> Outcome:
    try:
        episode, left_out = read(recording, config)
    except (ValueError, OSError) as error:
        return Outcome(recording.name, reason=str(error))
    try:
        store.add(episode, episode_id)
    except ValueError as error:  # it does not fit; an OSError (disk full) is no fault of the recording
        return Outcome(recording.name, reason=str(error))
    return Outcome(recording.name, len(episode), left_out=left_out)


def _work_here(
    config: ImportConfig, store: EpisodeStore, todo: list[tuple[Recording, int]], read: Reader
) -> Iterator[Outcome]:
    for recording, episode_id in todo:
        yield _read_one(config, store, read, recording, episode_id)


def _work_in_parallel(
    config: ImportConfig, store: EpisodeStore, todo: list[tuple[Recording, int]], read: Reader
) -> Iterator[Outcome]:
    count = min(config.workers, len(todo))
    with Workers(count, "importing", "finished episodes", _share, config, store, read) as workers:
        for future in as_completed([workers.submit(_run, *task) for task in todo]):
            yield future.result()


_shared: tuple[ImportConfig, EpisodeStore, Reader] | None = None  # of a worker process


def _share(config: ImportConfig, store: EpisodeStore, read: Reader) -> None:
    global _shared
    _shared = (config, store, read)


def _run(recording: Recording, episode_id: int) -> Outcome:
    assert _shared is not None
    return _read_one(*_shared, recording, episode_id)


# The store


def _describe(config: ImportConfig, kind: str) -> DatasetInfo:
    size = config.size or (64, 64)
    source = Path(config.source).resolve()
    return DatasetInfo(
        env_id=config.env_id or (source.name if source.is_dir() else source.stem),
        # Also what makes the live environment with the same actions.
        env_kwargs={} if config.camera_limit == CAMERA_LIMIT else {"camera_limit": config.camera_limit},
        action_space=space_to_json(human_action_space(config.camera_limit)),
        frame_shape=(size[0], size[1], 3),
        fps=config.fps or float(TICKS_PER_SECOND),
        preprocessing={"size": list(size), "resample": config.resample, "crop": None,
                       "source": "observation", "key": "pov"},
        source={"imported": kind, "clip_camera": config.clip_camera,
                "cursor": None if config.cursor is None else config.cursor.name, "names": []},
    )  # fmt: skip


def _open(config: ImportConfig, info: DatasetInfo) -> EpisodeStore:
    if not (config.out / "dataset.json").exists():
        return EpisodeStore.create(config.out, info)
    store = EpisodeStore.open(config.out)
    for name in ("env_id", "action_space", "frame_shape", "fps", "preprocessing", "source"):
        there, wanted = getattr(store.info, name), getattr(info, name)
        if name == "source":
            there, wanted = ({k: v for k, v in source.items() if k != "names"} for source in (there, wanted))
        if there != wanted:
            # What was recorded or joined knows no names, and no import goes on with it.
            again = "repeat the call that began it to continue, or " if "names" in store.info.source else ""
            raise ValueError(
                f"{config.out} already holds a dataset with {name} {there}, and this import makes {wanted}; {again}"
                "choose another --out"
            )
    return store


def _deal_ids(store: EpisodeStore, recordings: list[Recording]) -> dict[str, int]:
    """The episode of each recording, by name; names that are new are written down before their episodes."""
    known = store.info.source["names"]
    names = list(dict.fromkeys([*known, *(recording.name for recording in recordings)]))
    if names != known:
        store.note_source({**store.info.source, "names": names})
    return {name: i for i, name in enumerate(names)}


def _remove(store: EpisodeStore) -> None:
    shutil.rmtree(store.path / "episodes")
    for name in ("dataset.json", ".recording"):
        (store.path / name).unlink(missing_ok=True)
    if not any(store.path.iterdir()):
        store.path.rmdir()
