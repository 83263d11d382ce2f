"""Which episodes are trained on, and which are held out for the figures."""

from __future__ import annotations

from pathlib import Path

from neuralsim.data.episodes import EpisodeStore

EVERY = 20
"""One episode in so many is held out where no other recordings are named."""

_SHOWN = 5  # seeds that an error lists


def split_episodes(store: EpisodeStore, held_out: Path | None) -> tuple[list[int], EpisodeStore, list[int]]:
    """Divides recordings.

    Args:
        store: The recordings to train on.
        held_out: Folder of others for the figures; without, every twentieth episode of the store (at least one).
            Episodes with the seed of one of these are on neither side.

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
    # Spread over all of them: datasets that were joined lie one after the other.
    held = ids[EVERY - 1 :: EVERY] or ids[-1:]
    seeds = {seed for i in held if (seed := store.meta(i)["seed"]) >= 0}
    training = [i for i in ids if i not in held and store.meta(i)["seed"] not in seeds]
    if not training:
        raise ValueError(f"the {len(ids)} episodes in {store.path} have the same seed: name others by --held-out")
    return training, store, held


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
