"""What the tasks are.

Rewards are paid by the mod on the server (``world_mod/init.lua``);
ids and time limits stand in ``neuralsim/registration.py``.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: As the mod calls it.
        about: What to do, and what pays.
        enough: Sum of rewards that ends an episode; None if none does.
        compass: Whether the observation has MineRL's ``compass``, the direction of the goal.
    """

    name: str
    about: str
    enough: float | None = None
    compass: bool = False


TASKS = {
    task.name: task
    for task in (
        Task("treechop", "in a forest with an axe: 1 for each tree log dug, 64 end it, as in MineRL", enough=64),
        Task("navigate", "100 for reaching a column of diamond blocks that the compass shows", 100, compass=True),
        Task("dig", "with pick, shovel and axe: 1 for each block dug, of whatever kind"),
        Task("explore", "open country and no reward: for recordings"),
    )
}
"""Tasks by name."""


def find_task(name: str) -> Task:
    """The task of this name.

    Raises:
        ValueError: If there is none.
    """
    if name not in TASKS:
        near = difflib.get_close_matches(str(name), TASKS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(TASKS)}"
        raise ValueError(f"unknown task {name!r}; {hint}")
    return TASKS[name]
