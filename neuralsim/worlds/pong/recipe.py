"""How the bundled world of Dream-Pong-v0 was made: every command, in order.

    python neuralsim/worlds/pong/recipe.py [folder]

Recordings, runs and the new world land in the folder (default: the current one). Each command resumes where it was
interrupted. On two CPU cores without bfloat16 it takes about seven hours, most of them for the dynamics.

The dynamics was trained in several goes, as more was learned (docs/experiments.md). Up to the world that is packed as
"third" the bundled weights come from these commands with changes of course; the three runs after it are as they stand
here (an hour on two CPU cores with AVX-512 bfloat16), and much of what was before may have been of no use to them.
Tokenizer: 5,000 steps were planned at first. First run of the dynamics: zero_fraction 0.3 up to step 1,250, gradients
of dynamics and heads clipped together up to step 2,000, 6,500 steps planned until then. Heads: trained on from another
run than the one named here, which was not kept; they see latents of real frames alone and fit any dynamics on these
latents. First 3,000 steps, then as many again. The agents beside the world learned in the third world: those that the
run of the actor-critic kept (some of its ages); up to step 1,440 some of its dreams began at the last frame of a game.
"""

from __future__ import annotations

import sys
from pathlib import Path

from neuralsim.cli import main

# The Atari 100k protocol: frame skip 4, no sticky actions.
GAME = ["ALE/Pong-v5", "--env-kwargs", '{"repeat_action_probability": 0.0}']
MIX = [*GAME, "--policy", "pong-mix"]


def commands(home: Path) -> list[list[str]]:
    """The command lines, without the leading ``neuralsim``."""
    names = ("pong", "pong-more", "pong-heldout", "pong-test")
    data, more_data, held_out, test = (str(home / "data" / name) for name in names)
    tokenizer, heads = str(home / "runs/tokenizer"), str(home / "runs/heads")
    third, world = str(home / "worlds/third"), str(home / "worlds/pong")
    first, longer, turns, more, back, own = (
        str(home / "runs" / name) for name in ("first", "longer", "turns", "turns2", "back", "own")
    )
    law, real, dreamed = (str(home / "runs" / name) for name in ("law", "real", "dreamed"))
    clone, agent = str(home / "runs" / "clone"), str(home / "runs" / "actor-critic")
    learn = ["--data", data, "--held-out", held_out]
    dynamics = ["train", "dynamics", *learn, "--tokenizer", tokenizer, "--loop.compile"]
    # On from a run that knows shortcuts already.
    on = [*dynamics, "--preset", "pong", "--convolutional.bootstrap-start", "0", "--loop.decay-fraction", "0.7"]
    # Eight past actions, Muon, and stains on the past.
    last = ["train", "dynamics", "--data", more_data, "--held-out", held_out, "--tokenizer", tokenizer,
            "--convolutional.past-actions", "8", "--convolutional.bootstrap-start", "0",
            "--convolutional.context-stain", "0.3", "--loop.optimizer", "muon", "--loop.compile"]  # fmt: skip
    turning = [*mix(turns=0.6, comebacks=0.04), "--clips.aftermath", "0.1"]
    return [
        # Recorded in two goes: the last episode of the first is cut where it ended.
        ["record", *MIX, "--steps", "300000", "--seed", "1000", "--out", data],
        ["record", *MIX, "--steps", "500000", "--seed", "1000", "--out", data],
        ["record", *MIX, "--steps", "30000", "--seed", "900000", "--out", held_out],
        ["record", *MIX, "--steps", "60000", "--seed", "950000", "--out", test],
        ["train", "tokenizer", "--preset", "pong", *learn, "--out", tokenizer, "--loop.steps", "7500"],
        [*dynamics, "--preset", "pong", "--out", first, *mix(), "--loop.steps", "4500"],
        [*on, "--init-from", first, "--out", longer, *mix(), "--loop.steps", "5000", "--loop.learning-rate", "1e-3",
         "--loop.seed", "1"],
        [*on, "--init-from", longer, "--out", turns, *mix(turns=0.5), "--loop.steps", "2400",
         "--loop.learning-rate", "8e-4", "--loop.warmup-steps", "100", "--loop.seed", "2"],
        [*on, "--init-from", turns, "--out", more, *mix(turns=0.5), "--loop.steps", "7000",
         "--loop.learning-rate", "1e-3", "--loop.warmup-steps", "100", "--loop.seed", "3"],
        [*on, "--init-from", more, "--out", back, *mix(turns=0.4, comebacks=0.06), "--loop.steps", "400",
         "--loop.learning-rate", "3e-4", "--loop.warmup-steps", "50", "--loop.seed", "5"],
        [*dynamics, "--preset", "pong-own-context", "--init-from", back, "--out", own, "--loop.seed", "4"],
        [*dynamics, "--preset", "pong-heads", "--init-from", first, "--out", heads, "--loop.steps", "6000"],
        ["world", "pack", "--name", "pong", "--data", data, "--tokenizer", tokenizer, "--dynamics", own,
         "--blend", f"{back}=0.2", "--heads", heads, "--max-episode-steps", "27000", "--out", third],
        ["agent", "train", "clone", *learn, "--tokenizer", third, "--out", clone],
        ["agent", "train", "actor-critic", "--env", third, "--prior", clone, "--data", data, "--out", agent,
         "--loop.steps", "2000", "--loop.evaluate-every", "500"],
        ["record", *GAME, "--policy", "pong-mix:0.8", "pong-idle:0.2", "--steps", "1500000", "--seed", "1000",
         "--workers", "2", "--out", more_data],
        [*last, "--preset", "pong", "--init-from", third, "--out", law, *turning, "--loop.steps", "3000",
         "--loop.learning-rate", "1e-3", "--loop.warmup-steps", "100", "--loop.decay-fraction", "0.3",
         "--loop.final-learning-rate", "0.3", "--loop.ema", "0.999"],
        [*last, "--preset", "pong", "--init-from", law, "--out", real, *turning, "--foresight.weight", "0.5",
         "--loop.steps", "3600", "--loop.learning-rate", "1e-3", "--loop.warmup-steps", "50",
         "--loop.decay-fraction", "0.85", "--loop.final-learning-rate", "0.05", "--loop.ema", "0.9985",
         "--loop.seed", "1"],
        [*last, "--preset", "pong", "--init-from", real, "--out", dreamed, "--batch-size", "16",
         *mix(turns=0.5, comebacks=0.05), "--clips.aftermath", "0.15", "--foresight.weight", "0.5",
         "--convolutional.rollout", "4", "--convolutional.lead", "16", "--convolutional.self-context", "0.75",
         "--convolutional.self-start", "0", "--convolutional.zero-fraction", "0.6",
         "--loop.steps", "2000", "--loop.learning-rate", "7e-4", "--loop.warmup-steps", "50",
         "--loop.decay-fraction", "0.85", "--loop.final-learning-rate", "0.03", "--loop.ema", "0.9985",
         "--loop.seed", "2"],
        ["world", "pack", "--name", "pong", "--data", more_data, "--tokenizer", tokenizer, "--dynamics", dreamed,
         "--heads", heads, "--max-episode-steps", "27000", "--out", world],
        ["evaluate", world, "--data", test, "--agents", agent, "--out", str(home / "report"), "--save"],
    ]  # fmt: skip


def mix(turns: float = 0.0, comebacks: float = 0.0) -> list[str]:
    """Options for which clips are shown more often."""
    return ["--clips.turns", str(turns), "--clips.comebacks", str(comebacks)]


if __name__ == "__main__":
    for words in commands(Path(sys.argv[1] if len(sys.argv) > 1 else ".")):
        print("$ neuralsim", " ".join(words), flush=True)
        if status := main(words):
            sys.exit(status)
