"""The actions of Minecraft recordings as arrays, one row per step, as MineRL's full human interface has them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from neuralsim.envs.minerl_spaces import BUTTONS, CAMERA_LIMIT


def no_actions(steps: int) -> dict[str, np.ndarray]:
    """Actions in which nothing is pressed and the camera rests.

    Args:
        steps: How many.

    Returns:
        A batch of :func:`~neuralsim.envs.minerl_spaces.human_action_space`: a dict of arrays ``(steps,)``, and
        ``(steps, 2)`` for the camera.
    """
    actions: dict[str, np.ndarray] = {name: np.zeros(steps, np.int64) for name in BUTTONS}
    actions["camera"] = np.zeros((steps, 2), np.float32)
    return actions


def checked_camera(
    turns: np.ndarray, file: Path, clip: bool, limit: float = CAMERA_LIMIT
) -> tuple[np.ndarray, Counter[str]]:
    """Camera movements as the action space wants them.

    Args:
        turns: ``(T, 2)`` degrees, pitch first.
        file: Where they come from, for the error.
        clip: Cuts what is beyond :data:`CAMERA_LIMIT`, which MineRL cannot do, instead of refusing it.
        limit: What is beyond this is cut in any case.

    Returns:
        ``(T, 2)`` float32, never rounded to whole degrees; and the number of steps that were cut, by a name for the
        report.

    Raises:
        ValueError: If a movement is no finite number or beyond :data:`CAMERA_LIMIT`; the message names it.
    """
    if not np.isfinite(turns).all():
        step = int(np.flatnonzero(~np.isfinite(turns).all(1))[0])
        raise ValueError(f"{file.name}: the camera of step {step} is {turns[step].tolist()}, no finite number")
    turns = turns.astype(np.float32)
    far = np.flatnonzero((np.abs(turns) > CAMERA_LIMIT).any(1))
    if len(far) and not clip:
        raise ValueError(
            f"{file.name}: the camera of step {far[0]} turns by {turns[far[0]].tolist()} degrees (pitch, yaw), and the "
            f"action space of MineRL ends at +-{CAMERA_LIMIT:g} ({len(far)} such steps); --clip-camera cuts them"
        )
    beyond = int((np.abs(turns) > limit).any(1).sum())
    return np.clip(turns, -limit, limit), +Counter({f"turn beyond {limit:g} degrees": beyond})
