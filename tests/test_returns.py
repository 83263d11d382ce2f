"""Returns of dreams: hand-computed."""

import numpy as np

from neuralsim.evaluation.returns import compare_returns

REAL = np.array([[0.0, 1, 0, 0], [0, 0, -1, -1]])


def values(row):
    return {name: cell["value"] for name, cell in row.items()}


def test_by_hand():
    dreamed = np.array([[1.0, 0, 0, 1], [0, 0, 0, -1]])
    table = compare_returns(dreamed, REAL, (2, 4))
    assert values(table["2"]) == {"error": 0, "bias": 0, "constant": 0.5}
    assert values(table["4"]) == {"error": 1, "bias": 1, "constant": 1.5}


def test_a_world_that_pays_nothing_is_no_better_than_a_constant():
    balanced = np.array([[0.0, 1], [0, -1]])
    row = values(compare_returns(np.zeros((2, 2)), balanced, (2,))["2"])
    assert row["error"] == row["constant"] == 1
