"""Pictures of pixel games: enlarged by whole numbers, labelled, side by side, in strips, written as png."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

DARK = (18, 20, 26)
"""The colour of gaps and bands."""


def check_frame(frame: Any, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Returns the frame as an array if it is a picture.

    Args:
        frame: ``(H, W, 3)`` uint8.
        shape: What the shape has to be, if the film has begun.

    Raises:
        ValueError: For another type or shape; the message names both.
    """
    array = np.asarray(frame)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(f"a frame is uint8 of shape (H, W, 3), got {array.dtype} of shape {array.shape}")
    if shape is not None and array.shape != shape:
        raise ValueError(f"all frames of a film have one shape: {shape} came first, then {array.shape}")
    return array


def enlarge(frames: np.ndarray, scale: int) -> np.ndarray:
    """Repeats every pixel ``scale`` times in both directions.

    Args:
        frames: ``(..., H, W, 3)``.
        scale: Whole number, at least 1.

    Raises:
        ValueError: For a scale under 1.
    """
    if scale < 1 or scale != int(scale):
        raise ValueError(f"scale {scale} is not a whole number of at least 1")
    return frames if scale == 1 else frames.repeat(int(scale), axis=-3).repeat(int(scale), axis=-2)


def label(
    frames: np.ndarray, text: str, color: tuple[int, int, int] = (235, 235, 235), size: int | None = None
) -> np.ndarray:
    """Puts a line of text on a dark band above the frames (enlarge them first: letters need some 10 pixels).

    Args:
        frames: ``(..., H, W, 3)`` uint8.
        text: One line; what does not fit is cut off.
        color: Of the letters.
        size: Height of the letters in pixels; by default it follows the width.

    Returns:
        ``(..., H + band, W, 3)`` uint8.
    """
    width = frames.shape[-2]
    size = size or max(10, min(20, width // 16))
    image = Image.new("RGB", (width, size + size // 2 + 2), DARK)
    font = ImageFont.load_default(size)
    ImageDraw.Draw(image).text((size // 3, image.height // 2), text, fill=color, font=font, anchor="lm")
    band = np.broadcast_to(np.asarray(image), (*frames.shape[:-3], *np.asarray(image).shape))
    return np.concatenate([band, frames], axis=-3)


def beside(films: Sequence[np.ndarray], gap: int = 4, color: tuple[int, int, int] = DARK) -> np.ndarray:
    """Films of the same height side by side; a shorter one stands still at its end.

    Args:
        films: Arrays ``(T, H, W, 3)`` uint8.
        gap: Pixels between them.
        color: Of the gap.

    Returns:
        ``(T, H, sum of W and gaps, 3)`` uint8 with the longest T.

    Raises:
        ValueError: If there is no film, an empty one, or if the heights differ.
    """
    if not films or min(len(film) for film in films) == 0 or len({film.shape[1] for film in films}) > 1:
        raise ValueError(f"films side by side need frames of one height, got {[film.shape for film in films]}")
    length, height = max(map(len, films)), films[0].shape[1]
    parts: list[np.ndarray] = []
    for film in films:
        if parts:
            parts.append(np.broadcast_to(np.array(color, np.uint8), (length, height, gap, 3)))
        parts.append(film[np.minimum(np.arange(length), len(film) - 1)])
    return np.concatenate(parts, axis=2)


def strip(frames: np.ndarray, count: int = 8, gap: int = 1) -> np.ndarray:
    """One picture of ``count`` frames in a row, evenly spaced from the first to the last.

    Args:
        frames: ``(T, H, W, 3)`` uint8.
        count: Frames shown, at most T.
        gap: Pixels between them.

    Returns:
        ``(H, count * W + (count - 1) * gap, 3)`` uint8.
    """
    chosen = frames[np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)]
    return beside([frame[None] for frame in chosen], gap)[0]


def write_picture(path: str | Path, picture: np.ndarray, scale: int = 1) -> Path:
    """Writes one frame as png, enlarged by a whole number, under a temporary name first.

    Raises:
        ValueError: If it is no ``(H, W, 3)`` uint8 array, or the name does not end in ``.png``.
        OSError: If the place cannot be written to.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"cannot write a picture as {str(path)!r}: the name must end in .png")
    large = enlarge(check_frame(picture), scale)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part.png")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(large).save(temporary, optimize=True)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
