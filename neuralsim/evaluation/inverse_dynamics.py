"""Inverse dynamics: which action was taken, read off the frames before and after.

Trained on real recordings; where it recovers actions from dreamed frames as well as from real ones, the dream shows
what actions do. Its features also tell how far dreamed films are from real ones as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralsim.actions import ActionCodec
from neuralsim.data.episodes import EpisodeStore
from neuralsim.evaluation.frechet import Moments, frechet_distance
from neuralsim.evaluation.held_out import Clips

BEFORE, AFTER = 2, 2
"""Frames before and after the action that are seen: an effect may show one frame late."""
DEAD_ZONE = 0.1
"""Continuous actions are told apart as below, about and above the middle of their range, -1 to 1."""

READER_STEPS = 800
"""Training steps of the network."""
MOST_STEPS = 20_000
"""Frames of so many steps are held in memory for training."""


def action_classes(codec: ActionCodec, encoded: np.ndarray) -> np.ndarray:
    """Encoded actions ``(..., A)`` as class indices ``(..., parts)``: one part per choice that an action makes."""
    columns = []
    for begin, size, kind in codec.blocks():
        block = encoded[..., begin : begin + size]
        if kind == "choice":
            columns.append(block.argmax(-1)[..., None])
        elif kind == "binary":
            columns.append((block > 0.5).astype(np.int64))
        else:
            columns.append(np.where(np.abs(block) <= DEAD_ZONE, 1, np.where(block > 0, 2, 0)))
    return np.concatenate(columns, axis=-1)


def class_counts(codec: ActionCodec) -> list[int]:
    """How many classes each part has."""
    counts: list[int] = []
    for _, size, kind in codec.blocks():
        counts += [size] if kind == "choice" else [2 if kind == "binary" else 3] * size
    return counts


def idle_classes(codec: ActionCodec) -> list[int]:
    """The class of each part that means nothing is done: the first choice, or about the middle of a range."""
    idle: list[int] = []
    for _, size, kind in codec.blocks():
        idle += [0] if kind == "choice" else [0 if kind == "binary" else 1] * size
    return idle


def part_names(codec: ActionCodec) -> list[str]:
    """What each part is called: the keys that lead to it, and its number where there are several; "" for a lone one."""
    if not codec.parts:
        count = len(class_counts(codec))
        return [""] if count == 1 else [str(n) for n in range(count)]
    return [f"{key}.{name}" if name else str(key) for key, part in codec.parts for name in part_names(part)]


class InverseDynamics(nn.Module):
    """A small convolutional network on windows of frames.

    Args:
        counts: Classes of each part of an action.
        width: Of the first convolution.
        features: Length of the features below the classifiers.
    """

    def __init__(self, counts: list[int], width: int = 24, features: int = 64) -> None:
        super().__init__()
        channels = [3 * (BEFORE + AFTER), width, 2 * width, 2 * width]
        layers: list[nn.Module] = []
        for i, o in pairwise(channels):
            layers += [nn.Conv2d(i, o, 3, stride=2, padding=1), nn.GroupNorm(8, o), nn.SiLU()]
        self.trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(8), nn.Flatten())
        self.features = nn.Linear(channels[-1] * 64, features)
        self.parts = nn.ModuleList(nn.Linear(features, n) for n in counts)

    def read(self, windows: Tensor) -> Tensor:
        """Features ``(B, d)`` of windows ``(B, BEFORE + AFTER, H, W, 3)`` uint8."""
        x = windows.float() / 255
        x = torch.cat([x[:, :1], x.diff(dim=1)], dim=1)  # what changes matters
        return self.features(self.trunk(x.permute(0, 1, 4, 2, 3).flatten(1, 2)))

    def forward(self, windows: Tensor) -> list[Tensor]:
        """Logits ``(B, classes)`` of each part."""
        return self.classify(self.read(windows))

    def classify(self, features: Tensor) -> list[Tensor]:
        """Logits ``(B, classes)`` of each part from features ``(B, d)``."""
        x = F.silu(features)
        return [part(x) for part in self.parts]


def windows_of(frames: np.ndarray) -> np.ndarray:
    """Films ``(N, T, H, W, 3)`` as windows ``(N, T - 3, 4, H, W, 3)``, the i-th around the action after frame i + 1."""
    views = np.lib.stride_tricks.sliding_window_view(frames, BEFORE + AFTER, axis=1)
    return np.moveaxis(views, -1, 2)


def train_inverse_dynamics(
    store: EpisodeStore,
    episodes: list[int],
    codec: ActionCodec,
    steps: int = READER_STEPS,
    batch: int = 96,
    seed: int = 0,
    progress: Callable[[], None] | None = None,
) -> InverseDynamics:
    """Trains on real episodes, the first of them if there are more than :data:`MOST_STEPS` steps.

    Raises:
        ValueError: If all are shorter than a window.
    """
    ends = np.cumsum([store.length(i) for i in episodes])
    episodes = [i for i, end in zip(episodes, ends, strict=True) if end <= max(MOST_STEPS, ends[0])]
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = InverseDynamics(class_counts(codec))
    classes = {i: action_classes(codec, codec.encode(store.actions(i))) for i in episodes}
    usable = [i for i in episodes if store.length(i) + 1 >= BEFORE + AFTER]
    if not usable:
        raise ValueError(f"none of the episodes {episodes} in {store.path} has {BEFORE + AFTER} frames")
    weights = np.array([store.length(i) for i in usable], float)
    frames = {i: store.frames(i, 0, store.length(i) + 1) for i in usable}
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        drawn = rng.choice(usable, size=batch, p=weights / weights.sum())
        at = [int(rng.integers(BEFORE - 1, store.length(i) + 1 - AFTER)) for i in drawn]
        windows = np.stack([frames[i][t - BEFORE + 1 : t + AFTER + 1] for i, t in zip(drawn, at, strict=True)])
        target = torch.from_numpy(np.stack([classes[i][t] for i, t in zip(drawn, at, strict=True)]))
        logits = model(torch.from_numpy(windows))
        loss = torch.stack([F.cross_entropy(part, target[:, n]) for n, part in enumerate(logits)]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress()
    return model.eval()


def class_f1(said: np.ndarray, real: np.ndarray, c: int) -> float:
    """2 hits / (said + real) of one class; 0 where it is neither."""
    hits = ((said == c) & (real == c)).sum()
    return float(2 * hits / max(1, (said == c).sum() + (real == c).sum()))


def macro_f1(said: np.ndarray, real: np.ndarray) -> float:
    """Mean F1 over the classes that occur in ``real``; NaN without any."""
    scores = [class_f1(said, real, c) for c in np.unique(real)]
    return float(np.mean(scores)) if scores else float("nan")


def pressed_f1(said: np.ndarray, real: np.ndarray) -> float:
    """F1 of class 1, a button that is pressed; NaN if it never is."""
    return class_f1(said, real, 1) if (real == 1).any() else float("nan")


class ActionReader:
    """Observer of an open loop: reads actions off dreamed films and off the real ones.

    Args:
        model: Trained on real recordings.
        codec: Of the actions.
        unseen: Episodes that the model was not trained on; only their clips count.
    """

    def __init__(self, model: InverseDynamics, codec: ActionCodec, unseen: list[int]) -> None:
        self.model, self.codec, self.unseen = model, codec, set(unseen)
        self.said: dict[str, list[np.ndarray]] = {"dream": [], "real": []}
        self.real: list[np.ndarray] = []
        self.moments = {name: Moments() for name in ("dream", "real", "copy", "past")}

    @torch.inference_mode()
    def see(self, dreamed: np.ndarray, clips: Clips) -> None:
        """Takes in films of a batch of clips; windows lie wholly in the dream."""
        chosen = [n for n, cut in enumerate(clips.cuts) if cut.episode in self.unseen]
        film = dreamed.shape[1]
        if not chosen or film < BEFORE + AFTER:
            return
        first = clips.context + BEFORE - 1  # the action after the second dreamed frame
        actions = clips.actions[chosen, first : first + film - BEFORE - AFTER + 1]
        self.real.append(action_classes(self.codec, actions).reshape(-1, len(class_counts(self.codec))))
        still = np.repeat(clips.frames[chosen, clips.context - 1][:, None], film, axis=1)
        past = clips.frames[chosen, max(0, clips.context - film) : clips.context]
        films = {"dream": dreamed[chosen], "real": clips.future[chosen, :film], "copy": still, "past": past}
        for name, frames in films.items():
            if frames.shape[1] < BEFORE + AFTER:
                continue
            windows = windows_of(frames).reshape(-1, BEFORE + AFTER, *frames.shape[2:])
            for part in np.array_split(windows, max(1, len(windows) // 256)):
                read = self.model.read(torch.from_numpy(part.copy()))
                self.moments[name].add(read.numpy())
                if name in self.said:
                    choices = [logits.argmax(-1) for logits in self.model.classify(read)]
                    self.said[name].append(torch.stack(choices, dim=1).numpy())

    def figures(self) -> dict[str, Any]:
        """What was found.

        Returns:
            ``f1_dream`` and ``f1_real``: macro F1 of the actions read, mean over the parts of an action, on dreamed
            and on real frames of the same clips; ``f1_ratio``; ``actions``: how many. ``parts``, where an action has
            several: by name ``dream`` and ``real``, for a button the F1 of its being pressed, else macro F1, and
            ``times``, how often it was not idle (a button up, the first choice, about the middle of a range); parts
            that always were are left out. ``distance``: Frechet distance of the features of windows to those of real
            ones, for dreamed and standing (``copy``) films, and for the clips' own ``past`` (also real: the noise
            floor). Not FVD: its encoder was trained here.
        """
        if not self.real:
            return {"actions": 0}
        real = np.concatenate(self.real)
        everything = {name: np.concatenate(rows) for name, rows in self.said.items()}
        scores = {}
        for name, said in everything.items():
            scores[name] = float(np.mean([macro_f1(said[:, n], real[:, n]) for n in range(real.shape[1])]))
        return {
            "f1_dream": scores["dream"],
            "f1_real": scores["real"],
            "f1_ratio": scores["dream"] / scores["real"] if scores["real"] else float("nan"),
            "actions": len(real),
            "parts": self._parts(everything, real) if real.shape[1] > 1 else {},
            "distance": {
                name: frechet_distance(self.moments[name], self.moments["real"])
                for name in ("dream", "copy", "past")
                if self.moments[name].count > 1
            },
        }

    def _parts(self, said: dict[str, np.ndarray], real: np.ndarray) -> dict[str, dict[str, float]]:
        parts = {}
        counts, idle = class_counts(self.codec), idle_classes(self.codec)
        for n, name in enumerate(part_names(self.codec)):
            if times := int((real[:, n] != idle[n]).sum()):
                score = pressed_f1 if counts[n] == 2 else macro_f1
                parts[name] = {source: score(rows[:, n], real[:, n]) for source, rows in said.items()}
                parts[name]["times"] = times
        return parts
