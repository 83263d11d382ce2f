"""Several datasets as one: ``neuralsim data join``."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from neuralsim.data.episodes import DatasetInfo, EpisodeStore, new_store
from neuralsim.data.latents import link_latents

MADE_HOW = ("command", "source")
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
        FileExistsError: If there is something at ``out`` already.
        ValueError: If they are not of one game seen alike, or two of them hold the same episode.
    """
    if len(config.sources) < 2:
        raise ValueError("name two or more datasets to join")
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
        episodes = 0
        for store in stores:
            for episode in store.ids:
                joined.adopt(store, episode, episodes)
                link_latents(store, episode, joined, episodes)
                episodes += 1
    print(f"{len(joined)} episodes, {joined.total_steps} steps in {joined.path}")
    return joined


def check_alike(stores: list[EpisodeStore]) -> None:
    """Sees to it that datasets can be one.

    Raises:
        ValueError: If they differ in anything but how they were made, or share an episode; the message says in what.
    """
    first = kind_of(stores[0].info)
    # The same play under two seeds is two episodes: a player that rests loses every game alike.
    seen: dict[tuple[str, int], str] = {}
    for store in stores:
        for name, value in kind_of(store.info).items():
            if value != first[name]:
                raise ValueError(
                    f"{store.path} has {name} {value} and {stores[0].path} {first[name]}: only recordings of one game, "
                    "seen alike, can be joined"
                )
        own = {(store.short_hash(i), store.meta(i)["seed"]): f"episode {i} of {store.path}" for i in store.ids}
        for key, here in own.items():
            if key in seen:
                raise ValueError(f"{here} is {seen[key]} as well: join recordings that have no episode in common")
        seen |= own


def kind_of(info: DatasetInfo) -> dict[str, object]:
    """What a dataset is, apart from how it was made."""
    return {name: value for name, value in asdict(info).items() if name not in MADE_HOW}
