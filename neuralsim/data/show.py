"""What a dataset holds, in numbers and in one picture: ``neuralsim data show``."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from gymnasium import spaces

from neuralsim.data.episodes import EpisodeStore
from neuralsim.pictures import label, strip, write_picture


@dataclass(frozen=True)
class ShowConfig:
    """Prints counts, an action histogram, reward events, episode lengths and returns, and draws a contact sheet."""

    path: Annotated[Path, tyro.conf.Positional]
    """Folder of the dataset."""
    sheet: Path | None = None
    """Where the contact sheet goes; by default contact_sheet.png in the folder."""
    rows: int = 8
    """Episodes on the sheet."""
    columns: int = 12
    """Frames of each."""
    verify: bool = False
    """Also reads every frame and compares it with the hash it was written with."""


@dataclass
class Summary:
    """What :func:`summarise` counts.

    Attributes:
        episodes: Number of episodes.
        steps: Number of actions.
        hours: Duration of play.
        size: Bytes on disk.
        terminated: Episodes that the environment ended.
        truncated: Episodes that were cut.
        lengths: ``(episodes,)`` actions in each.
        actions: Name of an action, or of a part of one, -> how it is distributed.
        rewards: Value of a reward other than 0 -> how often it came (only up to 20 different ones).
        policies: Name of a policy -> its returns.
        labels: Names of the ground truth.
    """

    episodes: int
    steps: int
    hours: float
    size: int
    terminated: int
    truncated: int
    lengths: np.ndarray
    actions: dict[str, np.ndarray]
    rewards: dict[float, int]
    policies: dict[str, list[float]]
    labels: list[str]


def show(config: ShowConfig) -> Summary:
    """Prints a dataset's summary and writes its contact sheet.

    Raises:
        FileNotFoundError: If there is no dataset.
        ValueError: If it is empty or damaged.
    """
    store = EpisodeStore.open(config.path)
    if min(config.rows, config.columns) < 1:
        raise ValueError(f"--rows {config.rows} and --columns {config.columns} must be at least 1")
    if not len(store):
        raise ValueError(f"{config.path} holds no episodes yet")
    if config.verify:
        for episode_id in store.ids:
            store.verify(episode_id)
    summary = summarise(store)
    print(describe(store, summary))
    file = config.sheet or config.path / "contact_sheet.png"
    sheet = contact_sheet(store, config.rows, config.columns)
    write_picture(file, sheet)
    print(f"\ncontact sheet: {file} ({sheet.shape[1]}x{sheet.shape[0]} pixels)")
    return summary


def summarise(store: EpisodeStore) -> Summary:
    """Counts everything but the frames."""
    ids = store.ids
    metas = [store.meta(i) for i in ids]
    rewards: Counter[float] = Counter()
    policies: dict[str, list[float]] = defaultdict(list)
    parts: dict[str, list[np.ndarray]] = defaultdict(list)
    for episode_id, meta in zip(ids, metas, strict=True):
        values, counts = np.unique(store.rewards(episode_id), return_counts=True)
        rewards.update({float(v): int(n) for v, n in zip(values, counts, strict=True) if v})
        policies[meta["policy"] or "unknown"].append(meta["return"])
        _collect(store.space, store.actions(episode_id), "", parts)
    steps = sum(meta["length"] for meta in metas)
    return Summary(
        episodes=len(ids),
        steps=steps,
        hours=steps / store.info.fps / 3600,
        size=sum(file.stat().st_size for file in (store.path / "episodes").glob("*.zarr.zip")),
        terminated=sum(meta["terminated"] for meta in metas),
        truncated=sum(meta["truncated"] for meta in metas),
        lengths=np.array([meta["length"] for meta in metas]),
        actions={name: np.concatenate(values) for name, values in parts.items()},
        rewards=dict(sorted(rewards.items())),
        policies=dict(sorted(policies.items())),
        labels=sorted({name for meta in metas for name in meta["labels"]}),
    )


def describe(store: EpisodeStore, summary: Summary) -> str:
    """The summary as text."""
    info, lengths = store.info, summary.lengths
    lines = [
        f"{store.path}: {info.env_id}" + (f" {info.env_kwargs}" if info.env_kwargs else ""),
        f"  {summary.episodes} episodes, {summary.steps} steps, {summary.hours:.2f} hours at {info.fps:g} frames/s, "
        f"{summary.size / 1e6:.1f} MB",
        f"  frames {'x'.join(map(str, info.frame_shape))}, preprocessing {info.preprocessing}",
        f"  ground truth: {', '.join(summary.labels) or 'none'}",
        f"  recorded by: {info.command or info.source}",
        "",
        f"episode length: shortest {lengths.min()}, median {int(np.median(lengths))}, longest {lengths.max()}; "
        f"{summary.terminated} ended by themselves, {summary.truncated} were cut",
        "",
        "actions",
        *_action_lines(store, summary.actions),
        "",
        "rewards (other than 0)",
    ]
    if len(summary.rewards) > 20:
        values = np.array(list(summary.rewards))
        total = sum(summary.rewards.values())
        lines.append(f"  {total} events of {len(values)} values, {values.min():g} to {values.max():g}")
    lines += [
        f"  {value:+8g}  {count:7d} times, every {summary.steps / count:.0f} steps"
        for value, count in summary.rewards.items()
        if len(summary.rewards) <= 20
    ] or (["  none"] if not summary.rewards else [])
    lines += ["", "policy                    episodes   return: mean    lowest   highest"]
    for name, returns in summary.policies.items():
        low, high = min(returns), max(returns)
        lines.append(f"  {name:<24}{len(returns):8d}   {np.mean(returns):12.2f}{low:10.2f}{high:10.2f}")
    return "\n".join(lines)


def contact_sheet(store: EpisodeStore, rows: int = 8, columns: int = 12) -> np.ndarray:
    """One picture: a row of evenly spaced frames for each of ``rows`` evenly spaced episodes.

    Returns:
        ``(height, width, 3)`` uint8.
    """
    ids = store.ids
    chosen = [ids[i] for i in np.unique(np.linspace(0, len(ids) - 1, rows).round().astype(int))]
    strips = []
    for episode_id in chosen:
        meta = store.meta(episode_id)
        places = np.linspace(0, meta["length"], columns).round().astype(int)
        frames = np.concatenate([store.frames(episode_id, int(i), int(i) + 1) for i in places])
        text = f"episode {episode_id}  {meta['policy']}  {meta['length']} steps  return {meta['return']:g}"
        strips.append(label(strip(frames, columns), text, size=11))
    return np.concatenate(strips)


def _collect(space: spaces.Space, actions: Any, name: str, parts: dict[str, list[np.ndarray]]) -> None:
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            _collect(part, actions[key], f"{name}.{key}".lstrip("."), parts)
    elif isinstance(space, spaces.Tuple):
        for i, part in enumerate(space.spaces):
            _collect(part, actions[i], f"{name}.{i}".lstrip("."), parts)
    else:
        flat = np.asarray(actions).reshape(len(actions), -1)
        for i in range(flat.shape[1]):
            parts[name if flat.shape[1] == 1 else f"{name}[{i}]"].append(flat[:, i])


def _action_lines(store: EpisodeStore, actions: dict[str, np.ndarray]) -> list[str]:
    lines = []
    for name, values in actions.items():
        kinds, counts = np.unique(values, return_counts=True)
        if np.issubdtype(values.dtype, np.integer) and len(kinds) <= 32:
            if isinstance(store.space, spaces.Discrete):  # also show what never happens
                kinds = np.arange(store.space.start, store.space.start + store.space.n)
                counts = np.array([(values == kind).sum() for kind in kinds])
            for kind, count in zip(kinds, counts, strict=True):
                share = count / len(values)
                title = " ".join(part for part in (name, str(kind), _meaning(store, int(kind), name)) if part)
                lines.append(f"  {title:<24}{count:8d}  {share:6.1%}  {'#' * round(40 * share)}")
        else:
            spread = ", ".join(f"{q:.4g}" for q in np.quantile(values, [0, 0.1, 0.5, 0.9, 1]))
            lines.append(f"  {name or 'action':<24}lowest, 10 %, median, 90 %, highest: {spread}")
    return lines


def _meaning(store: EpisodeStore, kind: int, name: str) -> str:
    meanings = store.info.action_meanings
    return meanings[kind] if meanings and not name and 0 <= kind < len(meanings) else ""
