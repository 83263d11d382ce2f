"""Learning curves: what is read from runs, how seeds are put together, and the picture."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from neuralsim.agents import learning_curves
from neuralsim.agents.learning_curves import Curve, Log, keep_curves, together, write_curves
from neuralsim.cli import main

ROWS = [(10, 1.0), (20, 3.0), (30, 5.0)]


def make_run(folder, seed=0, rows=ROWS, figure="episode_return", kind="train", **config):
    folder.mkdir()
    told = {"kind": "ppo", "loop": {"seed": seed, "steps": 30}, **config}
    (folder / "config.json").write_text(json.dumps(told))
    lines = [json.dumps({"step": step, "kind": kind, "seconds": 1.0, figure: value}) for step, value in rows]
    lines.insert(1, json.dumps({"step": 12, "kind": "finding", "name": "x", "level": "note"}))
    (folder / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 40, "kin']))  # cut off
    return folder


def curve_of(points):
    x, y = np.array(points, float).T
    return Curve(x, y, y, y)


def test_a_curve_is_read(tmp_path):
    curve = Log.read(make_run(tmp_path / "a")).curve("episode_return")
    assert (curve.x.tolist(), curve.y.tolist()) == ([10, 20, 30], [1, 3, 5])
    assert Log.read(tmp_path / "a").curve("loss") is None


def test_steps_of_the_environment_are_counted_where_a_run_has_them(tmp_path):
    log = Log.read(make_run(tmp_path / "a", env_steps_per_step=64.0))
    assert log.curve("episode_return").x.tolist() == [640, 1280, 1920]
    assert log.counts == "steps of the environment"


def test_training_is_preferred_to_held_out_data(tmp_path):
    folder = make_run(tmp_path / "a")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"step": 30, "kind": "held-out", "episode_return": 9.0, "return_of_200": 4.0}))
    log = Log.read(folder)
    assert log.curve("episode_return").y.tolist() == [1, 3, 5]
    assert log.curve("return_of_200").y.tolist() == [4]


def test_seeds_by_hand():
    """At 20 the second is halfway between 2 and 6; beyond 30 there is only one."""
    both = together([curve_of([(10, 0), (20, 2), (40, 9)]), curve_of([(10, 2), (30, 6)])])
    assert both.x.tolist() == [10, 20, 30]
    assert both.y.tolist() == [1, 3, 5.75]
    assert both.low.tolist() == [0, 2, 5.5]
    assert both.high.tolist() == [2, 4, 6]
    assert both.seeds == 2


def test_seeds_that_have_nothing_in_common_yet():
    assert together([]) is None
    assert together([curve_of([(10, 0)]), curve_of([(20, 0), (30, 1)])]) is None


def test_runs_that_differ_only_in_the_seed_belong_together(tmp_path):
    a, b = (Log.read(make_run(tmp_path / name, seed)) for name, seed in (("a", 0), ("b", 1)))
    c = Log.read(make_run(tmp_path / "c", 0, ppo={"gamma": 0.9}))
    assert a.setting == b.setting != c.setting


def test_the_picture(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    for seed in range(3):
        rows = [(step, value + seed) for step, value in ROWS]
        make_run(tmp_path / f"ppo-{seed}", seed, rows)
    make_run(tmp_path / "other", figure="loss", actor="wide")
    runs = [str(path) for path in sorted(tmp_path.iterdir())]
    assert main(["agent", "curves", *runs, "--out", str(tmp_path / "new" / "all.png")]) == 0
    assert "all.png" in capsys.readouterr().out
    with Image.open(tmp_path / "new" / "all.png") as picture:
        assert picture.format == "PNG"
        pixels = np.array(picture.convert("RGB"))
    blue = np.array([0x1D, 0x5F, 0xC9])
    assert (np.abs(pixels.astype(int) - blue).max(-1) < 20).any()  # the line that was drawn first
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["all.png"]
    first = (tmp_path / "new" / "all.png").read_bytes()
    write_curves([Log.read(path) for path in sorted(tmp_path.glob("[op]*"))], tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == first


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(learning_curves, "_draw", lambda panels, _: drawn.update(panels) or np.zeros((8, 8, 3), "u1"))
    logs = []
    for game in ("pong", "breakout"):
        (tmp_path / game).mkdir()
        logs.append(Log.read(make_run(tmp_path / game / "ppo", env_id=game)))
    write_curves(logs, tmp_path / "all.png")
    assert list(drawn["episode_return"]) == ["pong/ppo", "breakout/ppo"]
    write_curves(logs[:1], tmp_path / "one.png")
    assert list(drawn["episode_return"]) == ["ppo"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere is no run"),
        (["a", "--figures", "beauty"], "no run reports beauty; there are episode_return"),
        (["a", "--out", "."], ". is a folder; name the picture"),
        (["a", "--out", "curves.svg"], "the name must end in .png"),
        (["empty"], "holds no figures yet"),
        (["strange"], "report nothing that could be drawn"),
    ],
)
def test_mistakes_are_told(tmp_path, monkeypatch, words, message, capsys):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "a")
    make_run(tmp_path / "empty", rows=[])
    make_run(tmp_path / "strange", figure="beauty")
    assert main(["agent", "curves", *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.png"))


def test_without_matplotlib_a_run_ends_without_its_picture(tmp_path, monkeypatch, capsys):
    folder = make_run(tmp_path / "a")
    monkeypatch.setattr(learning_curves.importlib.util, "find_spec", lambda name: None)
    keep_curves(folder)
    assert not (folder / "curves.png").exists()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["agent", "curves", str(folder), "--out", str(tmp_path / "x.png")]) == 2
    assert "neuralsim-gym[evaluation]" in capsys.readouterr().err


def test_a_run_keeps_its_picture(tmp_path):
    pytest.importorskip("matplotlib")
    folder = make_run(tmp_path / "a")
    keep_curves(folder)
    assert (folder / "curves.png").is_file()
