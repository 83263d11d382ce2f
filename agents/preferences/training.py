"""What a reward model learns from: labelled pairs as batches of latents, and the loss on them.

Legend: B pairs, M members of the ensemble, S steps of a segment, n latents seen, h w c latent grid, A encoded action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from neuralsim.agents.masked import masked_mean
from neuralsim.agents.preferences.pairs import TARGETS, Label, Pair, Segment
from neuralsim.agents.preferences.reward_model import PreferenceRewardConfig, bradley_terry_loss, make_members
from neuralsim.data.latents import LatentEpisode

FEWEST = 10
"""Pairs of which one is better: with fewer there is nothing to learn from, or to judge by."""


@dataclass
class PairBatch:
    """Labelled pairs. Shorter segments are filled up to S steps, by which they are not judged.

    Attributes:
        seen: ``(B, 2, S + n - 1, h, w, c)``, left and right: n - 1 latents up to the first step, and one after each.
        actions: ``(B, 2, S, A)`` encoded.
        known: ``(B, S)``, 1.0 for steps of the segments.
        target: ``(B,)``, see :data:`~neuralsim.agents.preferences.pairs.TARGETS`.
        weights: ``(B, M)``, how often the pair is in each member's sample of the labels.
        paid: ``(B, 2)``, sum of the recorded rewards; only ever compared with, never learned.
    """

    seen: Tensor
    actions: Tensor
    known: Tensor
    target: Tensor
    weights: Tensor
    paid: Tensor

    def __len__(self) -> int:
        return len(self.target)

    def to(self, device: torch.device | str) -> PairBatch:
        """The same pairs on another device."""
        return PairBatch(**{name: value.to(device) for name, value in vars(self).items()})


class LabelledPairs:
    """Labelled pairs to draw batches from; a draw depends on (seed, step) alone.

    Members of an ensemble are each trained on as many labels, drawn with replacement (Christiano et al. 2017, section
    2.2.3); a single member is trained on all of them.

    Args:
        labels: Without skipped pairs.
        episodes: The recordings they are about, at least.
        frames: Latents n.
        members: M.
        seed: Of the draws.

    Raises:
        ValueError: If there is no label, or one that says nothing.
    """

    def __init__(
        self, labels: Sequence[Label], episodes: Sequence[LatentEpisode], frames: int, members: int = 1, seed: int = 0
    ) -> None:
        if not labels or any(label.choice not in TARGETS for label in labels):
            raise ValueError(f"{len(labels)} labels, of which each must say which segment is better, or neither")
        self.labels, self.frames, self.seed = list(labels), frames, seed
        self.episodes = {episode.id: episode for episode in episodes}
        self.steps = max(label.pair.left.length for label in labels)
        count = len(labels)
        self.weights = torch.ones(count, members)
        if members > 1:
            drawn = np.random.default_rng((seed, count)).multinomial(count, np.full(count, 1 / count), size=members)
            self.weights = torch.from_numpy(drawn.T.copy()).float()

    def __len__(self) -> int:
        return len(self.labels)

    def draw(self, step: int, batch_size: int) -> PairBatch:
        """The batch of a step."""
        return self.take(np.random.default_rng((self.seed, step)).integers(len(self), size=batch_size))

    def take(self, indices: Sequence[int] | np.ndarray) -> PairBatch:
        """These pairs."""
        rows = []
        for index in indices:
            label = self.labels[int(index)]
            sides = [self._cut(segment) for segment in (label.pair.left, label.pair.right)]
            seen, actions, paid = (torch.stack(parts) for parts in zip(*sides, strict=True))
            known = (torch.arange(self.steps) < label.pair.left.length).float()
            rows.append((seen, actions, known, torch.tensor(TARGETS[label.choice]), self.weights[int(index)], paid))
        return PairBatch(*(torch.stack(column) for column in zip(*rows, strict=True)))

    def _cut(self, segment: Segment) -> tuple[Tensor, Tensor, Tensor]:
        episode = self.episodes[segment.episode]
        # What was before the segment is seen too: in a dream it will be there as well.
        frames = torch.arange(segment.start - self.frames + 2, segment.start + self.steps + 1)
        steps = torch.arange(segment.start, segment.start + self.steps).clamp(max=segment.stop - 1)
        paid = episode.rewards[segment.start : segment.stop].sum()
        return episode.latents[frames.clamp(0, segment.stop)].float(), episode.actions[steps], paid


class PreferenceTraining(nn.Module):
    """An ensemble of reward networks, trained on labelled pairs.

    Args:
        config: Sizes.
        mistakes: Share of choices that are taken to be made at random.

    Raises:
        ValueError: For a share outside [0, 1).
    """

    def __init__(self, config: PreferenceRewardConfig, mistakes: float = 0.1) -> None:
        super().__init__()
        if not 0 <= mistakes < 1:
            raise ValueError(f"mistakes is {mistakes}; it is a share, from 0 to below 1")
        self.config, self.mistakes = config, mistakes
        self.members = make_members(config)

    def separate_parts(self) -> list[nn.Module]:
        """What shares no gradients."""
        return list(self.members)

    def returns(self, batch: PairBatch) -> Tensor:
        """Sums of rewards ``(B, 2, M)`` of the segments."""
        seen = batch.seen.unfold(2, self.config.frames, 1).movedim(-1, 3)
        pairs, _, steps = seen.shape[:3]
        flat, actions = rearrange(seen, "b p s ... -> (b p s) ..."), rearrange(batch.actions, "b p s a -> (b p s) a")
        rewards = torch.stack([member(flat, actions) for member in self.members], dim=-1)
        rewards = rearrange(rewards, "(b p s) m -> b p s m", b=pairs, s=steps)
        return (rewards * batch.known[:, None, :, None]).sum(2)

    def forward(self, batch: PairBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and the share of clear choices that the ensemble foretells."""
        returns = self.returns(batch)
        left, right = returns.unbind(1)
        loss = bradley_terry_loss(left, right, batch.target[:, None], self.mistakes)
        metrics = {"accuracy": accuracy((left - right).detach().mean(1), batch.target)}
        return (loss * batch.weights).mean(), metrics


def accuracy(gap: Tensor, target: Tensor) -> Tensor:
    """Share of clear choices in which the chosen segment has the larger sum; NaN where there is none.

    Args:
        gap: ``(B,)`` sum of the left one less that of the right one.
        target: ``(B,)`` 1, 0, or 0.5.
    """
    clear = target != 0.5
    if not bool(clear.any()):
        return torch.tensor(float("nan"))
    return masked_mean((gap * (target - 0.5) > 0).float(), clear.float())


@torch.no_grad()
def judge(model: PreferenceTraining, pairs: LabelledPairs, batch_size: int = 16) -> dict[str, float]:
    """How well a model foretells choices that it was not trained on.

    Returns:
        ``accuracy`` in clear choices, ``bradley_terry`` (mean loss of the ensemble, weights and mistakes left out) and
        ``return_correlation``, with the recorded rewards of the segments (not where all were paid the same): how far
        whoever chose wants what the game pays.
    """
    device = next(model.parameters()).device
    parts = [
        pairs.take(range(begin, min(begin + batch_size, len(pairs)))) for begin in range(0, len(pairs), batch_size)
    ]
    returns = torch.cat([model.returns(part.to(device)).mean(-1).cpu() for part in parts])
    target, paid = (torch.cat([getattr(part, name) for part in parts]) for name in ("target", "paid"))
    figures = {
        "accuracy": float(accuracy(returns[:, 0] - returns[:, 1], target)),
        "bradley_terry": float(bradley_terry_loss(returns[:, 0], returns[:, 1], target).mean()),
    }
    both = torch.stack([returns.flatten(), paid.flatten()]).double()
    if bool((both.std(1) > 0).all()):
        figures["return_correlation"] = float(torch.corrcoef(both)[0, 1])
    return figures


def split_labels(labels: Sequence[Label], held_out: float, seed: int) -> tuple[list[Label], list[Label]]:
    """Labels to learn from, and labels to judge by; of clear choices and of ties the same share.

    What several people said of one pair stays together. Segments of the two may overlap: what is judged is other
    comparisons, not other recordings.

    Args:
        labels: All that say something.
        held_out: Share that is not learned.
        seed: Of the draw.

    Raises:
        ValueError: If too few are clear, or for a share that leaves one of the two empty.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out is {held_out}; it is a share, above 0 and below 1")
    pairs = list(dict.fromkeys(label.pair for label in labels))
    chosen = {label.pair for label in labels if label.choice != "tie"}
    clear = [i for i, pair in enumerate(pairs) if pair in chosen]
    ties = [i for i, pair in enumerate(pairs) if pair not in chosen]
    if len(clear) < FEWEST:
        raise ValueError(
            f"in {len(clear)} of {len(pairs)} labelled pairs one segment is better, and it takes at least {FEWEST}: "
            "label more (neuralsim preferences label with a larger --pairs), or longer segments if most are alike"
        )
    rng = np.random.default_rng((seed, len(pairs)))
    held: set[Pair] = set()
    for group, least in ((clear, 1), (ties, 0)):
        count = min(max(least, round(held_out * len(group))), max(len(group) - 1, 0))
        held |= {pairs[i] for i in rng.permutation(group)[:count]}
    return [label for label in labels if label.pair not in held], [label for label in labels if label.pair in held]
