"""Training clips: where to cut them, and how often to show the events that matter."""

from __future__ import annotations

import numpy as np
import torch

from neuralsim.data.latents import LatentEpisode
from neuralsim.dynamics.base import ClipBatch


class ClipSampler:
    """Draws clips of T frames; a draw depends on (seed, step) alone.

    A clip may begin before its episode does: the first frame is repeated and the actions there are unknown
    (zeros), as they are for a dream that starts from a single frame.

    Args:
        episodes: What to draw from.
        clip_length: Frames T per clip.
        predicted: How many frames at the end of a clip carry a loss; at least one lies in the episode.
        event_fraction: Share of clips that hold a reward or an end among their predicted frames; the others are
            uniform over all frames.
        aftermath_fraction: Share of clips that end within ``aftermath`` frames after a reward: what follows a point
            (a wait, a serve) is as rare as the point, and harder.
        aftermath: How many frames that is.
        start_fraction: Share of clips whose predicted frames are the first of an episode.
        seed: Of the draws.

    Raises:
        ValueError: If no episode is long enough.
    """

    def __init__(
        self,
        episodes: list[LatentEpisode],
        clip_length: int,
        predicted: int,
        event_fraction: float = 0.0,
        start_fraction: float = 0.0,
        seed: int = 0,
        aftermath_fraction: float = 0.0,
        aftermath: int = 40,
    ) -> None:
        self.episodes = [episode for episode in episodes if len(episode) >= predicted]
        if not self.episodes:
            longest = max((len(episode) for episode in episodes), default=0)
            raise ValueError(
                f"the longest of {len(episodes)} episodes has {longest} steps, but clips predict {predicted}"
                " frames: record longer episodes or lower rollout"
            )
        self.clip_length, self.predicted, self.seed = clip_length, predicted, seed
        self.event_fraction, self.start_fraction = event_fraction, start_fraction
        self.aftermath_fraction, self.aftermath = aftermath_fraction, aftermath
        # A clip is named by the index of its last frame, which runs from `predicted` to T.
        self.counts = np.array([len(episode) - predicted + 1 for episode in self.episodes])
        self.cumulative = self.counts.cumsum()
        events = [
            ((episode.rewards != 0) | (episode.terminated > 0)).nonzero()[:, 0].numpy() for episode in self.episodes
        ]
        self.events = np.concatenate([np.stack([np.full(len(e), i), e], axis=1) for i, e in enumerate(events)])

    def draw(self, step: int, batch_size: int) -> ClipBatch:
        """The batch of a step."""
        rng = np.random.default_rng((self.seed, step))
        clips = []
        for kind in rng.random(batch_size):
            if kind < self.event_fraction + self.aftermath_fraction and len(self.events):
                i, t = self.events[rng.integers(len(self.events))]
                # Action t leads to frame t + 1, which may be any of the predicted ones.
                span = self.predicted if kind < self.event_fraction else self.aftermath
                last = t + 1 + rng.integers(span)
                last = int(np.clip(last, self.predicted, len(self.episodes[i])))
            elif kind > 1 - self.start_fraction:
                i, last = rng.integers(len(self.episodes)), self.predicted
            else:
                flat = rng.integers(self.cumulative[-1])
                i = int(self.cumulative.searchsorted(flat, side="right"))
                last = self.predicted + int(flat - (self.cumulative[i] - self.counts[i]))
            clips.append(cut_clip(self.episodes[i], last, self.clip_length))
        return ClipBatch(*(torch.stack(parts) for parts in zip(*clips, strict=True)))


def cut_clip(episode: LatentEpisode, last: int, length: int) -> tuple[torch.Tensor, ...]:
    """The ``length`` frames up to frame ``last``: latents, actions, rewards, terminated, valid (see ClipBatch)."""
    frames = torch.arange(last - length + 1, last + 1)
    valid = frames >= 0
    latents = episode.latents[frames.clamp(min=0)].float()
    steps = frames[:-1]
    known = (steps >= 0).float()
    inside = steps.clamp(min=0)
    return (
        latents,
        episode.actions[inside] * known[:, None],
        episode.rewards[inside] * known,
        episode.terminated[inside] * known,
        valid,
    )
