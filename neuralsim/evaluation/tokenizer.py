"""What encoding and decoding alone does to real frames: the ceiling of every dream."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuralsim.data.episodes import EpisodeStore
from neuralsim.evaluation.image_quality import psnr
from neuralsim.evaluation.intervals import share
from neuralsim.evaluation.probes import Probes, find
from neuralsim.world import World


def tokenizer_fidelity(
    world: World, store: EpisodeStore, probes: Probes | None, count: int = 3000, batch: int = 100
) -> dict[str, Any]:
    """PSNR, and every thing within one pixel, on about ``count`` frames spread over all episodes.

    Returns:
        ``psnr`` in dB and ``frames``; for each probed thing the share of the frames that hold it in which it is decoded
        within one pixel, and as ``no_ghost_<thing>`` the share of the others in which none is decoded; None where
        there are no such frames.
    """
    lengths = np.array([store.length(i) + 1 for i in store.ids])
    total = int(lengths.sum())
    # Evenly spread over all frames there are, one after the other.
    chosen = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))
    quality: list[np.ndarray] = []
    hits: dict[str, list[np.ndarray]] = {}
    for i, begin, length in zip(store.ids, np.cumsum(lengths) - lengths, lengths, strict=True):
        mine = chosen[(chosen >= begin) & (chosen < begin + length)] - begin
        if not len(mine):
            continue
        frames = store.frames(i, 0, int(length))[mine]
        for part in np.array_split(frames, max(1, len(frames) // batch)):
            decoded = world.decode(world.encode(part[:, None])[:, 0]).cpu().numpy()
            quality.append(psnr(decoded, part))
            if probes is None:
                continue
            truth, seen = find(probes, part), find(probes, decoded)
            for thing in probes.things:
                there = truth[thing.name].present
                near = seen[thing.name].distance(truth[thing.name]) <= 1.0
                right = np.where(there, near, ~seen[thing.name].present)
                hits.setdefault(thing.name, []).append(np.stack([there, right], axis=1))
    result: dict[str, Any] = {
        "psnr": float(np.concatenate(quality).mean()),
        "frames": sum(map(len, quality)),
    }
    for name, rows in hits.items():
        there, right = np.concatenate(rows).T
        result[name] = share(right, there)["value"] if there.any() else None
        result[f"no_ghost_{name}"] = share(right, ~there)["value"] if (~there).any() else None
    return result
