"""How recipes are followed: every bundled world has one, the list of the commands that made it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from neuralsim.cli import main


def follow(commands: Callable[[Path], list[list[str]]]) -> None:
    """Runs the command lines of a recipe in the folder that the program was called with (default: the current one).

    Called again it goes on where it was interrupted; what is done stands in ``recipe_done.txt``. A command that fails
    ends the program with its exit status.

    Args:
        commands: Of a folder for recordings, runs and the world: the command lines, without the leading ``neuralsim``.
    """
    home = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    # Recordings grow after runs have learned from them, and a run that is done would not know them again.
    noted = home / "recipe_done.txt"
    done = noted.read_text().splitlines() if noted.exists() else []
    for words in commands(home):
        line = " ".join(words)
        if line in done:
            continue
        print("$ neuralsim", line, flush=True)
        if status := main(words):
            sys.exit(status)
        home.mkdir(parents=True, exist_ok=True)
        with noted.open("a") as file:
            file.write(line + "\n")
