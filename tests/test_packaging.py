"""What users install: the wheel holds every module and the bundled worlds, each of them small."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORLDS = ROOT / "neuralsim" / "worlds"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("build")
    out = tmp_path_factory.mktemp("dist")
    # A copy without the working tree's build folder, whose old files would slip into the wheel.
    source = out / "source"
    subprocess.run(["git", "-C", ROOT, "rev-parse", "--git-dir"], check=True, capture_output=True)
    files = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    for name in filter(None, files):
        if (ROOT / name).exists() or (ROOT / name).is_symlink():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_symlink():
                target.symlink_to((ROOT / name).readlink())
            else:
                target.write_bytes((ROOT / name).read_bytes())
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return zipfile.ZipFile(next(out.glob("*.whl")))


def test_wheel_holds_every_module_under_one_name(wheel):
    names = set(wheel.namelist())
    for folder, package in (("neuralsim", "neuralsim"), ("envs", "neuralsim/envs"), ("agents", "neuralsim/agents")):
        for path in (ROOT / folder).rglob("*.py"):
            relative = path.relative_to(ROOT / folder)
            assert f"{package}/{relative.as_posix()}" in names
    assert not any(name.startswith(("envs/", "agents/", "tests/")) for name in names)
    assert "neuralsim/py.typed" in names


def test_wheel_holds_what_minetest_is_given(wheel):
    folder = ROOT / "envs" / "minetest"
    files = [folder / "shim.c", *folder.glob("*_mod/*")]
    assert len(files) == 5
    names = set(wheel.namelist())
    assert {f"neuralsim/envs/minetest/{path.relative_to(folder).as_posix()}" for path in files} <= names


def test_wheel_holds_the_bundled_worlds(wheel):
    names = set(wheel.namelist())
    for config in WORLDS.glob("*/config.json"):
        for path in config.parent.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"neuralsim/worlds/{path.relative_to(WORLDS).as_posix()}" in names


@pytest.mark.parametrize("config", sorted(WORLDS.glob("*/config.json")), ids=lambda path: path.parent.name)
def test_bundled_worlds_are_small_and_tell_where_they_come_from(config):
    files = [path for path in config.parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12e6
    assert {"world.safetensors", "card.json", "card.md", "recipe.py"} <= {path.name for path in files}
    assert not any(path.suffix in (".pkl", ".pt", ".pth", ".npy") for path in files)
