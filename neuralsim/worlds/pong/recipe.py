"""How the bundled world of Dream-Pong-v0 was made: every command, in order.

    python neuralsim/worlds/pong/recipe.py [folder]

Recordings, runs and the new world land in the folder (default: the current one). Each command resumes where it was
interrupted. On two CPU cores without bfloat16 it takes about seven hours, most of them for the dynamics.

The dynamics was trained in several goes, as more was learned (docs/experiments.md); the presets put all of it into one
run each, which nobody has tried for as long. The bundled weights come from these commands with changes of course.
Tokenizer: 5,000 steps were planned at first. First run of the dynamics: zero_fraction 0.3 up to step 1,250, gradients
of dynamics and heads clipped together up to step 2,000, 6,500 steps planned until then. Heads: trained on from another
run than the one named here, which was not kept; they see latents of real frames alone and fit any dynamics on these
latents. First 3,000 steps, then as many again. The agents beside the world are those that the run of the actor-critic
kept (some of its ages): they learned in the third Dream-Pong (worlds/third), from which the present one goes on, and
are ranked by its card; up to step 1,440 some of their dreams began at the last frame of a game. Of the last two runs of
the dynamics the first was planned for 6,000 steps up to step 2,000, the second for 1,500 up to step 500.
"""

from __future__ import annotations

import sys
from pathlib import Path

from neuralsim.cli import main

# The Atari 100k protocol: frame skip 4, no sticky actions.
GAME = ["ALE/Pong-v5", "--env-kwargs", '{"repeat_action_probability": 0.0}', "--policy", "pong-mix"]


def commands(home: Path) -> list[list[str]]:
    """The command lines, without the leading ``neuralsim``."""
    data, more_data, held_out, test = (
        str(home / "data" / name) for name in ("pong", "pong-more", "pong-heldout", "pong-test")
    )
    tokenizer, heads, third, world = (
        str(home / part) for part in ("runs/tokenizer", "runs/heads", "worlds/third", "worlds/pong")
    )
    first, longer, turns, more, back, own, foresight, lead = (
        str(home / "runs" / name) for name in ("first", "longer", "turns", "turns2", "back", "own", "foresight", "lead")
    )
    clone, agent = str(home / "runs" / "clone"), str(home / "runs" / "actor-critic")
    learn = ["--data", data, "--held-out", held_out]
    # Up to the third Dream-Pong nothing foresaw where the ball would be.
    part = ["--tokenizer", tokenizer, "--loop.compile"]
    dynamics = ["train", "dynamics", *learn, *part, "--foresight.weight", "0"]
    # On from a run that knows shortcuts already.
    knows_shortcuts = ["--preset", "pong", "--convolutional.bootstrap-start", "0"]
    on = [*dynamics, *knows_shortcuts, "--loop.decay-fraction", "0.7"]
    # Sees twice as many actions, in three times the recordings, and learns faster.
    learn_more = ["--data", more_data, "--held-out", held_out]
    further = ["train", "dynamics", *learn_more, *part, *knows_shortcuts, "--convolutional.past-actions", "8"]
    muon = ["--loop.optimizer", "muon"]
    pack = ["world", "pack", "--name", "pong", "--tokenizer", tokenizer, "--max-episode-steps", "27000"]
    return [
        # Recorded in two goes: the last episode of the first is cut where it ended.
        ["record", *GAME, "--steps", "300000", "--seed", "1000", "--out", data],
        ["record", *GAME, "--steps", "500000", "--seed", "1000", "--out", data],
        ["record", *GAME, "--steps", "30000", "--seed", "900000", "--out", held_out],
        ["record", *GAME, "--steps", "60000", "--seed", "950000", "--out", test],
        ["train", "tokenizer", "--preset", "pong", *learn, "--out", tokenizer, "--loop.steps", "7500"],
        [*dynamics, "--preset", "pong", "--out", first, *mix(), "--loop.steps", "4500"],
        [*on, "--init-from", first, "--out", longer, *mix(), "--loop.steps", "5000",
         "--loop.learning-rate", "1e-3", "--loop.seed", "1"],
        [*on, "--init-from", longer, "--out", turns, *mix(turns=0.5), "--loop.steps", "2400",
         "--loop.learning-rate", "8e-4", "--loop.warmup-steps", "100", "--loop.seed", "2"],
        [*on, "--init-from", turns, "--out", more, *mix(turns=0.5), "--loop.steps", "7000",
         "--loop.learning-rate", "1e-3", "--loop.warmup-steps", "100", "--loop.seed", "3"],
        [*on, "--init-from", more, "--out", back, *mix(turns=0.4, comebacks=0.06), "--loop.steps", "400",
         "--loop.learning-rate", "3e-4", "--loop.warmup-steps", "50", "--loop.seed", "5"],
        [*dynamics, "--preset", "pong-own-context", "--init-from", back, "--out", own, "--loop.seed", "4"],
        [*dynamics, "--preset", "pong-heads", "--init-from", first, "--out", heads, "--loop.steps", "6000"],
        [*pack, "--data", data, "--dynamics", own, "--blend", f"{back}=0.2", "--heads", heads, "--out", third],
        ["agent", "train", "clone", *learn, "--tokenizer", third, "--out", clone],
        ["agent", "train", "actor-critic", "--env", third, "--prior", clone, "--data", data, "--out", agent,
         "--loop.steps", "2000", "--loop.evaluate-every", "500"],
        ["record", *GAME, "--steps", "1500000", "--seed", "1000", "--out", more_data],
        [*further, *muon, "--init-from", third, "--out", foresight, *mix(turns=0.6, comebacks=0.04, aftermath=0.1),
         "--loop.steps", "4500",
         "--loop.learning-rate", "1e-3", "--loop.decay-fraction", "0.5", "--loop.final-learning-rate", "0.1",
         "--loop.warmup-steps", "100", "--loop.seed", "11"],
        [*further, *muon, "--init-from", foresight, "--out", lead, *mix(turns=0.5, comebacks=0.05),
         "--loop.steps", "1000",
         "--convolutional.lead", "8", "--convolutional.self-context", "0.75", "--convolutional.self-start", "0",
         "--foresight.weight", "0.5", "--loop.learning-rate", "7e-4", "--loop.decay-fraction", "0.8",
         "--loop.warmup-steps", "50", "--loop.seed", "12"],
        [*pack, "--data", more_data, "--dynamics", lead, "--blend", f"{foresight}=0.4", "--heads", third,
         "--out", world],
        ["evaluate", world, "--data", test, "--agents", agent, "--out", str(home / "report"), "--save"],
    ]  # fmt: skip


def mix(turns: float = 0.0, comebacks: float = 0.0, aftermath: float = 0.15) -> list[str]:
    """Options for which clips are shown more often."""
    return ["--clips.turns", str(turns), "--clips.comebacks", str(comebacks), "--clips.aftermath", str(aftermath)]


if __name__ == "__main__":
    for words in commands(Path(sys.argv[1] if len(sys.argv) > 1 else ".")):
        print("$ neuralsim", " ".join(words), flush=True)
        if status := main(words):
            sys.exit(status)
