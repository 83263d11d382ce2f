"""The window of ``neuralsim preferences label``: two clips side by side, until a key says which is better.

What was paid is not shown: a person is to judge what they see. The screen is drawn by Pillow, with the parts of
:mod:`neuralsim.envs.hud`, so that it can be tested and saved without a window.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from neuralsim.agents.preferences.labelling import LabellingSession
from neuralsim.agents.preferences.pairs import Choice
from neuralsim.envs.hud import (
    ACCENT,
    BACKGROUND,
    LINE,
    MARGIN,
    MUTED,
    SOFT,
    TEXT,
    best_scale,
    cap,
    shorten,
    text_width,
    write,
)
from neuralsim.envs.keyboard import BACKSPACE, DOWN, ESCAPE, LEFT, RIGHT, SPACE
from neuralsim.envs.play import has_display
from neuralsim.extras import require

CHOICES: dict[int, Choice] = {LEFT: "left", RIGHT: "right", DOWN: "tie", ord("s"): "skip"}
"""Keys that answer."""

LEGEND = (
    ("down", "equally good"),
    ("space", "show again"),
    ("S", "skip"),
    ("backspace", "undo"),
    ("esc", "stop"),
)
"""Keys and meanings below the clips; left and right stand below their clips."""

COMFORTABLE = (448, 520)
"""Width and height that a clip gets unless asked otherwise."""

REST_SECONDS = 0.6
"""Clips stand still at their end for so long, so that the end is seen."""

_HEADER, _BELOW, _ROW, _COLUMN = 64, 44, 26, 158  # pixels: above the clips, below them, a row and a column of keys


def screen_size(frame_shape: tuple[int, ...], scale: int | None = None) -> tuple[int, int]:
    """Width and height of the window for clips of frames ``(H, W, 3)``."""
    scale = scale or best_scale(frame_shape, COMFORTABLE)
    width = max(2 * frame_shape[1] * scale + 3 * MARGIN, 2 * MARGIN + 2 * _COLUMN)
    return width, _HEADER + frame_shape[0] * scale + _BELOW + _legend_height(width)


def draw_screen(session: LabellingSession, size: tuple[int, int], frame: int) -> Image.Image:
    """The whole screen.

    Args:
        session: What is asked.
        size: Width and height of the window.
        frame: Which frame of the clips, from 0.

    Returns:
        An RGB picture of that size.
    """
    width, height = size
    screen = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(screen)
    _draw_header(session, draw, width)
    bottom = height - _legend_height(width)
    if session.pair is None:
        middle = (width / 2, (_HEADER + bottom) / 2)
        write(draw, (middle[0], middle[1] - 14), "that was the last pair, thank you", 20, TEXT, anchor="mm")
        write(draw, (middle[0], middle[1] + 14), "esc leaves, backspace takes the last one back", 14, SOFT, anchor="mm")
    else:
        room = ((width - 3 * MARGIN) // 2, bottom - _HEADER - _BELOW)
        words = ("this one is better", "this one is better")
        for side, (clip, name, meaning) in enumerate(zip(session.clips, ("left", "right"), words, strict=True)):
            left = MARGIN + side * (room[0] + MARGIN)
            scale = best_scale(clip.shape[1:], room)
            picture = Image.fromarray(np.ascontiguousarray(clip[min(frame, len(clip) - 1)]))
            picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
            x, y = left + max(0, (room[0] - picture.width) // 2), _HEADER
            screen.paste(picture, (x, y))
            y += picture.height
            share = min(frame, len(clip) - 1) / (len(clip) - 1)
            draw.rectangle((x, y + 4, x + picture.width - 1, y + 6), LINE)
            draw.rectangle((x, y + 4, x + round(share * (picture.width - 1)), y + 6), SOFT)
            start = x + (picture.width - 20 - 8 - text_width(meaning, 15)) / 2
            edge = cap(draw, round(start), y + 16, name)
            write(draw, (edge + 8, y + 25), meaning, 15, TEXT)
    columns = _columns(width)
    for i, (name, meaning) in enumerate(LEGEND):
        x, y = MARGIN + i % columns * _COLUMN, bottom + 6 + i // columns * _ROW
        edge = cap(draw, x, y, name)
        write(draw, (edge + 7, y + 9), meaning, 13, MUTED)
    return screen


def _draw_header(session: LabellingSession, draw: ImageDraw.ImageDraw, width: int) -> None:
    told = f"{session.judged} of {session.wanted} labelled"
    room = width - 3 * MARGIN - text_width(told, 15)
    write(draw, (MARGIN, 22), shorten(session.question, 20, room), 20, TEXT)
    write(draw, (width - MARGIN, 22), told, 15, SOFT, anchor="rm")
    draw.rectangle((MARGIN, 40, width - MARGIN - 1, 43), LINE)
    share = min(1.0, session.judged / session.wanted)
    if share:
        draw.rectangle((MARGIN, 40, MARGIN + round(share * (width - 2 * MARGIN - 1)), 43), ACCENT)
    write(draw, (MARGIN, 53), shorten(session.note, 12, width - 2 * MARGIN), 12, MUTED)


def _columns(width: int) -> int:
    return max(1, (width - 2 * MARGIN) // _COLUMN)


def _legend_height(width: int) -> int:
    return 12 + _ROW * -(-len(LEGEND) // _columns(width))


def require_display() -> Any:
    """Imports pygame and checks that there is a display.

    Raises:
        ModuleNotFoundError: Without the extra "play".
        OSError: Without a display.
    """
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    pygame = require("pygame", extra="play", why="labelling in a window")
    if not has_display():
        raise OSError(f"there is no display to open a window on; {_WITHOUT_DISPLAY}")
    return pygame


_WITHOUT_DISPLAY = "--labeller reward goes by the recorded rewards and needs none. Over ssh, ssh -X brings one"


class LabelWindow:
    """The window: reads keys, keeps time and shows what :func:`draw_screen` draws.

    pygame's display must be initialised.

    Args:
        session: What is asked.
        scale: Enlargement; by default a comfortable one.

    Attributes:
        open: False once the person wants to leave.
    """

    def __init__(self, session: LabellingSession, scale: int | None = None) -> None:
        import pygame

        self.pygame, self.session, self.open = pygame, session, True
        self.fps = session.store.info.fps
        pygame.display.set_caption(f"{session.question} - neuralsim")
        pygame.display.set_mode(screen_size(session.store.info.frame_shape, scale), pygame.RESIZABLE)
        self._began: float | None = None  # when the clips were last at their first frame
        self._shown: int | None = None

    def tick(self, now: float) -> None:
        """Handles keys, draws if there is something new, and waits a little.

        Args:
            now: Seconds of a clock that never goes back.
        """
        for event in self.pygame.event.get():
            self.handle(event, now)
        if not self.open:
            return
        self._began = now if self._began is None else self._began
        if self.frame(now) != self._shown:
            self.draw(now)
        time.sleep(0.005)

    def frame(self, now: float) -> int:
        """Which frame of the clips is due."""
        if self.session.pair is None or self._began is None:
            return 0
        last = self.session.pair.left.length
        period = last + max(1, round(REST_SECONDS * self.fps))
        return min(int((now - self._began) * self.fps) % period, last)

    def handle(self, event: Any, now: float) -> None:
        """Reacts to a key, a change of size or the closing of the window."""
        if event.type == self.pygame.QUIT:
            self.open = False
        elif event.type == self.pygame.KEYDOWN:
            if event.key == ESCAPE:
                self.open = False
                return
            if event.key in CHOICES:
                self.session.choose(CHOICES[event.key])
            elif event.key == BACKSPACE:
                self.session.undo()
            elif event.key != SPACE:
                return
            self._began, self._shown = now, None  # from the first frame on
        elif event.type == self.pygame.VIDEORESIZE:
            self._shown = None

    def draw(self, now: float) -> None:
        """Shows the clips at this time."""
        surface: Any = self.pygame.display.get_surface()  # another one after a change of size
        self._shown = self.frame(now)
        picture = draw_screen(self.session, surface.get_size(), self._shown)
        surface.blit(self.pygame.image.frombuffer(picture.tobytes(), picture.size, "RGB"), (0, 0))
        self.pygame.display.flip()


def label_in_window(session: LabellingSession, scale: int | None = None) -> None:
    """Asks a person until the window is closed.

    Raises:
        ModuleNotFoundError: Without the extra "play".
        OSError: Without a display, or if a label cannot be written.
    """
    pygame = require_display()
    try:
        pygame.display.init()
    except pygame.error as error:
        raise OSError(f"no window can be opened ({error}); {_WITHOUT_DISPLAY}") from None
    try:
        window = LabelWindow(session, scale)
        while window.open:
            window.tick(time.monotonic())
    finally:
        pygame.display.quit()
