"""What of Minetest can be checked without the game: keys, settings, what is said where something is missing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import neuralsim
from neuralsim.envs.minerl_spaces import BUTTONS, V0_BUTTONS, noop_action, v0_action_space
from neuralsim.envs.minetest import MinetestEnv, needs, shim
from neuralsim.envs.minetest.display import Display
from neuralsim.envs.minetest.inputs import KEYS, SETTINGS, Keyboard, camera_pixels, key_settings
from neuralsim.envs.minetest.instance import WorldSettings, free_port, write_instance
from neuralsim.envs.minetest.needs import MinetestMissingError
from neuralsim.envs.minetest.processes import Guarded, MinetestGameError, last_lines
from neuralsim.envs.minetest.tasks import TASKS
from neuralsim.registration import MINETEST_TASKS

UP = 0x80000000


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch):
    """All programs are there, and none is started."""
    monkeypatch.setattr(needs.shutil, "which", lambda name, path=None: f"/bin/{name}")


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


def gone(pid: int, seconds: float = 6.0) -> bool:
    until = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not alive(pid)


def test_keys_go_down_once_and_come_up():
    keyboard = Keyboard()
    assert keyboard.changes({"forward": 1, "jump": 0}) == [ord("w")]
    assert keyboard.changes({"forward": 1, "jump": 1}) == [ord(" ")]
    assert keyboard.changes({"forward": 0, "jump": 1, "attack": 1}) == [ord("w") | UP, ord("f")]
    assert keyboard.changes({}) == [ord(" ") | UP, ord("f") | UP]
    assert keyboard.changes({"inventory": 1, "ESC": 1, "camera": (0, 0)}) == []


def test_every_button_has_a_key_of_its_own():
    assert set(V0_BUTTONS) <= set(KEYS) <= set(BUTTONS)
    assert KEYS.keys() == SETTINGS.keys()
    assert len(set(KEYS.values())) == len(KEYS)
    assert key_settings()["keymap_dig"] == "KEY_KEY_F"
    assert key_settings()["keymap_slot9"] == "KEY_KEY_9"


def test_degrees_are_pixels():
    assert camera_pixels((0.0, 15.0)) == (1500, 0)
    assert camera_pixels(np.array([-10.0, 180.0], np.float32)) == (18000, -1000)
    assert camera_pixels(np.array([0.004, -0.615], np.float32)) == (-62, 0)  # right to half a pixel


def test_an_instance_is_written_afresh(tmp_path: Path):
    settings = WorldSettings("treechop", 2**40, (180, 320), 40, True, 64.0)
    write_instance(tmp_path, settings)
    lines = (tmp_path / "minetest.conf").read_text().splitlines()
    for line in ("fixed_map_seed = 1099511627776", "neuralsim_task = treechop", "screen_w = 320", "time_speed = 0"):
        assert line in lines
    assert (tmp_path / "world" / "worldmods" / "neuralsim" / "init.lua").exists()
    assert not (tmp_path / "world" / "map_meta.txt").exists()
    with pytest.raises(FileExistsError):
        write_instance(tmp_path, settings)  # a folder that is used again would keep its old map


def test_ids_and_spaces(pretend):
    assert {task for task, _ in MINETEST_TASKS.values()} == set(TASKS)
    for env_id, (task, limit) in MINETEST_TASKS.items():
        spec = gym.spec(env_id)
        assert isinstance(spec.entry_point, str)
        assert gym.envs.registration.EnvSpec.from_json(spec.to_json()) == spec
        assert (spec.max_episode_steps, spec.kwargs) == (limit, {"task": task})
        env = gym.make(env_id, size=(32, 48))
        assert env.action_space == v0_action_space("MineRLTreechop-v0")
        assert env.observation_space["pov"].shape == (32, 48, 3)
        assert ("compass" in env.observation_space.spaces) == (task == "navigate")
        with pytest.raises(gym.error.ResetNeeded):
            env.unwrapped.step(noop_action(env.action_space))
        env.close()
    assert set(gym.make("Minetest-Dig-v0", buttons="human").action_space.spaces) == {*BUTTONS, "camera"}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"task": "treechopp"}, "did you mean 'treechop'"),
        ({"buttons": "v1"}, "'v1'; choose one of v0, human"),
        ({"buttons": ["forward", "fly"]}, "unknown button 'fly'"),
        ({"render_size": (240, 320)}, r"\(240, 320\).*degrees come out wrong"),
        ({"size": (256, 256)}, r"size \(256, 256\).*\(180, 320\)"),
        ({"viewing_range": 3}, "viewing_range 3 must lie between 10 and 1000"),
        ({"goal_distance": 1}, "goal_distance 1 must"),
        ({"step_timeout": 0}, "step_timeout 0 must be above 0"),
        ({"render_mode": "human"}, "'human'; choose one of"),
        ({"port": 80}, "port 80 must lie between 1024 and 65535"),
    ],
)
def test_wrong_arguments_are_named(pretend, kwargs: dict, message: str):
    with pytest.raises(ValueError, match=message):
        MinetestEnv(**kwargs)


def test_wrong_options_are_named(pretend):
    env = gym.make("Minetest-Explore-v0")
    with pytest.raises(ValueError, match="unknown options 'biome'"):
        env.reset(options={"biome": "desert"})
    with pytest.raises(ValueError, match="world_seed -1"):
        env.reset(options={"world_seed": -1})


def test_a_port_in_use_is_named(pretend):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"UDP port {port} is in use"):
            gym.make("Minetest-Explore-v0", port=port)
    assert free_port() != free_port(port) == port


@pytest.mark.parametrize(
    ("there", "message"),
    [
        ((), "game `minetest` is not installed.*make minetest.*apt-get install minetest minetest-data xvfb"),
        (("minetest",), "display server `Xvfb` is not installed.*make minetest"),
        (("minetest", "Xvfb"), r"no C compiler \(cc, gcc, clang.*make minetest"),
    ],
)
def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...], message: str):
    monkeypatch.delenv("MINETEST_BINARY", raising=False)
    monkeypatch.setattr(needs.shutil, "which", lambda name, path=None: name if name in there else None)
    with pytest.raises(MinetestMissingError, match=message):
        gym.make("Minetest-Dig-v0")
    assert issubclass(MinetestMissingError, OSError)  # the command line says it without a traceback


def test_a_named_game_must_be_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MINETEST_BINARY", "/nowhere/minetest")
    with pytest.raises(MinetestMissingError, match="/nowhere/minetest"):
        needs.find_game()


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ("Minetest 5.6.1 (Linux)\nUsing LuaJIT 2.1", None),
        ("Luanti 5.12.0 (Linux)\nUsing LuaJIT 2.1", r"Luanti 5\.12\.0, and the lock-step is for Minetest 5\.5 to 5\.8"),
        ("Minetest 0.4.17 (Linux)", r"Minetest 0\.4\.17"),
        ("Minetest 5.6.1 (Linux)\nUsing Lua 5.1.5", "without LuaJIT"),
        ("something else", "something else"),
    ],
)
def test_other_versions_are_refused(tmp_path: Path, says: str, message: str | None):
    game = tmp_path / "minetest"
    game.write_text(f"#!/bin/sh\nprintf '{says}'\n")
    game.chmod(0o755)
    if message is None:
        needs.check_game(str(game))
        return
    with pytest.raises(MinetestMissingError, match=message):
        needs.check_game(str(game))


def test_it_is_for_linux(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(needs.sys, "platform", "darwin")
    with pytest.raises(MinetestMissingError, match="Linux only, and this is darwin"):
        gym.make("Minetest-Dig-v0")


def test_missing_headers_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'shim.c:14:10: fatal error: GL/gl.h: No such file or directory' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(MinetestMissingError, match=r"headers.*GL/gl\.h.*libgl-dev"):
        shim.shim_path(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []  # nothing half-made is left
    compiler.write_text("#!/bin/sh\necho 'shim.c:1: error: what is this' >&2\nexit 1\n")
    with pytest.raises(MinetestMissingError, match=r"cannot compile shim\.c: .*what is this"):
        shim.shim_path(tmp_path / "cache")


def test_a_cache_that_cannot_be_used_is_named(tmp_path: Path):
    with pytest.raises(OSError, match=r"space or a colon.*XDG_CACHE_HOME"):
        shim.shim_path(tmp_path / "my cache")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot be kept in .*XDG_CACHE_HOME"):
        shim.shim_path(tmp_path / "file" / "below")


def test_logs_are_told_by_their_end():
    assert last_lines("\n".join(map(str, range(20))), count=2) == "its log ends with:\n  18\n  19"
    assert last_lines("\n") == "its log is empty"


needs_compiler = pytest.mark.skipif(
    needs.what_is_missing() is not None, reason=f"Minetest cannot run here: {needs.what_is_missing()}"
)


@needs_compiler
def test_the_library_is_compiled_once(tmp_path: Path):
    first = shim.shim_path(tmp_path)
    made = first.stat().st_mtime_ns
    assert shim.shim_path(tmp_path) == first
    assert first.stat().st_mtime_ns == made
    assert [path.name for path in tmp_path.iterdir()] == [first.name]


@needs_compiler
def test_a_guarded_process_ends_with_its_owner():
    process = Guarded(["sleep", "100"], shim.shim_path(), {})
    pid = process.process.pid
    assert alive(pid)
    assert process.ending is None
    process.close()
    process.close()
    assert not alive(pid)
    assert process.ending == "it was ended by signal SIGTERM"

    process = Guarded(["sleep", "100"], shim.shim_path(), {})
    pid = process.process.pid
    del process  # forgotten, and collected
    assert gone(pid)


@needs_compiler
def test_a_display_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    server = tmp_path / "Xvfb"
    server.write_text("#!/bin/sh\necho '(EE) no room for a screen' >&2\nexit 3\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(MinetestGameError, match=r"(?s)Xvfb did not start: it ended with status 3; .*no room"):
        Display((180, 320), shim.shim_path())


@needs_compiler
@pytest.mark.parametrize("how", ["exit", "kill", "killed thread"])
def test_a_guarded_process_dies_with_the_interpreter(how: str):
    code = f"""
import json, os, signal, sys, tempfile, threading, time
from neuralsim.envs.minetest.processes import Guarded
from neuralsim.envs.minetest.shim import shim_path
made = []
# Started by a thread that has ended since: that alone is no reason to die.
starter = threading.Thread(target=lambda: made.append(Guarded(["sleep", "100"], shim_path(), {{}})))
starter.start(); starter.join()
folder = tempfile.mkdtemp(prefix="neuralsim-minetest-")
stubborn = Guarded([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(100)"],
                   shim_path(), {{"NEURALSIM_FOLDER": folder}})
print(json.dumps([folder, made[0].process.pid, stubborn.process.pid]), flush=True)
if {how!r} == "killed thread":
    os.fork() or (time.sleep(8), os._exit(0))  # a fork keeps the line open
input()
if {how!r} != "exit":
    os.kill(os.getpid(), signal.SIGKILL)
"""
    root = Path(neuralsim.__file__).parents[1]
    owner = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    )
    assert owner.stdin is not None
    assert owner.stdout is not None
    folder, *pids = json.loads(owner.stdout.readline())
    time.sleep(0.6)
    assert all(alive(pid) for pid in pids)
    if how == "killed thread":
        os.kill(owner.pid, signal.SIGKILL)
    else:
        owner.stdin.write("\n")
        owner.stdin.flush()
    assert all(gone(pid) for pid in pids)
    if how == "exit":
        Path(folder).rmdir()  # Python's own finalizers see to it
    until = time.monotonic() + 2
    while Path(folder).exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert not Path(folder).exists()
    owner.stdin.close()
    owner.wait()
    owner.stdout.close()
