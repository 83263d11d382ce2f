"""How the bundled world of Dream-Pong-v0 was made: every command, in order.

    python neuralsim/worlds/pong/recipe.py [folder]

Recordings, runs and the new world land in the folder (default: the current one). Each command resumes where it was
interrupted. On two CPU cores without bfloat16 it takes about two hours, most of them for the dynamics.

The bundled weights come from these commands with changes of course, told in docs/experiments.md. Tokenizer: 5,000 steps
were planned at first. First run of the dynamics: zero_fraction 0.3 up to step 1,250, gradients of dynamics and heads
clipped together up to step 2,000, 6,500 steps planned until then. Second run: 500 of 2,200 planned steps, so that own
context came in more slowly than it does by this command. Heads: trained on from the end of those 2,200 steps, whose
dynamics was not kept; they are trained on real frames at last, so they fit any dynamics on these latents. First 3,000
steps, then as many again. The presets have moved on since (longer, own frames with K = 4): what differs is said here.
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
    parts = ("runs/tokenizer", "runs/first", "runs/second", "runs/dynamics", "worlds/pong")
    tokenizer, first, second, third, world = (str(home / part) for part in parts)
    learn = ["--data", data, "--held-out", held_out]
    return [
        # Recorded in two goes: the last episode of the first is cut where it ended.
        ["record", *GAME, "--steps", "300000", "--seed", "1000", "--out", data],
        ["record", *GAME, "--steps", "500000", "--seed", "1000", "--out", data],
        ["record", *GAME, "--steps", "30000", "--seed", "900000", "--out", held_out],
        ["record", *GAME, "--steps", "60000", "--seed", "950000", "--out", test],
        ["train", "tokenizer", "--preset", "pong", *learn, "--out", tokenizer, "--loop.steps", "7500"],
        ["train", "dynamics", "--preset", "pong", *learn, "--tokenizer", tokenizer, "--out", first,
         "--loop.steps", "4500", "--loop.compile"],
        ["train", "dynamics", "--preset", "pong-own-context", *learn, "--tokenizer", tokenizer, "--init-from", first,
         "--out", second, "--convolutional.self-steps", "2", "--convolutional.self-context", "0.75",
         "--loop.steps", "500", "--loop.decay-fraction", "0", "--loop.compile"],
        ["train", "dynamics", "--preset", "pong-heads", *learn, "--tokenizer", tokenizer, "--init-from", second,
         "--out", third, "--loop.steps", "6000"],
        ["world", "pack", "--name", "pong", "--data", data, "--tokenizer", tokenizer, "--dynamics", third,
         "--max-episode-steps", "27000", "--out", world],
        ["evaluate", world, "--data", test, "--out", str(home / "report"), "--clips", "200", "--save"],
    ]  # fmt: skip


if __name__ == "__main__":
    for words in commands(Path(sys.argv[1] if len(sys.argv) > 1 else ".")):
        print("$ neuralsim", " ".join(words), flush=True)
        if status := main(words):
            sys.exit(status)
