"""Whole games and dreamed rewards, by hand."""

import math

import numpy as np
import pytest

from neuralsim.evaluation.dreamed_events import dreamed_events
from neuralsim.evaluation.games import BOARD_WITHIN, LATE, GamesPlayed, compare_games
from neuralsim.evaluation.playing import Moment
from neuralsim.evaluation.probes import Probes, Thing

BOARD = Probes("test_games", (Thing("dot", "there", ("x",), 1.0),), scores=("mine", "theirs"))


def probe(frames):
    """The first two pixels are the board; 255 cannot be read."""
    board = frames[:, 0, :2, 0].astype(float)
    board[board == 255] = math.nan
    return {"mine": board[:, 0], "theirs": board[:, 1]}


def play(rewards: list[float], boards: list[tuple[int, int]], end: int | None = None) -> list[Moment]:
    """One lane."""
    moments = []
    for t, (reward, board) in enumerate(zip(rewards, boards, strict=True)):
        frame = np.zeros((1, 4, 4, 3), np.uint8)
        frame[0, 0, :2, 0] = board
        moments.append(Moment(frame, np.array([reward]), np.array([t == end])))
    return moments


def test_points_rallies_and_the_board():
    rewards, boards = [0.0] * 60, [(0, 0)] * 60
    rewards[9], rewards[29], rewards[49] = 1.0, -1.0, 1.0
    boards[11:] = [(1, 0)] * 49  # a little late, as in the game
    boards[50:] = [(2, 0)] * 10  # the opponent's point was forgotten
    games = GamesPlayed(1, BOARD).watch(play(rewards, boards, end=59))
    game = games.games[0]
    assert (game.length, game.won, game.lost, game.ended) == (60, 2, 1, True)
    assert game.rallies == [10, 20, 20]
    assert game.board == [True, False]  # the last point was too near the end to be judged
    figures = games.figures()
    assert figures["won"]["value"] == pytest.approx(2 / 3)
    assert figures["points_per_1000"]["value"] == pytest.approx(3000 / 60)
    assert figures["lengths"] == [60]
    assert figures["points"] == [[2, 1]]


def test_the_board_may_count_a_point_with_the_frame_that_pays_it():
    rewards, boards = [0.0] * 40, [(0, 0)] * 40
    rewards[10] = 1.0
    boards[10:] = [(1, 0)] * 30
    assert GamesPlayed(1, BOARD).watch(play(rewards, boards)).games[0].board == [True]


def test_a_point_is_judged_before_the_next_one():
    rewards, boards = [0.0] * 40, [(0, 0)] * 40
    rewards[9], rewards[9 + BOARD_WITHIN - 5] = 1.0, 1.0
    boards[11:] = [(1, 0)] * 29
    boards[20:] = [(2, 0)] * 20
    assert GamesPlayed(1, BOARD).watch(play(rewards, boards)).games[0].board == [True, True]


def test_what_comes_after_the_end_belongs_to_another_game():
    rewards = [0.0, 1.0, 0.0, 1.0]
    games = GamesPlayed(1, None).watch(play(rewards, [(0, 0)] * 4, end=2))
    assert games.games[0].ended
    assert (games.games[0].length, games.games[0].won) == (3, 1)


def test_late_boards_that_cannot_be_read_are_counted():
    boards = [(255, 255)] * LATE + [(1, 1), (255, 1), (1, 1), (1, 1)]
    figures = GamesPlayed(1, BOARD).watch(play([0.0] * len(boards), boards)).figures()
    assert figures["legible"]["value"] == 0.75
    assert figures["ended"] == 0
    assert figures["lengths"] == []
    assert math.isnan(figures["won"]["value"])


def test_games_side_by_side():
    short, long = (GamesPlayed(1, None).watch(play([0.0] * n, [(0, 0)] * n, end=n - 1)) for n in (5, 9))
    assert compare_games(short, long)["distance"]["lengths"] == 1
    assert compare_games(short, short)["distance"]["lengths"] == 0
    assert math.isnan(compare_games(short, long)["distance"]["rallies"])


def test_dreamed_rewards_match_within_the_lag_and_by_side():
    said, paid = np.zeros((2, 80)), np.zeros((2, 80))
    paid[0, 10], said[0, 13] = 1, 1  # late, but in time
    paid[0, 30], said[0, 34] = -1, -1  # too late
    paid[1, 20], said[1, 20] = -1, 1  # the other side
    paid[1, 63], said[1, 65] = -1, -1  # found just beyond the span
    figures = dreamed_events(said, paid)
    assert (figures["all"]["real"], figures["all"]["said"]) == (4, 3)
    assert figures["all"]["precision"]["value"] == pytest.approx(1 / 3)
    assert figures["all"]["recall"]["value"] == pytest.approx(2 / 4)
    assert figures["won"]["recall"]["value"] == 1
    assert figures["won"]["precision"]["value"] == pytest.approx(1 / 2)
    assert figures["lost"]["recall"]["value"] == pytest.approx(1 / 3)


def test_dreams_without_rewards_have_no_figures():
    assert math.isnan(dreamed_events(np.zeros((2, 9)), np.zeros((2, 9)))["all"]["recall"]["value"])
