"""Latents on disk: every frame is encoded once, not once per epoch.

One safetensors file per episode, in a folder named after the tokenizer's weights, so that latents of another
tokenizer are never mistaken for these. Files are written whole or not at all; encoding can be interrupted and
resumed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

from neuralsim.actions import ActionCodec, space_from_json
from neuralsim.data.episodes import EpisodeStore, link_or_copy
from neuralsim.tensor_files import read_tensors, write_tensors
from neuralsim.tokenizers.base import Tokenizer

FOLDER = "latents"
"""Where latents lie in a store's folder."""


@dataclass
class LatentEpisode:
    """One episode as the dynamics sees it: T+1 latents, T actions.

    Attributes:
        id: The episode's id in its store.
        latents: ``(T+1, h, w, c)``, bfloat16 (its error is far below the tokenizer's).
        actions: ``(T, A)`` encoded, float32.
        rewards: ``(T,)`` float32.
        terminated: ``(T,)`` float32.
        turns: ``(T,)`` int64, how often to show a step with which something changes its course; 0 elsewhere, and where
            nobody looked.
        comebacks: ``(T,)`` int64: where something comes back with the step, the first frame without it, else 0.
        places: ``(T+1, P)`` float32, where things are (see :class:`neuralsim.dynamics.base.ClipBatch`); None where
            nobody knows.
        pitch: ``(T+1,)`` float32, how far down the camera looks, in degrees; None where nobody knows.
    """

    id: int
    latents: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    turns: Tensor
    comebacks: Tensor
    places: Tensor | None = None
    pitch: Tensor | None = None

    def __len__(self) -> int:
        return len(self.actions)


def fingerprint(model: nn.Module) -> str:
    """A short name for the exact weights of a tokenizer, or any model."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.inference_mode()
def encode_frames(tokenizer: Tokenizer, frames: np.ndarray, batch: int = 128) -> Tensor:
    """Frames ``(N, H, W, 3)`` uint8 to normalised latents ``(N, h, w, c)`` bfloat16 on the CPU."""
    parts = torch.from_numpy(frames).split(batch)
    return torch.cat([tokenizer.encode(part).to(torch.bfloat16).cpu() for part in parts])


def load_latents(
    store: EpisodeStore, ids: list[int], tokenizer: Tokenizer, folder: Path | None = None
) -> list[LatentEpisode]:
    """Latent episodes, encoded now where the folder does not hold them yet.

    Args:
        store: Recorded episodes.
        ids: Which of them.
        tokenizer: Encodes; must fit the frames.
        folder: Where latents are kept; by default ``latents/`` in the store's folder.
    """
    codec = ActionCodec(space_from_json(store.info.action_space))
    home = (folder or store.path / FOLDER) / fingerprint(tokenizer)
    home.mkdir(parents=True, exist_ok=True)
    episodes = []
    missing = sum(not _path(home, i).exists() for i in ids)
    for i in track(ids, description=f"encoding {missing} episodes", disable=missing == 0):
        path = _path(home, i)
        if not path.exists():
            write_tensors(path, {"latents": encode_frames(tokenizer, store.frames(i, 0, store.length(i) + 1))})
        episodes.append(
            LatentEpisode(
                i,
                read_tensors(path)[0]["latents"],
                torch.from_numpy(codec.encode(store.actions(i))),
                torch.from_numpy(np.asarray(store.rewards(i), np.float32)),
                torch.from_numpy(np.asarray(store.terminated(i), np.float32)),
                torch.zeros(store.length(i), dtype=torch.long),
                torch.zeros(store.length(i), dtype=torch.long),
                pitch=_pitch(store, i),
            )
        )
    return episodes


def _pitch(store: EpisodeStore, episode: int) -> Tensor | None:
    if "pitch" not in store.meta(episode)["labels"]:  # most games have none, and many labels to read
        return None
    return torch.from_numpy(np.asarray(store.labels(episode)["pitch"], np.float32))


def link_latents(source: EpisodeStore, episode_id: int, target: EpisodeStore, new_id: int) -> None:
    """Links the latents of an episode, if there are any, for a store that has taken it in (``EpisodeStore.adopt``)."""
    for home in (source.path / FOLDER).glob("*/"):
        if (path := _path(home, episode_id)).is_file():
            link = _path(target.path / FOLDER / home.name, new_id)
            link.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(path, link)


def _path(home: Path, episode: int) -> Path:
    return home / f"{episode:08d}.safetensors"
