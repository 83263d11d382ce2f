"""The world card as a page: everything that was measured, and nothing that was not."""

import json
import math

import pytest

from neuralsim.evaluation.card import SECTIONS, render_card
from neuralsim.evaluation.figures import fixed, interval, number, percent, table
from neuralsim.evaluation.open_loop import SOURCES

CELL = {"value": -0.5, "low": -0.8, "high": -0.2, "n": 9}
NOTHING = {"value": math.nan, "low": math.nan, "high": math.nan, "n": 0}


def card_of(value):
    sources = dict.fromkeys(SOURCES, value)
    event = {"precision": 0.9, "recall": 0.8, "f1": 0.85, "real": 10, "lags": {k: {"f1": 0.9} for k in "012"}}
    event |= {"calibration": {"ece": 0.01}, "doubtful": {"ece": math.nan}}
    order = {"order": value, "pairs": 7}
    game = {"games": 2, "ended": 1, "lengths": [800], "rallies": [], "points": [[1, 0], [0, 21]],
            **dict.fromkeys(("won", "points_per_1000", "board", "legible"), value)}  # fmt: skip
    long = {"windows": {"ball_present": [0.5, 0.25]}, "episodes": {"lengths": [], "returns": []}}
    return {
        "world": "w", "env_id": "E", "env_kwargs": {}, "sampling_steps": 4, "clips": 9, "lanes": 1, "steps": 5,
        "player": "noop", "parameters": {"dynamics": 10**6}, "held_out": {"episodes": 2, "steps": 9, "command": "c"},
        "trained_on": {"dynamics": {"steps": 10, "seconds": 60, "blend": {"runs/a": {"share": 0.3}}}},
        "tokenizer": {"psnr": 40.0, "frames": 10, "ball": None, "no_ghost_ball": 1.0},
        "open_loop": {"4": {"psnr": sources, "ball": sources, "false_ball": value,
                            "present_ball": {"precision": value, "recall": value}}},
        "controllability": {"delta_psnr": value, "error_ratio": {"random": {"4": value}}},
        "trust": {
            "curve": {"steps": [4], "errors": [0.123]},
            "judged": {"rank_correlation": value["value"], "by_horizon": {"4": 0.7}, "off": 0.01, "error": 0.1},
        },
        "inverse_dynamics": {"f1_dream": 0.4, "f1_real": 0.5, "f1_ratio": 0.8, "actions": 9, "distance": {},
                             "parts": {"jump": {"dream": 0.4, "real": 0.6, "times": 3}}},
        "camera": {"left": {"turns": 7, "same_way": value, "as_far": value}},
        "camera_in_motion": {"clips": 6, "open_loop": {"4": {"psnr": sources, "sharpness": sources}}},
        "fvd": {"dream": 10.0, "copy": 100.0, "clips": 9},
        "events": {"reward": event},
        "returns": {"64": {"error": value, "bias": value, "constant": value}},
        "closed_loop": {"dream": {"dead": 0.0}, "real": {"dead": math.nan}},
        "dreamed_events": {
            "span": 64, "lag": 3,
            **{name: {"real": 3, "said": 2, "precision": value, "recall": value} for name in ("all", "won", "lost")},
        },
        "games": {
            "noop": {
                "dream": game, "real": {**game, "lengths": [700, 900]},
                "distance": {"lengths": 0.5, "rallies": math.nan},
            },
        },
        "ranking": {
            "policies": {"noop": {"dream": value, "real": value, "control": value}}, "lanes": 3, "steps": 70,
            "spearman": value, "pearson": value, "mmrv": value, "control": {"spearman": value}, "regret": 0.25,
        },
        "counterfactuals": {
            "moments": 3, "branches": 4, "horizon": 64, "things": {"ball_x": order},
            "return": {**order, "regret": value, "regret_random": value},
        },
        "long_dreams": {
            "lanes": 2, "steps": 1000, "dream": long, "real": long, "drift": {"1000": {"ball_present": -1.5}},
            "distance": {"lengths": math.nan, "returns": math.nan},
        },
        "cost": {
            "steps_per_second": {"1": {"4": 80.0}}, "latency_ms": {"p50": 12.0, "p99": 20.0}, "bytes_per_lane": 2048,
            "flops": 3 * 10**9, "matmul_share": value["value"], "threads": 2, "machine": "a cpu",
        },
        "not_measured": {"LPIPS": "no weights"},
    }  # fmt: skip


@pytest.mark.parametrize("value", [CELL, NOTHING], ids=["measured", "not"])
def test_the_card_tells_what_there_is(value):
    card = card_of(value)
    page = render_card(card)
    assert "nan" not in page
    assert ("-0.50 (-0.80 to -0.20)" in page) == (value is CELL)
    for part in (
        "FVD", "10.0 (a film", "LPIPS: no weights", "30.0 % of its weights are those of runs/a", "macro F1 0.400",
        "| ball present | 0.375 | 0.25 (-1.5) |", "costs 0.25.", "| ball_x | 7 |", "| 1 | 80 |", "3 GFLOP", "2 KiB",
        "| error | 0.123 |", "| game length, steps | 800 (800 to 800) | 800 (750 to 850) |", "| above 0 | 3 | 2 |",
        "ball there or not, recall", "| left | 7 |", "The 6 of those clips", "| sharpness dreamed |",
        "| jump | 3 | 0.400 | 0.600 |",
    ):  # fmt: skip
        assert part in page, part


def test_a_card_that_was_saved_reads_the_same():
    card = card_of(NOTHING)
    again = json.loads(json.dumps(card).replace("NaN", "null"))
    assert render_card(again) == render_card(card)


def test_what_was_not_measured_has_no_section():
    card = card_of(CELL)
    whole = render_card(card)
    for key in SECTIONS:
        if key is not None:
            page = render_card({name: value for name, value in card.items() if name != key})
            assert page.count("\n## ") == whole.count("\n## ") - 1, key
    assert "Actions read off" not in render_card(card | {"inverse_dynamics": None})
    assert "## Camera" not in render_card(card | {"camera": {"left": {"turns": 0}}})


def test_a_notice_stands_at_the_head():
    page = render_card(card_of(CELL) | {"notice": "The weights come from Minetest."})
    assert page.splitlines()[:3] == ["# World card: w", "", "**The weights come from Minetest.**"]
    assert "**" not in render_card(card_of(CELL) | {"notice": ""}).splitlines()[2]


def test_numbers_as_text():
    assert table(["a", "b"], [["1", "2"]]) == ["| a | b |", "| --- | --- |", "| 1 | 2 |", ""]
    assert interval(CELL, 1) == "-0.5 (-0.8 to -0.2)"
    assert interval(CELL, 1, brief=True) == "-0.5"
    assert interval({"value": None}, 1) == fixed(None, 2) == number(math.nan) == "-"
    assert (fixed(0.126, 2), number(1234.5), percent(0.123)) == ("0.13", "1.23e+03", "12.3 %")
