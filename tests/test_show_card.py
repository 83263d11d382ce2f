"""``neuralsim card``: the card of a world, on a terminal and in a pipe, without the world."""

import json
import shutil
import sys

import pytest

from neuralsim.cli import main
from neuralsim.world_files import BUNDLED

pytestmark = pytest.mark.usefixtures("no_terminal")
TEXT = "# World card: tiny\n\n| steps | error |\n|---|---|\n| 64 | 0.44 |\n\nné à 100 %\n"


@pytest.fixture
def no_terminal(monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path):
    """The card and config of a world whose weights are lost."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "card.md").write_text(TEXT, encoding="utf-8")
    (tmp_path / "card.json").write_text('{"psnr": null, "n": 3}\n')
    return tmp_path


def test_a_pipe_gets_the_card_as_it_is(folder, capsys):
    assert main(["card", str(folder)]) == 0
    assert capsys.readouterr().out == TEXT


def test_a_report_is_read_as_well(folder, capsys):
    (folder / "config.json").unlink()
    assert main(["card", str(folder)]) == 0
    assert capsys.readouterr().out == TEXT


def test_a_terminal_gets_it_laid_out(folder, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["card", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "World card: tiny" in shown
    assert "0.44" in shown
    assert "|---|" not in shown
    monkeypatch.setenv("COLUMNS", "80")  # too narrow for tables of many columns
    assert main(["card", str(folder)]) == 0
    assert "|---|" in capsys.readouterr().out
    assert "# World" not in shown


@pytest.mark.parametrize("terminal", [False, True])
def test_json_is_the_figures_untouched(folder, capsys, monkeypatch, terminal):
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["card", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"psnr": None, "n": 3}


def test_bundled_worlds_are_known_by_name(capsys):
    assert main(["card", "pong"]) == 0
    assert capsys.readouterr().out == (BUNDLED / "pong" / "card.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("options", "missing"), [([], "card.md"), (["--json"], "card.json")])
def test_a_world_without_a_card_says_how_to_get_one(folder, capsys, options, missing):
    (folder / missing).unlink()
    assert main(["card", str(folder), *options]) == 2
    error = capsys.readouterr().err
    assert f"has no {missing}" in error
    assert f"neuralsim evaluate {folder} --data" in error
    assert "--save" in error


def test_what_is_no_world_is_refused(tmp_path, capsys):
    assert main(["card", str(tmp_path)]) == 2
    assert "not a world" in capsys.readouterr().err


def test_the_world_is_not_loaded(folder, monkeypatch):
    """Weights may be large, damaged or of another machine: reading about a world needs none."""
    monkeypatch.setitem(sys.modules, "neuralsim.world", None)
    shutil.copy(BUNDLED / "pong" / "config.json", folder)
    assert main(["card", str(folder)]) == 0
