"""How the bundled world of Dream-Pong-v0 was made: every command, in order.

    python neuralsim/worlds/pong/recipe.py [folder]

Recordings, runs and the new world land in the folder (default: the current one). Each command resumes where it was
interrupted. On two CPU cores without bfloat16 it takes about two hours, most of them for the dynamics.

The bundled weights come from these commands with one change of course, told in docs/experiments.md: the first 1,250
steps of the dynamics ran with context_noise 0.3 and with own context from the beginning, and the planned number of
steps was changed on the way (tokenizer 3,000 to 2,300, dynamics 5,000 to 3,600).
"""

from __future__ import annotations

import sys
from pathlib import Path

from neuralsim.cli import main

# The Atari 100k protocol: frame skip 4, no sticky actions.
GAME = ["ALE/Pong-v5", "--env-kwargs", '{"repeat_action_probability": 0.0}', "--policy", "pong-mix"]


def commands(home: Path) -> list[list[str]]:
    """The command lines, without the leading ``neuralsim``."""
    data, held_out, test = (str(home / "data" / name) for name in ("pong", "pong-heldout", "pong-test"))
    tokenizer, dynamics, world = (str(home / part) for part in ("runs/tokenizer", "runs/dynamics", "worlds/pong"))
    return [
        ["record", *GAME, "--steps", "300000", "--seed", "1000", "--out", data],
        ["record", *GAME, "--steps", "30000", "--seed", "900000", "--out", held_out],
        ["record", *GAME, "--steps", "60000", "--seed", "950000", "--out", test],
        ["train", "tokenizer", "--preset", "pong", "--data", data, "--out", tokenizer, "--loop.steps", "2300"],
        ["train", "dynamics", "--preset", "pong", "--data", data, "--held-out", held_out, "--tokenizer", tokenizer,
         "--out", dynamics, "--loop.steps", "3600", "--loop.compile"],
        ["world", "pack", "--name", "pong", "--data", data, "--tokenizer", tokenizer, "--dynamics", dynamics,
         "--max-episode-steps", "27000", "--out", world],
        ["evaluate", world, "--data", test, "--out", str(home / "report"), "--save"],
    ]  # fmt: skip


if __name__ == "__main__":
    for words in commands(Path(sys.argv[1] if len(sys.argv) > 1 else ".")):
        print("$ neuralsim", " ".join(words), flush=True)
        if status := main(words):
            sys.exit(status)
