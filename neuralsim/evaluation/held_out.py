"""Pieces of held-out recordings, chosen once and read when needed: memory does not grow with their number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuralsim.actions import ActionCodec, slice_actions, space_from_json
from neuralsim.data.episodes import EpisodeStore
from neuralsim.world import World

BATCH = 32
"""Clips that are dreamed at a time."""
FEWEST_EPISODES = 2
"""One episode says nothing about how figures differ from one to the next."""


@dataclass(frozen=True)
class Cut:
    """Where a clip begins: a frame of an episode."""

    episode: int
    begin: int


@dataclass
class Clips:
    """Pieces of play: context, then what is to be dreamed.

    Attributes:
        frames: ``(N, C + H, h, w, 3)`` uint8.
        actions: ``(N, C + H - 1, A)`` encoded.
        rewards: ``(N, C + H - 1)``.
        context: C.
        cuts: Where they come from, N.
    """

    frames: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    context: int
    cuts: list[Cut]

    @property
    def future(self) -> np.ndarray:
        """``(N, H, h, w, 3)`` what really came after the context."""
        return self.frames[:, self.context :]


def batches(clips: int) -> int:
    """In how many batches so many clips are dreamed."""
    return -(-clips // BATCH)


def choose_cuts(store: EpisodeStore, count: int, length: int, seed: int = 0) -> list[Cut]:
    """Draws where to cut clips of ``length`` frames: different places, anywhere in the episodes that are long enough.

    Clips of one episode may overlap.

    Raises:
        ValueError: If there are not as many places.
    """
    usable = [i for i in store.ids if store.length(i) + 1 >= length]
    places = np.cumsum([0] + [store.length(i) + 2 - length for i in usable])
    if places[-1] < count:
        longest = max((store.length(i) for i in store.ids), default=0)
        raise ValueError(
            f"{count} clips of {length} frames do not fit: the longest of {len(store)} episodes in {store.path} "
            f"has {longest} steps"
        )
    chosen = np.random.default_rng(seed).choice(places[-1], size=count, replace=False)
    episodes = places.searchsorted(chosen, side="right") - 1
    return [Cut(usable[e], int(place - places[e])) for e, place in zip(episodes, chosen, strict=True)]


def others_of(cuts: list[Cut]) -> list[Cut]:
    """For each clip one of another episode, the next in turn; its own if there is no other episode."""
    return [
        next((other for other in cuts[n + 1 :] + cuts[:n] if other.episode != cut.episode), cut)
        for n, cut in enumerate(cuts)
    ]


def read_clips(store: EpisodeStore, cuts: list[Cut], context: int, horizon: int) -> Clips:
    """Reads clips of ``context + horizon`` frames."""
    frames = [store.frames(cut.episode, cut.begin, cut.begin + context + horizon) for cut in cuts]
    steps = [slice(cut.begin, cut.begin + context + horizon - 1) for cut in cuts]
    rewards = [store.rewards(cut.episode)[part] for cut, part in zip(cuts, steps, strict=True)]
    return Clips(np.stack(frames), read_actions(store, cuts, context + horizon - 1), np.stack(rewards), context, cuts)


def read_actions(store: EpisodeStore, cuts: list[Cut], steps: int) -> np.ndarray:
    """The encoded actions ``(N, steps, A)`` of clips."""
    codec = ActionCodec(space_from_json(store.info.action_space))
    return np.stack(
        [codec.encode(slice_actions(store.actions(cut.episode), slice(cut.begin, cut.begin + steps))) for cut in cuts]
    )


def check_same_game(world: World, store: EpisodeStore) -> None:
    """Makes sure that recordings are of the game that a world was learned from, seen alike.

    Raises:
        ValueError: If they are of another game, frame size, action space or preprocessing.
    """
    pairs = (
        ("env_id", world.config.env_id, store.info.env_id),
        ("arguments", world.config.env_kwargs, store.info.env_kwargs),
        ("frame shape", tuple(world.config.frame_shape), tuple(store.info.frame_shape)),
        ("action space", world.config.action_space, store.info.action_space),
        ("preprocessing", world.config.preprocessing, store.info.preprocessing),
    )
    for name, of_world, of_data in pairs:
        if of_world != of_data:
            raise ValueError(
                f"{store.path} has {name} {of_data}, but the world has {of_world}: "
                "use recordings of the same environment and preprocessing"
            )


def check_held_out(world: World, store: EpisodeStore, length: int) -> None:
    """Makes sure that recordings can judge a world.

    Raises:
        ValueError: If they are of another game, frame size or action space, too few, too short for clips of ``length``
            frames, among those that the world was trained on, or of their seeds (which decide Minetest's land).
    """
    check_same_game(world, store)
    longest = max((store.length(i) for i in store.ids), default=0)
    usable = sum(store.length(i) + 1 >= length for i in store.ids)
    if usable < FEWEST_EPISODES:
        raise ValueError(
            f"{usable} of the {len(store)} episodes in {store.path} have the {length - 1} steps that a clip takes (the "
            f"longest has {longest}), and at least {FEWEST_EPISODES} must: record more "
            + ("episodes (--steps)" if longest + 1 >= length else "or longer ones, or judge fewer steps (--horizon)")
        )
    seen = set(world.config.trained_on.get("recordings", {}).get("content", ()))
    common = [i for i in store.ids if store.short_hash(i) in seen]
    if common:
        raise ValueError(
            f"the world was trained on {len(common)} of the {len(store)} episodes in {store.path} (the first is "
            f"{common[0]}): evaluate on recordings of other seeds"
        )
    seeds = set(world.config.trained_on.get("recordings", {}).get("seeds", ()))
    if same := [i for i in store.ids if store.meta(i)["seed"] in seeds]:
        raise ValueError(
            f"the world was trained on recordings with the seeds of {len(same)} of the {len(store)} episodes in "
            f"{store.path} (the first is {same[0]}, seed {store.meta(same[0])['seed']}): evaluate on recordings of "
            "other seeds"
        )
