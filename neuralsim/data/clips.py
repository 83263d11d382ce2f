"""Training clips: where to cut them, and how often to show the events that matter."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from neuralsim.data.latents import LatentEpisode
from neuralsim.dynamics.base import ClipBatch

AFTERMATH = 40
"""So many frames after a reward are its aftermath: in Pong the wait, and the serve."""
TURN = 3
"""So many frames from a turn on belong to it: only then is it plain where things go."""


@dataclass
class ClipMix:
    """Which clips to show more often than they come up; all others are uniform over the frames."""

    events: float = 0.2
    """Share of clips that show a reward or an end among their predicted frames."""
    ends: float = 0.03
    """Share of clips that show the end of an episode, the rarest thing there is, among their predicted frames."""
    aftermath: float = 0.15
    """Share of clips that end within 40 frames after a reward: what follows a point (a wait, a serve) is as rare as the
    point, and harder."""
    starts: float = 0.03
    """Share of clips whose predicted frames are the first of an episode."""
    turns: float = 0.0
    """Share of clips that end in or just after a step in which the first thing that the game's probes know changes its
    course: a ball that meets a paddle. Needs recordings with that ground truth; without, it counts for nothing."""
    comebacks: float = 0.0
    """Share of clips whose first predicted frame shows that thing again after it was gone, with all that was before it
    went hidden: the first frame without it is repeated instead. A dream that has lost it has such a past, which no
    recording shows, and would wait for ever. Needs the same ground truth."""


class ClipSampler:
    """Draws clips of T frames; a draw depends on (seed, step) alone.

    A clip may begin before its episode does: the first frame is repeated and the actions there are unknown
    (zeros), as they are for a dream that starts from a single frame.

    Args:
        episodes: What to draw from.
        clip_length: Frames T per clip.
        predicted: How many frames at the end of a clip carry a loss; at least one lies in the episode.
        mix: Which clips to show more often; by default none.
        seed: Of the draws.
        beyond: Frames L after a clip for which places are told as well, where the episodes know them.

    Raises:
        ValueError: If no episode is long enough, or the shares of the mix make no shares.
    """

    def __init__(
        self,
        episodes: list[LatentEpisode],
        clip_length: int,
        predicted: int,
        mix: ClipMix | None = None,
        seed: int = 0,
        beyond: int = 0,
    ) -> None:
        self.episodes = [episode for episode in episodes if len(episode) >= predicted]
        if not self.episodes:
            longest = max((len(episode) for episode in episodes), default=0)
            raise ValueError(
                f"the longest of {len(episodes)} episodes has {longest} steps, but clips predict {predicted}"
                " frames: record longer episodes or lower rollout"
            )
        self.clip_length, self.predicted, self.seed, self.beyond = clip_length, predicted, seed, beyond
        self.shares = dataclasses.asdict(mix) if mix else {}
        if min(self.shares.values(), default=0) < 0 or sum(self.shares.values()) > 1:
            raise ValueError(f"{mix}: shares are 0 or more, and at most 1 together")
        self.knows_pitch = all(episode.pitch is not None for episode in self.episodes)
        self.knows_places = all(episode.places is not None for episode in self.episodes)
        # A clip is named by the index of its last frame, which runs from `predicted` to T.
        self.counts = np.array([len(episode) - predicted + 1 for episode in self.episodes])
        self.cumulative = self.counts.cumsum()
        self.pools = {
            "events": self._find(lambda episode: (episode.rewards != 0) | (episode.terminated > 0)),
            "ends": self._find(lambda episode: episode.terminated > 0),
            "aftermath": self._find(lambda episode: episode.rewards != 0),
            "turns": self._find(lambda episode: episode.turns),
            "comebacks": self._find(lambda episode: episode.comebacks[: len(episode) - predicted + 1] > 0),
        }

    def _find(self, happens: Callable[[LatentEpisode], torch.Tensor]) -> np.ndarray:
        """Episode and step of everything that happens, ``(N, 2)``, as often as the number there says."""
        steps = []
        for episode in self.episodes:
            times = happens(episode).long().numpy()
            steps.append(np.repeat(np.arange(len(times)), times))
        return np.concatenate([np.stack([np.full(len(s), i), s], axis=1) for i, s in enumerate(steps)])

    def draw(self, step: int, batch_size: int) -> ClipBatch:
        """The batch of a step."""
        rng = np.random.default_rng((self.seed, step))
        bounds, names = np.cumsum([*self.shares.values()]), [*self.shares, "any"]
        clips, places, pitches = [], [], []
        for draw in rng.random(batch_size):
            kind = names[int(np.searchsorted(bounds, draw, side="right"))]
            pool, hidden = self.pools.get(kind, ()), 0
            if len(pool) and kind == "comebacks":
                i, t = pool[rng.integers(len(pool))]
                last, hidden = int(t) + self.predicted, int(self.episodes[i].comebacks[t])
            elif len(pool):
                i, t = pool[rng.integers(len(pool))]
                # Action t leads to frame t + 1, which may be any of the predicted ones.
                last = t + 1 + rng.integers({"aftermath": AFTERMATH, "turns": TURN}.get(kind, self.predicted))
                last = int(np.clip(last, self.predicted, len(self.episodes[i])))
            elif kind == "starts":
                i, last = rng.integers(len(self.episodes)), self.predicted
            else:
                flat = rng.integers(self.cumulative[-1])
                i = int(self.cumulative.searchsorted(flat, side="right"))
                last = self.predicted + int(flat - (self.cumulative[i] - self.counts[i]))
            clips.append(cut_clip(self.episodes[i], last, self.clip_length, hidden))
            if self.knows_places:
                places.append(cut_places(self.episodes[i], last, self.clip_length, self.beyond))
            if self.knows_pitch:
                frames = torch.arange(last - self.clip_length + 1, last + 1).clamp(min=hidden)
                pitches.append(self.episodes[i].pitch[frames])  # type: ignore[index]
        latents, actions, rewards, terminated, valid = (torch.stack(parts) for parts in zip(*clips, strict=True))
        told = torch.stack(places) if places else None
        pitch = torch.stack(pitches) if pitches else None
        return ClipBatch(latents.float(), actions, rewards, terminated, valid, told, pitch)


def cut_clip(episode: LatentEpisode, last: int, length: int, hidden: int = 0) -> tuple[torch.Tensor, ...]:
    """The ``length`` frames up to frame ``last``: latents, actions, rewards, terminated, valid (see ClipBatch).

    The latents of frames before ``hidden`` are those of that frame. They are in the episode's number format, and may
    be a view of its own.
    """
    begin = last - length + 1
    frames = torch.arange(begin, last + 1)
    valid = frames >= 0
    # Most clips lie within an episode, and a slice is read in a fraction of the time that picking frames takes.
    latents = episode.latents[begin : last + 1] if begin >= hidden else episode.latents[frames.clamp(min=hidden)]
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


def cut_places(episode: LatentEpisode, last: int, length: int, beyond: int) -> torch.Tensor:
    """Where things are on the ``length`` frames up to frame ``last`` and on so many beyond it (see ClipBatch)."""
    assert episode.places is not None
    frames = torch.arange(last - length + 1, last + beyond + 1)
    known = frames < len(episode.places)
    return torch.where(known[:, None], episode.places[frames.clamp(0, len(episode.places) - 1)], torch.inf)
