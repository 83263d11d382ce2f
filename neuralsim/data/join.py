"""Several datasets as one: ``neuralsim data join``."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from neuralsim.data.episodes import DatasetInfo, EpisodeStore, new_store
from neuralsim.data.latents import link_latents

MADE_HOW = ("command", "source", "format")
"""What datasets that are joined may say otherwise than each other."""


@dataclass(frozen=True)
class JoinConfig:
    """Makes one dataset of several recordings of the same game.

    Such as those of scripted players, and those of agents that have learned since: a world that agents are to learn in
    should have seen what they do. Episodes and latents are linked, not copied, where the file system can; the datasets
    stay as they are, and may grow or be deleted without changing the new one.

    Example: neuralsim data join data/pong data/agents --out data/both
    """

    sources: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of datasets, two or more."""
    out: Path
    """Folder of the new dataset."""


def join(config: JoinConfig) -> EpisodeStore:
    """Writes the new dataset, all of it or nothing.

    Raises:
        FileNotFoundError: If one of them is not there.
        FileExistsError: If there is a dataset at ``out`` already.
        ValueError: If they are not of one game seen alike, or two of them hold the same episode.
    """
    if len(config.sources) < 2:
        raise ValueError(f"{len(config.sources)} dataset is nothing to join: name two or more")
    stores = [EpisodeStore.open(path) for path in config.sources]
    check_alike(stores)
    words = ["neuralsim", "data", "join", *map(str, config.sources), "--out", str(config.out)]
    commands = [store.info.command for store in stores if store.info.command]
    info = replace(
        stores[0].info,
        command=" && ".join([*commands, shlex.join(words)]),
        source={"joined": [{"path": str(store.path), **store.info.source} for store in stores]},
    )
    with new_store(config.out, info) as joined:
        taken = [(store, episode, joined.adopt(store, episode)) for store in stores for episode in store.ids]
    for store, episode, new_id in taken:
        link_latents(store, episode, joined, new_id)
    print(f"{len(joined)} episodes, {joined.total_steps} steps in {joined.path}")
    return joined


def check_alike(stores: list[EpisodeStore]) -> None:
    """Sees to it that datasets can be one.

    Raises:
        ValueError: If they differ in anything but how they were made, or share an episode; the message says in what.
    """
    seen: dict[str, str] = {}
    for store in stores:
        for name, of_first in told(stores[0].info).items():
            if (value := told(store.info)[name]) != of_first:
                raise ValueError(
                    f"{store.path} has {name} {value} and {stores[0].path} {of_first}: only recordings of one game, "
                    "seen alike, can be joined"
                )
        for episode in store.ids:
            here = f"episode {episode} of {store.path}"
            if (first := seen.setdefault(store.short_hash(episode), here)) is not here:
                raise ValueError(f"{here} is {first} as well: join recordings that have no episode in common")


def told(info: DatasetInfo) -> dict[str, object]:
    """What a dataset is, apart from how it was made."""
    return {name: value for name, value in asdict(info).items() if name not in MADE_HOW}
