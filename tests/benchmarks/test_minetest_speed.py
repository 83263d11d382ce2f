"""Frames per second of Minetest in lock-step, one game and two side by side, walking and looking in open country.

pytest tests/benchmarks/test_minetest_speed.py -s --benchmark-quiet
"""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from neuralsim.envs.minerl_spaces import noop_action
from neuralsim.envs.minetest import MinetestEnv
from neuralsim.envs.minetest.needs import what_is_missing

pytestmark = pytest.mark.skipif(what_is_missing() is not None, reason=f"Minetest cannot run here: {what_is_missing()}")

STEPS = 600


def play(env: MinetestEnv, seed: int, seconds: list[float], late: list[int]) -> None:
    rng = np.random.default_rng(seed)
    action = noop_action(env.action_space)
    for step in range(STEPS):
        if step % 20 == 0:
            turn = rng.choice([0.0, 0.0, 4.0, -4.0])
            held = {"forward": int(rng.random() < 0.8), "jump": int(rng.random() < 0.5)}
        began = time.perf_counter()
        *_, info = env.step({**action, **held, "camera": (0, turn)})
        seconds.append(time.perf_counter() - began)
        late.append(info["behind_seconds"] > 0)


@pytest.mark.parametrize("games", [1, 2])
def test_frames_per_second(benchmark, capsys, games: int):
    envs = [MinetestEnv("explore") for _ in range(games)]
    try:
        began = time.perf_counter()
        for seed, env in enumerate(envs):
            env.reset(seed=11 + seed)
        start = (time.perf_counter() - began) / games
        seconds: list[list[float]] = [[] for _ in envs]
        late: list[list[int]] = [[] for _ in envs]

        def all_play() -> None:
            # Threads will do: they wait for their games nearly all the time.
            threads = [threading.Thread(target=play, args=(env, i, seconds[i], late[i])) for i, env in enumerate(envs)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        benchmark.pedantic(all_play, rounds=1, iterations=1)
        rates = [STEPS / sum(times) for times in seconds]
        with capsys.disabled():
            ms = np.concatenate(seconds) * 1e3
            print(
                f"\nMinetest, {games} at a time: {', '.join(f'{rate:.0f}' for rate in rates)} frames/s; a step takes "
                f"{np.median(ms):.1f} ms (median), {np.percentile(ms, 99):.0f} ms (99 %); reset {start:.1f} s; "
                f"server late in {np.mean(late):.1%} of the frames"
            )
    finally:
        for env in envs:
            env.close()
