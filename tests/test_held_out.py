import numpy as np
import pytest
from gymnasium import spaces

from neuralsim.actions import space_to_json
from neuralsim.data.episodes import DatasetInfo, Episode, EpisodeStore
from neuralsim.training.held_out import split_episodes


def record(folder, seeds, env_id="Land-v0", colour=0):
    store = EpisodeStore.create(folder, DatasetInfo(env_id, space_to_json(spaces.Discrete(2)), (8, 8, 3), 20.0))
    none = np.zeros(3, bool)
    for seed in seeds:
        frames = np.full((4, 8, 8, 3), colour, np.uint8)
        actions, rewards = np.zeros(3, np.int64), np.zeros(3, np.float32)
        store.add(Episode(frames, actions, rewards, none, none, seed=seed))
    return store


def test_a_twentieth_is_held_out(tmp_path):
    store = record(tmp_path / "data", range(41))
    training, other, held = split_episodes(store, None)
    assert other is store
    assert (len(training), held) == (39, [19, 39])
    assert split_episodes(record(tmp_path / "few", [4, 5, 6]), None)[::2] == ([0, 1], [2])
    assert not set(training) & set(held)
    with pytest.raises(ValueError, match="1 episode is too few"):
        split_episodes(record(tmp_path / "single", [1]), None)


def test_every_part_of_a_joined_dataset_is_trained_on_and_no_seed_is_on_both_sides(tmp_path):
    # Two recordings that both began at seed 0.
    store = record(tmp_path / "data", [*range(25), *range(20), -1, -1])
    training, _, held = split_episodes(store, None)
    assert held == [19, 39]  # seeds 19 and 14
    assert sorted(set(range(47)) - set(training) - set(held)) == [14, 44]
    alike = record(tmp_path / "alike", [7, 7, 7], colour=1)
    with pytest.raises(ValueError, match="have the same seed: name others by --held-out"):
        split_episodes(alike, None)
    assert split_episodes(record(tmp_path / "unknown", [-1, -1, -1]), None)[::2] == ([0, 1], [2])


def test_training_and_held_out_seeds_are_kept_apart(tmp_path):
    store = record(tmp_path / "data", [*range(10), -1])
    training, other, held = split_episodes(store, record(tmp_path / "far", [900, 901, -1], colour=1).path)
    assert (len(training), other.path, held) == (11, tmp_path / "far", [0, 1, 2])
    split_episodes(store, record(tmp_path / "elsewhere", [3], "Other-v0", colour=2).path)
    with pytest.raises(ValueError, match=r"near is no held-out recording: 7 of its seeds \(3, 4, 5, 6, 7, \.\.\.\)"):
        split_episodes(store, record(tmp_path / "near", range(3, 20), colour=1).path)
    with pytest.raises(ValueError, match=r"1 of its seeds \(9\)"):
        split_episodes(store, record(tmp_path / "one", [9, 50], colour=1).path)
    with pytest.raises(ValueError, match=r"same is no held-out recording: 1 of its episodes"):
        split_episodes(store, record(tmp_path / "same", [-1]).path)
