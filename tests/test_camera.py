import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import build_tiny_world
from gymnasium import spaces

from neuralsim.actions import ActionCodec, has_camera, space_to_json
from neuralsim.data.episodes import DatasetInfo, Episode, EpisodeStore
from neuralsim.envs.minerl_spaces import v0_action_space
from neuralsim.evaluation import run
from neuralsim.evaluation.camera import CameraReader, picture_shift
from neuralsim.evaluation.held_out import BATCH, Clips, Cut, choose_cuts
from neuralsim.evaluation.image_quality import sharpness
from neuralsim.evaluation.inverse_dynamics import train_inverse_dynamics

SPACE = v0_action_space(camera_limit=10)
CODEC = ActionCodec(SPACE)


def land(rng):
    """Smooth noise, ten points to a pixel."""
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 48, 48)))
    fine = F.interpolate(coarse, size=(1440, 1440), mode="bicubic")[0].permute(1, 2, 0)
    return fine.clamp(0, 255).numpy()


def view(panorama, down, right):
    """64x64 pixels of it, to tenths of a pixel."""
    top, left = round(10 * (40 + down)), round(10 * (40 + right))
    seen = panorama[top : top + 640, left : left + 640]
    return seen.reshape(64, 10, 64, 10, 3).mean((1, 3)).astype(np.uint8)


def clips_of(turns, pixels_per_degree=0.6):
    """Films of a camera that turns so (pitch, yaw) in each step, context of 2 frames."""
    rng = np.random.default_rng(0)
    frames, actions = [], []
    for turn in turns:
        panorama = land(rng)
        at = np.vstack([[0, 0], np.cumsum(turn, 0)]) * pixels_per_degree
        frames.append([view(panorama, *place) for place in at])
        rest = {name: np.zeros(len(turn), np.int64) for name in SPACE.spaces if name != "camera"}
        actions.append(CODEC.encode({**rest, "camera": np.array(turn, np.float32)}))
    rewards = np.zeros((len(turns), len(turns[0])))
    return Clips(np.array(frames), np.array(actions), rewards, 2, [Cut(0, 0)] * len(turns))


@pytest.mark.parametrize("moved", [(0, 0), (3, 0), (0, -5), (4, 7), (-2.5, 1.5)])
def test_how_far_a_picture_moved(moved):
    panorama = land(np.random.default_rng(1))
    before, after = view(panorama, 0, 0), view(panorama, *moved)
    # The view moves one way, what is seen the other.
    assert picture_shift(before[None], after[None])[0] == pytest.approx(-np.array(moved), abs=0.3)


def test_fine_texture_that_a_decoder_leaves_on_all_frames_is_no_picture_at_rest():
    panorama = land(np.random.default_rng(1))
    texture = np.random.default_rng(2).standard_normal((64, 64, 1))

    def blurred(right):
        seen = torch.from_numpy(view(panorama, 0, right)).permute(2, 0, 1).float()
        seen = F.avg_pool2d(F.pad(seen, (3, 3, 3, 3), mode="reflect"), 7, stride=1)
        return (seen.permute(1, 2, 0).numpy() + texture).clip(0, 255).astype(np.uint8)

    assert picture_shift(blurred(0)[None], blurred(6)[None])[0] == pytest.approx((0, -6), abs=0.3)


def test_turns_are_found_and_judged():
    turns = np.zeros((5, 5, 2))  # the first action lies in the context
    turns[0, 1:, 1] = 4  # right by 16 degrees
    turns[1, 1:, 1] = -4
    turns[2, 1:, 0] = 4  # down
    turns[3, 1:, 1] = 1  # too little
    turns[4, 1:] = 4  # about both axes
    clips = clips_of(turns)
    real = clips.future.copy()
    same, half, none = CameraReader(CODEC), CameraReader(CODEC), CameraReader(CODEC)
    same.see(real, clips)
    half.see(clips_of(turns, 0.3).future, clips_of(turns))
    none.see(np.repeat(clips.frames[:, 1:2], 4, axis=1), clips)
    assert {name: row["turns"] for name, row in same.figures().items()} == {"left": 1, "right": 1, "up": 0, "down": 1}
    for name in ("left", "right", "down"):
        assert [row["value"] for row in (same.figures()[name]["same_way"], same.figures()[name]["as_far"])] == [1, 1]
        assert [row["value"] for row in (half.figures()[name]["same_way"], half.figures()[name]["as_far"])] == [1, 0]
        assert [row["value"] for row in (none.figures()[name]["same_way"], none.figures()[name]["as_far"])] == [0, 0]
    assert np.isnan(same.figures()["up"]["same_way"]["value"])
    assert same.moving().tolist() == [True, True, True, False, True]


def test_a_dream_that_turns_the_other_way():
    turns = np.zeros((1, 5, 2))
    turns[0, 1:, 1] = 4
    clips, reader = clips_of(turns), CameraReader(CODEC)
    reader.see(clips_of(-turns).future, clips)
    assert reader.figures()["right"]["same_way"]["value"] == 0


def test_a_hand_that_trembles_is_no_camera_in_motion():
    turns = np.zeros((2, 17, 2))
    turns[:, 1:, 1] = 2 * (-1) ** np.arange(16)  # 32 degrees to and fro
    turns[1, 9:, 1] = 2
    clips, reader = clips_of(turns), CameraReader(CODEC)
    reader.see(clips.future, clips)
    assert reader.moving().tolist() == [False, True]


def test_intervals_are_over_clips():
    """Eight turns of one clip that go wrong together say less than eight of eight clips."""
    turns = np.zeros((8, 33, 2))
    turns[:, 1:, 1] = 4 * np.repeat((-1) ** np.arange(8), 4)
    clips, reader = clips_of(turns), CameraReader(CODEC)
    dreamed = clips.future.copy()
    dreamed[0] = clips.frames[0, 1]
    reader.see(dreamed, clips)
    row = reader.figures()["right"]
    assert row["turns"] == row["same_way"]["n"] == 32
    assert row["same_way"]["value"] == pytest.approx(7 / 8)
    assert row["same_way"]["low"] < 0.7  # 0.75 over turns


def test_who_has_a_camera():
    assert has_camera(SPACE)
    assert not has_camera(spaces.Discrete(3))
    assert not has_camera(spaces.Dict({"camera": spaces.Discrete(3)}))
    with pytest.raises(ValueError, match="no camera"):
        CameraReader(ActionCodec(spaces.Discrete(3)))


def test_blurred_pictures_are_less_sharp():
    rng = np.random.default_rng(2)
    real = rng.integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    planes = torch.from_numpy(real).float().permute(0, 3, 1, 2)
    blurred = F.avg_pool2d(planes, 3, 1, 1).permute(0, 2, 3, 1).numpy().astype(np.uint8)
    assert sharpness(real, real) == pytest.approx(1)
    assert (sharpness(blurred, real) < 0.3).all()
    step = np.zeros((1, 4, 4, 3), np.uint8)
    step[:, :, 2:] = 10  # one of three differences along one axis: 100 / 3
    assert sharpness(step, 2 * step) == pytest.approx((1 + 100 / 3) / (1 + 400 / 3))
    sky = np.full((1, 8, 8, 3), 200, np.uint8)
    speck = sky.copy()
    speck[0, 4, 4] = 201
    assert sharpness(speck, sky) == pytest.approx(1, abs=0.1)


def test_a_world_with_a_camera_is_judged_by_it(tmp_path, monkeypatch):
    info = DatasetInfo("Land-v0", space_to_json(SPACE), (48, 64, 3), 20.0)
    store = EpisodeStore.create(tmp_path / "data", info)
    rng = np.random.default_rng(0)
    for seed in range(2):
        camera = np.zeros((60, 2), np.float32)
        camera[:30, 1] = 4  # a camera in motion, then at rest
        rest = {name: np.zeros(60, np.int64) for name in SPACE.spaces if name != "camera"}
        frames = rng.integers(0, 256, (61, 48, 64, 3)).astype(np.uint8)
        none = np.zeros(60, bool)
        actions = {**rest, "camera": camera}
        store.add(Episode(frames, actions, np.zeros(60, np.float32), none, none, seed=seed))
    build_tiny_world(SPACE, env_id="Land-v0").save(tmp_path / "world")
    monkeypatch.setattr(run, "train_inverse_dynamics", functools.partial(train_inverse_dynamics, steps=1))
    clips = BATCH + 8
    config = run.EvaluateConfig(
        str(tmp_path / "world"), tmp_path / "data", tmp_path / "report", ("open-loop",), clips=clips, horizon=8
    )
    card = run.evaluate(config)
    moving = card["camera_in_motion"]
    cuts = choose_cuts(store, clips, 4 + 8, seed=11)
    assert moving["clips"] == sum(cut.begin + 4 - 1 + 3 <= 30 for cut in cuts)  # three steps of motion in the dream
    assert moving["open_loop"]["8"]["psnr"]["dream"]["n"] == moving["clips"] < clips
    assert "sharpness" in card["open_loop"]["8"]
    assert set(card["camera"]) == {"left", "right", "up", "down"}
    assert "## Open loop, camera in motion" in (tmp_path / "report" / "card.md").read_text()
