"""Whole games, from the first serve to the last point: who wins, how fast, and does the board say so?

The same player plays as many games in the dream as in the real environment, and both are described alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuralsim.evaluation.intervals import ratio
from neuralsim.evaluation.long_dreams import ks_distances
from neuralsim.evaluation.playing import Moment
from neuralsim.evaluation.probes import Probes

LATE = 500
"""From this step of a game on, legible boards are counted: a dream shows from there on what it has drawn itself."""
BOARD_WITHIN = 12
"""Steps after a point within which the board shows it."""


@dataclass
class Game:
    """One game of one lane.

    Attributes:
        length: Steps.
        ended: Whether it came to its end.
        won: Points of the player.
        lost: Points of the opponent.
        rallies: Steps from one point (or the start) to the next, the wait for the serve included.
        board: By point whether the board counted it, once that was to be seen.
        late: Frames from step :data:`LATE` on.
        legible: Those of them whose board could be read.
    """

    length: int = 0
    ended: bool = False
    won: int = 0
    lost: int = 0
    rallies: list[int] = field(default_factory=list)
    board: list[bool] = field(default_factory=list)
    late: int = 0
    legible: int = 0


class GamesPlayed:
    """Follows the first game of every lane, without keeping frames.

    Args:
        lanes: How many.
        probes: To read the board, where they know one (:attr:`~neuralsim.evaluation.probes.Probes.scores`).
    """

    def __init__(self, lanes: int, probes: Probes | None) -> None:
        self.games = [Game() for _ in range(lanes)]
        self.probes = probes if probes is not None and probes.scores else None
        self._since = [0] * lanes  # steps since the last point
        self._shown: list[np.ndarray | None] = [None] * lanes  # the board as last read, (player, opponent)
        self._before: list[np.ndarray | None] = [None] * lanes  # the board before a point that is not yet judged
        self._point: list[int] = [0] * lanes  # that point: 1, -1, or 0 for none
        self._wait: list[int] = [0] * lanes

    def watch(self, moments: Iterable[Moment]) -> GamesPlayed:
        """Watches a whole play; what follows the first game of a lane counts for nothing."""
        for moment in moments:
            self.see(moment)
        return self

    def see(self, moment: Moment) -> None:
        """Takes in one step of all lanes."""
        open_lanes = [lane for lane, game in enumerate(self.games) if not game.ended]
        boards = self._read(moment.frames[open_lanes])
        for lane, board in zip(open_lanes, boards, strict=True):
            game = self.games[lane]
            game.length += 1
            self._since[lane] += 1
            if game.length > LATE:
                game.late += 1
                game.legible += bool(np.isfinite(board).all())
            point = int(np.sign(np.round(moment.rewards[lane])))
            if point:  # which the board may count with this very frame, so the one before it is what it is judged by
                self._judge(lane)  # the point before, if it is still to be judged
                game.won += point > 0
                game.lost += point < 0
                game.rallies.append(self._since[lane])
                self._since[lane] = 0
                self._before[lane], self._point[lane], self._wait[lane] = self._shown[lane], point, BOARD_WITHIN
            self._follow_board(lane, board)
            # The last board of a game may be gone before it is drawn: that point is not judged.
            game.ended = bool(moment.ended[lane])

    def _read(self, frames: np.ndarray) -> np.ndarray:
        if self.probes is None or not len(frames):
            return np.full((len(frames), 2), np.nan)
        found = self.probes.read(frames)
        assert self.probes.scores is not None
        return np.stack([found[key] for key in self.probes.scores], axis=1)

    def _follow_board(self, lane: int, board: np.ndarray) -> None:
        if np.isfinite(board).all():
            self._shown[lane] = board
        if self._point[lane]:
            self._wait[lane] -= 1
            if self._wait[lane] <= 0:
                self._judge(lane)

    def _judge(self, lane: int) -> None:
        """Compares the board with the one before the point."""
        before, now, point = self._before[lane], self._shown[lane], self._point[lane]
        if point and before is not None and now is not None:
            due = before + ((1, 0) if point > 0 else (0, 1))
            self.games[lane].board.append(bool((now == due).all()))
        self._point[lane] = 0

    def figures(self) -> dict[str, Any]:
        """All games together.

        Returns:
            ``games`` and ``ended``, numbers; ``won``, the share of points that the player won, ``points_per_1000``,
            ``board``, the share of points that the board counted, and ``legible``, the share of late frames whose board
            can be read, each with a 95 % bootstrap interval over games; ``lengths`` (of ended games), ``rallies`` and
            ``points`` (won and lost, by game).
        """
        games = self.games
        number = lambda count: np.array([count(game) for game in games], float)  # noqa: E731
        points = number(lambda game: game.won + game.lost)
        return {
            "games": len(games),
            "ended": sum(game.ended for game in games),
            "won": ratio(number(lambda game: game.won), points),
            "points_per_1000": ratio(1000 * points, number(lambda game: game.length)),
            "board": ratio(number(lambda game: sum(game.board)), number(lambda game: len(game.board))),
            "legible": ratio(number(lambda game: game.legible), number(lambda game: game.late)),
            "lengths": [game.length for game in games if game.ended],
            "rallies": [length for game in games for length in game.rallies],
            "points": [[game.won, game.lost] for game in games],
        }


def compare_games(dreamed: GamesPlayed, real: GamesPlayed) -> dict[str, Any]:
    """Puts dreamed games beside real ones.

    Returns:
        ``dream`` and ``real``, see :meth:`GamesPlayed.figures`; ``distance`` of ``lengths`` and ``rallies``, see
        :func:`~neuralsim.evaluation.long_dreams.ks_distance`.
    """
    dream, reality = dreamed.figures(), real.figures()
    return {"dream": dream, "real": reality, "distance": ks_distances(dream, reality, ("lengths", "rallies"))}
