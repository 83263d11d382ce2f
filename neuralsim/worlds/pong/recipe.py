"""How the bundled world of Dream-Pong-v0 was made: every command, in order.

    python neuralsim/worlds/pong/recipe.py [folder]

Recordings, runs and the new world land in the folder (default: the current one). Called again it goes on where it was
interrupted; what is done stands in recipe_done.txt. On two CPU cores it takes some ten hours, most of them for the
dynamics.

The dynamics was trained in several goes, as more was learned (docs/experiments.md). Up to the world that is packed as
"third" the bundled weights come from these commands with changes of course; the runs after it are as they stand
here ("fourth" 75 minutes, "fifth" 50, "pong" 67, on two CPU cores with AVX-512 bfloat16; dreams that the heads of
"fourth" learned from had to be alike on two of the four frames that they see, now on all), and much of what was before
may have been of no use to them. The presets put all of it into one run each, which nobody has tried from nothing. The
card knows "foresee" as arm_control, "fresh" as real, "fresh-dreamed" as dreamed; the recordings "pong-newest" as
pong-new.
Tokenizer: 5,000 steps were planned at first. First run of the dynamics: zero_fraction 0.3 up to step 1,250, gradients
of dynamics and heads clipped together up to step 2,000, 6,500 steps planned until then. Heads: trained on from another
run than the one named here, which was not kept; they see latents of real frames alone and fit any dynamics on these
latents. First 3,000 steps, then as many again. The agents of the fifth world are ages of a run that was stopped at step
5,000 of 8,000. The recordings of the sixth were made in two goes each, half and whole, as the very first.
"""

from __future__ import annotations

from pathlib import Path

from neuralsim.worlds.recipes import follow

# The Atari 100k protocol: frame skip 4, no sticky actions.
GAME = ["ALE/Pong-v5", "--env-kwargs", '{"repeat_action_probability": 0.0}']
MIX = [*GAME, "--policy", "pong-mix"]


def commands(home: Path) -> list[list[str]]:
    """The command lines, without the leading ``neuralsim``."""
    names = ("pong", "pong-more", "pong-new", "pong-heldout", "pong-test")
    data, more_data, new_data, held_out, test = (str(home / "data" / name) for name in names)
    newest, played, both = (str(home / "data" / name) for name in ("pong-newest", "agents", "both"))
    tokenizer, heads = str(home / "runs/tokenizer"), str(home / "runs/heads")
    third, fourth, fifth, world = (str(home / "worlds" / name) for name in ("third", "fourth", "fifth", "pong"))
    first, longer, turns, more, back, own = (
        str(home / "runs" / name) for name in ("first", "longer", "turns", "turns2", "back", "own")
    )
    law, real, dreamed, points = (str(home / "runs" / name) for name in ("law", "real", "dreamed", "points"))
    foresee, fresh, fresh_dreamed = (str(home / "runs" / name) for name in ("foresee", "fresh", "fresh-dreamed"))
    deep, deep_dreamed = (str(home / "runs" / name) for name in ("deep", "deep-dreamed"))
    clone, agent = str(home / "runs" / "clone"), str(home / "runs" / "actor-critic")
    new_clone, new_agent = str(home / "runs" / "new-clone"), str(home / "runs" / "new-actor-critic")
    learn = ["--data", data, "--held-out", held_out]
    # The presets as they were up to the third world.
    before = ["--foresight.weight", "0", "--convolutional.past-actions", "4", "--convolutional.context-stain", "0",
              "--loop.optimizer", "adamw"]  # fmt: skip
    dynamics = ["train", "dynamics", *learn, "--tokenizer", tokenizer, *before, "--loop.compile"]
    # On from a run that knows shortcuts already.
    on = [*dynamics, "--preset", "pong", "--clips.aftermath", "0.15", "--convolutional.bootstrap-start", "0",
          "--loop.decay-fraction", "0.7"]  # fmt: skip
    last = ["train", "dynamics", "--data", more_data, "--held-out", held_out, "--tokenizer", tokenizer,
            "--convolutional.bootstrap-start", "0", "--loop.compile"]  # fmt: skip
    # The network grows: two more blocks at each level.
    newly = ["train", "dynamics", "--data", both, "--held-out", held_out, "--tokenizer", tokenizer,
             "--convolutional.bootstrap-start", "0", "--convolutional.blocks", "4", "4", "4", "3", "3",
             "--loop.compile", "--loop.warmup-steps", "50", "--loop.final-learning-rate", "0.03",
             "--loop.ema", "0.9985"]  # fmt: skip
    return [
        # Recorded in two goes: the last episode of the first is cut where it ended.
        ["record", *MIX, "--steps", "300000", "--seed", "1000", "--out", data],
        ["record", *MIX, "--steps", "500000", "--seed", "1000", "--out", data],
        ["record", *MIX, "--steps", "30000", "--seed", "900000", "--out", held_out],
        ["record", *MIX, "--steps", "60000", "--seed", "950000", "--out", test],
        ["train", "tokenizer", "--preset", "pong", *learn, "--out", tokenizer, "--loop.steps", "7500"],
        [*dynamics, "--preset", "pong", "--out", first, *mix(), "--clips.aftermath", "0.15",
         "--loop.steps", "4500", "--loop.learning-rate", "1.5e-3"],
        [*on, "--init-from", first, "--out", longer, *mix(), "--loop.steps", "5000", "--loop.learning-rate", "1e-3",
         "--loop.seed", "1"],
        [*on, "--init-from", longer, "--out", turns, *mix(turns=0.5), "--loop.steps", "2400",
         "--loop.learning-rate", "8e-4", "--loop.warmup-steps", "100", "--loop.seed", "2"],
        [*on, "--init-from", turns, "--out", more, *mix(turns=0.5), "--loop.steps", "7000",
         "--loop.learning-rate", "1e-3", "--loop.warmup-steps", "100", "--loop.seed", "3"],
        [*on, "--init-from", more, "--out", back, *mix(turns=0.4, comebacks=0.06), "--loop.steps", "400",
         "--loop.learning-rate", "3e-4", "--loop.warmup-steps", "50", "--loop.seed", "5"],
        [*dynamics, "--preset", "pong-own-context", "--init-from", back, "--out", own, "--batch-size", "8",
         *mix(turns=0.25, comebacks=0.08), "--clips.events", "0.15", "--clips.ends", "0.03", "--clips.aftermath", "0.2",
         "--clips.starts", "0.03", "--convolutional.rollout", "8", "--convolutional.context-noise", "0.2",
         "--convolutional.zero-fraction", "0.5", "--loop.steps", "600", "--loop.learning-rate", "5e-4",
         "--loop.decay-fraction", "0.5", "--loop.seed", "4"],
        [*dynamics, "--preset", "pong-heads", "--no-heads-on-dreams", "--init-from", first, "--out", heads,
         "--batch-size", "48", "--convolutional.lead", "0", "--convolutional.rollout", "8",
         "--convolutional.context-noise", "0.2", "--loop.steps", "6000", "--loop.decay-fraction", "0.6"],
        ["world", "pack", "--name", "pong", "--data", data, "--tokenizer", tokenizer, "--dynamics", own,
         "--blend", f"{back}=0.2", "--heads", heads, "--max-episode-steps", "27000", "--out", third],
        ["record", *GAME, "--policy", "pong-mix:0.8", "pong-idle:0.2", "--steps", "1500000", "--seed", "1000",
         "--workers", "2", "--out", more_data],
        [*last, "--preset", "pong", "--init-from", third, "--out", law, "--loop.steps", "3000",
         "--loop.warmup-steps", "100", "--loop.decay-fraction", "0.3", "--loop.final-learning-rate", "0.3",
         "--loop.ema", "0.999"],
        [*last, "--preset", "pong", "--init-from", law, "--out", real, "--foresight.weight", "0.5",
         "--loop.steps", "3600", "--loop.warmup-steps", "50", "--loop.decay-fraction", "0.85",
         "--loop.final-learning-rate", "0.05", "--loop.ema", "0.9985", "--loop.seed", "1"],
        [*last, "--preset", "pong-own-context", "--init-from", real, "--out", dreamed, "--loop.warmup-steps", "50",
         "--loop.final-learning-rate", "0.03", "--loop.ema", "0.9985", "--loop.seed", "2"],
        [*last, "--preset", "pong-heads", "--init-from", dreamed, "--out", points, "--loop.warmup-steps", "50",
         "--loop.ema", "0.995", "--loop.seed", "4"],
        ["world", "pack", "--name", "pong", "--data", more_data, "--tokenizer", tokenizer, "--dynamics", dreamed,
         "--blend", f"{real}=0.35", "--heads", points, "--max-episode-steps", "27000", "--out", fourth],
        # The readout of foresight is not packed: first it learns again what the past foresees.
        [*last, "--preset", "pong", "--init-from", fourth, "--out", foresee, "--foresight.weight", "1",
         "--loop.steps", "787", "--loop.warmup-steps", "50", "--loop.learning-rate", "8e-4",
         "--loop.decay-fraction", "0", "--loop.ema", "0.993", "--loop.seed", "11"],
        # As many recordings again, which no weights have seen yet, beside the old ones.
        ["record", *GAME, "--policy", "pong-mix:0.8", "pong-idle:0.2", "--steps", "3000000", "--seed", "1000",
         "--workers", "2", "--out", more_data],
        [*last, "--preset", "pong", "--init-from", foresee, "--out", fresh, "--foresight.weight", "1",
         "--loop.steps", "6000", "--loop.warmup-steps", "50", "--loop.decay-fraction", "0.9",
         "--loop.final-learning-rate", "0.03", "--loop.ema", "0.9985", "--loop.seed", "21"],
        [*last, "--preset", "pong-own-context", "--init-from", fresh, "--out", fresh_dreamed, "--loop.steps", "1150",
         "--loop.warmup-steps", "50", "--loop.final-learning-rate", "0.03", "--loop.ema", "0.9985",
         "--loop.seed", "22"],
        ["world", "pack", "--name", "pong", "--data", more_data, "--tokenizer", tokenizer,
         "--dynamics", fresh_dreamed, "--blend", f"{fresh}=0.35", "--heads", points,
         "--max-episode-steps", "27000", "--out", fifth],
        # Agents that have seen nothing but recordings and this dream.
        ["record", *GAME, "--policy", "pong-mix:0.8", "pong-idle:0.2", "--steps", "1200000", "--seed", "5000000",
         "--workers", "2", "--out", new_data],
        ["agent", "train", "clone", "--data", new_data, "--tokenizer", fifth, "--out", clone, "--loop.compile"],
        ["agent", "train", "actor-critic", "--env", fifth, "--prior", clone, "--data", new_data, "--out", agent,
         "--loop.steps", "8000", "--loop.evaluate-every", "1000", "--loop.compile"],
        # They play shots that no scripted player makes: a quarter of the last recordings are their games.
        ["record", *GAME, "--policy", "pong-mix:0.8", "pong-idle:0.2", "--steps", "2400000", "--seed", "12000000",
         "--workers", "2", "--out", newest],
        ["record", *GAME, "--policy", f"agent={agent}/agents/actor-critic-0005000.safetensors",
         f"agent={agent}/agents/actor-critic-0002000.safetensors", "--steps", "800000", "--seed", "7300000",
         "--workers", "2", "--out", played],
        ["data", "join", newest, played, "--out", both],
        [*newly, "--preset", "pong", "--init-from", fifth, "--out", deep, "--foresight.weight", "1",
         "--loop.steps", "8800", "--loop.decay-fraction", "0.9", "--loop.seed", "31"],
        [*newly, "--preset", "pong-own-context", "--init-from", deep, "--out", deep_dreamed, "--loop.steps", "2000",
         "--loop.seed", "32"],
        ["world", "pack", "--name", "pong", "--data", both, "--tokenizer", tokenizer, "--dynamics", deep_dreamed,
         "--blend", f"{deep}=0.35", "--heads", points, "--weights-dtype", "bfloat16",
         "--max-episode-steps", "27000", "--out", world],
        # And agents once more.
        ["agent", "train", "clone", "--data", newest, "--tokenizer", world, "--out", new_clone, "--loop.compile"],
        ["agent", "train", "actor-critic", "--env", world, "--prior", new_clone, "--data", both, "--out", new_agent,
         "--loop.steps", "5000", "--loop.evaluate-every", "1000", "--loop.compile"],
        ["evaluate", world, "--data", test, "--agents", new_agent, "--out", str(home / "report"), "--save"],
    ]  # fmt: skip


def mix(turns: float = 0.0, comebacks: float = 0.0) -> list[str]:
    """Options for which clips are shown more often."""
    return ["--clips.turns", str(turns), "--clips.comebacks", str(comebacks)]


if __name__ == "__main__":
    follow(commands)
