"""Worlds: dreaming, states as values, and folders that are whole or refused."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import build_tiny_world
from gymnasium import spaces
from safetensors.torch import load_file, save_file

from neuralsim.data.latents import fingerprint
from neuralsim.noise import lane_noise
from neuralsim.starts import Start
from neuralsim.world import World, WorldConfig, WorldState


@pytest.fixture(scope="module")
def world(tiny_world: Path) -> World:
    return World.load(tiny_world, device="cpu", dtype="float32")


def begin(world: World, lanes: int, seed: int = 0) -> WorldState:
    return WorldState.stack([world.start_at(i % len(world.starts), seed + i) for i in range(lanes)])


def dream(world: World, state: WorldState, steps: int, seed: int = 0) -> tuple[WorldState, list[torch.Tensor]]:
    rng = np.random.default_rng(seed)
    latents = []
    for _ in range(steps):
        state, prediction = world.step(state, rng.integers(6, size=state.lanes))
        latents.append(prediction.latent)
    return state, latents


def equal(a: WorldState, b: WorldState) -> bool:
    pairs = [(a.recent, b.recent), (a.step, b.step), (a.seed, b.seed)]
    pairs += [(a.dynamics[name], b.dynamics[name]) for name in a.dynamics | b.dynamics]
    return all(torch.equal(x, y) for x, y in pairs)


# -- dreaming


def test_the_heads_look_back_on_the_last_frames_of_the_dream(tiny_world):
    world = World.load(tiny_world, device="cpu", dtype="float32")
    first = world.start_at(0)  # a start of a single frame
    state, latents = first, [first.latent]
    for action in (1, 2, 3, 4):
        state, said = world.step(state, np.array([action]))
        latents.append(said.latent)
        clip = torch.stack(latents, dim=1)
        assert torch.equal(state.recent, world.heads.look_back(clip)[:, -1])


def test_shapes_and_ranges(world: World):
    state = begin(world, 3)
    state, prediction = world.step(state, np.array([0, 3, 5]))
    assert prediction.latent.shape == (3, *world.latent_shape)
    assert prediction.reward.shape == prediction.terminated.shape == prediction.uncertainty.shape == (3,)
    assert prediction.terminated.dtype == torch.bool
    assert (prediction.uncertainty >= 0).all()
    assert set(prediction.reward.tolist()) <= {-1.0, 0.0, 1.0}
    low, high = world.latent_bounds()
    assert (prediction.latent.numpy() >= low).all()
    assert (prediction.latent.numpy() <= high).all()
    frames = world.decode(prediction.latent)
    assert frames.shape == (3, 48, 64, 3)
    assert frames.dtype == torch.uint8
    assert state.step.tolist() == [1, 1, 1]


def test_frozen_and_usable_by_a_policy_in_training(world: World):
    assert not any(p.requires_grad for p in world.dynamics.parameters())
    assert not world.tokenizer.training
    _, prediction = world.step(begin(world, 2), np.array([0, 1]))
    layer = torch.nn.Linear(prediction.latent[0].numel(), 1)
    layer(prediction.latent.flatten(1)).sum().backward()  # inference tensors would fail here
    assert layer.weight.grad is not None


def test_noise_of_a_lane_depends_on_its_seed_and_step_only():
    together = lane_noise([5, 6, 7], [10, 20, 30], (2, 3))
    assert together.shape == (3, 2, 3)
    assert np.array_equal(lane_noise([6], [20], (2, 3))[0], together[1])
    generator = np.random.Generator(np.random.Philox(key=[7, 30]))
    assert np.array_equal(generator.standard_normal((2, 3), dtype=np.float32), together[2])
    many = lane_noise(range(64), [0] * 64, (1000,))
    assert abs(many.mean()) < 0.02
    assert abs(many.std() - 1) < 0.02
    assert len(np.unique(many[:, 0])) == 64


def test_a_lane_dreams_the_same_alone_as_among_others(world: World):
    many = begin(world, 8, seed=40)
    alone = many.select(3)
    rng = np.random.default_rng(1)
    for _ in range(10):
        actions = rng.integers(6, size=8)
        many, among = world.step(many, actions)
        alone, single = world.step(alone, actions[3:4])
        assert torch.allclose(single.latent[0], among.latent[3], atol=1e-4)
        assert single.reward[0] == among.reward[3]
        assert single.terminated[0] == among.terminated[3]
    assert not torch.allclose(among.latent[3], among.latent[7], atol=1e-2)


def test_steps_do_not_change_the_state_they_start_from(world: World):
    state = begin(world, 2)
    kept = state.clone()
    _, first = dream(world, state, 5)
    assert equal(state, kept)
    _, again = dream(world, state, 5)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_seeds_make_different_futures_of_one_past(world: World):
    state = begin(world, 1)
    branches = state.select([0, 0, 0]).reseed([1, 2, 1])
    _, prediction = world.step(branches, np.array([0, 0, 0]))
    assert not torch.equal(prediction.latent[0], prediction.latent[1])
    assert torch.allclose(prediction.latent[0], prediction.latent[2], atol=1e-5)
    with pytest.raises(ValueError, match="seed -1"):
        state.reseed([-1])
    with pytest.raises(ValueError, match="2 seeds for 1 lanes"):
        state.reseed([1, 2])


def test_a_generator_may_replace_the_lanes_noise(world: World):
    state = begin(world, 2)
    draws = [world.step(state, np.array([0, 1]), rng=torch.Generator().manual_seed(s))[1].latent for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_a_long_context_counts_by_its_end(world: World):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (1, 9, 48, 64, 3), dtype=np.uint8)
    actions = rng.integers(6, size=(1, 8))
    keep = world.dynamics.context_length
    long = world.start(frames, actions)
    short = world.start(frames[:, -keep:], actions[:, -(keep - 1) :])
    assert all(torch.allclose(long.dynamics[name], short.dynamics[name], atol=1e-5) for name in long.dynamics)


def test_rewards_are_snapped_and_clipped():
    world = build_tiny_world(reward_values=[0.0, 2.5], reward_range=(0.0, 2.0))
    state, seen = begin(world, 8), set()
    for _ in range(20):
        state, prediction = world.step(state, np.arange(8) % 6)
        seen |= set(prediction.reward.tolist())
    assert seen <= {0.0, 2.0}


@pytest.mark.parametrize(
    "space",
    [
        spaces.MultiDiscrete([3, 2]),
        spaces.Box(-1, 1, (2,)),
        spaces.MultiBinary(3),
        spaces.Dict(jump=spaces.Discrete(2), camera=spaces.Box(-10, 10, (2,))),
        spaces.Tuple([spaces.Discrete(2), spaces.Discrete(3)]),
    ],
    ids=lambda space: type(space).__name__,
)
def test_action_spaces(space: spaces.Space, tmp_path: Path):
    loaded = World.load(build_tiny_world(space).save(tmp_path / "world"), "cpu", "float32")
    assert loaded.action_space == space
    state = begin(loaded, 4)
    batch = loaded.actions.decode(np.stack([loaded.actions.encode(space.sample()) for _ in range(4)]))
    state, prediction = loaded.step(state, batch)
    assert torch.isfinite(prediction.latent).all()


def test_bfloat16(tiny_world: Path):
    half = World.load(tiny_world, "cpu", "bfloat16")
    state, prediction = half.step(half.start_at(1), np.array([2]))
    assert prediction.latent.dtype == torch.bfloat16
    assert prediction.reward.dtype == torch.float32
    assert half.decode(prediction.latent).dtype == torch.uint8
    restored = pickle.loads(pickle.dumps(state))
    assert equal(restored, state)


# -- mistakes


@pytest.mark.parametrize(
    ("frames", "actions", "message"),
    [
        (np.zeros((1, 2, 48, 64, 3), np.float32), np.zeros((1, 1), int), "uint8"),
        (np.zeros((1, 2, 64, 48, 3), np.uint8), np.zeros((1, 1), int), r"\(1, 2, 64, 48, 3\).*48, 64, 3"),
        (np.zeros((48, 64, 3), np.uint8), None, "lanes, frames"),
        (np.zeros((1, 0, 48, 64, 3), np.uint8), None, "at least one frame"),
        (np.zeros((1, 2, 48, 64, 3), np.uint8), None, "needs the 1 actions"),
        (np.zeros((1, 2, 48, 64, 3), np.uint8), np.zeros((1, 2), int), "one action fewer"),
        (np.zeros((1, 2, 48, 64, 3), np.uint8), np.full((1, 1), 6), "action 6"),
    ],
)
def test_wrong_context(world: World, frames, actions, message: str):
    with pytest.raises(ValueError, match=message):
        world.start(frames, actions)


def test_wrong_steps(world: World):
    state = begin(world, 2)
    with pytest.raises(ValueError, match="action 6 is outside"):
        world.step(state, np.array([0, 6]))
    with pytest.raises(ValueError, match="2 dreams need 2 actions"):
        world.step(state, np.array([0]))
    with pytest.raises(ValueError, match="power of two"):
        world.step(state, np.array([0, 1]), steps=3)
    with pytest.raises(ValueError, match="at most 8"):
        world.step(state, np.array([0, 1]), steps=16)
    with pytest.raises(ValueError, match=r"start 4 is not there.*0 to 3"):
        world.start_at(4)
    with pytest.raises(ValueError, match="latents have shape"):
        world.decode(torch.zeros(1, 2, 2, 2))


def test_unknown_device_and_dtype(tiny_world: Path):
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        World.load(tiny_world, device="gpu")
    with pytest.raises(ValueError, match="unknown dtype 'half'"):
        World.load(tiny_world, dtype="half")


def test_a_world_may_say_where_it_comes_from(world: World):
    assert world.config.notice == ""
    text = world.config.to_json().replace('"notice": ""', '"notice": "learned elsewhere"')
    assert WorldConfig.from_json(text).notice == "learned elsewhere"
    with pytest.raises(ValueError, match="notice is 3; it must be a text"):
        WorldConfig.from_json(text.replace('"learned elsewhere"', "3"))


def test_parts_that_do_not_fit_each_other(world: World):
    config = WorldConfig.from_json(world.config.to_json())
    config.action_space = {"type": "Discrete", "n": 3, "start": 0}
    with pytest.raises(ValueError, match=r"action sizes.*3 and 6"):
        World(config, world.tokenizer, world.dynamics, world.heads)


# -- states


def test_state_select_stack_replace(world: World):
    state, _ = dream(world, begin(world, 4), 3)
    lanes = [state.select(i) for i in range(4)]
    assert equal(WorldState.stack(lanes), state)
    swapped = state.replace([1, 3], state.select([3, 1]))
    assert equal(swapped, state.select([0, 3, 2, 1]))
    assert equal(state.select([3, 2, 1, 0]).select([3, 2, 1, 0]), state)
    assert state.clone().latent.data_ptr() != state.latent.data_ptr()
    with pytest.raises(ValueError, match="2 lanes cannot be replaced by 1"):
        state.replace([0, 1], state.select(0))
    with pytest.raises(IndexError):
        state.select(4)
    with pytest.raises(ValueError, match="no state"):
        WorldState.stack([])


def test_state_survives_bytes_and_pickle(world: World):
    state, _ = dream(world, begin(world, 2), 3)
    for copy in (WorldState.from_bytes(state.to_bytes()), pickle.loads(pickle.dumps(state))):
        assert equal(copy, state)
        assert all(torch.equal(a, b) for a, b in zip(dream(world, copy, 4)[1], dream(world, state, 4)[1], strict=True))
    with pytest.raises(ValueError, match="hold no state"):
        WorldState.from_bytes(state.to_bytes()[:-10])


# -- folders


@pytest.fixture
def folder(tiny_world: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_world, tmp_path / "world"))


def test_a_policy_in_training_may_see_how_a_dream_begins(world):
    state = world.start(np.zeros((1, 2, *world.frame_shape), np.uint8), np.zeros((1, 1), np.int64))
    again = world.start_from_latents(torch.zeros(1, 1, *world.latent_shape), torch.zeros(1, 0, world.actions.size))
    for tensor in (state.latent, state.doubt, again.latent, again.doubt):
        assert not tensor.is_inference()


def test_others_may_read_what_was_saved(world, tmp_path):
    folder, other = world.save(tmp_path / "world"), tmp_path / "any file"
    other.touch()
    assert (folder / "world.safetensors").stat().st_mode == other.stat().st_mode


def test_save_and_load_dream_alike(world: World, tmp_path: Path):
    world.card, world.card_text = {"ball": 0.9}, "# card\n"
    try:
        again = World.load(world.save(tmp_path / "again"), "cpu", "float32")
    finally:
        world.card = world.card_text = None
    assert again.card == {"ball": 0.9}
    assert again.card_text == "# card\n"
    assert [(len(s), s.kind, s.episode, s.frame) for s in again.starts] == [
        (len(s), s.kind, s.episode, s.frame) for s in world.starts
    ]
    assert all(np.array_equal(a.frames, b.frames) for a, b in zip(again.starts, world.starts, strict=True))
    first, second = (dream(w, begin(w, 4), 5)[1] for w in (world, again))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_weights_of_half_the_size(tiny_world: Path, tmp_path: Path):
    world = World.load(tiny_world, "cpu", "float32")
    half = world.save(tmp_path / "half", weights_dtype="bfloat16")
    tensors = load_file(half / "world.safetensors")
    assert tensors["dynamics.past.conv_in.weight"].dtype == torch.bfloat16
    assert tensors["tokenizer.background"].dtype == torch.float32  # statistics keep their precision
    loaded = World.load(half, "cpu", "float32")
    assert loaded.dtype == torch.float32
    assert torch.isfinite(dream(loaded, begin(loaded, 2), 2)[1][0]).all()
    assert fingerprint(loaded.tokenizer) == fingerprint(world.tokenizer)  # encoded recordings and agents still fit
    with pytest.raises(ValueError, match="unknown dtype"):
        world.save(tmp_path / "other", weights_dtype="int8")


def test_saving_over_a_world_keeps_what_lies_beside_it(folder: Path):
    world = World.load(folder, "cpu", "float32")
    (folder / "recipe.sh").write_text("echo")
    (folder / "card.md").write_text("a card of older weights")
    world.save(folder)
    assert (folder / "recipe.sh").read_text() == "echo"
    assert not (folder / "card.md").exists()
    assert sorted(p.name for p in folder.parent.iterdir()) == [folder.name]


def test_a_link_to_a_world_stays_a_link(folder: Path, tmp_path: Path):
    link = tmp_path / "link"
    link.symlink_to(folder)
    World.load(link, "cpu", "float32").save(link)
    assert link.is_symlink()
    assert World.load(folder).config.name == "tiny"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", folder.name]


def test_a_save_that_fails_in_the_last_moment(folder: Path, monkeypatch: pytest.MonkeyPatch):
    world, rename = World.load(folder, "cpu", "float32"), Path.rename

    def interrupted(self, target):
        if self.name.endswith(".new"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        world.save(folder)
    assert World.load(folder).config.name == "tiny"
    assert sorted(p.name for p in folder.parent.iterdir()) == [folder.name]


def test_a_failed_save_keeps_the_old_world(folder: Path, monkeypatch: pytest.MonkeyPatch):
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    world = World.load(folder, "cpu", "float32")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("neuralsim.world.save_starts", full)
    with pytest.raises(OSError, match="No space left"):
        world.save(folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before
    assert sorted(p.name for p in folder.parent.iterdir()) == [folder.name]


def test_saving_never_replaces_something_else(world: World, tmp_path: Path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"architecture": "another"}')
    with pytest.raises(ValueError, match=r"holds config\.json but is not a world"):
        world.save(tmp_path / "model")
    assert (tmp_path / "model" / "config.json").read_text() == '{"architecture": "another"}'
    with pytest.raises(ValueError, match="is a file"):
        world.save(tmp_path / "model" / "config.json")


def test_saving_beside_a_recipe(world: World, tmp_path: Path):
    (tmp_path / "pong").mkdir()
    (tmp_path / "pong" / "recipe.py").write_text("pass")
    World.load(world.save(tmp_path / "pong"))
    assert (tmp_path / "pong" / "recipe.py").read_text() == "pass"


def test_unknown_world(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no world 'nonsense'.*bundled worlds"):
        World.load("nonsense")
    with pytest.raises(FileNotFoundError, match="no world"):
        World.load(tmp_path / "nothing" / "here")
    with pytest.raises(FileNotFoundError, match=r"it has no config.json"):
        World.load(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match="is a file"):
        World.load(tmp_path / "file")


def edit_config(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format 2.*upgrade"),
        ({"format": None}, "no world's config"),
        ({"colour": "red"}, "unknown fields colour"),
        ({"fps": -1}, "fps -1"),
        ({"fps": "fast"}, "malformed"),
        ({"frame_shape": [48, 64]}, "frame_shape"),
        ({"tokenizer": {"type": "convolutional"}}, "tokenizer of a world must hold type and config"),
        ({"tokenizer": {"type": "psychic", "config": {}}}, "unknown tokenizer type 'psychic'"),
        ({"dynamics": {"type": "psychic", "config": {}}}, "unknown dynamics type 'psychic'"),
        ({"heads": {"config": {"horns": 2}}}, "horns"),
        ({"action_space": {"type": "Graph"}}, "unknown space type"),
        ({"sampling_steps": 3}, "power of two"),
        ({"sampling_steps": 64}, "at most 8"),
        ({"reward_values": []}, "reward_values is empty"),
        ({"max_episode_steps": 0}, "max_episode_steps is 0"),
    ],
)
def test_wrong_config(folder: Path, changes: dict, message: str):
    edit_config(folder, **changes)
    with pytest.raises(ValueError, match=message):
        World.load(folder)


def test_config_that_is_no_json(folder: Path):
    (folder / "config.json").write_text('{"format": 1, ')
    with pytest.raises(ValueError, match=r"config\.json cannot be used: not valid JSON"):
        World.load(folder)
    (folder / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match="list where an object"):
        World.load(folder)
    (folder / "config.json").write_text('{"format": 1}')
    with pytest.raises(ValueError, match="lacks the fields name"):
        World.load(folder)
    (folder / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="cannot be used"):
        World.load(folder)


def test_weights_missing_truncated_damaged_exchanged(folder: Path):
    weights = folder / "world.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="truncated or damaged"):
        World.load(folder)
    weights.write_bytes(b"")
    with pytest.raises(ValueError, match="truncated or damaged"):
        World.load(folder)
    weights.write_bytes(whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:])  # one bit
    with pytest.raises(ValueError, match="checksum differs"):
        World.load(folder)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"no world\.safetensors"):
        World.load(folder)


def test_weights_that_do_not_fit(folder: Path):
    weights = folder / "world.safetensors"
    tensors = load_file(weights)
    edit_config(folder, weights_sha256="")
    renamed = {name.replace("heads.out_reward", "heads.out_money"): t for name, t in tensors.items()}
    save_file(renamed, weights)
    with pytest.raises(ValueError, match=r"missing: heads\.out_reward.*unexpected: heads\.out_money"):
        World.load(folder)
    name = "dynamics.past.conv_in.weight"
    save_file({**tensors, name: tensors[name][:2].contiguous()}, weights)
    with pytest.raises(ValueError, match=rf"{name} has shape \(2, 6, 3, 3\), the model needs \(8, 6, 3, 3\)"):
        World.load(folder)


def test_damaged_starts(folder: Path):
    picture, index = folder / "starts" / "001.png", folder / "starts" / "starts.json"
    whole = picture.read_bytes()
    for damage in (whole[: len(whole) // 2], b"", b"not a picture"):
        picture.write_bytes(damage)
        with pytest.raises(ValueError, match=r"starts in .* are damaged"):
            World.load(folder)
    picture.write_bytes((folder / "starts" / "002.png").read_bytes())
    with pytest.raises(ValueError, match=r"001\.png has 64x144 pixels, but 6 frames"):
        World.load(folder)
    picture.unlink()
    with pytest.raises(ValueError, match="are damaged"):
        World.load(folder)
    picture.write_bytes(whole)
    entries = json.loads(index.read_text())
    entries[1]["actions"] = entries[1]["actions"][:-1]
    index.write_text(json.dumps(entries))
    with pytest.raises(ValueError, match="are damaged"):
        World.load(folder)
    index.write_text("[")
    with pytest.raises(ValueError, match="are damaged"):
        World.load(folder)
    shutil.rmtree(folder / "starts")
    assert World.load(folder).starts == []


def test_starts_are_checked():
    with pytest.raises(ValueError, match="beginning or middle"):
        Start(np.zeros((1, 4, 4, 3), np.uint8), kind="end")
    with pytest.raises(ValueError, match="T >= 1"):
        Start(np.zeros((0, 4, 4, 3), np.uint8))


# -- the hub


def fake_hub(monkeypatch: pytest.MonkeyPatch, download) -> None:
    module = types.ModuleType("huggingface_hub")
    module.snapshot_download = download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)


def test_worlds_from_the_hub(tiny_world: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def download(repository, revision, allow_patterns, **_):
        asked.append((repository, revision))
        assert "world.safetensors" in allow_patterns
        assert not any(pattern == "*" or pattern.endswith((".py", ".bin", ".pt")) for pattern in allow_patterns)
        return str(tiny_world)

    fake_hub(monkeypatch, download)
    assert World.load("somebody/tiny-world").config.name == "tiny"
    assert World.load("somebody/tiny-world@v1.0").config.name == "tiny"
    assert asked == [("somebody/tiny-world", None), ("somebody/tiny-world", "v1.0")]


def test_the_hub_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_, **__):
        raise OSError("404 not found")

    fake_hub(monkeypatch, refuse)
    with pytest.raises(FileNotFoundError, match=r"cannot get the world 'some/body': 404.*no folder 'some/body'"):
        World.load("some/body")
    fake_hub(monkeypatch, lambda *_, **__: str(tmp_path))
    with pytest.raises(FileNotFoundError, match="is not a world"):
        World.load("some/body")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModuleNotFoundError, match=r"neuralsim-gym\[hub\]"):
        World.load("some/body")
