"""Worker processes: they end with their parent, and one that dies is an error that says so."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neuralsim.processes import Workers

_shared: list[int] = []


def share(*values: int) -> None:
    _shared[:] = values


def add(value: int) -> int:
    return sum(_shared) + value


def die() -> None:
    os._exit(3)


def sleep_and_tell(folder: str) -> None:
    Path(folder, str(os.getpid())).touch()
    time.sleep(120)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_is_shared_is_there_and_none_is_left_over():
    with Workers(2, "testing", "numbers", share, 1, 2) as workers:
        assert [future.result() for future in [workers.submit(add, n) for n in range(5)]] == [3, 4, 5, 6, 7]
    assert not multiprocessing.active_children()


def test_a_process_that_dies_is_told():
    with (
        pytest.raises(ChildProcessError, match=r"an adding process died .* numbers are kept: .* fewer --workers"),
        Workers(1, "adding", "numbers", share) as workers,
    ):
        workers.submit(die).result()


def test_ctrl_c_is_left_to_the_parent():
    with Workers(1, "interrupting", "numbers", share) as workers:
        assert workers.submit(interrupt_itself).result() == "went on"


def interrupt_itself() -> str:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.2)
    return "went on"


def test_an_error_of_a_task_is_raised_as_it_is():
    with pytest.raises(TypeError), Workers(1, "adding", "numbers", share) as workers:
        workers.submit(add, "one").result()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_processes_end_with_their_parent(tmp_path, how):
    parent = subprocess.Popen(
        [sys.executable, "-c", "import test_processes as t, sys; t.keep_busy(sys.argv[1])", str(tmp_path)],
        cwd=Path(__file__).parent,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        children = [int(path.name) for path in tmp_path.iterdir()]
        assert len(children) == 2
        parent.send_signal(how)
        parent.wait(30)
        while any(map(alive, children)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(alive, children))
    finally:
        parent.kill()


def keep_busy(folder: str) -> None:
    with Workers(2, "sleeping", "dreams", share) as workers:
        try:
            for future in [workers.submit(sleep_and_tell, folder) for _ in range(2)]:
                future.result()
        finally:
            workers.terminate()
