"""The screen of ``neuralsim play`` as a picture: the game in whole-number enlargement, a panel, a message.

Everything is drawn by Pillow with the font that it brings along, so that the screen looks the same everywhere
and can be tested, or saved, without a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from neuralsim.envs.first_person import FirstPersonKeys
from neuralsim.envs.keyboard import KeyMap
from neuralsim.envs.session import Session

PANEL_WIDTH = 288
MARGIN = 16
WANTED_HEIGHT = 640

BACKGROUND, PANEL, CAP, LINE = (13, 15, 20), (22, 25, 32), (43, 48, 60), (44, 49, 61)
TEXT, SOFT, MUTED, ACCENT = (232, 235, 240), (186, 192, 203), (141, 149, 163), (122, 176, 255)
GOOD, BAD, WARM = (104, 211, 145), (245, 117, 106), (250, 200, 100)

CONTROLS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("p",), "pause", "P"),
    (("n", "."), "one step", "N ."),
    (("backspace",), "rewind", "backspace"),
    (("r",), "same again", "R"),
    (("tab", "return"), "next start", "tab return"),
    (("+", "="), "more sampling steps", "+"),
    (("-",), "fewer sampling steps", "-"),
    (("v",), "record a film", "V"),
    (("escape",), "quit", "esc"),
)
"""Keys, what they do, and what is written on the caps."""

Line = tuple[str, int, tuple[int, int, int]]
"""Text, size in pixels, colour."""

POINT_SECONDS = 1.5  # how long a reward stays on the screen: a step is too short to read


@dataclass(frozen=True)
class Speed:
    """How fast the game runs.

    Attributes:
        steps_per_second: Measured, 0 if unknown.
        wanted: What the window tries to keep.
        milliseconds: That one step of the environment takes.
    """

    steps_per_second: float = 0.0
    wanted: float = 0.0
    milliseconds: float = 0.0


def best_scale(frame_shape: Sequence[int], available: tuple[int, int] | None = None) -> int:
    """The largest whole enlargement of a frame ``(H, W, ...)`` that fits.

    Args:
        frame_shape: Height and width come first.
        available: Width and height; by default a window of comfortable size.
    """
    width, height = available or (960, WANTED_HEIGHT)
    return max(1, min(height // frame_shape[0], width // frame_shape[1]))


def window_size(frame_shape: Sequence[int], scale: int, panel_height: int) -> tuple[int, int]:
    """Width and height of a window for a game at this scale with the panel beside it."""
    return frame_shape[1] * scale + PANEL_WIDTH, max(frame_shape[0] * scale, panel_height)


class Hud:
    """Draws a session.

    Args:
        session: What is played.

    Attributes:
        panel_height: The height that the panel needs, in pixels.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._keys = draw_keys(session.keys, controls_of(session))
        self.panel_height = self._panel(Speed(), 10_000)[1]

    def draw(self, size: tuple[int, int], speed: Speed, message: str = "", countdown: float = 0.0) -> Image.Image:
        """The whole screen.

        Args:
            size: Width and height of the window.
            speed: For the panel.
            message: A notice over the game's lower edge.
            countdown: Seconds until the next episode begins, if this one is over.

        Returns:
            An RGB picture of that size.
        """
        width, height = size
        screen = Image.new("RGB", size, BACKGROUND)
        frame = self.session.frame
        # In a window too small for both, the game matters more.
        beside = width >= PANEL_WIDTH + max(frame.shape[1], 240)
        room = width - PANEL_WIDTH if beside else width
        scale = best_scale(frame.shape, (room, height))
        game = Image.fromarray(np.ascontiguousarray(frame))
        game = game.resize((game.width * scale, game.height * scale), Image.Resampling.NEAREST)
        left, top = max(0, (room - game.width) // 2), max(0, (height - game.height) // 2)
        screen.paste(game, (left, top))
        area = (left, top, left + min(game.width, room), top + min(game.height, height))
        if self.session.over:
            after = f"the next one begins in {max(0.0, countdown):.0f} s" if countdown else "waiting for you"
            total = number(self.session.score.total)
            lines = [
                (self.session.ending, 24, TEXT),
                (f"return {total} after {self.session.score.step} steps", 16, TEXT),
                (f"R plays it again, return goes on; {after}", 13, SOFT),
            ]
            _cover(screen, area, lines, (area[1] + area[3]) // 2)
        elif self.session.paused:
            middle = (area[0] + area[2]) // 2  # narrow: games have their figures in the corners
            _cover(screen, (middle - 46, area[1] + 8, middle + 46, area[3]), [("paused", 18, WARM)], area[1] + 30)
        if message:
            lines = [(line, 14, TEXT) for line in wrap(message, 14, area[2] - area[0] - 24)]
            _cover(screen, area, lines, area[3] - 14 - 10 * len(lines))
        if beside:
            screen.paste(self._panel(speed, height)[0], (room, 0))
        return screen

    def _panel(self, speed: Speed, height: int) -> tuple[Image.Image, int]:
        session, score = self.session, self.session.score
        image = Image.new("RGB", (PANEL_WIDTH, height), PANEL)
        draw = ImageDraw.Draw(image)
        right, y = PANEL_WIDTH - MARGIN, MARGIN
        size = 20 if text_width(session.name, 20) <= right - MARGIN else 15
        write(draw, (MARGIN, y + 11), shorten(session.name, size, right - MARGIN), size, TEXT)
        kind = "a dream: every frame is made by the model" if session.is_dream else "the real environment"
        write(draw, (MARGIN, y + 34), kind, 13, ACCENT if session.is_dream else GOOD)
        for line in wrap(session.origin, 13, right - MARGIN) if session.origin else ():
            y += 18
            write(draw, (MARGIN, y + 34), line, 13, WARM)
        y += 52
        x = chip(draw, (MARGIN, y), *self._state())
        if session.writer is not None:
            seconds = int(session.writer.count / session.writer.fps)
            chip(draw, (x + 6, y), f"film {seconds // 60}:{seconds % 60:02d}", BAD, dot=True)
        y += 36
        write(draw, (MARGIN, y + 7), "return", 13, MUTED)
        write(draw, (right, y + 7), "won : lost", 13, MUTED, anchor="rm")
        write(draw, (MARGIN, y + 32), number(score.total), 28, TEXT)
        points = f"{number(score.gained)} : {number(score.lost)}"
        write(draw, (right, y + 32), points, 28 if len(points) < 10 else 18, TEXT, anchor="rm")
        y += 58
        recent = score.step - score.last_point_step <= POINT_SECONDS * session.fps
        shown = score.last_point if recent else score.reward
        action = "-" if score.action is None else session.keys.describe(score.action)
        rows = [
            ("action", action, TEXT),
            ("reward", number(shown, sign=True), GOOD if shown > 0 else BAD if shown < 0 else TEXT),
            ("step", str(score.step), TEXT),
            ("seed", str(session.seed), TEXT),
        ]
        if session.start is not None:
            rows.append(("start", f"{session.start} (of {session.starts})", TEXT))
        if session.is_dream:
            rows.append(("sampling steps K", str(session.sampling_steps), TEXT))
        slow = 0 < speed.steps_per_second < 0.9 * speed.wanted
        rate = f"{speed.steps_per_second:.1f} of {speed.wanted:.3g}" if speed.steps_per_second else "-"
        rows.append(("steps/s", rate, WARM if slow else TEXT))
        rows.append(("one step takes", f"{speed.milliseconds:.1f} ms" if speed.milliseconds else "-", TEXT))
        for name, value, color in rows:
            write(draw, (MARGIN, y + 10), name, 14, MUTED)
            room = right - MARGIN - text_width(name, 14) - 12
            write(draw, (right, y + 10), shorten(value, 14, room), 14, color, anchor="rm")
            y += 21
        y += 9
        draw.line((MARGIN, y, right, y), LINE)
        y += 8
        image.paste(self._keys, (0, y))
        return image, y + self._keys.height + 4

    def _state(self) -> tuple[str, tuple[int, int, int]]:
        if self.session.over:
            return "over", WARM
        return ("paused", WARM) if self.session.paused else ("playing", GOOD)


def controls_of(session: Session) -> list[tuple[str, str]]:
    """Caps and meanings of the window's own keys, as they are for this session.

    A letter that plays the game is pressed together with ctrl to reach the window.
    """
    rows = []
    for keys, meaning, caps in CONTROLS:
        if ("sampling" in meaning and not session.is_dream) or (meaning == "rewind" and not session.can_rewind):
            continue
        taken = len(keys[0]) == 1 and ord(keys[0]) in session.keys.codes
        if meaning == "next start" and session.start is None:
            meaning = "next seed"
        if meaning == "quit" and isinstance(session.keys, FirstPersonKeys):
            meaning = "free the mouse, quit"
        rows.append((f"ctrl {caps.split()[0]}" if taken else caps, meaning))
    return rows


def draw_keys(keys: KeyMap, controls: Sequence[tuple[str, str]]) -> Image.Image:
    """The keyboard map: rows of key caps and what they do, first the game's, then the window's."""
    rows = [(names, meaning) for names, meaning in keys.legend[:12]]
    split = len(rows)
    rows += [(caps.split(), meaning) for caps, meaning in controls]
    image = Image.new("RGB", (PANEL_WIDTH, 22 * len(rows) + 14), PANEL)
    draw = ImageDraw.Draw(image)
    y = 2
    for i, (names, meaning) in enumerate(rows):
        if i == split:
            draw.line((MARGIN, y + 4, PANEL_WIDTH - MARGIN, y + 4), LINE)
            y += 10
        x = MARGIN
        for name in names[:4]:
            x = cap(draw, x, y, name) + 4
        left = max(x + 6, MARGIN + 116)
        write(
            draw,
            (left, y + 10),
            shorten(meaning, 13, PANEL_WIDTH - MARGIN - left),
            13,
            TEXT if i < split else MUTED,
        )
        y += 22
    return image


def cap(draw: ImageDraw.ImageDraw, x: int, y: int, name: str) -> int:
    """Draws a key at ``x, y``; returns its right edge."""
    arrow = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}.get(name)
    width = 20 if arrow or len(name) == 1 else round(text_width(name, 12)) + 12
    draw.rounded_rectangle((x, y, x + width, y + 18), 4, CAP)
    middle = (x + width / 2, y + 9)
    if arrow is None:
        write(draw, (middle[0] + 0.5, middle[1]), name, 12, TEXT, anchor="mm")
    else:
        dx, dy = arrow
        corners = [
            (dx * 5, dy * 5),
            (-dx * 3 + dy * 5, -dy * 3 + dx * 5),
            (-dx * 3 - dy * 5, -dy * 3 - dx * 5),
        ]
        draw.polygon([(middle[0] + a, middle[1] + b) for a, b in corners], TEXT)
    return x + width


def chip(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, color: tuple[int, int, int], dot: bool = False
) -> int:
    """Draws a word on a patch of its own; returns its right edge."""
    left, top = at
    inset = 22 if dot else 10
    right = left + inset + round(text_width(text, 13)) + 10
    draw.rounded_rectangle((left, top, right, top + 23), 6, CAP)
    if dot:
        draw.ellipse((left + 9, top + 8, left + 16, top + 15), color)
    write(draw, (left + inset, top + 12), text, 13, color)
    return right


def number(value: float, sign: bool = False) -> str:
    """A reward or a sum of them, short: "3", "-21", "0.25"; with ``sign``, "+1"."""
    text = f"{value:.0f}" if float(value).is_integer() else f"{value:.2f}"
    return f"+{text}" if sign and value > 0 else text


def wrap(text: str, size: int, width: float, lines: int = 3) -> list[str]:
    """Breaks text into at most ``lines`` lines; a word that is too long (a path) is broken too."""
    rows = [""]
    for word in text.split():
        joined = f"{rows[-1]} {word}".strip()
        if text_width(joined, size) <= width:
            rows[-1] = joined
            continue
        rows += [""] if rows[-1] else []
        for letter in word:
            if text_width(rows[-1] + letter, size) > width:
                rows.append("")
            rows[-1] += letter
    return [*rows[: lines - 1], shorten(" ".join(rows[lines - 1 :]), size, width)] if len(rows) > lines else rows


def shorten(text: str, size: int, width: float) -> str:
    """The text, or as much of it as fits with dots at its end."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "...", size) > width:
        text = text[:-1]
    return text + "..."


def text_width(text: str, size: int) -> float:
    """Width of a line in pixels."""
    return font(size).getlength(text)


def write(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    size: int,
    color: tuple[int, int, int],
    anchor: str = "lm",
) -> None:
    """Writes a line; ``anchor`` as in Pillow: left, right or middle of the line at ``at``."""
    draw.text(at, text, fill=color, font=font(size), anchor=anchor)


@lru_cache(maxsize=16)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, which needs nothing installed."""
    return ImageFont.load_default(size)


def _cover(screen: Image.Image, area: tuple[int, int, int, int], lines: Sequence[Line], y: int) -> None:
    """Writes centred lines on a darkened strip of the area, the strip's middle at ``y``."""
    heights = [size + 10 for _, size, _ in lines]
    top, bottom = max(area[1], y - sum(heights) // 2 - 8), min(area[3], y + sum(heights) // 2 + 8)
    box = (area[0], top, area[2], bottom)
    if box[2] <= box[0] or box[3] <= box[1]:
        return
    strip = screen.crop(box)
    screen.paste(Image.blend(strip, Image.new("RGB", strip.size, BACKGROUND), 0.88), box[:2])
    draw = ImageDraw.Draw(screen)
    at = y - sum(heights) / 2
    for (text, size, color), height in zip(lines, heights, strict=True):
        fitting = shorten(text, size, area[2] - area[0] - 16)
        write(draw, ((area[0] + area[2]) / 2, at + height / 2), fitting, size, color, anchor="mm")
        at += height
