"""How the bundled world of Dream-MineRL-Treechop-v0 was made: by the recipe of Dream-MineRL-v0, which makes both.

python neuralsim/worlds/minerl-treechop/recipe.py [folder]
"""

from __future__ import annotations

import runpy
from pathlib import Path

from neuralsim.worlds.recipes import follow

commands = runpy.run_path(str(Path(__file__).parents[1] / "minerl" / "recipe.py"))["commands"]

if __name__ == "__main__":
    follow(commands)
