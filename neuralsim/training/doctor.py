"""``neuralsim doctor``: what is wrong with a world, a training run or recordings, and what to do about it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from neuralsim.data.episodes import EpisodeStore
from neuralsim.registration import BUNDLED_WORLDS
from neuralsim.training.diagnostic_rules import Finding
from neuralsim.training.recording_checks import check_recordings
from neuralsim.training.run_checks import CHECKPOINT, check_run
from neuralsim.training.weight_checks import Check
from neuralsim.training.world_checks import check_world
from neuralsim.world import World
from neuralsim.world_files import CONFIG, WEIGHTS, bundled_worlds, find_world

Kind = Literal["world", "run", "recordings"]

MARKS = {"ok": "✓", "note": "·", "warning": "!", "error": "✗"}
PLAIN_MARKS = {"ok": "+", "note": "-", "warning": "!", "error": "x"}
"""For terminals that know no others."""
STYLES = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "red"}


@dataclass
class DoctorConfig:
    """Checks a world, a training run or recordings, and says what to do about what is wrong.

    Ends with status 0 if all is well (there may be notes), 1 if there are warnings or errors, 2 for a path that is
    none of these.
    """

    path: Annotated[str, tyro.conf.Positional]
    """A world (bundled name or folder), the folder of a training run, or recordings."""


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found.

    Attributes:
        kind: What the path holds.
        folder: Where.
        checks: What was looked at.
    """

    kind: Kind
    folder: Path
    checks: list[Check]

    @property
    def findings(self) -> list[Finding]:
        """Of all checks."""
        return [finding for check in self.checks for finding in check.findings]

    @property
    def exit_status(self) -> int:
        """1 if there is more than notes."""
        return int(any(finding.level != "note" for finding in self.findings))


def doctor(config: DoctorConfig) -> Diagnosis:
    """Examines what lies at a path, and prints it.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If it is neither a world nor a run nor recordings.
    """
    kind, folder = recognise(config.path)
    diagnosis = Diagnosis(kind, folder, examine(kind, folder))
    print_diagnosis(diagnosis, Console(highlight=False))
    return diagnosis


def recognise(path: str) -> tuple[Kind, Path]:
    """What lies at a path, and in which folder.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If it is neither a world nor a run nor recordings.
    """
    if path in BUNDLED_WORLDS or path in bundled_worlds():
        return "world", find_world(path)
    folder = Path(path).expanduser()
    if not folder.exists():
        raise FileNotFoundError(
            f"there is no {path}: give the folder of a world, a training run or recordings, or a bundled world "
            f"({', '.join(bundled_worlds())})"
        )
    if not folder.is_dir():
        raise ValueError(f"{path} is a file: give the folder it is in, {folder.parent}")
    if (folder / "dataset.json").exists():
        return "recordings", folder
    if (folder / WEIGHTS).exists():
        return "world", folder
    if any((folder / name).exists() for name in ("metrics.jsonl", CHECKPOINT)):
        return "run", folder
    if (folder / CONFIG).exists():
        return ("run" if _describes_a_run(folder / CONFIG) else "world"), folder
    raise ValueError(
        f"{path} holds no world ({CONFIG}, {WEIGHTS}), no training run ({CONFIG}, metrics.jsonl) and no recordings "
        "(dataset.json)"
    )


def examine(kind: Kind, folder: Path) -> list[Check]:
    """All checks that apply. A world that cannot be read is a finding, not an error of the call.

    Raises:
        ValueError: If ``dataset.json`` of recordings is damaged.
    """
    if kind == "recordings":
        return check_recordings(EpisodeStore.open(folder))
    if kind == "run":
        return check_run(folder)
    try:
        # In float32 also on a GPU, where bfloat16 would round small differences away.
        world = World.load(folder, dtype="float32")
    except (ValueError, OSError) as error:
        unreadable = Finding("unreadable", "error", str(error), "get the world again, or pack it again")
        return [Check("files", "", (unreadable,))]
    return [Check("files", f"{world!r}"), *check_world(world)]


def print_diagnosis(diagnosis: Diagnosis, console: Console) -> None:
    """A line for each check, and the advice beside each finding."""
    try:
        "".join(MARKS.values()).encode(console.encoding)
        marks = MARKS
    except UnicodeEncodeError:
        marks = PLAIN_MARKS

    def line(mark: str, text: str) -> None:
        console.print(f"{marks[mark]} {text}", style=STYLES[mark], markup=False, soft_wrap=True)

    console.print(f"{diagnosis.folder}: {diagnosis.kind}", markup=False, soft_wrap=True)
    for check in diagnosis.checks:
        if not check.findings:
            line("ok", f"{check.name}: {check.seen}")
        for finding in check.findings:
            line(finding.level, f"{check.name}: {finding.message}")
            console.print(f"    {finding.advice}", markup=False, soft_wrap=True)
    wrong = sum(finding.level != "note" for finding in diagnosis.findings)
    notes = len(diagnosis.findings) - wrong
    found = f"{wrong} thing{'s' * (wrong != 1)} to look into" if wrong else "nothing wrong"
    console.print(f"{len(diagnosis.checks)} checks, {found}" + (f", {notes} to know" if notes else ""))


def _describes_a_run(config: Path) -> bool:
    try:
        return "loop" in json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False
