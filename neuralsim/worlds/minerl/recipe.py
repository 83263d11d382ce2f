"""How the bundled world of Dream-MineRL-v0 was made: every command, in order.

    make minetest                                          # the game, once
    python neuralsim/worlds/minerl/recipe.py [folder]

Recordings, runs and the new world land in the folder (default: the current one). Called again it goes on where it was
interrupted; what is done stands in recipe_done.txt. On two CPU cores it takes some four hours.

The bundled weights come from these commands with changes of course (docs/experiments_minerl.md). The runs "first" and
"still" were trained before the last frame was moved by a flow; the layers that draw pictures from latents and back went
on into "flow" under new names (the card knows "still" so renamed as "warm", and "flow", with linear interpolation, as
"flowa"). "main" took black for what lies beyond a picture's edge, and twice the shortcut's target ran away
with it, which it can no more; the dead zones were chosen when it was done, and matter to dreams alone. "first"
was planned for 3,400 steps, ended at 2,500, and was not told the camera's pitch. ``neuralsim train world --preset
minetest`` makes such a world in one go, of Minecraft's own recordings as well (``neuralsim data import``); nobody has
tried that from nothing to the end.
"""

from __future__ import annotations

from pathlib import Path

from neuralsim.worlds.recipes import follow

EXPLORE = ["Minetest-Explore-v0", "--max-episode-steps", "1000", "--workers", "2", "--policy", "minetest-mix",
           "--env-kwargs", '{"camera_limit": 10, "buttons": "human"}']  # fmt: skip
NOTICE = (
    "These weights come from Minetest, a free voxel game, and not from Minecraft. Minetest's pictures: its media, by "
    "their authors, CC BY-SA 3.0."
)


def commands(home: Path) -> list[list[str]]:
    """The command lines, without the leading ``neuralsim``."""
    explore, world = str(home / "data/explore"), str(home / "worlds/minerl")
    names = ("tokenizer", "first", "still", "flow", "main")
    tokenizer, first, still, flow, main = (str(home / "runs" / name) for name in names)
    learn = ["--data", explore, "--held-out", f"{explore}-heldout"]
    dynamics = ["train", "dynamics", "--preset", "minetest", "--tokenizer", tokenizer]
    # The preset as it was at first.
    more_noise = ["--convolutional.context-noise", "0.15", "--convolutional.dream-noise", "0.07"]
    on = [*dynamics, "--convolutional.bootstrap-start", "0"]
    return [
        ["record", *EXPLORE, "--steps", "10000", "--seed", "900000", "--out", f"{explore}-heldout"],
        ["record", *EXPLORE, "--steps", "100000", "--seed", "1000", "--out", explore],
        ["record", *EXPLORE, "--steps", "16000", "--seed", "950000", "--out", f"{explore}-test"],
        ["train", "tokenizer", "--preset", "minetest", *learn, "--out", tokenizer, "--loop.steps", "2200"],
        [*dynamics, *learn, *more_noise, "--convolutional.copy-floor", "0", "--out", first, "--loop.steps", "2500"],
        [*on, *learn, *more_noise, "--init-from", first, "--out", still, *rate("4e-4", 450, 0.95, 1),
         "--loop.ema", "0.99"],
        [*on, *learn, *more_noise, "--init-from", still, "--out", flow, *rate("1e-3", 400, 0.7, 2),
         "--loop.ema", "0.99"],
        [*on, *learn, "--init-from", flow, "--out", main, *rate("1e-3", 3800, 0.85, 4)],
        ["world", "pack", "--name", "minerl", "--data", explore, "--tokenizer", tokenizer, "--dynamics", main,
         "--max-episode-steps", "6000", "--weights-dtype", "bfloat16", "--start-frames", "17", "--beginnings", "16",
         "--middles", "16", "--notice", NOTICE, "--out", world],
        ["evaluate", world, "--data", f"{explore}-test", "--clips", "100", "--horizon", "32", "--workers", "2",
         "--long-steps", "1000", "--long-lanes", "2", "--parts", "open-loop", "events", "long-dreams", "films", "cost",
         "--out", str(home / "report-minerl"), "--save"],
    ]  # fmt: skip


def rate(peak: str, steps: int, falling: float, seed: int) -> list[str]:
    """Options of a run: its length, how fast it learns and over which last share of it less and less fast."""
    return ["--loop.steps", str(steps), "--loop.learning-rate", peak, "--loop.decay-fraction", str(falling),
            "--loop.warmup-steps", "50", "--loop.final-learning-rate", "0.03", "--loop.seed", str(seed)]  # fmt: skip


if __name__ == "__main__":
    follow(commands)
