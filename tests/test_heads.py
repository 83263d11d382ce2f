import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralsim.heads import Heads, HeadsConfig, TwoHot, symexp, symlog

TWO_HOT = TwoHot()


@given(st.floats(-1e6, 1e6, width=32))
def test_decode_inverts_encode(value):  # check 16
    y = torch.tensor([value])
    decoded = TWO_HOT.decode(TWO_HOT.encode(y).log())
    torch.testing.assert_close(decoded, y, rtol=1e-3, atol=1e-4)


def test_mixture_decodes_to_arithmetic_mean():  # check 16
    mixture = 0.25 * TWO_HOT.encode(torch.tensor([100.0])) + 0.75 * TWO_HOT.encode(torch.tensor([0.0]))
    torch.testing.assert_close(TWO_HOT.decode(mixture.log()), torch.tensor([25.0]), rtol=1e-3, atol=1e-3)


def test_uniform_logits_decode_to_exactly_zero():
    assert float(TWO_HOT.decode(torch.zeros(255))) == 0


def test_symexp_inverts_symlog():
    x = torch.tensor([-1000.0, -1.0, 0.0, 0.5, 1e4], dtype=torch.float64)
    torch.testing.assert_close(symexp(symlog(x)), x)


def test_even_bins_are_refused():
    with pytest.raises(ValueError, match="odd"):
        TwoHot(64)


def test_heads_learn_a_reward_that_only_the_action_tells():
    torch.manual_seed(0)
    heads = Heads(HeadsConfig(height=4, width=4, latent_channels=1, action_size=2, channels=4, hidden=16))
    z, before = torch.zeros(64, 4, 4, 1), torch.zeros(64, 3, 4, 4, 1)
    action = torch.nn.functional.one_hot(torch.arange(64) % 2, 2).float()
    reward, ended = action[:, 1], action[:, 0]
    optimizer = torch.optim.Adam(heads.parameters(), lr=0.03)
    for _ in range(150):
        pay, end = heads.losses(before, z, action, reward, ended)
        optimizer.zero_grad()
        (pay + end).backward()
        optimizer.step()
    out = heads(before, z, action)
    torch.testing.assert_close(out.reward, reward, atol=0.1, rtol=0)
    assert torch.equal(out.continue_logit < 0, ended > 0.5)


def test_heads_learn_a_reward_that_only_an_earlier_frame_tells():
    torch.manual_seed(0)
    heads = Heads(HeadsConfig(height=4, width=4, latent_channels=1, action_size=2, channels=4, hidden=16))
    z, action = torch.zeros(64, 4, 4, 1), torch.zeros(64, 2)
    reward = (torch.arange(64) % 2).float()
    before = torch.zeros(64, 3, 4, 4, 1)
    before[:, 0, 1, 2, 0] = reward
    optimizer = torch.optim.Adam(heads.parameters(), lr=0.03)
    for _ in range(150):
        pay, _ = heads.losses(before, z, action, reward, torch.zeros(64))
        optimizer.zero_grad()
        pay.backward()
        optimizer.step()
    torch.testing.assert_close(heads(before, z, action).reward, reward, atol=0.1, rtol=0)


@pytest.mark.parametrize(
    ("frames", "expected"), [(2, [[0], [1], [2], [3]]), (4, [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3]])]
)
def test_heads_look_back_on_the_frames_before_and_the_first_repeats(frames, expected):
    heads = Heads(HeadsConfig(height=4, width=4, latent_channels=1, frames=frames, channels=4, hidden=16))
    clip = torch.arange(4.0).reshape(1, 4, 1, 1, 1)
    assert heads.look_back(clip)[0, :, :, 0, 0, 0].tolist() == expected


def test_a_single_frame_is_no_transition():
    with pytest.raises(ValueError, match="at least 2"):
        Heads(HeadsConfig(frames=1))


def test_only_transitions_that_count_are_learned_from():
    torch.manual_seed(0)
    heads = Heads(HeadsConfig(height=4, width=4, latent_channels=2, action_size=2, channels=4, hidden=16))
    before, z, action = torch.randn(6, 3, 4, 4, 2), torch.randn(6, 4, 4, 2), torch.randn(6, 2)
    reward, ended = torch.tensor([0.0, 1.0, -1.0, 0.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0, 1.0])
    counts = torch.tensor([True, False, True, False, False, True])
    some = heads.losses(before, z, action, reward, ended, counts=counts)
    alone = heads.losses(*(x[counts] for x in (before, z, action, reward, ended)))
    torch.testing.assert_close(some, alone)
    none = heads.losses(before, z, action, reward, ended, counts=torch.zeros(6, dtype=torch.bool))
    assert [x.item() for x in none] == [0.0, 0.0]
