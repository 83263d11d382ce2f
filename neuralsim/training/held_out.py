"""Which episodes are trained on, and which are held out for the figures."""

from __future__ import annotations

from pathlib import Path

from neuralsim.data.episodes import EpisodeStore

_SHOWN = 5  # seeds that an error lists


def split_episodes(store: EpisodeStore, held_out: Path | None) -> tuple[list[int], EpisodeStore, list[int]]:
    """Divides recordings.

    Args:
        store: The recordings to train on.
        held_out: Folder of others for the figures; without, a twentieth of the store (at least one episode).

    Returns:
        Ids to train on, and store and ids of what is held out.

    Raises:
        ValueError: If there is too little to hold anything out, or an episode of the same game and seed is on both
            sides: a seed decides Minetest's land and Atari's start, so figures on it would flatter.
    """
    if held_out is not None:
        other = EpisodeStore.open(held_out)
        check_apart(store, other)
        return list(store.ids), other, list(other.ids)
    ids = list(store.ids)
    if len(ids) < 2:
        raise ValueError(f"{len(ids)} episode is too few to hold one out: record more, or name --held-out")
    count = max(1, len(ids) // 20)
    return ids[:-count], store, ids[-count:]


def check_apart(store: EpisodeStore, other: EpisodeStore) -> None:
    """Sees to it that two recordings of a game share no episode and no seed; seeds below 0 are unknown ones.

    Raises:
        ValueError: If they do.
    """
    hashes, others = ({s.short_hash(i) for i in s.ids} for s in (store, other))
    if both := hashes & others:
        raise ValueError(
            f"{other.path} is no held-out recording: {len(both)} of its episodes are in {store.path} as well"
        )
    if store.info.env_id != other.info.env_id:
        return
    seeds, other_seeds = ({s.meta(i)["seed"] for i in s.ids} for s in (store, other))
    if shared := sorted(seed for seed in seeds & other_seeds if seed >= 0):
        few = ", ".join(map(str, shared[:_SHOWN])) + (", ..." if len(shared) > _SHOWN else "")
        raise ValueError(
            f"{other.path} is no held-out recording: {len(shared)} of its seeds ({few}) are in {store.path} as well; "
            "record it with another --seed, far from the first"
        )
