"""Recordings of VPT's and BASALT's contractors: a video and a line of JSON for each of its frames.

    NAME.mp4      what the player saw: 20 frames per second, 360 rows, without the mouse pointer
    NAME.jsonl    line i is what was pressed at frame i, and leads to frame i+1:
                  {"mouse": {"x", "y", "dx", "dy", "buttons", "newButtons"}, "keyboard": {"keys", ...},
                   "hotbar": 0, "isGuiOpen": false, "yaw": 0.0, "pitch": 0.0, ...}

Quirks of the recorder, as OpenAI's own loader knows them, are set right here: an attack button that hangs from the
first line on, items chosen by the wheel (which is not recorded), the pointer missing from open menus. Unlike there,
the camera stays in fractions of a degree, and steps in which nothing is pressed stay: time passes in a world.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuralsim.data.cursor import draw_pointer, pointer
from neuralsim.data.episodes import Episode, EpisodeStore
from neuralsim.data.minecraft_actions import checked_camera, no_actions
from neuralsim.data.recordings import Recording, import_recordings
from neuralsim.data.videos import decode_frames
from neuralsim.envs.minerl_spaces import CAMERA_LIMIT, HOTBAR
from neuralsim.envs.preprocessing import resize

if TYPE_CHECKING:
    from neuralsim.data.interchange import ImportConfig

DEGREES_PER_PIXEL = 360 / 2400
"""How far the camera turns (0.15 degrees) when the mouse moves by one."""

KEYS = {
    "key.keyboard.escape": "ESC",
    "key.keyboard.w": "forward",
    "key.keyboard.s": "back",
    "key.keyboard.a": "left",
    "key.keyboard.d": "right",
    "key.keyboard.space": "jump",
    "key.keyboard.left.shift": "sneak",
    "key.keyboard.left.control": "sprint",
    "key.keyboard.e": "inventory",
    "key.keyboard.q": "drop",
    "key.keyboard.f": "swapHands",
    **{f"key.keyboard.{slot}": name for slot, name in enumerate(HOTBAR, start=1)},
}
"""The button of each key."""

MOUSE = {0: "attack", 1: "use", 2: "pickItem"}
"""The button of each mouse button: left, right, middle."""

_LABELS = ("yaw", "pitch", "xpos", "ypos", "zpos", "hotbar", "isGuiOpen")  # of the state, kept for probes


@dataclass(slots=True)
class Tick:
    """What one line says.

    Attributes:
        keys: Names of the keys held down.
        buttons: Mouse buttons held down.
        pressed: Mouse buttons that were pressed in this very tick.
        dx: Mouse movement to the right, in pixels.
        dy: Mouse movement down.
        x: Column of the pointer on a screen of 720 rows.
        y: Row of the pointer.
        hotbar: The item in hand, 0 to 8.
        gui: Whether a menu is open.
        labels: The numbers of the state that are kept as labels.
    """

    keys: list[str]
    buttons: list[int]
    pressed: list[int]
    dx: float
    dy: float
    x: float
    y: float
    hotbar: int
    gui: bool
    labels: dict[str, float]


def import_vpt(config: ImportConfig) -> EpisodeStore:
    """Reads contractor recordings that an index lists, or that lie in a folder.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If it lists no recordings, or none can be read.
        ModuleNotFoundError: Without the extra ``video``.
    """
    pointer(config.cursor)  # complains now rather than for every recording
    return import_recordings(config, "vpt", find_vpt(Path(config.source)), read_vpt)


def find_vpt(source: Path) -> list[Recording]:
    """The recordings of an index file ``{"basedir", "relpaths"}`` or a folder; missing ones too, to be reported.

    An index names files on a server. They are looked for in ``basedir`` if it is a folder, below the folder of the
    index under the same path, and beside the index.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If it is no index, or there are no recordings.
    """
    if source.is_dir():
        files = sorted({file.with_suffix(".mp4") for end in (".mp4", ".jsonl") for file in source.rglob(f"*{end}")})
        recordings = [Recording(file.relative_to(source).as_posix().removesuffix(".mp4"), file) for file in files]
    elif source.is_file():
        recordings = _read_index(source)
    else:
        raise FileNotFoundError(f"there is no folder and no index file {source}")
    if not recordings:
        raise ValueError(f"{source} holds no recordings: NAME.mp4 with NAME.jsonl")
    return recordings


def read_vpt(recording: Recording, config: ImportConfig) -> tuple[Episode, Counter[str]]:
    """Reads one recording.

    With as many lines as frames, the last line's action leads to no frame and is dropped. A last frame without a
    line has the labels and the pointer of the line before.

    Returns:
        The episode, truncated: a recording is a piece of a longer game; and the keys that have no button, and turns
        that were cut, with the number of steps.

    Raises:
        ValueError: If a file is damaged or does not fit the other; the message names file, line and value.
        OSError: If a file is missing.
    """
    video = recording.path
    table = video.with_suffix(".jsonl")
    missing = [file.name for file in (video, table) if not file.is_file()]
    if missing:
        raise FileNotFoundError(f"{' and '.join(missing)} missing in {video.parent}")
    ticks = read_ticks(table)
    frames = _read_frames(video, ticks, config)
    steps = len(frames) - 1
    if steps < 1:
        raise ValueError(f"{video.name} has one frame: no action leads to another")
    actions, left_out = vpt_actions(ticks[:steps], table, config.clip_camera, config.camera_limit)
    states = [ticks[min(i, len(ticks) - 1)].labels for i in range(len(frames))]
    names = set.intersection(*(set(state) for state in states))  # what every frame has
    ended = np.arange(steps) == steps - 1
    return Episode(
        frames=frames,
        actions=actions,
        rewards=np.zeros(steps, np.float32),
        terminated=np.zeros(steps, bool),
        truncated=ended,
        labels={name: np.array([state[name] for state in states], np.float32) for name in sorted(names)},
        policy="human",
        seed=-1,
    ), left_out


def vpt_actions(
    ticks: list[Tick], table: Path, clip: bool = False, limit: float = CAMERA_LIMIT
) -> tuple[dict[str, np.ndarray], Counter[str]]:
    """The actions of a recording.

    A number of the hotbar is pressed where the item in hand changes: the mouse wheel changes it too, and only the
    change is recorded. An attack that is held from line 0 on (``newButtons`` is ``[0]`` there) hangs, and counts only
    from when it is released or pressed again.

    Args:
        ticks: A line for each of T steps.
        table: The file that they come from, for errors.
        clip: Cuts camera movements beyond what MineRL can do instead of refusing them.
        limit: Most degrees that the camera turns in a step; what is beyond is cut.

    Returns:
        Actions of :func:`~neuralsim.envs.minerl_spaces.human_action_space`, arrays ``(T, ...)``; and the keys
        without a button, and turns that were cut, with the number of steps.

    Raises:
        ValueError: If the camera turns further than the action space goes; the message names the step.
    """
    actions, left_out = no_actions(len(ticks)), Counter[str]()
    stuck = ticks[0].pressed == [0]
    hotbar = ticks[0].hotbar
    for i, tick in enumerate(ticks):
        stuck = stuck and 0 in tick.buttons and (i == 0 or 0 not in tick.pressed)
        for key in set(tick.keys):
            if key in KEYS:
                actions[KEYS[key]][i] = 1
            else:
                left_out[key] += 1
        for button in set(tick.buttons):
            if button not in MOUSE:
                left_out[f"mouse button {button}"] += 1
            elif not (stuck and button == 0):
                actions[MOUSE[button]][i] = 1
        if tick.hotbar != hotbar:
            actions[HOTBAR[tick.hotbar]][i] = 1
        hotbar = tick.hotbar
    turns = np.array([(tick.dy, tick.dx) for tick in ticks], np.float64) * DEGREES_PER_PIXEL
    actions["camera"], cut = checked_camera(turns, table, clip, limit)
    return actions, left_out + cut


def read_ticks(table: Path) -> list[Tick]:
    """The lines of a recording.

    Raises:
        ValueError: If a line is cut off, or lacks or garbles what a step needs; the message names it.
    """
    ticks: list[Tick] = []
    with table.open("rb") as lines:
        for i, line in enumerate(lines):
            if not line.strip() and not lines.read().strip():
                break  # nothing but empty lines at the end
            try:
                content = json.loads(line)
            except (UnicodeDecodeError, json.JSONDecodeError) as error:
                raise ValueError(f"{table.name}: line {i + 1} is cut off or no JSON ({error})") from None
            try:
                ticks.append(_tick(content))
            except KeyError as error:
                raise ValueError(f"{table.name}: line {i + 1} has no entry {error}") from None
            except (TypeError, ValueError, OverflowError) as error:
                raise ValueError(f"{table.name}: line {i + 1} is not as it should be ({error})") from None
    if not ticks:
        raise ValueError(f"{table.name} has no lines")
    return ticks


def _tick(content: dict[str, Any]) -> Tick:
    mouse, gui, hotbar = content["mouse"], content["isGuiOpen"], content["hotbar"]
    keys, buttons, pressed = content["keyboard"]["keys"], mouse["buttons"], mouse["newButtons"]
    if hotbar not in range(9):
        raise ValueError(f"hotbar {hotbar!r} is none of 0 to 8")
    if not isinstance(gui, bool):
        raise ValueError(f"isGuiOpen {gui!r} is neither true nor false")
    for name, values, kind in (("keys", keys, str), ("buttons", buttons, int), ("newButtons", pressed, int)):
        if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
            raise ValueError(f"{name} {values!r} is no list of {'names' if kind is str else 'numbers'}")
    found = {name: mouse[name] for name in (("dx", "dy", "x", "y") if gui else ("dx", "dy"))}
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{name} {value!r} is no finite number")
    state = {name: content.get(name) for name in _LABELS}
    return Tick(
        keys=keys,
        buttons=buttons,
        pressed=pressed,
        dx=found["dx"],
        dy=found["dy"],
        x=found.get("x", 0),
        y=found.get("y", 0),
        hotbar=int(hotbar),
        gui=gui,
        labels={k: float(v) for k, v in state.items() if isinstance(v, (int, float)) and math.isfinite(v)},
    )


def _read_frames(video: Path, ticks: list[Tick], config: ImportConfig) -> np.ndarray:
    height, width = config.size or (64, 64)
    frames = np.empty((len(ticks) + 1, height, width, 3), np.uint8)
    picture = pointer(config.cursor)
    count = 0
    for frame in decode_frames(video):
        if count < len(frames):
            tick = ticks[min(count, len(ticks) - 1)]
            if tick.gui:
                frame = draw_pointer(frame, picture, tick.x, tick.y)
            frames[count] = resize(frame, (height, width), config.resample)
        count += 1
    if not len(ticks) <= count <= len(ticks) + 1:
        raise ValueError(
            f"{video.name} has {count} frames and {video.with_suffix('.jsonl').name} {len(ticks)} lines; there must "
            "be a line for each frame, save perhaps the last"
        )
    return frames[:count]


def _read_index(index: Path) -> list[Recording]:
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        base, paths = content["basedir"], content["relpaths"]
        if not isinstance(base, str) or not isinstance(paths, list) or not all(isinstance(p, str) for p in paths):
            raise TypeError("basedir must be a text and relpaths a list of texts")
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f'{index} is no index {{"basedir": ..., "relpaths": [...]}} ({error!r})') from None
    folders = [Path(base)] if base and Path(base).is_dir() else []
    recordings = {}
    for path in paths:
        name = path.removesuffix(".mp4").strip("/")
        places = [folder / f"{name}.mp4" for folder in (*folders, index.parent)]
        places.append(index.parent / f"{name.rsplit('/', 1)[-1]}.mp4")
        there = [place for place in places if place.is_file() or place.with_suffix(".jsonl").is_file()]
        recordings[name] = Recording(name, (there or places)[0])
    return list(recordings.values())
