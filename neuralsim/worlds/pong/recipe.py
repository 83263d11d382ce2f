"""How the bundled world of Dream-Pong-v0 was made: every command, in order.

    python neuralsim/worlds/pong/recipe.py [folder]

Recordings, runs and the new world land in the folder (default: the current one). Each command resumes where it was
interrupted. On two CPU cores without bfloat16 it takes about three hours, most of them for the dynamics.
"""

from __future__ import annotations

import sys
from pathlib import Path

from neuralsim.cli import main

# The Atari 100k protocol: frame skip 4, no sticky actions.
GAME = ["ALE/Pong-v5", "--env-kwargs", '{"repeat_action_probability": 0.0}', "--policy", "pong-mix"]


def commands(home: Path) -> list[list[str]]:
    """The command lines, without the leading ``neuralsim``."""
    data, held_out = str(home / "data/pong"), str(home / "data/pong-heldout")
    tokenizer, dynamics, world = (str(home / part) for part in ("runs/tokenizer", "runs/dynamics", "worlds/pong"))
    return [
        ["record", *GAME, "--steps", "300000", "--seed", "1000", "--out", data],
        ["record", *GAME, "--steps", "80000", "--seed", "900000", "--out", held_out],
        ["train", "tokenizer", "--preset", "pong", "--data", data, "--out", tokenizer],
        ["train", "dynamics", "--preset", "pong", "--data", data, "--tokenizer", tokenizer, "--out", dynamics],
        ["world", "pack", "--name", "pong", "--data", data, "--tokenizer", tokenizer, "--dynamics", dynamics,
         "--max-episode-steps", "27000", "--out", world],
        ["evaluate", world, "--data", held_out, "--out", str(home / "report"), "--save"],
    ]  # fmt: skip


if __name__ == "__main__":
    for words in commands(Path(sys.argv[1] if len(sys.argv) > 1 else ".")):
        print("$ neuralsim", " ".join(words), flush=True)
        if status := main(words):
            sys.exit(status)
