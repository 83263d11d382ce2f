"""Pairs of recorded segments, and which of the two somebody preferred: a file with one line of JSON per label.

    {"left": {"episode": 3, "start": 120, "length": 30, "content": "5ad1..."}, "right": {...}, "choice": "left", ...}

Notable:
- a label is on disk the moment it is made; a last line that was cut off is noticed, and never counted;
- a segment names its episode by number and by content, so that labels are never read against other recordings;
- every line stands for itself: labels of several people are put together by ``cat``.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from neuralsim.data.episodes import EpisodeStore

Choice = Literal["left", "right", "tie", "skip"]
"""The left one is better, the right one, both are as good, or: this pair cannot be compared (and is not learned)."""

TARGETS: dict[str, float] = {"left": 1.0, "right": 0.0, "tie": 0.5}
"""What is learned of a choice: the probability that the left segment is the better one."""

_TRIES = 100  # draws for a segment that does not overlap with the other one


@dataclass(frozen=True)
class Segment:
    """Consecutive steps of a recorded episode.

    Attributes:
        episode: Its id.
        start: First step, from 0.
        length: Steps; the segment shows one frame more.
    """

    episode: int
    start: int
    length: int

    def __post_init__(self) -> None:
        numbers = (self.episode, self.start, self.length)
        if not all(type(n) is int for n in numbers) or self.start < 0 or self.length < 1:
            raise ValueError(
                f"episode {self.episode!r}, start {self.start!r} and length {self.length!r} make no segment"
            )

    @property
    def stop(self) -> int:
        """The step after the last one."""
        return self.start + self.length


@dataclass(frozen=True)
class Pair:
    """Two segments of one length: the sum of rewards of a longer one would be larger or smaller for that alone."""

    left: Segment
    right: Segment

    def __post_init__(self) -> None:
        if self.left.length != self.right.length:
            raise ValueError(f"segments of {self.left.length} and {self.right.length} steps make no pair")


@dataclass(frozen=True)
class Label:
    """What somebody said of a pair.

    Attributes:
        pair: The pair.
        choice: Which segment is better.
        by: Who said so.
    """

    pair: Pair
    choice: Choice
    by: str = "person"

    def __post_init__(self) -> None:
        if self.choice not in (*TARGETS, "skip") or not isinstance(self.by, str):
            raise ValueError(f"choice {self.choice!r} by {self.by!r}: choices are {', '.join(TARGETS)} and skip")


class PairSampler:
    """Draws the pairs that are asked about; a draw depends on (seed, index) alone.

    All segments of the recordings are alike. The two of a pair do not overlap, where the recordings allow it.

    Args:
        store: Recorded episodes.
        length: Steps of a segment.
        seed: Of the draws.

    Raises:
        ValueError: If the recordings hold no two segments of that length.
    """

    def __init__(self, store: EpisodeStore, length: int, seed: int = 0) -> None:
        if length < 1:
            raise ValueError(f"segment is {length}; it must be at least 1 step")
        steps = {i: store.length(i) for i in store.ids}
        if not steps:
            raise ValueError(f"{store.path} holds no episodes: record some (neuralsim record)")
        self.length, self.seed = length, seed
        self.episodes = [i for i, count in steps.items() if count >= length]
        if not self.episodes:
            raise ValueError(
                f"a segment is {length} steps, but the longest of the {len(steps)} episodes in {store.path} has "
                f"{max(steps.values())}: lower --segment, or record longer ones"
            )
        self.counts = np.array([steps[i] - length + 1 for i in self.episodes])
        self.cumulative = self.counts.cumsum()
        if self.cumulative[-1] < 2:
            raise ValueError(
                f"{store.path} holds a single segment of {length} steps, and a pair takes two: lower --segment, or "
                "record more"
            )

    def draw(self, index: int) -> Pair:
        """The pair of that number."""
        rng = np.random.default_rng((self.seed, index))
        total = int(self.cumulative[-1])
        first = int(rng.integers(total))
        left = self._segment(first)
        for _ in range(_TRIES):
            # Any but the first one, all alike.
            right = self._segment((first + 1 + int(rng.integers(total - 1))) % total)
            if left.episode != right.episode or abs(left.start - right.start) >= self.length:
                break
        return Pair(left, right)

    def _segment(self, flat: int) -> Segment:
        i = int(self.cumulative.searchsorted(flat, side="right"))
        return Segment(self.episodes[i], int(flat - (self.cumulative[i] - self.counts[i])), self.length)


class PreferencePairs:
    """The labels of some recordings, in a file.

    Args:
        path: The file.
        store: The recordings.
        create: Makes the file where there is none.

    Attributes:
        labels: All labels in order, skipped pairs included.
        note: What is to be told about the file: that its last line was cut off. Empty if there is nothing to tell.

    Raises:
        FileNotFoundError: If there is no such file, and none is to be made.
        ValueError: If the file is damaged, or its labels are about other recordings.
        OSError: If the file cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str], store: EpisodeStore, create: bool = False) -> None:
        self.path, self.store = Path(path), store
        if create:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.open("ab").close()
        if not self.path.is_file():
            raise FileNotFoundError(
                f"there are no labels {self.path}; make some with neuralsim preferences label --data {store.path} "
                f"--out {self.path}"
            )
        self.labels: list[Label] = []
        self.note = ""
        self._lines: list[int] = []  # where each label's line begins, in bytes
        self._end = self._size = 0  # of the whole lines, and of the file
        self._read()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def judged(self) -> list[Label]:
        """The labels that say something: all but skipped pairs."""
        return [label for label in self.labels if label.choice != "skip"]

    def fingerprint(self) -> str:
        """A short name for exactly these labels."""
        return hashlib.sha256("".join(map(self._line, self.labels)).encode()).hexdigest()[:16]

    def summary(self) -> str:
        """How many there are of each kind, as a line of text."""
        counts = Counter(label.choice for label in self.labels)
        told = f"{counts['left']} left, {counts['right']} right, {counts['tie']} equally good"
        skipped = f", {counts['skip']} skipped" if counts["skip"] else ""
        return f"{self.path}: {len(self.judged)} labels ({told}){skipped}"

    def add(self, label: Label) -> None:
        """Appends a label; it is on disk when this returns.

        Raises:
            ValueError: If the segments are not in the recordings, or another program changed the file meanwhile.
            OSError: If it cannot be written (disk full); the labels before it are intact.
        """
        for segment in (label.pair.left, label.pair.right):
            if segment.episode not in self.store or segment.stop > self.store.length(segment.episode):
                raise ValueError(f"{segment} is not in {self.store.path}")
        line = self._line(label).encode()
        # Unbuffered: a write that fails must not be tried again when the file is closed.
        with self.path.open("r+b", buffering=0) as file:
            self._check_size(file.seek(0, os.SEEK_END))
            file.truncate(self._end)  # a line that was cut off makes room
            file.seek(self._end)
            try:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError as error:
                with contextlib.suppress(OSError):
                    file.truncate(self._end)
                self._size = self._end
                raise OSError(
                    error.errno,
                    f"the label could not be written ({error.strerror}); those before it are",
                    str(self.path),
                ) from error
        self._lines.append(self._end)
        self._end = self._size = self._end + len(line)
        self.labels.append(label)

    def undo(self) -> Label:
        """Takes the last label back, from the file too, and returns it.

        Raises:
            IndexError: If there is none.
            ValueError: If another program changed the file meanwhile.
            OSError: If the file cannot be written.
        """
        if not self.labels:
            raise IndexError(f"{self.path} holds no label to take back")
        with self.path.open("r+b", buffering=0) as file:
            self._check_size(file.seek(0, os.SEEK_END))
            file.truncate(self._lines[-1])
            os.fsync(file.fileno())
        self._end = self._size = self._lines.pop()
        return self.labels.pop()

    # -- lines

    def _line(self, label: Label) -> str:
        row: dict[str, Any] = {}
        for side in ("left", "right"):
            segment: Segment = getattr(label.pair, side)
            row[side] = {**vars(segment), "content": self.store.short_hash(segment.episode)}
        return json.dumps({**row, "choice": label.choice, "by": label.by}) + "\n"

    def _read(self) -> None:
        content = self.path.read_bytes()
        self._end, self._size = content.rfind(b"\n") + 1, len(content)
        if self._end < self._size:
            self.note = f"the last line of {self.path} was cut off and is not counted"
        begin = 0
        for number, line in enumerate(content[: self._end].split(b"\n")[:-1], 1):
            try:
                label, contents = _parse(line)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{self.path}, line {number} is damaged ({type(error).__name__}: {error}); delete that line, or "
                    "restore the file from a copy"
                ) from None
            for segment, named in zip((label.pair.left, label.pair.right), contents, strict=True):
                self._check_recorded(number, segment, named)
            self.labels.append(label)
            self._lines.append(begin)
            begin += len(line) + 1

    def _check_recorded(self, number: int, segment: Segment, content: str) -> None:
        found = self.store.short_hash(segment.episode) if segment.episode in self.store else None
        if found != content:
            there = "does not have" if found is None else f"has with content {found}"
            raise ValueError(
                f"{self.path}, line {number} is about episode {segment.episode} with content {content}, which "
                f"{self.store.path} {there}: these labels are of other recordings; name those with --data"
            )
        if segment.stop > self.store.length(segment.episode):
            raise ValueError(
                f"{self.path}, line {number} is damaged ({segment} ends after its episode, which has "
                f"{self.store.length(segment.episode)} steps); delete that line"
            )

    def _check_size(self, size: int) -> None:
        if size != self._size:
            raise ValueError(
                f"another program changed {self.path} (it has {size} bytes, not {self._size}): stop one of the two, "
                "and run the same command again"
            )


def _parse(line: bytes) -> tuple[Label, tuple[str, str]]:
    """A label, and the contents of the episodes that its segments are of."""
    row = json.loads(line.decode("utf-8"))
    contents = (str(row["left"].pop("content")), str(row["right"].pop("content")))
    left, right = Segment(**row.pop("left")), Segment(**row.pop("right"))
    return Label(Pair(left, right), **row), contents
