"""Pieces of held-out recordings, chosen once and read when needed: memory does not grow with their number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuralsim.actions import ActionCodec, space_from_json
from neuralsim.data.episodes import EpisodeStore
from neuralsim.world import World

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


def choose_cuts(store: EpisodeStore, count: int, length: int, seed: int = 0) -> list[Cut]:
    """Draws where to cut clips of ``length`` frames, anywhere in the episodes that are long enough.

    Raises:
        ValueError: If none is.
    """
    usable = [i for i in store.ids if store.length(i) + 1 >= length]
    if not usable:
        longest = max((store.length(i) for i in store.ids), default=0)
        raise ValueError(
            f"clips of {length} frames do not fit: the longest of {len(store)} episodes in {store.path} "
            f"has {longest} steps"
        )
    rng = np.random.default_rng(seed)
    weights = np.array([store.length(i) + 2 - length for i in usable], float)
    episodes = rng.choice(usable, size=count, p=weights / weights.sum()).tolist()
    return [Cut(i, int(rng.integers(store.length(i) + 2 - length))) for i in episodes]


def read_clips(store: EpisodeStore, cuts: list[Cut], context: int, horizon: int) -> Clips:
    """Reads clips of ``context + horizon`` frames."""
    codec = ActionCodec(space_from_json(store.info.action_space))
    length = context + horizon
    frames, actions, rewards = [], [], []
    for cut in cuts:
        steps = slice(cut.begin, cut.begin + length - 1)
        frames.append(store.frames(cut.episode, cut.begin, cut.begin + length))
        actions.append(codec.encode(store.actions(cut.episode))[steps])
        rewards.append(store.rewards(cut.episode)[steps])
    return Clips(np.stack(frames), np.stack(actions), np.stack(rewards), context, list(cuts))


def check_held_out(world: World, store: EpisodeStore, length: int) -> None:
    """Makes sure that recordings can judge a world.

    Raises:
        ValueError: If they are of another game, frame size or action space, too few, too short for clips of ``length``
            frames, or among those that the world was trained on.
    """
    pairs = (
        ("env_id", world.config.env_id, store.info.env_id),
        ("frame shape", tuple(world.config.frame_shape), tuple(store.info.frame_shape)),
        ("action space", world.config.action_space, store.info.action_space),
        ("preprocessing", world.config.preprocessing, store.info.preprocessing),
    )
    for name, of_world, of_data in pairs:
        if of_world != of_data:
            raise ValueError(
                f"{store.path} has {name} {of_data}, but the world has {of_world}: "
                "evaluate on recordings of the same environment and preprocessing"
            )
    if len(store) < FEWEST_EPISODES:
        raise ValueError(f"{store.path} has {len(store)} episode; at least {FEWEST_EPISODES} are needed: record more")
    longest = max(store.length(i) for i in store.ids)
    if longest + 1 < length:
        raise ValueError(
            f"the longest of {len(store)} episodes in {store.path} has {longest} steps, but clips need {length - 1}: "
            "record longer ones, or lower --horizon"
        )
    seen = set(world.config.trained_on.get("recordings", {}).get("content", ()))
    common = [i for i in store.ids if store.short_hash(i) in seen]
    if common:
        raise ValueError(
            f"the world was trained on {len(common)} of the {len(store)} episodes in {store.path} (the first is "
            f"{common[0]}): evaluate on recordings of other seeds"
        )
