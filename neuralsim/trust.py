"""How far a dream can be trusted while it is dreamed, from what was measured on held-out recordings.

Two signals, both between reality (nothing wrong) and chance (as far from reality as any other frame of the game):
how long the dream has gone on, and how unsure its own sampling was on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Trust:
    """What the card of a world says of the errors of its dreams.

    An error is the mean squared distance of dreamed latents to the real ones, as a share of that between unrelated real
    frames: 0 is exact, 1 is chance.

    Attributes:
        steps: ``(n,)`` rising, steps into a dream.
        errors: ``(n,)`` mean error there, never falling.
        doubts: ``(m,)`` rising: squared uncertainty of all steps so far, summed (``WorldState.doubt``).
        expected: ``(m,)`` mean error of dreams with such a doubt, never falling.
    """

    steps: np.ndarray
    errors: np.ndarray
    doubts: np.ndarray
    expected: np.ndarray

    @classmethod
    def from_card(cls, card: Mapping[str, Any] | None) -> Trust | None:
        """What a card says; None if it was never measured.

        Raises:
            ValueError: If the card is damaged.
        """
        if not card or not card.get("trust"):
            return None
        try:
            curve, calibration = card["trust"]["curve"], card["trust"]["calibration"]
            columns = (curve["steps"], curve["errors"], calibration["doubts"], calibration["expected"])
            made = cls(*(np.array(column, float) for column in columns))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the trust section of the card is damaged ({error}): measure it again") from error
        if len(made.steps) != len(made.errors) or len(made.doubts) != len(made.expected) or not len(made.steps):
            raise ValueError("the trust section of the card is damaged (lengths differ): measure it again")
        return made

    def horizon_trust(self, steps: np.ndarray) -> np.ndarray:
        """1 less the mean error after so many steps ``(N,)``, in [0, 1]; beyond what was measured, that of its end."""
        known = np.interp(steps, np.concatenate([[0], self.steps]), np.concatenate([[0], self.errors]))
        return 1 - np.clip(known, 0, 1)

    def expected_error(self, doubts: np.ndarray) -> np.ndarray:
        """Calibrated uncertainty ``(N,)``: the error to expect of dreams with these doubts."""
        return np.interp(doubts, np.concatenate([[0], self.doubts]), np.concatenate([[0], self.expected]))
