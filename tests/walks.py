"""Recordings in which what pays is plain to see: for rewards that are learned from preferences."""

import numpy as np
from tiny_game import ACTIONS

from neuralsim.actions import space_to_json
from neuralsim.data.episodes import DatasetInfo, Episode, EpisodeStore

SIZE = (16, 32)
PREPROCESSING = {"size": list(SIZE), "resample": "box", "crop": None, "source": "observation", "key": None}
GAME = {"env_id": "tiny_game:Tiny-v0", "env_kwargs": {}, "preprocessing": PREPROCESSING}
SEGMENT = 10


def walk(seed: int, length: int = 60) -> Episode:
    """A block wanders to and fro (1 right, 2 left); the further to the right it comes, the more a step pays."""
    rng = np.random.default_rng(seed)
    actions, columns = np.zeros(length, np.int64), [int(rng.integers(8))]
    for t in range(length):
        actions[t] = rng.integers(3) if t == 0 or rng.random() < 0.3 else actions[t - 1]
        columns.append(int(np.clip(columns[-1] + (0, 1, -1)[actions[t]], 0, 7)))
    frames = np.full((length + 1, *SIZE, 3), 30, np.uint8)
    for frame, column in zip(frames, columns, strict=True):
        frame[4:8, 4 * column : 4 * column + 4] = (220, 180, 90)
    rewards = (np.array(columns[1:]) / 7).astype(np.float32)
    return Episode(frames, actions, rewards, np.zeros(length, np.bool_), np.zeros(length, np.bool_), seed=seed)


def make_store(path, lengths=(60,) * 8, seed=0) -> EpisodeStore:
    info = DatasetInfo(action_space=space_to_json(ACTIONS["discrete"]), frame_shape=(*SIZE, 3), fps=20, **GAME)
    store = EpisodeStore.create(path, info)
    for i, length in enumerate(lengths):
        store.add(walk(100 * seed + i, length))
    return store


def words(*parts):
    return [str(part) for part in parts]
