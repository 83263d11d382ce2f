"""``neuralsim preferences label``: which of two recorded segments is better, pair after pair.

A person chooses in a window (:mod:`neuralsim.agents.preferences.window`), or a scripted labeller by the recorded
rewards. What both share is the session: the pair that is asked about now, and the file of labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from rich.progress import track

from neuralsim.agents.preferences.pairs import Choice, Label, Pair, PairSampler, PreferencePairs, Segment
from neuralsim.data.episodes import EpisodeStore


@dataclass
class LabelConfig:
    """Shows recorded segments two by two and keeps which one is better.

    left and right choose, down says that both are as good, space shows both again, S skips a pair that cannot be
    compared, backspace takes the last label back, escape stops. The same command goes on where it was stopped.
    """

    data: Path = Path("data/pong")
    """Recorded episodes (neuralsim record)."""
    out: Path = Path("labels.jsonl")
    """File of the labels; labels that it holds already count."""
    pairs: int = 100
    """Labels in all; skipped pairs do not count."""
    segment: int = 30
    """Steps per segment: long enough to see what is going on, short enough to see what was good about it."""
    labeller: Literal["person", "reward"] = "person"
    """A person at a window, or reward: whichever segment was paid more, without a window."""
    error_rate: float = 0.0
    """Share of clear choices in which the scripted labeller says the opposite."""
    by: str = "person"
    """Who chooses, as it is written beside every label of a person."""
    question: str = "Which one is better?"
    """What is asked above the clips, such as "Which one is better for green?" """
    seed: int = 0
    """Of the pairs, and of the scripted labeller's errors."""
    scale: int | None = None
    """Enlargement, a whole number; by default one that makes a comfortable window."""


class LabellingSession:
    """The pair that is asked about now, and what happens to the answer.

    Args:
        store: The recordings.
        labels: Where labels go.
        sampler: Draws the pairs; the n-th line of the file is about the n-th pair.
        wanted: Labels in all.
        by: Who chooses.
        question: What is asked above the clips.

    Attributes:
        pair: What is asked about; None once there are enough labels.
        clips: The frames of its two segments, each ``(length + 1, H, W, 3)`` uint8.
        note: What was done last.
    """

    def __init__(
        self,
        store: EpisodeStore,
        labels: PreferencePairs,
        sampler: PairSampler,
        wanted: int,
        by: str = "person",
        question: str = "Which one is better?",
    ) -> None:
        self.store, self.labels, self.sampler = store, labels, sampler
        self.wanted, self.by, self.question = wanted, by, question
        self.pair: Pair | None = None
        self._clips: tuple[np.ndarray, np.ndarray] | None = None
        self.note = labels.note
        self._ask()

    @property
    def judged(self) -> int:
        """Labels so far."""
        return len(self.labels.judged)

    @property
    def clips(self) -> tuple[np.ndarray, np.ndarray]:
        """The frames of both segments; read when they are first looked at.

        Raises:
            ValueError: If no pair is asked about.
        """
        if self.pair is None:
            raise ValueError(f"{self.judged} of {self.wanted} pairs are labelled: there is none to look at")
        if self._clips is None:
            self._clips = self._frames(self.pair.left), self._frames(self.pair.right)
        return self._clips

    def choose(self, choice: Choice) -> None:
        """Keeps the answer and goes on to the next pair; ignored once there are enough labels."""
        if self.pair is None:
            return
        self.labels.add(Label(self.pair, choice, self.by))
        said = {"tie": "equally good", "skip": "skipped"}.get(choice, f"{choice} is better")
        self.note = f"last answer: {said}"
        self._ask()

    def undo(self) -> None:
        """Takes the last answer back; its pair is asked about again."""
        if not self.labels.labels:
            self.note = "there is nothing to take back"
            return
        label = self.labels.undo()
        self.note = "taken back"
        self.pair, self._clips = label.pair, None

    def _ask(self) -> None:
        self.pair = self.sampler.draw(len(self.labels)) if self.judged < self.wanted else None
        self._clips = None

    def _frames(self, segment: Segment) -> np.ndarray:
        return self.store.frames(segment.episode, segment.start, segment.stop + 1)


class RewardLabeller:
    """Prefers the segment that was paid more; for tests, and to see how many labels a game takes.

    Args:
        store: The recordings.
        error_rate: Share of clear choices that it gets wrong.
        seed: Of its errors, which depend on (seed, index) alone.

    Raises:
        ValueError: For an error rate outside [0, 1].
    """

    def __init__(self, store: EpisodeStore, error_rate: float = 0.0, seed: int = 0) -> None:
        if not 0 <= error_rate <= 1:
            raise ValueError(f"error_rate is {error_rate}; it is a share, from 0 to 1")
        self.store, self.error_rate, self.seed = store, error_rate, seed
        self._rewards: dict[int, np.ndarray] = {}

    @property
    def name(self) -> str:
        """What is written beside its labels."""
        return "reward" if self.error_rate == 0 else f"reward (error rate {self.error_rate:g})"

    def paid(self, segment: Segment) -> float:
        """Sum of the rewards of a segment, undiscounted, as the model sums its own."""
        if segment.episode not in self._rewards:
            self._rewards[segment.episode] = self.store.rewards(segment.episode).astype(np.float64)
        return float(self._rewards[segment.episode][segment.start : segment.stop].sum())

    def choose(self, pair: Pair, index: int) -> Choice:
        """What it says of the pair of that number."""
        left, right = self.paid(pair.left), self.paid(pair.right)
        if np.isclose(left, right):
            return "tie"
        wrong = np.random.default_rng((self.seed, index, 1)).random() < self.error_rate
        return "left" if (left > right) != wrong else "right"


def label(config: LabelConfig) -> None:
    """Labels pairs until there are enough, or the window is closed.

    Raises:
        ValueError: If the recordings are empty or too short, or the file is damaged or about others.
        FileNotFoundError: If there are no recordings.
        ModuleNotFoundError: If a person is to choose, without the extra "play".
        OSError: If there is no display, or a label cannot be written.
    """
    if config.pairs < 1:
        raise ValueError(f"pairs is {config.pairs}; it must be at least 1")
    if config.scale is not None and config.scale < 1:
        raise ValueError(f"scale is {config.scale}; it must be a whole number of at least 1")
    store = EpisodeStore.open(config.data)
    sampler = PairSampler(store, config.segment, config.seed)
    labeller = RewardLabeller(store, config.error_rate, config.seed)
    person = config.labeller == "person"
    if person:
        from neuralsim.agents.preferences.window import require_display

        require_display()
    labels = PreferencePairs(config.out, store, create=True)
    if labels.note:
        print(labels.note)
    if labels.labels:
        print(f"going on with {labels.summary()}")
    by = config.by if person else labeller.name
    session = LabellingSession(store, labels, sampler, config.pairs, by, config.question)
    try:
        if person:
            from neuralsim.agents.preferences.window import label_in_window

            label_in_window(session, config.scale)
        else:
            for _ in track(range(config.pairs - session.judged), description="labelling"):
                assert session.pair is not None
                session.choose(labeller.choose(session.pair, len(labels)))
    finally:
        print(labels.summary())
