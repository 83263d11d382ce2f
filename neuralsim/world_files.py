"""World folders: where they are found, how they are written at once or not at all, and how damage is noticed.

config.json           WorldConfig, with the checksum of the weights
world.safetensors     weights, keys tokenizer.* dynamics.* heads.*
starts/               real contexts to begin from (pictures and starts.json)
agents/               agents that learned in it, at several ages (neuralsim agent train)
card.json, card.md    what it was trained on and how good it is (written by the evaluation)
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from neuralsim.extras import require
from neuralsim.registration import BUNDLED_WORLDS
from neuralsim.tensor_files import share

CONFIG, WEIGHTS, STARTS, AGENTS, CARD, CARD_TEXT = (
    "config.json",
    "world.safetensors",
    "starts",
    "agents",
    "card.json",
    "card.md",
)
BUNDLED = Path(__file__).parent / "worlds"
"""Folder of the worlds that come with the package."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


def bundled_worlds() -> list[str]:
    """Names of the worlds that come with the package."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{CONFIG}"))


def find_world(source: str | os.PathLike[str]) -> Path:
    """Finds the folder of a world.

    Args:
        source: In this order: the name of a bundled world (``"pong"``) or of its environment
            (``"Dream-Pong-v0"``), a folder, or an id ``user/name`` or
            ``user/name@revision`` on the Hugging Face hub, which is downloaded once (extra "hub").

    Raises:
        FileNotFoundError: If it is none of these.
        ModuleNotFoundError: If it looks like a hub id and the extra is not installed.
    """
    name = BUNDLED_WORLDS.get(os.fspath(source), os.fspath(source))
    # A bare name means the bundled world wherever the program runs; a folder of that name is "./pong".
    if isinstance(source, str) and name in bundled_worlds():
        return BUNDLED / name
    if source in BUNDLED_WORLDS:
        raise FileNotFoundError(
            f"{source} is not there: its world, {BUNDLED / name}, did not come with this installation; install "
            f"neuralsim again, or make it anew (make world WORLD={name}). "
            f"Bundled worlds: {', '.join(bundled_worlds()) or 'none'}"
        )
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / CONFIG).is_file():
            raise FileNotFoundError(f"{folder} is not a world: it has no {CONFIG}")
        return folder
    if folder.exists():
        raise FileNotFoundError(f"{folder} is a file; a world is the folder that holds {CONFIG} and {WEIGHTS}")
    bundled = f"bundled worlds: {', '.join(bundled_worlds()) or 'none'}"
    if isinstance(source, str) and _HUB_ID.fullmatch(name):
        return _download(name, f"there is no folder {name!r}, so it was looked for on the Hugging Face hub; {bundled}")
    raise FileNotFoundError(
        f"there is no world {name!r}: give a folder, an id user/name on the Hugging Face hub, or one of the {bundled}"
    )


def _download(hub_id: str, context: str) -> Path:
    hub = require("huggingface_hub", extra="hub", why=f"the world {hub_id!r} ({context})")
    repository, _, revision = hub_id.partition("@")
    try:
        folder = Path(
            hub.snapshot_download(
                repository,
                revision=revision or None,
                library_name="neuralsim",
                allow_patterns=[CONFIG, WEIGHTS, f"{STARTS}/*", f"{AGENTS}/*.safetensors", CARD, CARD_TEXT],
            )
        )
    except (OSError, ValueError) as error:  # all errors of the hub are one of these
        raise FileNotFoundError(f"cannot get the world {hub_id!r}: {error} ({context})") from error
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{hub_id!r} on the Hugging Face hub is not a world: it has no {CONFIG}")
    return folder


def _is_world(folder: Path) -> bool:
    try:
        return {"tokenizer", "dynamics"} <= set(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return False


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Gives an empty folder to write into, which takes the place of ``folder`` when all went well.

    Until then, and if anything fails, ``folder`` stays as it is. What it held beside an older world (a recipe, notes)
    moves along.

    Raises:
        ValueError: If ``folder`` is a file, or holds files named like a world's that are not a world's.
    """
    folder = folder.resolve()  # through links, so that a link stays one
    ours = {CONFIG, WEIGHTS, STARTS, CARD, CARD_TEXT}
    if folder.exists():
        if not folder.is_dir():
            raise ValueError(f"{folder} is a file: choose another name for the world's folder")
        taken = sorted(ours & {path.name for path in folder.iterdir()})
        if taken and not _is_world(folder):
            raise ValueError(f"{folder} holds {', '.join(taken)} but is not a world: choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex[:8]
    fresh = folder.with_name(f".{folder.name}.{mark}.new")
    old = folder.with_name(f".{folder.name}.{mark}.old")
    fresh.mkdir()
    try:
        yield fresh
        if folder.exists():
            for extra in folder.iterdir():
                if extra.name not in ours:
                    (shutil.copytree if extra.is_dir() else shutil.copy2)(extra, fresh / extra.name)
            folder.rename(old)
        fresh.rename(folder)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_weights(path: Path, parts: dict[str, nn.Module], dtype: torch.dtype) -> str:
    """Writes the parts' weights and returns the file's SHA-256.

    Only parameters are stored in ``dtype``; buffers (statistics, backgrounds) keep their own precision, and so does the
    small tokenizer: latents and agents belong to its exact weights.
    """
    tensors: dict[str, Tensor] = {}
    for prefix, part in parts.items():
        trained = {name for name, _ in part.named_parameters()}
        for name, tensor in part.state_dict().items():
            kept = tensor.detach().cpu()
            if name in trained and prefix != "tokenizer" and kept.is_floating_point():
                kept = kept.to(dtype)
            elif kept.is_floating_point():
                kept = kept.float()
            tensors[f"{prefix}.{name}"] = kept.contiguous().clone()
    save_file(tensors, path, metadata={"format": "pt"})
    share(path)
    return _checksum(path)


def read_weights(path: Path, parts: dict[str, nn.Module], checksum: str) -> None:
    """Fills the parts with the weights of a file, strictly.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If it is truncated or damaged, or if keys or shapes do not fit the parts.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} is not a whole world: it has no {path.name}")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is truncated or damaged ({error}); get the world again") from error
    if checksum and _checksum(path) != checksum:
        raise ValueError(
            f"{path} is not the file its {CONFIG} was written for (checksum differs): the two come from "
            "different worlds or the file is damaged; get the world again"
        )
    expected = {f"{prefix}.{name}": t for prefix, part in parts.items() for name, t in part.state_dict().items()}
    complaints = [
        f"{what}: {', '.join(keys[:5])}{' and more' if len(keys) > 5 else ''}"
        for what, keys in (
            ("missing", sorted(set(expected) - set(tensors))),
            ("unexpected", sorted(set(tensors) - set(expected))),
        )
        if keys
    ]
    complaints += [
        f"{name} has shape {tuple(tensors[name].shape)}, the model needs {tuple(t.shape)}"
        for name, t in expected.items()
        if name in tensors and tensors[name].shape != t.shape
    ][:5]
    if complaints:
        raise ValueError(f"{path} does not fit its {CONFIG}: {'; '.join(complaints)}")
    for prefix, part in parts.items():
        part.load_state_dict({name: tensors[f"{prefix}.{name}"] for name in part.state_dict()}, strict=True)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
