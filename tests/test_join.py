"""Several datasets as one."""

import dataclasses
import errno
import os

import pytest
import torch
from conftest import build_tiny_world
from gymnasium import spaces
from test_episodes import assert_same, make_episode, make_info
from test_episodes import make_store as make_plain_store

from neuralsim.cli import main
from neuralsim.data.episodes import EpisodeStore
from neuralsim.data.join import JoinConfig, join
from neuralsim.data.latents import load_latents


def make_store(path, *episodes, command="", source=None, **info):
    store = make_plain_store(path, *episodes, **info)
    store.note_command(command)
    store.note_source(source or {})
    return store


@pytest.fixture
def stores(tmp_path):
    first = make_store(tmp_path / "a", make_episode(seed=1), make_episode(20, seed=2), command="neuralsim record A")
    second = make_store(tmp_path / "b", make_episode(50, seed=3), command="neuralsim record B", source={"seed": 3})
    return first, second


def paths(stores):
    return tuple(store.path for store in stores)


def test_all_episodes_are_there_in_order(stores, tmp_path, capsys):
    join(JoinConfig(paths(stores), tmp_path / "both"))
    both = EpisodeStore.open(tmp_path / "both")
    assert both.ids == [0, 1, 2]
    assert [both.meta(i)["seed"] for i in both.ids] == [1, 2, 3]
    assert_same(both.read(1), stores[0].read(1))
    assert_same(both.read(2), stores[1].read(0))
    for episode in both.ids:
        both.verify(episode)
    assert f"3 episodes, 110 steps in {tmp_path / 'both'}" in capsys.readouterr().out


def test_it_is_told_how_all_of_it_was_made(stores, tmp_path):
    info = join(JoinConfig(paths(stores), tmp_path / "both")).info
    a, b, both = tmp_path / "a", tmp_path / "b", tmp_path / "both"
    assert info.command == f"neuralsim record A && neuralsim record B && neuralsim data join {a} {b} --out {both}"
    assert info.source == {"joined": [{"path": str(a)}, {"path": str(b), "seed": 3}]}


def test_nothing_is_copied_and_what_is_deleted_stays(stores, tmp_path):
    both = join(JoinConfig(paths(stores), tmp_path / "both"))
    original = stores[1].path / "episodes" / "00000000.zarr.zip"
    assert original.samefile(both.path / "episodes" / "00000002.zarr.zip")
    expected = stores[1].read(0)
    original.unlink()
    assert_same(both.read(2), expected)
    assert not list(both.path.rglob("*.part"))


def test_another_file_system_gets_copies(stores, tmp_path, monkeypatch):
    link = os.link

    def link_within(source, target):
        if not str(source).endswith(".part"):
            raise OSError(errno.EXDEV, "another file system")
        link(source, target)

    monkeypatch.setattr(os, "link", link_within)
    both = join(JoinConfig(paths(stores), tmp_path / "both"))
    assert_same(both.read(2), stores[1].read(0))
    original = stores[1].path / "episodes" / "00000000.zarr.zip"
    assert not original.samefile(both.path / "episodes" / "00000002.zarr.zip")


def test_latents_come_along(tmp_path):
    world = build_tiny_world(spaces.Discrete(3), frame_size=(16, 32), starts=False)
    kind = {"space": spaces.Discrete(3), "shape": (16, 32, 3)}
    first = make_store(tmp_path / "a", make_episode(5, seed=1, **kind), make_episode(6, seed=2, **kind), **kind)
    second = make_store(tmp_path / "b", make_episode(7, seed=3, **kind), **kind)
    load_latents(first, [1], world.tokenizer)
    expected = load_latents(second, [0], world.tokenizer)[0].latents
    both = join(JoinConfig((first.path, second.path), tmp_path / "both"))
    files = sorted(file.name for file in both.path.rglob("*.safetensors"))
    assert files == ["00000001.safetensors", "00000002.safetensors"]
    episodes = load_latents(both, both.ids, world.tokenizer)
    assert [len(episode) for episode in episodes] == [5, 6, 7]
    assert torch.equal(episodes[2].latents, expected)


def test_what_does_not_belong_together_is_refused(stores, tmp_path):
    with pytest.raises(ValueError, match="two or more"):
        join(JoinConfig((stores[0].path,), tmp_path / "one"))
    with pytest.raises(FileNotFoundError, match="holds no dataset"):
        join(JoinConfig((stores[0].path, tmp_path / "nowhere"), tmp_path / "both"))
    other = EpisodeStore.create(tmp_path / "c", dataclasses.replace(make_info(), fps=7.0))
    with pytest.raises(ValueError, match=r"has fps 7\.0"):
        join(JoinConfig((*paths(stores), other.path), tmp_path / "both"))
    again = make_store(tmp_path / "d", make_episode(20, seed=2))
    with pytest.raises(ValueError, match=r"episode 0 of .*d is episode 1 of .*a as well"):
        join(JoinConfig((*paths(stores), again.path), tmp_path / "both"))
    assert not (tmp_path / "both").exists()


def test_the_same_play_under_two_seeds_is_two_episodes(tmp_path):
    """A player that rests loses every game alike."""
    game = make_episode(seed=1)
    alike = [dataclasses.replace(game, seed=seed) for seed in (5, 6, 7)]
    first, second = make_store(tmp_path / "a", *alike[:2]), make_store(tmp_path / "b", alike[2])
    assert len(join(JoinConfig((first.path, second.path), tmp_path / "both"))) == 3


def test_what_is_there_is_left_alone(stores, tmp_path):
    with pytest.raises(FileExistsError, match="is there already"):
        join(JoinConfig(paths(stores), stores[0].path))
    assert len(EpisodeStore.open(stores[0].path)) == 2
    (tmp_path / "left" / "latents").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="is there already"):
        join(JoinConfig(paths(stores), tmp_path / "left"))


def test_a_joined_dataset_is_not_recorded_into(stores, tmp_path, capsys):
    both = join(JoinConfig(paths(stores), tmp_path / "both"))
    assert main(["record", "CartPole-v1", "--source", "render", "--steps", "5", "--out", str(both.path)]) == 2
    assert f"was joined from {stores[0].path}, {stores[1].path}: record into a folder" in capsys.readouterr().err


def test_a_full_disk_leaves_nothing_half(stores, tmp_path, monkeypatch):
    link, calls = os.link, []

    def fill(source, target):
        calls.append(source)
        if len(calls) > 3:  # in the second episode
            raise OSError(errno.ENOSPC, "no space left")
        link(source, target)

    monkeypatch.setattr(os, "link", fill)
    with pytest.raises(OSError, match="no space"):
        join(JoinConfig(paths(stores), tmp_path / "both"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_the_command(stores, tmp_path, capsys):
    assert main(["data", "join", *map(str, paths(stores)), "--out", str(tmp_path / "both")]) == 0
    assert "3 episodes" in capsys.readouterr().out
