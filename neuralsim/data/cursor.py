"""The mouse pointer, which Minecraft's videos lack, drawn back where a menu is open."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

SIZE = 16
"""Height and width of the pointer in pixels of the video."""

SCREEN_HEIGHT = 720
"""Height of the screen that recorded mouse positions are measured on."""

# An arrow whose tip is its position: "#" outline, "o" body, "." the shadow it casts.
_ARROW = """
#
##
#o#
#oo#.
#ooo#.
#oooo#.
#ooooo#.
#oooooo#.
#ooooooo#.
#oooo####.
#oo#oo#...
#o#.#oo#.
##. #oo#.
#.   #oo#.
     #oo#.
      ##..
"""
_INK = {"#": (0, 0, 0, 255), "o": (255, 255, 255, 255), ".": (0, 0, 0, 64), " ": (0, 0, 0, 0)}


@cache
def pointer(file: Path | None = None) -> np.ndarray:
    """The picture of the pointer.

    Args:
        file: A picture with transparency to use in place of the arrow drawn here; its upper left 16x16 pixels count.

    Returns:
        ``(16, 16, 4)`` uint8: red, green, blue and opacity. Read-only.

    Raises:
        ValueError: If the file is no picture, or too small.
    """
    if file is None:
        rows = [row.ljust(SIZE) for row in _ARROW.strip("\n").split("\n")]
        picture = np.array([[_INK[letter] for letter in row] for row in rows], np.uint8)
    else:
        try:
            with Image.open(file) as image:
                picture = np.array(image.convert("RGBA"))[:SIZE, :SIZE]
        except (OSError, UnidentifiedImageError) as error:
            raise ValueError(f"--cursor {file} is no picture ({error}); give a PNG with transparency") from None
        if picture.shape[:2] != (SIZE, SIZE):
            raise ValueError(
                f"--cursor {file} has {picture.shape[0]}x{picture.shape[1]} pixels; it needs {SIZE}x{SIZE}"
            )
    picture.flags.writeable = False
    return picture


def draw_pointer(frame: np.ndarray, picture: np.ndarray, x: float, y: float) -> np.ndarray:
    """Lays the pointer over a frame.

    As in VPT's own loader, the position is scaled to the video by height / 720 and the pointer keeps its 16x16 pixels.

    Args:
        frame: ``(H, W, 3)`` uint8; stays as it is.
        picture: ``(16, 16, 4)`` of :func:`pointer`.
        x: Column of the tip on a screen of 720 rows; the pointer may stick out of the frame or lie outside it.
        y: Row of the tip, likewise.

    Returns:
        A new frame.
    """
    height, width = frame.shape[:2]
    scale = height / SCREEN_HEIGHT
    left, top = int(x * scale), int(y * scale)
    rows, columns = slice(max(top, 0), min(top + SIZE, height)), slice(max(left, 0), min(left + SIZE, width))
    drawn = frame.copy()
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return drawn
    part = picture[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left].astype(np.float32)
    colour, opacity = part[..., :3], part[..., 3:] / 255
    drawn[rows, columns] = np.rint(frame[rows, columns] * (1 - opacity) + colour * opacity).astype(np.uint8)
    return drawn
