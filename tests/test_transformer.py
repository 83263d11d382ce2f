"""The space-time transformer: attention, positions, masks and the ring cache."""

import pytest
import torch

from neuralsim.transformer import (
    RMSNorm,
    SpaceTimeTransformer,
    SwiGLU,
    TransformerConfig,
    attend,
    attend_to_past,
    ring_slots,
    ring_write,
    rope_angles,
    rotate,
    soft_cap,
)

TINY = TransformerConfig(channels=32, heads=4, kv_heads=2, layers=4, time_every=2)
GRID = torch.cartesian_prod(torch.arange(2), torch.arange(3))


def build(config: TransformerConfig = TINY, agents: int = 0) -> SpaceTimeTransformer:
    torch.manual_seed(0)
    positions = torch.cat([GRID, torch.zeros(agents, 2, dtype=torch.long)])
    return SpaceTimeTransformer(config, positions, hidden=agents).eval()


def causal(frames: int, window: int) -> torch.Tensor:
    age = torch.arange(frames)[:, None] - torch.arange(frames)
    return ((age >= 0) & (age <= window))[None]


def test_rms_norm_matches_its_formula_and_keeps_the_dtype():
    x = 3 * torch.randn(5, 8)
    assert torch.allclose(RMSNorm(8)(x), x / x.square().mean(-1, keepdim=True).sqrt(), atol=1e-5)
    assert RMSNorm(8).bfloat16()(x.bfloat16()).dtype == torch.bfloat16
    assert RMSNorm(8).double()(x.double()).dtype == torch.float64


def test_swiglu_matches_its_formula():
    layer = SwiGLU(4, 6)
    x = torch.randn(3, 4)
    gate, value = layer.gate_and_value.weight.chunk(2)
    expected = (torch.nn.functional.silu(x @ gate.T) * (x @ value.T)) @ layer.out.weight.T
    assert torch.allclose(layer(x), expected, atol=1e-6)


def test_soft_cap_bounds_and_leaves_small_logits_alone():
    logits = torch.tensor([-1e6, -0.01, 0.0, 0.01, 1e6])
    capped = soft_cap(logits, 5.0)
    assert capped.abs().max() <= 5
    assert torch.allclose(capped[1:4], logits[1:4], atol=1e-6)
    assert soft_cap(logits, 0.0) is logits


def test_soft_cap_bounds_the_ratio_of_attention_weights():
    # A key that fits a thousand times better gets at most exp(2 cap) of the weight of another.
    q, k = torch.full((1, 1, 4), 100.0), torch.tensor([[[100.0] * 4, [-100.0] * 4]])
    weights = attend(q, k, torch.eye(2, 2)[None].repeat(1, 1, 2), None, cap=1.0)[0, :2]
    assert weights[1] / weights[0] == pytest.approx(float(torch.exp(torch.tensor(-2.0))), rel=1e-4)


def test_rope_depends_on_distance_alone():
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 8).double()

    def product(i: int, j: int) -> float:
        turned = [rotate(x, rope_angles(torch.tensor([p]), 4, 100.0)) for x, p in ((q, i), (k, j))]
        return float((turned[0] * turned[1]).sum())

    assert product(7, 3) == pytest.approx(product(4, 0), abs=1e-5)
    assert product(0, -4) == pytest.approx(product(4, 0), abs=1e-5)
    assert abs(product(4, 0) - product(5, 0)) > 1e-3


def test_space_positions_have_two_axes_and_agents_move_none():
    angles = build().space_angles()
    first, last = angles[:, :2], angles[:, 2:]
    assert torch.equal(first[0], first[1])  # one row
    assert torch.equal(last[0], last[3])  # one column
    assert not torch.equal(first[0], first[3])
    assert not torch.equal(last[0], last[1])
    assert torch.equal(build(agents=3).space_angles()[:6], angles)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("cap", [0.0, 5.0])
def test_grouped_queries_equal_plain_attention_with_repeated_heads(cap, masked):
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 3, 4, 5, 8), torch.randn(2, 3, 2, 5, 8), torch.randn(2, 3, 2, 5, 8)
    mask = causal(5, 2).expand(2, 1, 5, 5) if masked else None
    grouped = attend(q, k, v, mask, cap)
    plain = attend(q, k.repeat_interleave(2, -3), v.repeat_interleave(2, -3), mask, cap)
    assert torch.allclose(grouped, plain, atol=1e-6)
    # And both equal attention written out.
    logits = soft_cap(q @ k.repeat_interleave(2, -3).mT / 8**0.5, cap)
    if mask is not None:
        logits = logits.masked_fill(~mask[:, :, None], -torch.inf)
    expected = logits.softmax(-1) @ v.repeat_interleave(2, -3)
    assert torch.allclose(grouped, expected.transpose(-3, -2).flatten(-2), atol=1e-6)


@pytest.mark.parametrize("cap", [0.0, 5.0])
def test_attention_to_the_past_equals_attention_over_all(cap):
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 1, 8), torch.randn(2, 2, 6, 8), torch.randn(2, 2, 6, 8)
    seen = torch.tensor([[True] * 5, [False, True, True, False, True]])
    mask = torch.cat([seen, torch.ones(2, 1, dtype=torch.bool)], dim=1)[:, None]
    expected = attend(q, k, v, mask, cap)
    past = k[:, :, :5], v[:, :, :5]
    got = attend_to_past(q, k[:, :, 5:], v[:, :, 5:], past, seen, cap)
    assert torch.allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("cap", [0.0, 50.0])
def test_causal_bit_for_bit(cap):
    config = TransformerConfig(channels=32, heads=4, kv_heads=2, layers=4, time_every=2, logit_cap=cap)
    net, x = build(config), torch.randn(2, 6, 6, 32)
    with torch.no_grad():
        before, _ = net(x, causal(6, 9).expand(2, 6, 6))
        changed = x.clone()
        changed[:, 4:] = 10 * torch.randn(2, 2, 6, 32)
        after, _ = net(changed, causal(6, 9).expand(2, 6, 6))
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.equal(before[:, 4:], after[:, 4:])


def test_nothing_sees_hidden_tokens_and_they_see_all():
    net, x = build(agents=2), torch.randn(1, 3, 8, 32)
    mask = causal(3, 9)
    with torch.no_grad():
        before, _ = net(x, mask)
        other_agents = x.clone()
        other_agents[:, :, 6:] = torch.randn(1, 3, 2, 32)
        assert torch.equal(net(other_agents, mask)[0][:, :, :6], before[:, :, :6])
        other_world = x.clone()
        other_world[:, 0, 0] += 1
        assert not torch.equal(net(other_world, mask)[0][:, 2, 6:], before[:, 2, 6:])
        # Without them the others are what they were, up to the shape of the products.
        alone = build()
        alone.load_state_dict(net.state_dict())
        assert torch.allclose(alone(x[:, :, :6], mask)[0], before[:, :, :6], atol=1e-5)


def test_ring_holds_the_last_frames_at_their_ages():
    length = 4
    ring, count = torch.full((2, length, 1), -1.0), torch.tensor([0, 7])
    for _ in range(11):
        before = ring.clone()
        following = ring_write(ring, count, count[:, None, None].float())
        assert torch.equal(ring, before), "the ring was changed in place"
        ring, count = following, count + 1
        ages = ring_slots(count, length)
        assert torch.equal(ages.sort().values, torch.arange(1, length + 1).expand(2, length))
        written = ages <= (count - torch.tensor([0, 7]))[:, None]
        assert torch.equal(ring[..., 0][written], (count[:, None] - ages)[written].float())
        assert (ring[..., 0][~written] == -1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_frame_by_frame_equals_whole_clips_also_after_the_ring_wraps(dtype):
    window, frames = 3, 17
    net = build().to(dtype)
    x = torch.randn(2, frames, 6, 32, dtype=dtype)
    with torch.no_grad():
        whole, _ = net(x, causal(frames, window).expand(2, frames, frames))
        count = torch.zeros(2, dtype=torch.long)
        keys = torch.zeros(2, 2, 6, 2, window, 8, dtype=dtype)
        values = torch.zeros_like(keys)
        for t in range(frames):
            single, cache = net.advance(x[:, t], net.read(keys, values, count))
            assert torch.allclose(single, whole[:, t], atol=1e-5)
            keys = ring_write(keys, count, torch.stack([k for k, _ in cache], dim=1))
            values = ring_write(values, count, torch.stack([v for _, v in cache], dim=1))
            count = count + 1
    assert keys.dtype == dtype


@pytest.mark.parametrize(
    "sizes",
    [
        {"channels": 30, "heads": 4},
        {"channels": 24, "heads": 4},
        {"heads": 4, "kv_heads": 3},
        {"layers": 2, "time_every": 3},
        {"time_every": 0},
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes):
    with pytest.raises(ValueError, match="must"):
        TransformerConfig(**sizes)
