"""Rewards in dreams of recorded actions: does the dream pay when the game did?"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuralsim.evaluation.events import matches
from neuralsim.evaluation.intervals import ratio

SPAN = 64
"""Steps of a dream in which rewards are compared."""
LAG = 3
"""A reward may come so many steps early or late."""


def dreamed_events(said: np.ndarray, paid: np.ndarray, span: int = SPAN, lag: int = LAG) -> dict[str, Any]:
    """Precision and recall of the rewards of dreams.

    What lies up to ``lag`` steps after the span counts as a match of what lies within.

    Args:
        said: ``(clips, H)`` rewards as dreamed.
        paid: ``(clips, H)`` as they really were.
        span: Steps that count, at most H.
        lag: How many steps early or late a reward may come.

    Returns:
        ``span``, ``lag``, and for ``all`` rewards, those above 0 (``won``) and below (``lost``): ``precision`` and
        ``recall`` with 95 % bootstrap intervals over clips, ``said`` and ``real`` counts.
    """
    span = min(span, said.shape[1])
    result: dict[str, Any] = {"span": span, "lag": lag}
    for name, keep in (("all", lambda r: r), ("won", lambda r: r.clip(min=0)), ("lost", lambda r: r.clip(max=0))):
        words, events = keep(said), keep(paid)
        told = np.array([(row[:span] != 0).sum() for row in words], float)
        real = np.array([(row[:span] != 0).sum() for row in events], float)
        true = np.array([matches(e[: span + lag], w[:span], lag) for w, e in zip(words, events, strict=True)], float)
        found = np.array([matches(w[: span + lag], e[:span], lag) for w, e in zip(words, events, strict=True)], float)
        result[name] = {
            "precision": ratio(true, told),
            "recall": ratio(found, real),
            "said": int(told.sum()),
            "real": int(real.sum()),
        }
    return result
