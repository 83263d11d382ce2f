"""Minari datasets, read and written without loss."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import warnings
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from neuralsim.actions import space_to_json
from neuralsim.data.episodes import DatasetInfo, Episode, EpisodeStore, new_store
from neuralsim.envs.preprocessing import find_pixels, resize
from neuralsim.extras import require

if TYPE_CHECKING:
    from neuralsim.data.interchange import ImportConfig

_NOTE = "neuralsim"  # key of our own entry in Minari's metadata


def export_minari(store: EpisodeStore, dataset_id: str, quiet: bool = False) -> None:
    """Writes a store as a new Minari dataset of raw (not JPEG) frames, episode by episode.

    Labels become ``infos["labels"]``; policy, seed and everything else that a store knows is kept as metadata.

    Args:
        store: What to write.
        dataset_id: ``[NAMESPACE/]NAME-vN``.
        quiet: Shows no progress.

    Raises:
        ValueError: If the id has another form.
        FileExistsError: If there is such a dataset.
        ModuleNotFoundError: Without the extra ``minari``.
    """
    minari = _minari("exporting to Minari")
    from minari.data_collector import EpisodeBuffer

    from neuralsim.data.interchange import progress

    if "jpeg_encoding" not in inspect.signature(minari.create_dataset_from_buffers).parameters:
        raise ModuleNotFoundError(
            f"minari {minari.__version__} stores pictures only as lossy JPEG; upgrade it: "
            'pip install --upgrade "neuralsim-gym[minari]"'
        )
    if not re.fullmatch(r"([-\w]+/)*[-\w]+-v\d+", dataset_id):
        raise ValueError(f"{dataset_id!r} is no id of a Minari dataset; write [NAMESPACE/]NAME-vN, like pong/mix-v0")
    if dataset_id in minari.list_local_datasets():
        raise FileExistsError(f"there is a Minari dataset {dataset_id} already; delete it or choose another id")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # advice to name author, code and algorithm
        dataset = minari.create_dataset_from_buffers(
            dataset_id=dataset_id,
            buffer=[],
            observation_space=spaces.Box(0, 255, store.info.frame_shape, np.uint8),
            action_space=store.space,
            description=f"{store.info.env_id}, recorded by: {store.info.command}",
            jpeg_encoding=False,
        )
    try:
        for index, episode_id in enumerate(progress(store.ids, "exporting", quiet)):
            episode = store.read(episode_id)
            labels = {name: list(values) for name, values in episode.labels.items()}
            buffer = EpisodeBuffer(
                id=index,
                seed=int(episode.seed),
                observations=list(episode.frames),
                actions=_as_lists(episode.actions),
                rewards=list(episode.rewards),
                terminations=list(episode.terminated),
                truncations=list(episode.truncated),
                infos={"labels": labels} if labels else None,
            )
            dataset.update_dataset_from_buffer([buffer])
            dataset.storage.update_episode_metadata([{"policy": episode.policy}], [index])
        dataset.storage.update_metadata({_NOTE: json.dumps(asdict(store.info))})
    except BaseException:  # a part of a dataset would look like a whole one
        shutil.rmtree(Path(dataset.storage.data_path).parent, ignore_errors=True)
        raise


def import_minari(config: ImportConfig) -> EpisodeStore:
    """Reads a Minari dataset of pixel observations.

    Raises:
        FileNotFoundError: If it is not on this machine and ``config.download`` is not set.
        ValueError: If its observations are no pixels, or its rate is unknown.
        ModuleNotFoundError: Without the extra ``minari``.
    """
    minari = _minari("importing from Minari")
    dataset = _load(minari, config)
    space = config.space() or dataset.action_space
    note = _note(dataset)
    size = config.size or (note.frame_shape[:2] if note else (64, 64))
    key = find_pixels(dataset.observation_space, config.key)
    spec = dataset.env_spec
    if note is not None and tuple(size) == note.frame_shape[:2]:
        info = note
        info.fps = config.fps or info.fps
    else:
        fps = config.fps or (note.fps if note else None)
        if fps is None:
            raise ValueError(f"{config.source} does not say how fast it was played; give the rate with --fps")
        info = DatasetInfo(
            env_id=config.env_id or (spec.id if spec else config.source),
            env_kwargs=dict(spec.kwargs) if spec and _is_json(spec.kwargs) else {},
            action_space=space_to_json(space),
            frame_shape=(size[0], size[1], 3),
            fps=fps,
            preprocessing={"size": list(size), "resample": config.resample, "crop": None,
                           "source": "observation", "key": key},
            source={"imported": f"minari {config.source}"},
        )  # fmt: skip
    with new_store(config.out, info) as store:
        about = dataset.storage.get_episode_metadata(dataset.episode_indices)
        for raw, facts in zip(dataset.iterate_episodes(), about, strict=True):
            frames = raw.observations if key is None else raw.observations[key]
            store.add(_episode(raw, facts, np.stack([resize(f, size, config.resample) for f in frames])))
    return store


def _episode(raw: Any, about: dict[str, Any], frames: np.ndarray) -> Episode:
    terminated, truncated = np.array(raw.terminations, bool), np.array(raw.truncations, bool)
    if not (terminated[-1] or truncated[-1]):
        truncated[-1] = True
    labels = (raw.infos or {}).get("labels", {}) if isinstance(raw.infos, dict) else {}
    policy, seed = about.get("policy", ""), about.get("seed")
    return Episode(
        frames=frames,
        actions=raw.actions,
        rewards=np.array(raw.rewards, np.float32),
        terminated=terminated,
        truncated=truncated & ~terminated,
        labels={name: np.asarray(values) for name, values in labels.items() if len(values) == len(frames)},
        policy=policy.decode() if isinstance(policy, bytes) else str(policy),
        seed=-1 if seed is None else int(seed),
    )


def _load(minari: Any, config: ImportConfig) -> Any:
    folder = Path(config.source)
    if folder.is_dir():
        return minari.MinariDataset(folder / "data" if (folder / "data").is_dir() else folder)
    try:
        return minari.load_dataset(config.source, download=config.download)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{config.source!r} is neither a folder nor a Minari dataset on this machine; "
            "--download fetches one that Minari offers"
        ) from None


def _note(dataset: Any) -> DatasetInfo | None:
    text = dataset.storage.metadata.get(_NOTE)
    if text is None:
        return None
    content = json.loads(text)
    return DatasetInfo(**{f.name: content[f.name] for f in fields(DatasetInfo) if f.name in content})


def _as_lists(actions: Any) -> Any:
    if isinstance(actions, dict):
        return {key: _as_lists(part) for key, part in actions.items()}
    if isinstance(actions, tuple):
        return tuple(_as_lists(part) for part in actions)
    return list(actions)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


def _minari(why: str) -> Any:
    require("h5py", extra="minari", why=why)
    return require("minari", extra="minari", why=why)
