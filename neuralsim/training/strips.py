"""Pictures of progress: rows of frames, real over dreamed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_strip(path: Path, *rows: np.ndarray, scale: int = 2) -> None:
    """Writes a PNG with one row of frames over another.

    Args:
        path: Where to; folders are made.
        rows: Each ``(N, H, W, 3)`` uint8, equally long.
        scale: Enlargement by whole pixels.
    """
    picture = np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(picture)
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(path)
