import json

import numpy as np
import pytest
from PIL import Image

from neuralsim.cli import main
from neuralsim.data.cursor import SIZE, draw_pointer, pointer
from neuralsim.data.interchange import ImportConfig, import_data
from neuralsim.data.videos import _encode
from neuralsim.data.vpt import KEYS, MOUSE, find_vpt
from neuralsim.envs.minerl_spaces import BUTTONS, HOTBAR, human_action_space

av = pytest.importorskip("av")

GREY = 90


def line(buttons=(), new=(), keys=(), dx=0.0, dy=0.0, hotbar=0, gui=False, **more):
    """A line as the contractors' recorder wrote it."""
    return {
        "mouse": {"x": 640.0, "y": 360.0, "dx": dx, "dy": dy, "scaledX": 0.0, "scaledY": 0.0, "dwheel": 0.0,
                  "buttons": list(buttons), "newButtons": list(new)},
        "keyboard": {"keys": list(keys), "newKeys": [], "chars": ""},
        "isGuiOpen": gui, "isGuiInventory": gui, "hotbar": hotbar, "yaw": -12.5, "pitch": 3.0,
        "xpos": 1.0, "ypos": 64.0, "zpos": -7.5, "tick": 0, "milli": 1649000000000, "inventory": [], "stats": {},
        **more,
    }  # fmt: skip


def make_recording(stem, lines, frames=None, shape=(18, 32, 3)):
    """NAME.mp4 and NAME.jsonl; frame i is of the one grey level GREY + i. By default one frame more than lines."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    count = len(lines) + 1 if frames is None else frames
    levels = GREY + np.arange(count)
    _encode(av, stem, np.broadcast_to(levels[:, None, None, None], (count, *shape)).astype(np.uint8), 20)
    stem.with_name(f"{stem.name}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines))


def read(source, out, **changes):
    return import_data(ImportConfig(str(source), out, **{"size": (9, 16), "quiet": True, **changes}))


def report(out):
    return json.loads((out / "import_report.json").read_text())


def actions_of(tmp_path, lines, **changes):
    make_recording(tmp_path / "v" / "one", lines)
    return read(tmp_path / "v", tmp_path / "data", **changes).actions(0)


def pressed(actions):
    """Names of the buttons held at each step."""
    steps = len(actions["camera"])
    return [{name for name in BUTTONS if actions[name][i]} for i in range(steps)]


def test_a_recording(tmp_path):
    lines = [line(yaw=float(i), keys=["key.keyboard.w"] if i == 2 else []) for i in range(5)]
    make_recording(tmp_path / "contractors" / "one", lines)
    store = read(tmp_path / "contractors", tmp_path / "data")
    assert store.space == human_action_space(10.0)
    assert (store.info.env_id, store.info.fps, store.info.frame_shape) == ("contractors", 20.0, (9, 16, 3))
    episode = store.read(0)
    assert episode.frames[:, 4, 8, 0].tolist() == [GREY + i for i in range(6)]
    assert pressed(episode.actions) == [set(), set(), {"forward"}, set(), set()]  # steps of nothing stay
    assert not episode.rewards.any()
    assert not episode.terminated.any()
    assert episode.truncated.tolist() == [False] * 4 + [True]
    assert sorted(episode.labels) == ["hotbar", "isGuiOpen", "pitch", "xpos", "yaw", "ypos", "zpos"]
    assert episode.labels["yaw"].tolist() == [0, 1, 2, 3, 4, 4]
    assert episode.policy == "human"


@pytest.mark.parametrize(("frames", "steps"), [(5, 4), (6, 5)])
def test_a_line_for_each_frame_save_perhaps_the_last(tmp_path, frames, steps):
    make_recording(tmp_path / "v" / "one", [line(keys=["key.keyboard.w"])] * 5, frames)
    store = read(tmp_path / "v", tmp_path / "data")
    assert store.length(0) == steps
    assert store.frames(0)[:, 0, 0, 0].tolist() == [GREY + i for i in range(steps + 1)]


@pytest.mark.parametrize("frames", [4, 7])
def test_other_counts_are_refused(tmp_path, frames):
    make_recording(tmp_path / "v" / "one", [line()] * 5, frames)
    with pytest.raises(ValueError, match=rf"one: one\.mp4 has {frames} frames and one\.jsonl 5 lines"):
        read(tmp_path / "v", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_every_key_and_mouse_button(tmp_path):
    lines = [line(), *(line(keys=[key]) for key in KEYS), *(line(buttons=[button]) for button in MOUSE)]
    wanted = [set(), *({name} for name in (*KEYS.values(), *MOUSE.values()))]
    assert pressed(actions_of(tmp_path, lines)) == wanted
    assert {name for names in wanted for name in names} == set(BUTTONS)


def test_keys_without_a_button_are_named(tmp_path, capsys):
    actions = actions_of(tmp_path, [line(keys=["key.keyboard.f3", "key.keyboard.w"]), line(buttons=[4])])
    assert pressed(actions) == [{"forward"}, set()]
    assert report(tmp_path / "data")["left_out_steps"] == {"key.keyboard.f3": 1, "mouse button 4": 1}
    assert "key.keyboard.f3 (1 steps)" in capsys.readouterr().out


def test_the_camera_is_pitch_and_yaw_in_fractions_of_a_degree(tmp_path):
    camera = actions_of(tmp_path, [line(dx=1.0, dy=-3.0), line(dx=1200.0)], camera_limit=180)["camera"]
    assert camera.dtype == np.float32
    np.testing.assert_allclose(camera, [[-0.45, 0.15], [0, 180]], rtol=1e-6)


def test_a_camera_out_of_range(tmp_path):
    make_recording(tmp_path / "v" / "one", [line(), line(dx=-2000.0)])
    with pytest.raises(ValueError, match=r"one\.jsonl: the camera of step 1 turns by \[0\.0, -300\.0\].*--clip-camera"):
        read(tmp_path / "v", tmp_path / "data")
    camera = read(tmp_path / "v", tmp_path / "data", clip_camera=True).actions(0)["camera"]
    assert camera.tolist() == [[0, 0], [0, -10]]
    assert report(tmp_path / "data")["left_out_steps"] == {"turn beyond 10 degrees": 1}


@pytest.mark.parametrize(
    ("buttons", "new", "wanted"),
    [
        ([[0], [0], [0], [0]], [[0], [], [], []], "...."),  # hangs to the end
        ([[0], [0], [], [0]], [[0], [], [], [0]], "...x"),  # released, and pressed by the player
        ([[0], [0], [0], []], [[0], [], [0], []], "..x."),  # pressed anew without a release in between
        ([[0], [0], [], []], [[], [], [], []], "xx.."),  # held from before the recording: real
        ([[0, 1], [0], [0], []], [[0, 1], [], [], []], "xxx."),  # both at once: real
        ([[], [0], [0], []], [[], [0], [], []], ".xx."),
    ],
)
def test_a_stuck_attack_is_dropped_until_it_is_released(tmp_path, buttons, new, wanted):
    actions = actions_of(tmp_path, [line(buttons=b, new=n) for b, n in zip(buttons, new, strict=True)])
    assert "".join(".x"[int(held)] for held in actions["attack"]) == wanted


def test_changes_of_the_hotbar_are_presses(tmp_path):
    lines = [line(hotbar=slot) for slot in (4, 4, 8, 8, 0)]
    assert pressed(actions_of(tmp_path, lines)) == [set(), set(), {HOTBAR[8]}, set(), {HOTBAR[0]}]


def test_the_pointer_is_drawn_into_open_menus(tmp_path):
    lines = [line(), line(gui=True), line(gui=True)]
    for entry, x in zip(lines, (0, 20, 40), strict=True):
        entry["mouse"] |= {"x": float(x), "y": 10.0}
    make_recording(tmp_path / "v" / "one", lines, shape=(360, 64, 3))
    frames = read(tmp_path / "v", tmp_path / "data", size=(360, 64)).frames(0)
    for i, x in enumerate((None, 10, 20, 20)):  # at half of the 720 rows; the last frame has no line of its own
        blank = np.full((360, 64, 3), GREY + i, np.uint8)
        drawn = blank if x is None else draw_pointer(blank, pointer(), 2 * x, 10.0)
        np.testing.assert_array_equal(frames[i], drawn)
        changed = np.argwhere((frames[i] != GREY + i).any(-1))
        assert len(changed) == 0 if x is None else tuple(changed.min(0)) == (5, x)


def test_the_pointer_is_blended_and_cut_at_the_edges():
    picture = np.zeros((SIZE, SIZE, 4), np.uint8)
    picture[..., 0], picture[..., 3] = 200, 51  # a fifth of red
    frame = np.full((36, 40, 3), 100, np.uint8)
    drawn = draw_pointer(frame, picture, 200.0, 100.0)
    assert drawn[5, 10].tolist() == [120, 80, 80]
    assert drawn[4, 10].tolist() == drawn[5, 9].tolist() == drawn[5 + SIZE, 10].tolist() == [100] * 3
    assert (frame == 100).all()
    assert draw_pointer(frame, picture, -200.0, 600.0)[30, 5].tolist() == [120, 80, 80]
    for x, y in ((-400.0, 0.0), (0.0, 720.0), (5000.0, 5000.0)):
        assert (draw_pointer(frame, picture, x, y) == 100).all()


def test_ones_own_pointer(tmp_path):
    Image.fromarray(np.full((20, 20, 4), (0, 255, 0, 255), np.uint8)).save(tmp_path / "green.png")
    make_recording(tmp_path / "v" / "one", [line(gui=True)], shape=(360, 64, 3))
    entry = json.loads((tmp_path / "v" / "one.jsonl").read_text())
    entry["mouse"] |= {"x": 0.0, "y": 0.0}
    (tmp_path / "v" / "one.jsonl").write_text(json.dumps(entry))  # without a line end
    store = read(tmp_path / "v", tmp_path / "data", size=(360, 64), cursor=tmp_path / "green.png")
    assert store.frames(0)[0, :SIZE, :SIZE].tolist() == [[[0, 255, 0]] * SIZE] * SIZE
    (tmp_path / "text.png").write_text("no picture")
    Image.new("RGBA", (8, 8)).save(tmp_path / "small.png")
    for name, message in (("text.png", "no picture"), ("small.png", "8x8"), ("nothing.png", "no picture")):
        with pytest.raises(ValueError, match=rf"--cursor .*{message}"):
            read(tmp_path / "v", tmp_path / "other", cursor=tmp_path / name)


def test_an_index(tmp_path):
    base = tmp_path / "base"
    make_recording(base / "data" / "6.13" / "in-base", [line()])
    here = tmp_path / "here"
    make_recording(here / "data" / "below", [line()])
    make_recording(here / "flat", [line()])
    names = ["data/6.13/in-base", "data/below", "data/9.0/flat", "data/gone"]
    index = here / "all_6xx_Jun_29.json"
    index.write_text(json.dumps({"basedir": str(base), "relpaths": [names[0], *(f"{name}.mp4" for name in names[1:])]}))
    store = read(index, tmp_path / "data")
    assert store.info.source["names"] == names
    assert store.ids == [0, 1, 2]
    assert report(tmp_path / "data")["skipped"] == {names[3]: f"gone.mp4 and gone.jsonl missing in {base / 'data'}"}
    index.write_text(json.dumps({"basedir": "https://somewhere/minecraft-rl/", "relpaths": [f"{names[2]}.mp4"] * 2}))
    assert [recording.path for recording in find_vpt(index)] == [here / "flat.mp4"]


@pytest.mark.parametrize("text", ["{", "[]", '{"basedir": ""}', '{"basedir": "", "relpaths": [3]}'])
def test_no_index(tmp_path, text):
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(ValueError, match=r"index\.json is no index"):
        read(tmp_path / "index.json", tmp_path / "data")


def without(entry, *keys):
    part = entry
    for key in keys[:-1]:
        part = part[key]
    del part[keys[-1]]
    return entry


def in_mouse(**changes):
    entry = line(gui=True)
    entry["mouse"] |= changes
    return entry


WRONG = {
    "line 3 has no entry 'hotbar'": without(line(), "hotbar"),
    "line 3 has no entry 'newButtons'": without(line(), "mouse", "newButtons"),
    "line 3 has no entry 'x'": without(line(gui=True), "mouse", "x"),
    "line 3 .*hotbar 9 is none of": line(hotbar=9),
    "line 3 .*isGuiOpen 1 is neither": line(gui=1),
    "line 3 .*dx 'far' is no finite number": in_mouse(dx="far"),
    "line 3 .*dy nan is no finite number": in_mouse(dy=float("nan")),
    r"line 3 .*keys \[3\] is no list of names": line(keys=[3]),
    r"line 3 .*buttons 0 is no list of numbers": in_mouse(buttons=0),
    "line 3 is not as it should be": 7,
}


@pytest.mark.parametrize("reason", WRONG)
def test_lines_with_mistakes(tmp_path, reason):
    make_recording(tmp_path / "v" / "bad", [line(), line(), WRONG[reason]])
    with pytest.raises(ValueError, match=rf"bad\.jsonl: {reason}"):
        read(tmp_path / "v", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_bad_files_are_skipped_by_name(tmp_path, capsys):
    folder = tmp_path / "v"
    names = ["alone", "blank", "broken", "cut", "good", "lost", "mid", "none"]
    for name in names:
        make_recording(folder / name, [line()] * 4)
    (folder / "alone.jsonl").unlink()
    (folder / "lost.mp4").unlink()
    (folder / "none.jsonl").write_text("")
    for name in ("broken.mp4", "cut.jsonl"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-40])
    (folder / "blank.jsonl").write_text((folder / "blank.jsonl").read_text() + "\n\n")  # harmless
    (folder / "mid.jsonl").write_text((folder / "mid.jsonl").read_text().replace("\n", "\n\n", 1))
    broken = folder / "broken.mp4"
    broken.write_bytes(broken.read_bytes()[:300])
    store = read(folder, tmp_path / "data")
    assert store.ids == [1, 4]
    skipped = report(tmp_path / "data")["skipped"]
    assert skipped.pop("broken").startswith(f"{broken} cannot be read as a video")
    assert skipped.pop("cut").startswith("cut.jsonl: line 4 is cut off or no JSON")
    assert skipped.pop("mid").startswith("mid.jsonl: line 2 is cut off or no JSON")
    assert skipped == {
        "alone": f"alone.jsonl missing in {folder}",
        "lost": f"lost.mp4 missing in {folder}",
        "none": "none.jsonl has no lines",
    }
    assert "2 recordings read (8 steps), 0 already there, 6 skipped" in capsys.readouterr().out


def encode_as_published(file, levels, **options):
    """H.264 with its usual loss, B-frames, and the index in front, so that a part of a file can be opened."""
    with av.open(str(file), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=20, options={"bf": "3", **options})
        stream.height, stream.width, stream.pix_fmt = 360, 640, "yuv420p"
        noise = np.random.default_rng(0).integers(-20, 20, (360, 640, 3))
        for level in levels:
            picture = np.clip(noise + level, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.skipif("libx264" not in av.codecs_available, reason="PyAV without x264")
def test_a_video_as_published(tmp_path):
    levels = np.arange(40, 200, 8)
    for name in ("cut", "whole"):
        make_recording(tmp_path / "v" / name, [line()] * len(levels), frames=1)
        encode_as_published(tmp_path / "v" / f"{name}.mp4", levels)
    cut = tmp_path / "v" / "cut.mp4"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 2 // 3])
    store = read(tmp_path / "v", tmp_path / "data")
    assert store.ids == [1]
    np.testing.assert_allclose(store.frames(1).mean((1, 2, 3)), levels, atol=3)  # in order, none lost
    assert "cut.mp4" in report(tmp_path / "data")["skipped"]["cut"]


def test_other_mistakes(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read(tmp_path / "nowhere", tmp_path / "data", kind="vpt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no recordings"):
        read(tmp_path / "empty", tmp_path / "data", kind="vpt")
    make_recording(tmp_path / "v" / "one", [line()], frames=1)
    with pytest.raises(ValueError, match="one frame"):
        read(tmp_path / "v", tmp_path / "data")


def test_command_line(tmp_path, capsys):
    make_recording(tmp_path / "v" / "one", [line()] * 3)
    make_recording(tmp_path / "v" / "two", [line()] * 2)
    call = ["data", "import", str(tmp_path / "v"), "--kind", "vpt", "--out", str(tmp_path / "d"), "--workers", "2"]
    assert main(call) == 0
    assert "2 episodes, 5 steps" in capsys.readouterr().out
    assert main(call) == 0
    assert "0 recordings read (0 steps), 2 already there" in capsys.readouterr().out
