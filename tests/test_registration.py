"""Registered ids, and what importing the package costs and may not do."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import pytest

import neuralsim
from neuralsim.registration import BUNDLED_WORLDS, OWN_WORLD, register_dreams

ROOT = Path(neuralsim.__file__).parents[1]


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stdout


def test_ids_are_registered():
    for env_id in (*BUNDLED_WORLDS, OWN_WORLD):
        spec = gym.spec(env_id)
        assert isinstance(spec.entry_point, str)
        assert isinstance(spec.vector_entry_point, str)
        assert gym.envs.registration.EnvSpec.from_json(spec.to_json()) == spec


def test_dreams_with_minerls_interface_show_frames_by_its_name():
    assert gym.spec("Dream-MineRL-v0").kwargs == {"world": "minerl", "obs_key": "pov"}
    assert gym.spec("Dream-Pong-v0").kwargs == {"world": "pong"}
    assert gym.spec(OWN_WORLD).kwargs == {}


def test_registering_again_changes_nothing():
    before = dict(gym.registry)
    register_dreams()
    assert dict(gym.registry) == before


def test_module_prefix(tiny_world: Path):
    make = f"gym.make('neuralsim:Dream-v0', world={str(tiny_world)!r})"
    code = f"import gymnasium as gym; print({make}.reset(seed=0)[0].shape)"
    assert run(code).strip() == "(48, 64, 3)"


def test_a_world_must_be_named():
    with pytest.raises(ValueError, match="which world"):
        gym.make("Dream-v0")
    with pytest.raises(ValueError, match="which world"):
        gym.make_vec("Dream-v0", num_envs=2)
    with pytest.raises(FileNotFoundError, match="no world 'nowhere'"):
        gym.make("Dream-v0", world="nowhere")


def test_import_is_light():
    code = """
import sys
import neuralsim, neuralsim.envs
heavy = {"torch", "zarr", "PIL", "safetensors", "pygame", "ale_py", "av", "tyro"} & set(sys.modules)
assert not heavy, heavy
"""
    run(code)
    start = time.perf_counter()
    run("import neuralsim")
    assert time.perf_counter() - start < 10  # a sanity bound only: the machine may be busy


def test_public_names_are_found():
    assert neuralsim.World is not None
    assert set(neuralsim.__all__) - {"__version__"} == set(neuralsim._LAZY)
    with pytest.raises(AttributeError, match="no attribute 'Wrold'"):
        neuralsim.Wrold  # noqa: B018


def sources() -> list[Path]:
    folders = ("neuralsim", "envs", "agents", "examples", "tests")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    return [file for file in files if ".venv" not in file.parts]


def test_envs_and_agents_are_imported_under_the_package():
    """``agents`` and ``envs`` are too general as names: other packages install a top-level ``agents``."""
    wrong = []
    for file in sources():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            wrong += [f"{file}: {name}" for name in names if name.split(".")[0] in ("envs", "agents")]
    assert len(sources()) > 20
    assert not wrong
