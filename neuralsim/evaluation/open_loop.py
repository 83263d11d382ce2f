"""Open-loop fidelity: dream the recorded actions and compare with what really happened."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from neuralsim.actions import map_actions, slice_actions
from neuralsim.data.episodes import EpisodeStore
from neuralsim.envs.keyboard import idle_action
from neuralsim.evaluation.intervals import psnr, share
from neuralsim.evaluation.probes import Probes, find
from neuralsim.world import World

SOURCES = ("dream", "shuffled", "noop", "copy", "tokenizer")
"""What is compared with reality: the dream, the same world with another clip's actions and with no action at all,
copying the last frame, and the tokenizer's ceiling."""


@dataclass
class Clips:
    """Held-out pieces of play: context, then what is to be dreamed.

    Attributes:
        frames: ``(N, C + H, h, w, 3)`` uint8.
        actions: Batch ``(N, C + H - 1, ...)``.
        rewards: ``(N, C + H - 1)``.
        context: C.
    """

    frames: np.ndarray
    actions: Any
    rewards: np.ndarray
    context: int


def draw_clips(store: EpisodeStore, count: int, context: int, horizon: int, seed: int = 0) -> Clips:
    """Cuts clips from anywhere in held-out episodes.

    Raises:
        ValueError: If no episode is long enough.
    """
    length = context + horizon
    usable = [i for i in store.ids if store.length(i) + 1 >= length]
    if not usable:
        longest = max((store.length(i) for i in store.ids), default=0)
        raise ValueError(
            f"clips of {length} frames do not fit: the longest of {len(store)} episodes in {store.path} "
            f"has {longest} steps"
        )
    rng = np.random.default_rng(seed)
    weights = np.array([store.length(i) + 2 - length for i in usable], float)
    frames, actions, rewards = [], [], []
    for episode in rng.choice(usable, size=count, p=weights / weights.sum()).tolist():
        begin = int(rng.integers(store.length(episode) + 2 - length))
        frames.append(store.frames(episode, begin, begin + length))
        cut = slice(begin, begin + length - 1)
        actions.append(slice_actions(store.actions(episode), cut))
        rewards.append(store.rewards(episode)[cut])
    return Clips(np.stack(frames), _stack(actions), np.stack(rewards), context)


def _stack(batches: list[Any]) -> Any:
    if isinstance(batches[0], dict):
        return {key: _stack([batch[key] for batch in batches]) for key in batches[0]}
    if isinstance(batches[0], tuple):
        return tuple(_stack([batch[i] for batch in batches]) for i in range(len(batches[0])))
    return np.stack(batches)


def dream_clips(world: World, clips: Clips, steps: int, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Dreams the clips' actions after their context; yields (frames ``(N, h, w, 3)``, rewards ``(N,)``) per step."""
    c, horizon = clips.context, clips.frames.shape[1] - clips.context
    state = world.start(
        clips.frames[:, :c],
        slice_actions(clips.actions, (slice(None), slice(c - 1))),
        seed=list(range(seed, seed + len(clips.frames))),
    )
    for t in range(c - 1, c - 1 + horizon):
        state, said = world.step(state, slice_actions(clips.actions, (slice(None), t)), steps=steps)
        yield world.decode(said.latent).cpu().numpy(), said.reward.cpu().numpy()


def shuffle_actions(clips: Clips) -> Any:
    """The clips' actions, but after the context those of the next clip."""
    kept = clips.context - 1
    return map_actions(
        lambda array: np.concatenate([array[:, :kept], np.roll(array, -1, axis=0)[:, kept:]], axis=1), clips.actions
    )


def idle_actions(clips: Clips, world: World) -> Any:
    """The clips' actions, but after the context hands off."""
    idle = idle_action(world.action_space, world.config.action_meanings)

    def fill(actions: Any, value: Any) -> Any:
        if isinstance(actions, dict):
            return {key: fill(part, value[key]) for key, part in actions.items()}
        if isinstance(actions, tuple):
            return tuple(fill(part, value[i]) for i, part in enumerate(actions))
        changed = actions.copy()
        changed[:, clips.context - 1 :] = value
        return changed

    return fill(clips.actions, idle)


def open_loop(
    world: World,
    store: EpisodeStore,
    probes: Probes | None,
    clips: int,
    horizons: tuple[int, ...],
    steps: int,
    batch: int = 32,
    progress: Any = None,
) -> dict[str, Any]:
    """Fidelity by horizon, beside dreams of wrong actions, copying the last frame and the tokenizer's own ceiling.

    A dream that is no better than with another clip's actions, or with none, does not listen to them.

    Returns:
        By horizon (as a string): PSNR of each of :data:`SOURCES` in dB, and for every probed thing the share of
        frames that hold it in reality in which the source has it within its tolerance, with a bootstrap interval
        over clips; ``false_<thing>``: the share of frames without it in which the dream shows one.
    """
    rows: dict[str, dict[int, list[np.ndarray]]] = {}

    def note(name: str, horizon: int, values: np.ndarray) -> None:
        rows.setdefault(name, {}).setdefault(horizon, []).append(values)

    context = world.dynamics.context_length
    drawn = draw_clips(store, clips, context, max(horizons), seed=11)
    wrong = {"shuffled": shuffle_actions(drawn), "noop": idle_actions(drawn, world)}
    for begin in range(0, clips, batch):
        part = Clips(
            drawn.frames[begin : begin + batch],
            slice_actions(drawn.actions, slice(begin, begin + batch)),
            drawn.rewards[begin : begin + batch],
            context,
        )
        last = part.frames[:, context - 1]
        dreams = {"dream": dream_clips(world, part, steps, seed=begin)}
        for name, actions in wrong.items():
            other = dataclasses.replace(part, actions=slice_actions(actions, slice(begin, begin + batch)))
            dreams[name] = dream_clips(world, other, steps, seed=begin)
        for h in range(1, max(horizons) + 1):
            dreamed = {name: next(dream)[0] for name, dream in dreams.items()}
            if progress is not None:
                progress()
            if h not in horizons:
                continue
            real = part.frames[:, context - 1 + h]
            ceiling = world.decode(world.encode(real[:, None])[:, 0]).cpu().numpy()
            for name, frames in (*dreamed.items(), ("copy", last), ("tokenizer", ceiling)):
                note(f"psnr/{name}", h, psnr(frames, real))
                if probes is None:
                    continue
                truth, seen = find(probes, real), find(probes, frames)
                for thing in probes.things:
                    near = seen[thing.name].distance(truth[thing.name]) <= thing.tolerance
                    note(f"{thing.name}/{name}", h, near)
                    note(f"{thing.name}/{name}/seen", h, seen[thing.name].present)
                    if name == "dream":
                        note(f"{thing.name}/truth", h, truth[thing.name].present)
    table: dict[str, Any] = {}
    for h in horizons:
        row: dict[str, Any] = {name: float(np.concatenate(rows[f"psnr/{name}"][h]).mean()) for name in SOURCES}
        entry: dict[str, Any] = {"psnr": row}
        for thing in probes.things if probes else ():
            truth_present = np.concatenate(rows[f"{thing.name}/truth"][h])[:, None]
            entry[thing.name] = {
                name: share(np.concatenate(rows[f"{thing.name}/{name}"][h])[:, None], truth_present) for name in SOURCES
            }
            entry[f"false_{thing.name}"] = share(
                np.concatenate(rows[f"{thing.name}/dream/seen"][h])[:, None], ~truth_present
            )
        table[str(h)] = entry
    return table


@torch.inference_mode()
def teacher_forced_events(world: World, store: EpisodeStore, progress: Any = None) -> dict[str, Any]:
    """Precision and recall of rewards and ends that the heads read off real transitions, over whole episodes."""
    from neuralsim.data.latents import encode_frames

    counts = dict.fromkeys(("reward_hit", "reward_said", "reward_real", "end_hit", "end_said", "end_real"), 0)
    for i in store.ids:
        latents = encode_frames(world.tokenizer, store.frames(i, 0, store.length(i) + 1)).float().to(world.device)
        before = world.heads.look_back(latents[None])[0]
        actions = torch.from_numpy(world.actions.encode(store.actions(i))).to(world.device)
        rewards, ends = [], []
        for part in torch.arange(len(actions)).split(512):
            out = world.heads(before[part], latents[part + 1], actions[part])
            rewards.append(world.real_reward(out.reward.float()).cpu())
            ends.append((out.continue_logit < 0).cpu())
        said, over = torch.cat(rewards).numpy(), torch.cat(ends).numpy()
        real, ended = store.rewards(i), np.asarray(store.terminated(i), bool)
        counts["reward_hit"] += int(((said != 0) & (np.abs(said - real) < 1e-3)).sum())
        counts["reward_said"] += int((said != 0).sum())
        counts["reward_real"] += int((real != 0).sum())
        counts["end_hit"] += int((over & ended).sum())
        counts["end_said"] += int(over.sum())
        counts["end_real"] += int(ended.sum())
        if progress is not None:
            progress()
    result: dict[str, Any] = {}
    for kind in ("reward", "end"):
        hit, said_n, real_n = (counts[f"{kind}_{key}"] for key in ("hit", "said", "real"))
        result[kind] = {
            "precision": hit / said_n if said_n else float("nan"),
            "recall": hit / real_n if real_n else float("nan"),
            "said": said_n,
            "real": real_n,
        }
    return result


def tokenizer_fidelity(world: World, store: EpisodeStore, probes: Probes | None, count: int = 3000) -> dict[str, Any]:
    """What encoding and decoding alone does to real frames: PSNR, and every thing within one pixel."""
    ids = list(store.ids)
    per_episode = max(1, count // len(ids))
    frames = np.concatenate(
        [store.frames(i, 0, store.length(i) + 1)[np.linspace(0, store.length(i), per_episode).astype(int)] for i in ids]
    )
    decoded = np.concatenate(
        [
            world.decode(world.encode(part[:, None])[:, 0]).cpu().numpy()
            for part in np.array_split(frames, max(1, len(frames) // 100))
        ]
    )
    result: dict[str, Any] = {"psnr": float(psnr(decoded, frames).mean()), "frames": len(frames)}
    if probes is not None:
        truth, seen = find(probes, frames), find(probes, decoded)
        for thing in probes.things:
            there = truth[thing.name].present
            near = seen[thing.name].distance(truth[thing.name]) <= 1.0
            result[thing.name] = float(near[there].mean())
            result[f"no_ghost_{thing.name}"] = (
                float((~seen[thing.name].present[~there]).mean()) if (~there).any() else None
            )
    return result
