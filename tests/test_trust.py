"""Trust while dreaming: calibration by hand, and what environments make of it."""

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import build_tiny_world

from neuralsim.envs.dream import DreamEnv
from neuralsim.envs.dream_vector import DreamVectorEnv
from neuralsim.evaluation.open_loop import OpenLoop
from neuralsim.evaluation.trust import calibrate
from neuralsim.trust import Trust
from neuralsim.world import World

CARD = {
    "sampling_steps": 2,
    "trust": {
        "curve": {"steps": [2, 4], "errors": [0.2, 0.6]},
        "calibration": {"doubts": [1.0, 3.0], "expected": [0.1, 0.5]},
    },
}


def test_between_and_beyond_what_was_measured():
    trust = Trust.from_card(CARD)
    assert trust.horizon_trust(np.array([0, 1, 2, 3, 4, 100])).tolist() == pytest.approx([1, 0.9, 0.8, 0.6, 0.4, 0.4])
    assert trust.expected_error(np.array([0, 0.5, 1, 2, 9])).tolist() == pytest.approx([0, 0.05, 0.1, 0.3, 0.5])


def test_cards_without_it_and_damaged_ones():
    assert Trust.from_card(None) is None
    assert Trust.from_card({"world": "w"}) is None
    for damage in ({"curve": {}}, {**CARD["trust"], "curve": {"steps": [1], "errors": []}}):
        with pytest.raises(ValueError, match="trust section of the card is damaged"):
            Trust.from_card({"trust": damage, "sampling_steps": 2})


def measured(doubt, error, horizons=(1, 2)):
    values = {"doubt": doubt, "error": error, "unrelated": np.full_like(error, 2.0)}
    return OpenLoop(horizons, (), (), values)


def test_a_doubt_that_knows_the_error():
    doubt = np.arange(200.0).reshape(100, 2)
    figures = calibrate(measured(doubt, doubt / 200))
    assert figures["curve"]["steps"] == [1, 2]
    assert figures["curve"]["errors"] == pytest.approx([99 / 400, 100 / 400])  # half of it: the unit is 2
    judged = figures["judged"]
    assert judged["rank_correlation"] == pytest.approx(1)
    assert judged["clock"] < 0.1  # the two horizons differ by nothing
    assert judged["by_horizon"] == pytest.approx({"1": 1, "2": 1})
    assert judged["off"] < 0.02
    trust = Trust.from_card(json.loads(json.dumps({"trust": figures, "sampling_steps": 4})))
    assert trust.expected_error(np.array([100.0]))[0] == pytest.approx(0.25, abs=0.01)


def test_a_doubt_that_knows_nothing_is_called_so():
    rng = np.random.default_rng(0)
    figures = calibrate(measured(rng.uniform(size=(400, 2)), rng.uniform(size=(400, 2))))
    assert abs(figures["judged"]["rank_correlation"]) < 0.15
    constant = calibrate(measured(np.zeros((20, 2)), rng.uniform(size=(20, 2))))
    assert np.isnan(constant["judged"]["rank_correlation"])
    assert len(constant["calibration"]["doubts"]) == 1


def test_expected_errors_never_fall():
    rng = np.random.default_rng(1)
    doubt = rng.uniform(size=(100, 3))
    figures = calibrate(measured(doubt, rng.uniform(size=(100, 3)), (1, 2, 3)))
    for values in (figures["curve"]["errors"], figures["calibration"]["expected"]):
        assert (np.diff(values) >= 0).all()


def uncalibrated() -> World:
    """A world that never ends a dream."""
    world = build_tiny_world()
    torch.nn.init.constant_(world.heads.out_continue.bias, 100.0)
    return world


@pytest.fixture
def world() -> World:
    world = uncalibrated()
    world.card = CARD
    return world


def test_info_tells_calibrated_values(world):
    plain, env = DreamEnv(world=uncalibrated()), DreamEnv(world=world)
    assert env.reset(seed=3)[1]["horizon_trust"] == 1
    plain.reset(seed=3)
    for step in (1, 2, 3):
        raw, info = plain.step(0)[4], env.step(0)[4]
        assert raw["horizon_trust"] == 1
        assert info["horizon_trust"] == pytest.approx([0.9, 0.8, 0.6][step - 1])
        expected = Trust.from_card(CARD).expected_error(np.array([raw["uncertainty"] ** 2]))[0]
        assert info["uncertainty"] == pytest.approx(expected, rel=1e-5)


def test_doubt_adds_up_and_begins_anew(world):
    env = DreamEnv(world=uncalibrated())
    env.reset(seed=0)
    seen = [env.step(0)[4]["uncertainty"] for _ in range(4)]
    assert seen == sorted(seen)
    assert seen[0] > 0
    assert env.reset()[1]["uncertainty"] == 0
    assert env.step(0)[4]["uncertainty"] < seen[-1]


def test_an_episode_is_truncated_when_trust_is_lost(world):
    env = DreamEnv(world=world, min_trust=0.7)
    env.reset(seed=0)
    ended = []
    for _ in range(3):
        *_, truncated, info = env.step(0)
        ended.append(truncated)
        if truncated:
            break
    assert ended[-1]
    assert info["horizon_trust"] < 0.7 or 1 - info["uncertainty"] < 0.7
    assert len(ended) <= 3  # the curve falls below 0.7 at the third step
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)


def test_without_a_threshold_nothing_is_truncated():
    env = DreamEnv(world=uncalibrated())
    env.reset(seed=1)
    for _ in range(30):
        assert not env.step(0)[3]


def test_pessimism_lowers_rewards_by_the_uncertainty(world):
    plain, careful = DreamEnv(world=world), DreamEnv(world=world, pessimism=2.0)
    plain.reset(seed=5)
    careful.reset(seed=5)
    lost, before = 0.0, 0.0
    for _ in range(3):
        reward = plain.step(1)[1]
        _, lowered, *_, info = careful.step(1)
        assert lowered == pytest.approx(reward - 2 * (info["uncertainty"] - before))
        lost, before = lost + reward - lowered, info["uncertainty"]
    assert lost == pytest.approx(2 * before)
    assert before > 0


def test_lanes_lose_trust_each_for_itself(world):
    envs = DreamVectorEnv(num_envs=3, world=world, min_trust=0.7, pessimism=1.0, autoreset_mode="SameStep")
    single = DreamEnv(world=world, min_trust=0.7, pessimism=1.0)
    _, info = envs.reset(seed=7)
    assert (info["horizon_trust"] == 1).all()
    single.reset(seed=8)
    for _ in range(3):  # the curve falls below at the third step
        _, rewards, _, truncated, info = envs.step(np.zeros(3, int))
        _, reward, _, ended, alone = single.step(0)
        assert rewards[1] == pytest.approx(reward, abs=1e-5)
        assert truncated[1] == ended
        said = {name: values[1] for name, values in (info["final_info"] if ended else info).items()}
        assert said["uncertainty"] == pytest.approx(alone["uncertainty"], abs=1e-5)
        assert said["horizon_trust"] == alone["horizon_trust"]
        if ended:
            assert info["horizon_trust"][1] == 1
            assert info["uncertainty"][1] == 0
            break
    assert ended


def test_a_restored_moment_has_its_trust(world):
    env = DreamEnv(world=world)
    env.reset(seed=2)
    env.step(0)
    saved = env.clone_state()
    first = [env.step(0)[4] for _ in range(3)]
    env.reset(seed=9)
    env.restore_state(saved)
    assert [env.step(0)[4] for _ in range(3)] == first


def test_options_that_need_a_measurement_say_so(world):
    for name in ("min_trust", "pessimism"):
        with pytest.raises(ValueError, match=rf"{name} is 0.5, but nobody has measured .* neuralsim evaluate"):
            DreamEnv(world=uncalibrated(), **{name: 0.5})
        with pytest.raises(ValueError, match=rf"{name} is 0.5, but .* with 4 sampling steps \(only with 2\)"):
            DreamEnv(world=world, sampling_steps=4, **{name: 0.5})
        env = DreamEnv(world=world, **{name: 0.5})
        with pytest.raises(ValueError, match="with 1 sampling steps"):
            env.sampling_steps = 1
        assert env.sampling_steps == 2
        for wrong in (-0.1, float("nan")):
            with pytest.raises(ValueError, match=f"{name} is"):
                DreamEnv(world=world, **{name: wrong})
    with pytest.raises(ValueError, match=r"min_trust is 1\.5"):
        DreamEnv(world=world, min_trust=1.5)
    with pytest.raises(ValueError, match=r"min_trust is 0\.4, .* not judged where trust is below 0\.40"):
        DreamEnv(world=world, min_trust=0.4)


def test_with_other_sampling_steps_nothing_is_calibrated(world):
    env, plain = (DreamEnv(world=made, sampling_steps=4) for made in (world, uncalibrated()))
    env.reset(seed=0)
    plain.reset(seed=0)
    assert env.step(0)[4] == plain.step(0)[4]


def test_a_calibration_without_doubt_says_nothing_at_the_start():
    card = {**CARD, "trust": {**CARD["trust"], "calibration": {"doubts": [0.0], "expected": [0.3]}}}
    assert Trust.from_card(card).expected_error(np.zeros(2)).tolist() == [0, 0]
