"""Stacked frames of many lanes, checked against Gymnasium's wrapper for one."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FrameStackObservation
from tiny_game import Tiny

from neuralsim.envs.frame_stack import VectorFrameStack


def flat(stack: np.ndarray) -> np.ndarray:
    """(depth, H, W, C) as (H, W, depth * C)."""
    return np.concatenate(list(stack), axis=-1)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_as_gymnasium_stacks_single_environments(mode: AutoresetMode):
    makers = [lambda length=length: Tiny(length=length) for length in (3, 5)]
    envs = VectorFrameStack(SyncVectorEnv(makers, autoreset_mode=mode), 3)
    assert envs.single_observation_space.shape == (10, 12, 9)
    alone = [FrameStackObservation(maker(), 3) for maker in makers]
    stacks, _ = envs.reset(seed=0)
    expected = [env.reset(seed=lane)[0] for lane, env in enumerate(alone)]
    over = np.zeros(2, bool)
    for _ in range(14):
        assert all(np.array_equal(stacks[lane], flat(expected[lane])) for lane in range(2))
        if mode is AutoresetMode.DISABLED and over.any():
            stacks, _ = envs.reset(options={"reset_mask": over})
            expected = [env.reset()[0] if over[i] else expected[i] for i, env in enumerate(alone)]
            over[:] = False
            continue
        before = over
        stacks, _, terminated, truncated, info = envs.step(np.zeros(2, int))
        over = terminated | truncated
        for lane, env in enumerate(alone):
            if mode is AutoresetMode.NEXT_STEP and before[lane]:
                expected[lane] = env.reset()[0]
                continue
            expected[lane] = env.step(0)[0]
            if mode is AutoresetMode.SAME_STEP and over[lane]:
                assert np.array_equal(info["final_obs"][lane], flat(expected[lane]))
                expected[lane] = env.reset()[0]


def test_a_reset_of_some_lanes_leaves_the_coming_resets_of_others():
    makers = [lambda length=length: Tiny(length=length) for length in (3, 5)]
    envs = VectorFrameStack(SyncVectorEnv(makers), 3)  # lane 0 ends, and begins anew with the step after
    envs.reset(seed=0)
    for _ in range(3):
        _, _, terminated, truncated, _ = envs.step(np.zeros(2, int))
    assert (terminated | truncated).tolist() == [True, False]
    envs.reset(options={"reset_mask": np.array([False, True])})
    stacks, *_ = envs.step(np.zeros(2, int))
    assert np.array_equal(stacks[0], np.tile(stacks[0, ..., -3:], 3))  # the first frame alone


def test_what_cannot_be_stacked():
    with pytest.raises(ValueError, match=r"\(H, W, C\)"):
        VectorFrameStack(SyncVectorEnv([lambda: gym.make("CartPole-v1")]))
    with pytest.raises(ValueError, match="depth is 0"):
        VectorFrameStack(SyncVectorEnv([Tiny]), 0)
