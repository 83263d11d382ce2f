"""``neuralsim card``: what a world was trained on, and how far it can be trusted, as it was measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.markdown import Markdown

from neuralsim.world_files import CARD, CARD_TEXT, find_world

WIDE = 160
"""Columns of a terminal from which on tables of ten horizons can be read; narrower ones would cut the numbers."""


@dataclass(frozen=True)
class CardConfig:
    """Prints a world's card; the world itself is not loaded."""

    world: Annotated[str, tyro.conf.Positional]
    """World folder, bundled name or hub id; or a folder that neuralsim evaluate has written its report to."""
    json: bool = False
    """Prints the figures, card.json, instead of the page to read."""


def show_card(config: CardConfig) -> None:
    """Prints the card: laid out on a terminal that is wide enough for its tables, else as it is (Markdown).

    Raises:
        FileNotFoundError: If there is no such world, or it has no card.
        ModuleNotFoundError: For a hub id without the extra "hub".
    """
    name = CARD if config.json else CARD_TEXT
    try:
        file = find_world(config.world) / name
    except FileNotFoundError:
        file = Path(config.world) / name  # a report is no world, but holds its card
        if not file.is_file():
            raise
    if not file.is_file():
        raise FileNotFoundError(
            f"the world {config.world!r} has no {file.name}: measure it and keep the card with "
            f"neuralsim evaluate {config.world} --data HELD_OUT_RECORDINGS --save"
        )
    text = file.read_text(encoding="utf-8")
    console = Console()
    if console.is_terminal and console.width >= WIDE and not config.json:
        console.print(Markdown(text))
    else:
        print(text, end="")
