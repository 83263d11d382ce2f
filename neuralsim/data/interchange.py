"""Datasets from elsewhere, and to elsewhere: ``neuralsim data import`` and ``neuralsim data export``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from gymnasium import spaces

from neuralsim.actions import space_from_json
from neuralsim.data.episodes import EpisodeStore
from neuralsim.envs.minerl_spaces import CAMERA_LIMIT
from neuralsim.envs.preprocessing import RESAMPLE


@dataclass(frozen=True)
class ImportConfig:
    """Reads a dataset made elsewhere.

    From a folder of videos: NAME.mp4 (or mkv, webm, avi, mov) with a table NAME.csv beside it for every episode. The
    table has a row per action, and the video one frame more than the table has rows: the frame before the first
    action, then the frame after each one. Columns: "action" (a whole number: one of several buttons), or several
    columns that begin with "action" (numbers: a joystick, a mouse); if you know them "reward", "terminated" (the game
    was over) and "truncated" (the recording was cut). A first line names the columns:

        action,reward,terminated
        2,0,0
        0,1,1

    From Minari: the id of a dataset, or the folder it lies in.

    From MineRL v0.x: a folder of recordings v3_* (recording.mp4, rendered.npz, metadata.json). From OpenAI's VPT and
    BASALT contractors: an index file, or a folder of NAME.mp4 with NAME.jsonl. Actions are MineRL's 23 buttons and
    camera. A recording that cannot be read is skipped, and reported by its name; run the same command again to
    continue after an interruption, or when there are more recordings.

    Example: neuralsim data import my_videos --out data/mine --fps 20

    neuralsim data import MineRLTreechop-v0 --out data/treechop --workers 8
    """

    source: Annotated[str, tyro.conf.Positional]
    """Folder of videos or recordings, index file, or Minari dataset."""
    out: Path
    """Folder of the new dataset; an import of MineRL or VPT recordings is continued."""
    kind: Literal["auto", "videos", "minari", "minerl", "vpt"] = "auto"
    """What the source is; found out by itself."""
    size: tuple[int, int] | None = None
    """Height and width of the stored frames; by default 64 64, or those of a dataset that was exported from here."""
    resample: str = "box"
    """Filter that resizes: box (by area), nearest, bilinear, bicubic or lanczos."""
    fps: float | None = None
    """Frames per second of play; by default what the source says."""
    env_id: str | None = None
    """Id of the environment that was recorded, if there is one."""
    action_space: str | None = None
    """Action space as JSON, e.g. '{"type": "Discrete", "n": 6}'; by default read off the actions that occur."""
    drop_last: bool = False
    """Drops the last row of a table that has as many rows as its video has frames."""
    key: str | None = None
    """Key of the pixels in Dict observations (Minari)."""
    download: bool = False
    """Fetches a Minari dataset that is not on this machine."""
    camera_limit: float = 10.0
    """Most degrees that the camera turns in a step (MineRL, VPT); what is beyond is cut, and counted in the report.
    Models see actions scaled by their bounds: next to MineRL's own 180, the turns that people make are too small."""
    clip_camera: bool = False
    """Cuts turns beyond 180 degrees too, which no player makes, instead of skipping the recording (MineRL, VPT)."""
    cursor: Path | None = None
    """Picture (PNG, 16x16) of the mouse pointer that is drawn into open menus (VPT); by default a white arrow."""
    workers: int = 1
    """Recordings that are read at the same time (MineRL, VPT)."""
    quiet: bool = False
    """Shows no progress."""

    def space(self) -> spaces.Space | None:
        """``action_space`` read from JSON.

        Raises:
            ValueError: If it describes no space.
        """
        if self.action_space is None:
            return None
        try:
            description = json.loads(self.action_space)
            if description.get("type") == "Discrete":
                description.setdefault("start", 0)
            if description.get("type") == "Box":
                description.setdefault("dtype", "float32")
            return space_from_json(description)
        except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"--action-space {self.action_space!r} describes no action space ({error!r}); "
                """write it like '{"type": "Discrete", "n": 6}' or """
                """'{"type": "Box", "low": [-1, -1], "high": [1, 1], "shape": [2]}'"""
            ) from None


@dataclass(frozen=True)
class ExportConfig:
    """Writes a dataset for other programs, without loss.

    As videos (H.264 or FFV1, every pixel kept) with tables of actions, which `neuralsim data import` reads back bit for
    bit; or as a Minari dataset (raw arrays instead of Minari's default of lossy JPEG).

    Examples: neuralsim data export data/pong --out pong_videos

    neuralsim data export data/pong --to minari --out pong/mix-v0
    """

    dataset: Annotated[Path, tyro.conf.Positional]
    """Folder of the dataset."""
    out: str
    """New folder for the videos, or id of the new Minari dataset."""
    to: Literal["videos", "minari"] = "videos"
    """Form of the export."""
    quiet: bool = False
    """Shows no progress."""


def import_data(config: ImportConfig) -> EpisodeStore:
    """Makes a store from a dataset of another form.

    Raises:
        ValueError: If the source does not hold what it should; the message names file and value.
        FileNotFoundError: If there is no such source.
        FileExistsError: If ``out`` holds a dataset already, and the import is none that can be continued.
        ModuleNotFoundError: Without the extra that the source needs.
    """
    kind = _kind(config.source) if config.kind == "auto" else config.kind
    if kind in ("videos", "minari") and (config.out / "dataset.json").exists():
        raise FileExistsError(f"{config.out} already holds a dataset; choose another --out")
    if kind in ("minerl", "vpt") and config.action_space is not None:
        raise ValueError(f"--action-space is not for {kind} recordings, whose actions are MineRL's: leave it away")
    if config.workers < 1:
        raise ValueError(f"--workers {config.workers} must be at least 1")
    if config.size is not None and min(config.size) < 1:
        raise ValueError(f"--size {config.size} must be a height and a width of at least 1")
    if not 0 < config.camera_limit <= CAMERA_LIMIT:
        raise ValueError(
            f"--camera-limit {config.camera_limit:g} must be above 0 and at most {CAMERA_LIMIT:g}, MineRL's own degrees"
        )
    if config.resample not in RESAMPLE:
        raise ValueError(f"unknown resample {config.resample!r}; choose one of {', '.join(RESAMPLE)}")
    if config.fps is not None and not config.fps > 0:
        raise ValueError(f"--fps {config.fps} must be a positive number of frames per second")
    if kind == "videos":
        from neuralsim.data.videos import import_videos

        store = import_videos(config)
    elif kind == "minerl":
        from neuralsim.data.minerl import import_minerl

        store = import_minerl(config)
    elif kind == "vpt":
        from neuralsim.data.vpt import import_vpt

        store = import_vpt(config)
    else:
        from neuralsim.data.minari import import_minari

        store = import_minari(config)
    print(f"{len(store)} episodes, {store.total_steps} steps in {config.out}")
    return store


def export_data(config: ExportConfig) -> None:
    """Writes a store in another form.

    Raises:
        FileNotFoundError: If there is no such dataset.
        FileExistsError: If the target exists.
        ModuleNotFoundError: Without the extra that the target needs.
    """
    store = EpisodeStore.open(config.dataset)
    if not len(store):
        raise ValueError(f"{config.dataset} holds no episodes to export")
    if config.to == "videos":
        from neuralsim.data.videos import export_videos

        export_videos(store, Path(config.out), quiet=config.quiet)
    else:
        from neuralsim.data.minari import export_minari

        export_minari(store, config.out, quiet=config.quiet)
    print(f"{len(store)} episodes, {store.total_steps} steps as {config.to} in {config.out}")


def progress(items: Any, what: str, quiet: bool = False, total: int | None = None) -> Any:
    """Iterates with a progress bar; ``total`` is the number of items where they have no length."""
    if quiet:
        return items
    from rich.progress import track

    return track(items, description=what, total=total)


def _kind(source: str) -> str:
    folder = Path(source)
    if folder.suffix == ".json" and folder.is_file():
        return "vpt"
    if not folder.is_dir():
        return "minari"
    if any(folder.rglob("rendered.npz")):
        return "minerl"
    if (folder / "data" / "metadata.json").exists() or (folder / "metadata.json").exists():
        return "minari"
    return "vpt" if any(folder.rglob("*.jsonl")) else "videos"
