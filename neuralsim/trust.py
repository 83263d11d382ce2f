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
        sampling_steps: Sampling steps K of those dreams. Doubt compares the first guess with the last, so that it means
            something else at another K.
    """

    steps: np.ndarray
    errors: np.ndarray
    doubts: np.ndarray
    expected: np.ndarray
    sampling_steps: int

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
            steps, errors, doubts, expected = (
                np.array(column, float)
                for column in (curve["steps"], curve["errors"], calibration["doubts"], calibration["expected"])
            )
            made = cls(steps, errors, doubts, expected, int(card["sampling_steps"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the trust section of the card is damaged ({error}): measure it again") from error
        if len(made.steps) != len(made.errors) or len(made.doubts) != len(made.expected) or not len(made.steps):
            raise ValueError("the trust section of the card is damaged (lengths differ): measure it again")
        return made

    @property
    def lowest(self) -> float:
        """The least trust that a dream can have: nobody measured longer or more doubtful ones."""
        return 1 - min(1.0, float(max(self.errors[-1], self.expected[-1])))

    def horizon_trust(self, steps: np.ndarray) -> np.ndarray:
        """1 less the mean error after so many steps ``(N,)``, in [0, 1]; beyond what was measured, that of its end."""
        return 1 - np.clip(_from_zero(steps, self.steps, self.errors), 0, 1)

    def expected_error(self, doubts: np.ndarray) -> np.ndarray:
        """Calibrated uncertainty ``(N,)``: the error to expect of dreams with these doubts."""
        return _from_zero(doubts, self.doubts, self.expected)


def _from_zero(x: np.ndarray, known_x: np.ndarray, known_y: np.ndarray) -> np.ndarray:
    """Interpolates between what is known, and from nothing at 0."""
    known = known_x > 0
    return np.interp(x, np.concatenate([[0], known_x[known]]), np.concatenate([[0], known_y[known]]))
