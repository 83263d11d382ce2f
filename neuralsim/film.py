"""Films and pictures of pixel games: gif and mp4 in which a single pixel stays a single crisp square.

Notable:
- Frames are enlarged by whole numbers and never interpolated.
- A gif has one palette for the whole film, without dithering, in which rare colours count almost as much as
  common ones: the ball of Pong is one pixel in 4096 and keeps its colour.
- Gif delays are multiples of 10 ms; they are chosen so that the *sum* is right (at 15 frames/s 70, 60, 70).
- A film is written under a temporary name and appears at its place when it is whole.

    write_film("dream.gif", frames, fps=15, scale=4)
    write_film("both.mp4", beside([label(real, "real"), label(dream, "dream")]), fps=15, scale=4)
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from neuralsim.extras import require
from neuralsim.pictures import beside, check_frame, enlarge, label, strip, write_picture

__all__ = ["FilmWriter", "beside", "enlarge", "label", "strip", "write_film", "write_picture"]

SUFFIXES = (".gif", ".mp4")
"""The kinds of film that can be written."""

MAX_GIF_FPS = 50
"""Browsers show delays under 20 ms as 100 ms: faster films leave frames out."""

_GIF_COLORS = 255  # one of 256 is left for "as in the frame before", which makes films several times smaller
_GIF_SLACK = 4  # levels of 255 that a pixel may be off before it is drawn again, in films of many colours


def gif_delays(count: int, fps: float) -> list[int]:
    """Delays of ``count`` frames in ms: multiples of 10 whose running sum follows ``fps`` within 5 ms."""
    ends = [round(100 * (i + 1) / fps) * 10 for i in range(count)]
    return [max(10, end - start) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


class FilmWriter:
    """Writes a film frame by frame; use it in a ``with`` statement, or call :meth:`close` or :meth:`discard`.

    The file appears when the film is closed. Frames of an mp4 are encoded as they come; those of a gif are
    kept in memory until the end, because the palette is made of all of them.

    Args:
        path: Where to: ``.gif``, or ``.mp4`` (needs the extra "video"). The folder is made if it is missing.
        fps: Frames per second of the frames that will be added.
        scale: Enlargement, a whole number.

    Attributes:
        count: Frames added so far.

    Raises:
        ValueError: For an unknown suffix, or a rate or scale that is not positive.
        ModuleNotFoundError: If an mp4 is asked for without the extra.
        OSError: If the place cannot be written to (now, not after an hour of playing).
    """

    def __init__(self, path: str | Path, fps: float, scale: int = 1) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"cannot write a film as {str(path)!r}: the name must end in {' or '.join(SUFFIXES)}")
        if not (math.isfinite(fps) and fps > 0):
            raise ValueError(f"a film has a positive number of frames per second, got {fps}")
        enlarge(np.zeros((1, 1, 3), np.uint8), scale)  # refuses a wrong scale
        self.fps, self.scale, self.count = float(fps), int(scale), 0
        self.is_gif = self.path.suffix.lower() == ".gif"
        self._shape: tuple[int, ...] | None = None
        self._frames: list[np.ndarray] = []
        self._container: Any = None
        self._stream: Any = None
        self._av = None if self.is_gif else require("av", extra="video", why="writing mp4 (gif needs nothing)")
        self._temporary = self.path.with_name(f".{self.path.stem}.{os.getpid()}.part{self.path.suffix.lower()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.is_dir():
                raise IsADirectoryError(f"{self.path} is a folder")
            self._temporary.write_bytes(b"")
        except OSError as error:
            raise OSError(f"cannot write the film {self.path}: {error}") from error

    def add(self, frame: np.ndarray) -> None:
        """Appends a frame, ``(H, W, 3)`` uint8 of the shape of the first one.

        Raises:
            ValueError: For another type or shape.
        """
        frame = check_frame(frame, self._shape)
        self._shape = frame.shape
        if self.is_gif:
            if self.count % math.ceil(self.fps / MAX_GIF_FPS) == 0:
                self._frames.append(frame.copy())
        else:
            self._encode(frame)
        self.count += 1

    def close(self) -> Path:
        """Finishes the film and returns its path.

        Raises:
            ValueError: If no frame was added.
        """
        if self.count == 0:
            self.discard()
            raise ValueError(f"the film {self.path} would be empty: add at least one frame")
        try:
            if self.is_gif:
                _write_gif(self._temporary, self._frames, self.fps / math.ceil(self.fps / MAX_GIF_FPS), self.scale)
            else:
                for packet in self._stream.encode():
                    self._container.mux(packet)
                self._container.close()
                self._container = None
            os.replace(self._temporary, self.path)
        except BaseException:
            self.discard()
            raise
        self._frames = []
        return self.path

    def discard(self) -> None:
        """Drops the film; what stood at its path before stays as it was."""
        self._frames = []
        if self._container is not None:
            self._container.close()
            self._container = None
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> FilmWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _encode(self, frame: np.ndarray) -> None:
        assert self._av is not None
        large = enlarge(frame, self.scale)
        # H.264 halves the resolution of colour in its common form. Where every pixel is an even block, that
        # loses nothing, and the film plays everywhere; else colours are kept whole, which fewer can show.
        halved = self.scale % 2 == 0
        large = np.pad(large, ((0, large.shape[0] % 2), (0, large.shape[1] % 2), (0, 0)), mode="edge")
        if self._container is None:
            self._container = self._av.open(str(self._temporary), "w", options={"movflags": "+faststart"})
            self._stream = self._container.add_stream(
                "libx264",
                rate=Fraction(self.fps).limit_denominator(1001),
                options={"crf": "10", "preset": "veryfast"},
            )
            self._stream.height, self._stream.width = large.shape[:2]
            self._stream.pix_fmt = "yuv420p" if halved else "yuv444p"
        picture = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(large), format="rgb24")
        picture = picture.reformat(format=self._stream.pix_fmt, interpolation="AREA")  # blends no neighbours
        for packet in self._stream.encode(picture):
            self._container.mux(packet)


def write_film(path: str | Path, frames: Iterable[np.ndarray], fps: float, scale: int = 1) -> Path:
    """Writes a film; see :class:`FilmWriter`.

    Args:
        path: Ends in ``.gif`` or ``.mp4``.
        frames: ``(T, H, W, 3)`` uint8, or any iterable of ``(H, W, 3)``.
        fps: Frames per second.
        scale: Enlargement, a whole number.

    Returns:
        The path of the film.

    Raises:
        ValueError: For an empty film, frames of the wrong type or shape, an unknown suffix, a wrong rate.
        OSError: If the place cannot be written to.
    """
    with FilmWriter(path, fps, scale) as film:
        for frame in frames:
            film.add(frame)
    return film.path


def make_palette(frames: Sequence[np.ndarray], colors: int = _GIF_COLORS) -> tuple[np.ndarray, np.ndarray, bool]:
    """Chooses the colours of a film.

    Args:
        frames: Arrays ``(H, W, 3)`` uint8.
        colors: Size of the palette, at most 256.

    Returns:
        The palette ``(n, 3)`` uint8; a table of ``2**24`` uint8 from ``red << 16 | green << 8 | blue`` to the
        nearest colour of the palette; and whether the palette holds every colour of the film.
    """
    counts = np.zeros(1 << 24, np.uint32)
    for frame in frames:
        present, times = np.unique(_pack(frame), return_counts=True)
        counts[present] += times.astype(np.uint32)
    present = np.flatnonzero(counts)
    known = np.stack([present >> 16, present >> 8 & 255, present & 255], axis=-1).astype(np.uint8)
    if len(present) <= colors:
        palette = known
        nearest = np.arange(len(present), dtype=np.uint8)
    else:
        # By the logarithm of its count: a ball of one pixel matters, and so does the background's very shade.
        weights = 1 + np.log2(counts[present]).astype(np.int64)
        sample = Image.fromarray(known.repeat(weights, axis=0)[None])
        chosen = sample.quantize(colors, method=Image.Quantize.MEDIANCUT, kmeans=1).getpalette()
        palette = np.unique(np.array(chosen, np.uint8).reshape(-1, 3)[:colors], axis=0)
        nearest = np.concatenate([_nearest(part, palette) for part in np.array_split(known, len(known) // 4096 + 1)])
    table = np.zeros(1 << 24, np.uint8)
    table[present] = nearest
    return palette, table, len(present) <= colors


def _pack(frame: np.ndarray) -> np.ndarray:
    """Colours as numbers: ``(..., 3)`` uint8 to ``(...)`` int32."""
    wide = frame.astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def _nearest(colors: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Index of the nearest entry of the palette for each colour ``(n, 3)``."""
    difference = colors[:, None].astype(np.int32) - palette[None].astype(np.int32)
    return (difference**2).sum(-1).argmin(-1).astype(np.uint8)


def _write_gif(path: Path, frames: Sequence[np.ndarray], fps: float, scale: int) -> None:
    palette, table, exact = make_palette(frames)
    same = len(palette)  # the index that stands for "as in the frame before"
    full = np.zeros((256, 3), np.uint8)
    full[:same] = palette
    # With every colour in the palette the film is exact. If not, a pixel that is closer to what is shown
    # already than an eye can tell is left alone: the grain of a decoder would make the film ten times larger.
    slack = 0 if exact else _GIF_SLACK
    images: list[Image.Image] = []
    delays: list[int] = []
    shown: np.ndarray | None = None
    for frame, delay in zip(frames, gif_delays(len(frames), fps), strict=True):
        drawn = table[_pack(frame)]
        if shown is not None:
            off = np.abs(full[shown].astype(np.int16) - frame).max(axis=-1)
            drawn = np.where((drawn == shown) | (off <= slack), np.uint8(same), drawn)
            if (drawn == same).all():
                delays[-1] += delay
                continue
        shown = drawn if shown is None else np.where(drawn == same, shown, drawn)
        large = enlarge(drawn[..., None], scale)[..., 0]
        image = Image.frombytes("P", large.shape[::-1], large.tobytes())
        image.putpalette(full.tobytes())
        images.append(image)
        delays.append(delay)
    images[0].save(
        path, format="GIF", save_all=True, append_images=images[1:], duration=delays, loop=0, disposal=1,
        transparency=same, optimize=False,
    )  # fmt: skip
