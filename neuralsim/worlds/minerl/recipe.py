"""How the bundled worlds of Dream-MineRL-v0 and Dream-MineRL-Treechop-v0 were made: every command, in order.

    make minetest                                          # the game, once
    python neuralsim/worlds/minerl/recipe.py [folder]

Recordings, runs and the new worlds land in the folder (default: the current one). Called again it goes on where it was
interrupted; what is done stands in recipe_done.txt. On two CPU cores it takes some three hours.

The first run of the dynamics was planned for 3,400 steps and ended at 2,500, and the camera's pitch was not told to it
yet. ``neuralsim train world --preset minetest`` makes such a world in one go, of Minecraft's own recordings as well
(``neuralsim data import``).
"""

from __future__ import annotations

from pathlib import Path

from neuralsim.worlds.recipes import follow

EXPLORE = ["Minetest-Explore-v0", "--max-episode-steps", "1000", "--workers", "2", "--policy", "minetest-mix",
           "--env-kwargs", '{"camera_limit": 10, "buttons": "human"}']  # fmt: skip
TREECHOP = ["Minetest-Treechop-v0", "--max-episode-steps", "1000", "--workers", "2", "--policy", "minetest-mix:0.5",
            "tree-feller:0.5", "--env-kwargs", '{"camera_limit": 10}']  # fmt: skip
NOTICE = (
    "These weights come from Minetest, a free voxel game, and not from Minecraft. Minetest's pictures: its media, by "
    "their authors, CC BY-SA 3.0."
)


def commands(home: Path) -> list[list[str]]:
    """The command lines, without the leading ``neuralsim``."""
    explore, treechop = str(home / "data/explore"), str(home / "data/treechop")
    tokenizer, first, second, felled = (str(home / "runs" / n) for n in ("tokenizer", "first", "second", "treechop"))
    learn = ["--data", explore, "--held-out", f"{explore}-heldout"]
    chop = ["--data", treechop, "--held-out", f"{treechop}-heldout"]
    dynamics = ["train", "dynamics", "--preset", "minetest", "--tokenizer", tokenizer]
    # The preset as it was at first.
    less_noise = ["--convolutional.context-noise", "0.15", "--convolutional.dream-noise", "0.07"]
    more = [*dynamics, "--init-from", first, "--convolutional.bootstrap-start", "0", "--loop.steps", "650",
            "--loop.learning-rate", "7e-4", "--loop.warmup-steps", "20", "--loop.decay-fraction", "0.9",
            "--loop.final-learning-rate", "0.03", "--loop.ema", "0.995", "--loop.seed", "1"]  # fmt: skip
    return [
        ["record", *EXPLORE, "--steps", "10000", "--seed", "900000", "--out", f"{explore}-heldout"],
        ["record", *EXPLORE, "--steps", "100000", "--seed", "1000", "--out", explore],
        ["record", *TREECHOP, "--steps", "8000", "--seed", "910000", "--out", f"{treechop}-heldout"],
        ["record", *TREECHOP, "--steps", "60000", "--seed", "20000", "--out", treechop],
        ["record", *EXPLORE, "--steps", "16000", "--seed", "950000", "--out", f"{explore}-test"],
        ["record", *TREECHOP, "--steps", "12000", "--seed", "960000", "--out", f"{treechop}-test"],
        ["train", "tokenizer", "--preset", "minetest", *learn, "--out", tokenizer, "--loop.steps", "2200"],
        [*dynamics, *learn, *less_noise, "--out", first, "--loop.steps", "2500"],
        [*more, *learn, "--out", second],
        [*more, *chop, "--out", felled],
        *pack("minerl", home, explore, second, tokenizer, "6000"),
        *pack("minerl-treechop", home, treechop, felled, tokenizer, "8000"),
    ]  # fmt: skip


def pack(name: str, home: Path, data: str, dynamics: str, tokenizer: str, limit: str) -> list[list[str]]:
    """Packs and measures a world."""
    world = str(home / "worlds" / name)
    return [
        ["world", "pack", "--name", name, "--data", data, "--tokenizer", tokenizer, "--dynamics", dynamics,
         "--max-episode-steps", limit, "--weights-dtype", "bfloat16", "--start-frames", "17", "--beginnings", "16",
         "--middles", "16", "--notice", NOTICE, "--out", world],
        ["evaluate", world, "--data", f"{data}-test", "--workers", "2", "--horizon", "32", "--long-steps", "2000",
         "--long-lanes", "2", "--parts", "open-loop", "events", "long-dreams", "cost", "films",
         "--out", str(home / f"report-{name}"), "--save"],
    ]  # fmt: skip


if __name__ == "__main__":
    follow(commands)
