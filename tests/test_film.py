"""Films and pictures: the one-pixel ball survives, the timing is right, and nothing half-written is left."""

import os

import numpy as np
import pytest
from PIL import Image, ImageSequence

from neuralsim.film import FilmWriter, gif_delays, make_palette, write_film
from neuralsim.pictures import beside, enlarge, label, strip, write_picture

BALL = (236, 236, 236)


def pong_like(count: int, noise: float = 0.0, size: int = 32) -> np.ndarray:
    """A brown field with a white ball of one pixel that moves one pixel per frame; noise as of a decoder."""
    frames = np.full((count, size, size, 3), (144, 72, 17), np.float64)
    frames += np.random.default_rng(0).normal(0, noise, frames.shape) if noise else 0
    for i, frame in enumerate(frames):
        frame[(3 * i) % size, i % size] = BALL
    return frames.round().clip(0, 255).astype(np.uint8)


def broken_camera():
    """A source of frames that fails after the first."""
    yield pong_like(2)[1]
    raise RuntimeError("the camera broke")


def read_gif(path) -> tuple[list[np.ndarray], list[int]]:
    image = Image.open(path)
    frames, delays = [], []
    for frame in ImageSequence.Iterator(image):
        frames.append(np.asarray(frame.convert("RGB")))
        delays.append(frame.info["duration"])
    return frames, delays


def test_gif_of_few_colours_is_exact_and_enlarged_by_whole_pixels(tmp_path):
    frames = pong_like(12)
    path = write_film(tmp_path / "ball.gif", frames, fps=10, scale=3)
    shown, delays = read_gif(path)
    assert delays == [100] * 12
    np.testing.assert_array_equal(np.stack(shown), enlarge(frames, 3))


def test_gif_of_many_colours_keeps_the_ball(tmp_path):
    frames = pong_like(40, noise=2.0)
    assert len(np.unique(frames.reshape(-1, 3), axis=0)) > 256
    shown, _ = read_gif(write_film(tmp_path / "ball.gif", frames, fps=10))
    assert len(shown) == 40
    for i, frame in enumerate(shown):
        y, x = (3 * i) % 32, i % 32
        assert np.abs(frame[y, x].astype(int) - BALL).max() <= 12, f"the ball of frame {i} is {frame[y, x]}"
        bright = np.argwhere(frame.min(axis=-1) > 120)
        np.testing.assert_array_equal(bright, [[y, x]])  # and where it was, nothing is left


@pytest.mark.parametrize("fps", [7, 15, 29.97, 30, 50])
def test_gif_delays_sum_to_the_real_duration(fps):
    delays = np.array(gif_delays(600, fps))
    assert (delays % 10 == 0).all()
    assert (delays >= 20).all()
    assert np.abs(np.cumsum(delays) - 1000 * np.arange(1, 601) / fps).max() <= 5.01


def test_a_gif_at_15_frames_per_second_alternates_delays():
    assert gif_delays(6, 15) == [70, 60, 70, 70, 60, 70]


def test_a_fast_gif_leaves_frames_out_and_keeps_its_duration(tmp_path):
    _, delays = read_gif(write_film(tmp_path / "fast.gif", pong_like(60), fps=60))
    assert sum(delays) == 1000
    assert min(delays) >= 20


def test_frames_that_change_nothing_keep_their_time(tmp_path):
    frames = np.repeat(pong_like(4), 5, axis=0)
    shown, delays = read_gif(write_film(tmp_path / "still.gif", frames, fps=10))
    assert len(shown) == 4
    assert delays == [500] * 4


@pytest.mark.parametrize(("scale", "size"), [(1, 32), (2, 32), (3, 31), (4, 33)])
def test_mp4_keeps_the_ball_the_rate_and_even_dimensions(tmp_path, scale, size):
    av = pytest.importorskip("av")
    frames = pong_like(30, size=size)
    path = write_film(tmp_path / "ball.mp4", frames, fps=15, scale=scale)
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        assert float(stream.average_rate) == 15
        shown = [frame.to_ndarray(format="rgb24") for frame in film.decode(stream)]
    assert len(shown) == 30
    for i, frame in enumerate(shown):
        assert frame.shape[0] % 2 == frame.shape[1] % 2 == 0
        small = frame[scale // 2 :: scale, scale // 2 :: scale][:size, :size]
        assert np.abs(small.astype(int) - frames[i]).max() <= 24, f"frame {i}"


def test_writing_frame_by_frame_is_atomic(tmp_path):
    path = tmp_path / "new" / "film.gif"
    film = FilmWriter(path, fps=15)
    film.add(pong_like(1)[0])
    assert not path.exists()
    film.close()
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="the camera broke"):
        write_film(path, broken_camera(), fps=15)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["film.gif"]


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_an_empty_film_is_refused(tmp_path, suffix):
    pytest.importorskip("av")
    with pytest.raises(ValueError, match="empty"):
        write_film(tmp_path / f"film.{suffix}", [], fps=15)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_frames_of_the_wrong_type_or_shape_are_refused(tmp_path, frame):
    with pytest.raises(ValueError, match=r"uint8 of shape \(H, W, 3\), got"):
        write_film(tmp_path / "film.gif", [frame], fps=15)
    assert os.listdir(tmp_path) == []


def test_frames_of_two_shapes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"one shape: \(8, 8, 3\) came first, then \(8, 9, 3\)"):
        write_film(tmp_path / "film.gif", [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)], fps=15)


def test_unknown_suffix_rate_and_scale_name_the_way_out(tmp_path):
    frames = pong_like(2)
    with pytest.raises(ValueError, match=r"film\.avi.*\.gif or \.mp4"):
        write_film(tmp_path / "film.avi", frames, fps=15)
    for fps in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="positive"):
            write_film(tmp_path / "film.gif", frames, fps=fps)
    for scale in (0, -2, 1.5):
        with pytest.raises(ValueError, match="whole number"):
            write_film(tmp_path / "film.gif", frames, fps=15, scale=scale)


def test_an_unwritable_place_is_found_before_the_first_frame(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write the film"):
        FilmWriter(tmp_path / "file" / "film.gif", fps=15)
    (tmp_path / "folder.gif").mkdir()
    with pytest.raises(OSError, match="is a folder"):
        FilmWriter(tmp_path / "folder.gif", fps=15)


def test_mp4_without_the_extra_names_it(tmp_path, monkeypatch):
    import importlib

    def missing(name, *_):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match=r"neuralsim-gym\[video\]"):
        FilmWriter(tmp_path / "film.mp4", fps=15)
    assert os.listdir(tmp_path) == []


def test_palette_is_exact_when_it_can_be():
    palette, table, exact = make_palette(list(pong_like(3)))
    assert exact
    assert palette.tolist() == [[144, 72, 17], list(BALL)]
    assert table[236 << 16 | 236 << 8 | 236] == 1
    palette, _, exact = make_palette(list(pong_like(40, noise=3.0)))
    assert not exact
    assert len(palette) <= 255


def test_labels_strips_and_films_side_by_side():
    film = enlarge(pong_like(9), 4)
    named = label(film, "real")
    assert named.shape[0] == 9
    assert named.shape[2:] == film.shape[2:]
    assert named.dtype == np.uint8
    np.testing.assert_array_equal(named[:, -128:], film)
    band = named[0, :-128]
    assert band.max() > 200  # there are letters
    both = beside([named, named[:5]], gap=6)
    assert both.shape == (9, named.shape[1], 128 * 2 + 6, 3)
    np.testing.assert_array_equal(both[8, :, -128:], named[4])  # the shorter film stands still
    row = strip(film, count=3, gap=2)
    assert row.shape == (128, 3 * 128 + 4, 3)
    np.testing.assert_array_equal(row[:, :128], film[0])
    np.testing.assert_array_equal(row[:, -128:], film[-1])
    with pytest.raises(ValueError, match="one height"):
        beside([film, named])
    with pytest.raises(ValueError, match="one height"):
        beside([])


def test_pictures_are_exact(tmp_path):
    frame = pong_like(1, noise=9.0)[0]
    path = write_picture(tmp_path / "frame.png", frame, scale=2)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), enlarge(frame, 2))
    assert os.listdir(tmp_path) == ["frame.png"]
    with pytest.raises(ValueError, match=r"\.png"):
        write_picture(tmp_path / "frame.jpg", frame)
