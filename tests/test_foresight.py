"""Foresight: features of the past tell where things will be."""

import math

import numpy as np
import pytest
import torch

from neuralsim.data.clips import ClipMix, ClipSampler
from neuralsim.data.latents import LatentEpisode
from neuralsim.dynamics.base import Rollout
from neuralsim.evaluation.probes import Thing
from neuralsim.training.foresight import Foresight, ForesightConfig, places

BALL = Thing("ball", "ball_present", ("ball_x", "ball_y"), 2.0, (1, 3))
PADDLE = Thing("paddle", "paddle_present", ("paddle_y",), 1.0)
INF = math.inf


def labels(length: int) -> dict[str, np.ndarray]:
    """A ball that moves right by a pixel per frame and is away on frame 2; a paddle at rest."""
    there = np.ones(length)
    there[2] = 0
    return {
        "ball_present": there,
        "ball_x": np.arange(length, dtype=float),
        "ball_y": np.full(length, 5.0),
        "paddle_present": np.ones(length),
        "paddle_y": np.full(length, 2.5),
    }


def foresight(things: tuple[Thing, ...] = (BALL, PADDLE)) -> Foresight:
    torch.manual_seed(0)
    return Foresight(ForesightConfig(channels=8), things, 8, (4, 4), (16, 16))


def test_places_are_columns_of_coordinates_and_nan_where_a_thing_is_not():
    found = places((BALL, PADDLE), labels(5))
    assert found is not None
    assert found[1].tolist() == [1, 5, 2.5]
    assert found[2].isnan().tolist() == [True, True, False]


def test_recordings_that_do_not_know_a_thing_have_no_places():
    assert places((BALL, Thing("cat", "cat_present", ("cat_x",), 1.0)), labels(5)) is None


def test_a_clip_tells_places_beyond_its_end_but_not_beyond_its_episode():
    nothing = torch.zeros(20)
    episode = LatentEpisode(0, torch.zeros(21, 2, 2, 1), torch.zeros(20, 1), nothing, nothing, nothing.bool(),
                            nothing.long(), torch.arange(21.0)[:, None])  # fmt: skip
    batch = ClipSampler([episode], 6, 2, ClipMix(0, 0, 0, 0), beyond=3).draw(0, 200)
    assert batch.places is not None
    assert batch.places.shape == (200, 9, 1)
    for row in batch.places[..., 0].tolist():
        last = row[5]
        assert row[:6] == [max(0, last - 5 + i) for i in range(6)]
        assert row[6:] == [last + n if last + n <= 20 else INF for n in (1, 2, 3)]


def test_an_untrained_readout_thinks_all_places_alike_and_the_loss_says_so():
    model = foresight()
    where = torch.tensor([[3.0, 5.0, 2.5]]).expand(1, 4, 3).clone()  # clip of one predicted frame, two beyond
    loss, parts = model.loss(Rollout(torch.zeros(()), {}, features=torch.randn(1, 1, 8, 4, 4)), where)
    assert parts["ball_in_1"].item() == pytest.approx(math.log(257), abs=1e-4)
    assert parts["paddle_in_1"].item() == pytest.approx(math.log(17), abs=1e-4)
    assert loss.item() == pytest.approx(math.log(257) + math.log(17), abs=1e-4)


@pytest.mark.parametrize(("x", "y"), [(3.0, 5.0), (3.25, 5.0), (14.9, 0.5), (15.0, 15.0)])
def test_a_place_between_pixels_is_shared_among_them(x, y):
    logs = torch.full((1, 1, 257), -9.0)
    maps = logs[0, 0, :256].view(16, 16)
    maps[:] = torch.arange(16.0)[:, None] + 100 * torch.arange(16.0)  # linear, so that sharing gives y + 100 x back
    told = foresight()._cross_entropy(-logs, torch.tensor([[[x, y]]]), ("x", "y"))
    assert told.item() == pytest.approx(y + 100 * x, rel=1e-5)


def test_what_is_gone_is_the_last_entry():
    logs = torch.zeros(1, 1, 17)
    logs[..., -1] = -3.0
    assert foresight()._cross_entropy(logs, torch.tensor([[[math.nan]]]), ("y",)).item() == 3.0


def test_unknown_and_untrusted_places_are_left_out():
    model = foresight()
    features = torch.randn(2, 1, 8, 4, 4)
    where = torch.zeros(2, 4, 3)
    where[0, 2:] = INF  # nobody knows the first lane's frames beyond its last
    rollout = Rollout(torch.zeros(()), {}, features=features, trusted=torch.tensor([[True], [False]]))
    _, parts = model.loss(rollout, where)
    assert parts["ball_in_1"].item() == pytest.approx(math.log(257), abs=1e-4)
    assert parts["ball_in_3"].item() == 0.0


def test_each_predicted_frame_is_asked_for_what_follows_it():
    """Features that spell the frame's number; only the right frames' places can be told from them."""
    model, first = foresight((BALL,)), 3
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    features = torch.zeros(1, 4, 8, 4, 4)
    for t in range(4):
        features[0, t, t, 1, 1] = 5.0
    where = places((BALL,), {**labels(9), "ball_present": np.ones(9)})
    assert where is not None
    for _ in range(60):
        loss, parts = model.loss(Rollout(torch.zeros(()), {}, features=features), where[None])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert parts["ball_in_1"] < 0.5
    told = model(features[0])[0].argmax(-1)
    assert (told[:, 0] % 16).tolist() == [first + t for t in range(4)]
    assert (told[:, 1] % 16).tolist() == [first + t + 2 for t in range(4)]


def test_coordinates_must_have_an_axis():
    with pytest.raises(ValueError, match="'score' must be named"):
        foresight((Thing("score", "there", ("score",), 1.0),))


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match=r"foresight.weight is -1"):
        ForesightConfig(weight=-1)
