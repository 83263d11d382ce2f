"""Other libraries learn in the bundled dream: the examples, at a small scale, as their command lines run them."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import tyro

from neuralsim.world_files import bundled_worlds

EXAMPLES = Path(__file__).parents[1] / "examples"

pytestmark = pytest.mark.skipif("pong" not in bundled_worlds(), reason="the bundled world is not there")


def run(name: str, *arguments: str) -> None:
    """Runs an example with arguments as a command line gives them."""
    module = runpy.run_path(str(EXAMPLES / name))
    small = ("--sampling-steps", "1", "--lanes", "2", *arguments)
    if "Args" in module:
        module["main"](tyro.cli(module["Args"], args=small))
    else:
        tyro.cli(module["main"], args=small)


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_stable_baselines3(algorithm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("stable_baselines3")
    pytest.importorskip("tqdm")
    pytest.importorskip("ale_py")
    buffer = ("--buffer", "200") if algorithm == "dqn" else ()
    run(f"train_sb3_{algorithm}.py", "--steps", "64", "--dream-length", "8", "--episodes", "1", "--out", str(tmp_path),
        *buffer)  # fmt: skip
    assert (tmp_path / "model.zip").stat().st_size > 0
    told = capsys.readouterr().out
    assert "ep_rew_mean" in told or algorithm == "dqn"
    assert "random in ALE/Pong-v5" in told


def test_cleanrl_style(capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("ale_py")
    run("cleanrl_style_ppo.py", "--steps", "320", "--rollout", "16", "--dream-length", "8", "--games", "1",
        "--game-steps", "20")  # fmt: skip
    told = capsys.readouterr().out
    assert "update 10: " in told
    assert "after training: " in told


def test_torchrl(capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("torchrl")
    run("torchrl_collector.py", "--steps", "32", "--rollout", "8", "--dream-length", "5")
    assert "2 dreams ended" in capsys.readouterr().out


def test_tianshou(capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("tianshou")
    run("tianshou_dqn.py", "--steps", "64", "--dream-length", "8", "--buffer", "200")
    assert "best dream: " in capsys.readouterr().out


def test_rllib(capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("ray.rllib")
    run("rllib_ppo.py", "--steps", "64", "--batch", "32", "--dream-length", "8")
    assert "64 steps: " in capsys.readouterr().out
