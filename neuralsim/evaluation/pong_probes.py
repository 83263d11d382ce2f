"""What is to be seen on a frame of Pong: ball, paddles, score. Judges dreams, and lets a player see in them.

Works on the whole screen (210x160) resized to 64x64 with the filter "box", real or dreamed. Resizing is linear, so
that the difference from the empty court, projected on the colour of a thing, is the share of each pixel it covers:
the sum tells how much of the thing is there, the centre of gravity where, to a fraction of a pixel.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from neuralsim.envs.preprocessing import resize

SIZE = (64, 64)

_GROUND, _WHITE = np.array([144, 72, 17]), np.array([236, 236, 236])
_PLAYER, _ENEMY = np.array([92, 186, 92]), np.array([213, 130, 74])

# Geometry of the 210x160 screen.
_BORDERS = ((24, 34), (194, 210))  # rows of the white borders
_GLYPH_TOP, _ENEMY_TENS, _PLAYER_TENS, _NEXT_DIGIT, _BLOCK = 1, 20, 100, 16, 4
_GLYPHS = ("### #.# #.# #.# ###", ".#. .#. .#. .#. .#.", "### ..# ### #.. ###", "### ..# .## ..# ###",
           "#.# #.# ### ..# ..#", "### #.. ### ..# ###", "#.. #.. ### #.# ###", "### ..# ..# ..# ..#",
           "### #.# ### #.# ###", "### #.# ### ..# ..#")  # fmt: skip

# The same in pixels of the frame.
_ROWS = slice(10, 60)  # the court, border pixels that it shares with the ball included
_PLAYER_COLUMNS, _ENEMY_COLUMNS = slice(56, 58), slice(6, 8)
_PADDLE_ROWS = 7  # a paddle covers at most 6
_DIGIT_ROWS, _ENEMY_DIGITS, _PLAYER_DIGITS = slice(0, 8), slice(7, 20), slice(39, 52)

_NOISE = 0.06  # shares below this are rounding, or a tokenizer's grain
_CLUTTER = 2.0  # pixels of white elsewhere in the court, above which no speck of it is the ball
_BALL_SHARE = 0.3  # a whole ball covers about 0.9 pixels (0.5 to 1.7), a quarter of it at the very edge 0.2
_PLAYER_SHARE, _ENEMY_SHARE = 0.9, 0.3  # a whole paddle covers 7.8 pixels
_GARBLED = 0.35  # of a digit pair's ink may be wrong before it counts as unreadable


def probe(frames: np.ndarray) -> dict[str, np.ndarray]:
    """Finds ball, paddles and score.

    Args:
        frames: ``(N, 64, 64, 3)`` uint8, or floats from 0 to 255.

    Returns:
        Arrays ``(N,)`` float32 under the names of :data:`neuralsim.envs.atari.PONG_LABELS`, and ``ball_mass``, the
        pixels that the ball covers (about 0.9 when whole). Positions are in pixels, 0 being the centre of the first;
        where a thing is absent its position is NaN. An unreadable score is NaN.

    Raises:
        ValueError: If the frames have another shape.
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[1:] != (*SIZE, 3):
        raise ValueError(
            f"frames of shape {frames.shape}; the probes of Pong read (N, {SIZE[0]}, {SIZE[1]}, 3): "
            "the whole screen resized by area"
        )
    difference = frames.astype(np.float32) - _court()
    court = difference[:, _ROWS]
    player, player_ball = _unmix(court[:, :, _PLAYER_COLUMNS], _PLAYER)
    enemy, enemy_ball = _unmix(court[:, :, _ENEMY_COLUMNS], _ENEMY)
    ball = _share(court, _WHITE)
    ball[:, :, _PLAYER_COLUMNS], ball[:, :, _ENEMY_COLUMNS] = player_ball, enemy_ball
    found = _find_ball(ball)
    for name, shares, threshold in (("player", player, _PLAYER_SHARE), ("enemy", enemy, _ENEMY_SHARE)):
        found |= _find_paddle(name, shares.sum(axis=2), threshold)
    digits = difference[:, _DIGIT_ROWS]
    found["player_score"] = _read(_share(digits[:, :, _PLAYER_DIGITS], _PLAYER), *_templates("player"))
    found["enemy_score"] = _read(_share(digits[:, :, _ENEMY_DIGITS], _ENEMY), *_templates("enemy"))
    return {name: values.astype(np.float32) for name, values in found.items()}


def _find_ball(shares: np.ndarray) -> dict[str, np.ndarray]:
    shares = np.where(shares < _NOISE, np.float32(0), shares)
    padded = np.pad(shares, ((0, 0), (1, 1), (1, 1)))
    windows = sliding_window_view(padded, (3, 3), axis=(1, 2))
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    mass = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]  # in each window
    best = mass.reshape(len(mass), -1).argmax(axis=1)
    row, column = np.unravel_index(best, mass.shape[1:])
    lane = np.arange(len(mass))
    window, mass = windows[lane, row, column], mass[lane, row, column]
    # A dream that dissolves into noise has specks everywhere, and no ball.
    present = (mass > _BALL_SHARE) & (shares.sum(axis=(1, 2)) - mass < _CLUTTER)
    steps = np.arange(-1.0, 2.0)
    weight = np.maximum(mass, 1e-6)
    y = _ROWS.start + row + (window.sum(axis=2) * steps).sum(axis=1) / weight
    x = column + (window.sum(axis=1) * steps).sum(axis=1) / weight
    return {"ball_present": present, "ball_mass": mass,
            "ball_x": np.where(present, x, np.nan), "ball_y": np.where(present, y, np.nan)}  # fmt: skip


def _find_paddle(name: str, shares: np.ndarray, threshold: float) -> dict[str, np.ndarray]:
    shares = np.where(shares < 2 * _NOISE, np.float32(0), shares)
    reach = _PADDLE_ROWS // 2
    windows = sliding_window_view(np.pad(shares, ((0, 0), (reach, reach))), _PADDLE_ROWS, axis=1)
    row = windows.sum(axis=2).argmax(axis=1)
    window = windows[np.arange(len(row)), row]
    mass = window.sum(axis=1)
    present = mass > threshold
    y = _ROWS.start + row + (window * np.arange(-reach, reach + 1.0)).sum(axis=1) / np.maximum(mass, 1e-6)
    return {f"{name}_present": present, f"{name}_y": np.where(present, y, np.nan)}


def _read(shares: np.ndarray, templates: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The score whose picture ``(N, h, w)`` resembles most; NaN if none does."""
    flat, known = shares.reshape(len(shares), -1), templates.reshape(len(templates), -1)
    distance = (flat**2).sum(1)[:, None] - 2 * flat @ known.T + (known**2).sum(1)
    best = distance.argmin(axis=1)
    wrong = distance[np.arange(len(flat)), best] / (known[best] ** 2).sum(axis=1)
    return np.where(wrong < _GARBLED, scores[best], np.nan)


def _share(difference: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """How much of each pixel a thing of that colour covers."""
    direction = (colour - _GROUND).astype(np.float32)
    red, green, blue = direction / (direction @ direction)
    return difference[..., 0] * red + difference[..., 1] * green + difference[..., 2] * blue


def _unmix(difference: np.ndarray, colour: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of a paddle of that colour and of the ball, where both may lie on one pixel."""
    mixing = np.stack([colour - _GROUND, _WHITE - _GROUND], axis=1).astype(np.float32)  # (3, 2)
    shares = difference @ np.linalg.pinv(mixing).T
    return shares[..., 0], shares[..., 1]


@functools.cache
def _court() -> np.ndarray:
    """The empty court as a frame, without score."""
    screen = np.empty((210, 160, 3), np.uint8)
    screen[:] = _GROUND
    for first, end in _BORDERS:
        screen[first:end] = _WHITE
    return resize(screen, SIZE).astype(np.float32)


@functools.cache
def _templates(side: str) -> tuple[np.ndarray, np.ndarray]:
    """Shares of ink of the scores 0 to 21, drawn as the console draws them, and these scores."""
    tens, columns = (_PLAYER_TENS, _PLAYER_DIGITS) if side == "player" else (_ENEMY_TENS, _ENEMY_DIGITS)
    pictures = []
    for score in range(22):
        screen = np.zeros((210, 160), np.uint8)
        for position, digit in enumerate(f"{score:2d}"):
            if digit != " ":
                rows = [[mark == "#" for mark in row] for row in _GLYPHS[int(digit)].split()]
                glyph = np.kron(np.array(rows, np.uint8), np.full((_BLOCK, _BLOCK), 255, np.uint8))
                left = tens + _NEXT_DIGIT * position
                screen[_GLYPH_TOP : _GLYPH_TOP + glyph.shape[0], left : left + glyph.shape[1]] = glyph
        pictures.append(resize(screen, SIZE)[_DIGIT_ROWS, columns, 0] / np.float32(255))
    return np.stack(pictures), np.arange(22.0)
