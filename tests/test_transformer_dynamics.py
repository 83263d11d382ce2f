"""The transformer dynamics: conditioning, causality, training, and dreams with a ring cache."""

import dataclasses

import pytest
import torch

from neuralsim.dynamics import ClipBatch, build_dynamics
from neuralsim.dynamics.frame_tokens import Conditions
from neuralsim.dynamics.shortcut import mix
from neuralsim.dynamics.transformer import TransformerDynamics, TransformerDynamicsConfig

TINY = TransformerDynamicsConfig(
    channels=32,
    heads=4,
    kv_heads=2,
    layers=4,
    time_every=2,
    height=4,
    width=4,
    latent_channels=2,
    action_size=3,
    registers=1,
    context_length=4,
    rollout=3,
    max_steps=16,
    short_length=3,
)
BOUNDS = torch.full((4, 4, 2), -3.0), torch.full((4, 4, 2), 3.0)


def build(**changes) -> TransformerDynamics:
    """A tiny model whose output layer is not 0, in eval mode."""
    torch.manual_seed(0)
    model = TransformerDynamics(dataclasses.replace(TINY, **changes)).eval()
    torch.nn.init.normal_(model.tokens.latent_out.weight, std=0.3)
    torch.nn.init.normal_(model.tokens.size.weight)
    return model


def clips(lanes: int = 2, frames: int = 7, seed: int = 1, dtype: torch.dtype = torch.float32) -> ClipBatch:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(lanes, frames, 4, 4, 2, generator=generator, dtype=dtype)
    actions = torch.randn(lanes, frames - 1, 3, generator=generator, dtype=dtype)
    zeros = torch.zeros(lanes, frames - 1)
    return ClipBatch(latents, actions, zeros, zeros, torch.ones(lanes, frames, dtype=torch.bool))


def given_for(model: TransformerDynamics, batch: ClipBatch, first: torch.Tensor) -> Conditions:
    """What training would tell the model, without noise on the previous latents."""
    lead = torch.zeros_like(batch.latents[:, :1])
    previous = torch.cat([lead, batch.latents[:, :-1]], dim=1)
    actions = torch.cat([torch.zeros_like(batch.actions[:, :1]), batch.actions], dim=1)
    return Conditions(actions, ~first, torch.where(first[..., None, None, None], 0, previous))


def begin(lanes: int, frames: int) -> torch.Tensor:
    first = torch.zeros(lanes, frames, dtype=torch.bool)
    first[:, 0] = True
    return first


@torch.no_grad()
def predict_clip(model: TransformerDynamics, batch: ClipBatch, first: torch.Tensor | None = None) -> torch.Tensor:
    """Predictions of all frames, each at its own fixed level, size and noise."""
    lanes, frames = batch.latents.shape[:2]
    first = begin(lanes, frames) if first is None else first
    level = (torch.arange(frames) * 5 % 16).expand(lanes, frames)
    size = (torch.arange(frames) % 5).expand(lanes, frames)
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(3)).to(batch.latents)
    z = mix(batch.latents, noise, model.schedule.tau(level))
    return model.predict(z, level, size, given_for(model, batch, first), model.time_mask(first))


def test_built_by_name_from_its_own_config_as_plain_values():
    model = build_dynamics("transformer", dataclasses.asdict(TINY))
    assert model.type_name == "transformer"
    assert model.config == TINY
    assert (model.latent_shape, model.action_size, model.clip_length, model.noise_slots) == (
        (4, 4, 2),
        3,
        7,
        2,
    )


def test_an_untrained_model_copies_with_residual_and_says_zero_without():
    for residual in (True, False):
        torch.manual_seed(0)
        model = TransformerDynamics(dataclasses.replace(TINY, residual=residual)).eval()
        batch = clips()
        state = model.start(batch.latents, batch.actions)
        latent, _, _ = model.step(state, torch.zeros(2, 3), torch.randn(2, 2, 4, 4, 2), 4, BOUNDS)
        expected = batch.latents[:, -1] if residual else torch.zeros(2, 4, 4, 2)
        assert torch.allclose(latent, expected, atol=1e-6)


@pytest.mark.parametrize("residual", [True, False])
def test_causal_bit_for_bit(residual):
    model, batch = build(residual=residual), clips()
    before = predict_clip(model, batch)
    for t in range(1, 7):
        changed = clips(seed=2)
        changed.latents[:, :t] = batch.latents[:, :t]
        changed.actions[:, : t - 1] = batch.actions[:, : t - 1]
        after = predict_clip(model, changed)
        assert torch.equal(after[:, :t], before[:, :t])
        assert not torch.equal(after[:, t], before[:, t])


def test_the_action_of_frame_t_is_the_one_that_led_to_it():
    model, batch = build(), clips()
    before = predict_clip(model, batch)
    changed = dataclasses.replace(batch, actions=batch.actions.clone())
    changed.actions[:, 2] += 1
    same = (predict_clip(model, changed) == before).flatten(2).all(-1)
    # Action 2 leads from frame 2 to frame 3: seen from 3 on, and not before.
    assert same[:, :3].all()
    assert not same[:, 3:].any()


def test_an_unknown_action_is_not_a_zero_action():
    model, batch = build(residual=False), clips(lanes=1, frames=1)
    z, index = batch.latents, torch.zeros(1, 1, dtype=torch.long)
    mask = torch.ones(1, 1, 1, dtype=torch.bool)
    zero, one = torch.zeros(1, 1, 3), torch.ones(1, 1, 3)
    unknown, known = torch.zeros(1, 1, dtype=torch.bool), torch.ones(1, 1, dtype=torch.bool)
    with torch.no_grad():
        base = model.predict(z, index, index, Conditions(zero, unknown, z), mask)
        assert torch.equal(model.predict(z, index, index, Conditions(one, unknown, z), mask), base)
        assert not torch.allclose(model.predict(z, index, index, Conditions(zero, known, z), mask), base)


def test_frames_of_image_clips_and_of_other_segments_are_not_seen():
    model, batch = build(), clips()
    images = torch.ones(2, 7, dtype=torch.bool)
    pieces = begin(2, 7)
    pieces[:, 4] = True
    other = clips(seed=2)
    other.latents[:, 4:], other.actions[:, 4:] = batch.latents[:, 4:], batch.actions[:, 4:]
    for first in (images, pieces):
        before, after = predict_clip(model, batch, first), predict_clip(model, other, first)
        assert torch.equal(before[:, 4:], after[:, 4:])
        assert not torch.equal(before[:, 3], after[:, 3])


def test_frames_before_the_episode_are_not_seen_and_carry_no_loss():
    model = build(self_context=0.0).train()
    batch = clips(lanes=4)
    batch.valid[:, :3] = False
    assert model._segments(batch.valid)[:, :4].all()
    other = dataclasses.replace(batch, latents=batch.latents.clone())
    other.latents[:, :3] = 100.0
    losses = []
    for clip in (batch, other):
        torch.manual_seed(5)
        losses.append(model(clip)[1]["flow"])
    assert torch.equal(*losses)


def test_shares_of_image_and_short_clips_follow_the_config():
    model = build(image_share=0.3, short_share=0.5).train()
    valid = torch.ones(4000, 7, dtype=torch.bool)
    first = model._segments(valid)
    assert first.all(1).float().mean() == pytest.approx(0.3, abs=0.03)
    assert (first.sum(1) == 1).float().mean() == pytest.approx(0.2, abs=0.03)
    # Long clips only, at the end of the run; and neither in evaluation.
    model.set_progress(0.9)
    late = model._segments(valid)
    assert ((late.sum(1) == 1) | late.all(1)).all()
    assert (model.eval()._segments(valid).sum(1) == 1).all()


def test_agent_tokens_change_no_prediction():
    model, batch = build(agent_tokens=2), clips()
    before = predict_clip(model, batch)
    with torch.no_grad():
        model.tokens.learned[-2:] += 1
    assert torch.equal(predict_clip(model, batch), before)
    assert torch.equal(build().tokens.positions, model.tokens.positions[:-2])
    # A model of the same weights without agents agrees.
    weights = model.state_dict()
    weights["tokens.learned"] = weights["tokens.learned"][:-2]
    alone = build()
    alone.load_state_dict(weights)
    assert torch.allclose(predict_clip(alone, batch), before, atol=1e-5)
    state = model.start(batch.latents, batch.actions)
    _, state, _ = model.step(state, torch.zeros(2, 3), torch.randn(2, 2, 4, 4, 2), 1, BOUNDS)
    assert state["agent"].shape == (2, 2, 32)


def test_context_label_is_trained_and_its_noise_is_a_lerp():
    for max_steps in (4, 8, 16, 64):
        model = build(max_steps=max_steps)
        tau = float(model.schedule.tau(torch.tensor(model.context_level)))
        assert 0.5 < tau < 1
        level, size = model.schedule.draw(torch.zeros(4000, dtype=torch.bool))
        assert (level == model.context_level).any()
        assert (size == model.schedule.finest).all()
    assert tau == pytest.approx(0.9, abs=0.01)
    noisy = mix(torch.randn(200_000), torch.randn(200_000), torch.tensor(0.9))
    assert float(noisy.std()) == pytest.approx(0.906, abs=0.01)


@torch.no_grad()
def dream(model: TransformerDynamics, batch: ClipBatch, actions: torch.Tensor, noise: torch.Tensor, steps: int):
    """Latents and states of a dream with the given actions (B, n, A) and noise (B, n, 2, h, w, c)."""
    state, latents, states = model.start(batch.latents, batch.actions), [], []
    bounds = [torch.full(model.latent_shape, value, dtype=batch.latents.dtype) for value in (-3.0, 3.0)]
    for t in range(actions.shape[1]):
        latent, state, _ = model.step(state, actions[:, t], noise[:, t], steps, (bounds[0], bounds[1]))
        latents.append(latent)
        states.append(state)
    return torch.stack(latents, dim=1), states


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cached_equals_uncached_also_after_the_ring_wraps(dtype, residual):
    model, batch = build(residual=residual).to(dtype), clips(frames=1, dtype=dtype)
    count = 3 * model.context_length + 2
    actions = torch.randn(2, count, 3, dtype=dtype)
    noise = torch.randn(2, count, 2, 4, 4, 2, dtype=dtype)
    dreamed, states = dream(model, batch, actions, noise, steps=1)
    assert states[-1]["keys"].dtype == dtype
    assert states[-1]["keys"].shape == (2, 2, 7, 2, 4, 8)
    # The same frames again as one clip, without a cache: the past as it was committed, the last frame as noise.
    prefill = torch.randn(1, 4, 4, 2, generator=torch.Generator().manual_seed(0)).to(dtype).expand(2, 1, -1, -1, -1)
    frames = torch.cat([batch.latents, dreamed], dim=1)
    context_noise = torch.cat([prefill, noise[:, :, 1]], dim=1)
    for t in range(1, count + 1):
        first = begin(2, t + 1)
        clip = dataclasses.replace(batch, latents=frames[:, : t + 1], actions=actions[:, :t])
        level = torch.full((2, t + 1), model.context_level)
        size = torch.full((2, t + 1), model.schedule.finest)
        level[:, t], size[:, t] = 0, 0
        z = mix(frames[:, : t + 1], context_noise[:, : t + 1], model.schedule.tau(level))
        z[:, t] = noise[:, t - 1, 0]
        with torch.no_grad():
            whole = model.predict(z, level, size, given_for(model, clip, first), model.time_mask(first))
        assert torch.allclose(whole[:, t].clamp(-3, 3), dreamed[:, t - 1], atol=2e-5)


def test_positions_stay_exact_however_long_a_dream_lasts():
    model, batch = build(), clips(frames=4)
    state = model.start(batch.latents, batch.actions)
    old = dict(state, count=state["count"] + 1_000_000 * model.context_length)
    action, noise = torch.randn(2, 3), torch.randn(2, 2, 4, 4, 2)
    for _ in range(6):
        latent, state, _ = model.step(state, action, noise, 2, BOUNDS)
        late, old, _ = model.step(old, action, noise, 2, BOUNDS)
        assert torch.equal(latent, late)


def test_a_step_changes_neither_its_state_nor_writes_more_than_one_frame():
    model, batch = build(), clips(frames=6)
    state = model.start(batch.latents, batch.actions)
    kept = {name: tensor.clone() for name, tensor in state.items()}
    _, following, _ = model.step(state, torch.randn(2, 3), torch.randn(2, 2, 4, 4, 2), 4, BOUNDS)
    assert all(torch.equal(state[name], kept[name]) for name in kept)
    changed = (following["keys"] != state["keys"]).transpose(0, 4).flatten(1).any(1)
    assert changed.tolist() == [
        True,
        False,
        False,
        False,
    ]  # four frames were seen: the next takes slot 4 mod 4


def test_denoising_passes_do_not_write():
    # The commit of a frame depends on the sample and the commit noise alone, not on how it was sampled.
    model, batch = build(residual=True), clips()
    state = model.start(batch.latents, batch.actions)
    floor = torch.zeros(4, 4, 2), torch.zeros(4, 4, 2)  # clamps every sample to the same frame
    noise = torch.randn(2, 2, 4, 4, 2)
    other = torch.cat([torch.randn(2, 1, 4, 4, 2), noise[:, 1:]], dim=1)
    _, one, _ = model.step(state, torch.zeros(2, 3), noise, 1, floor)
    _, four, _ = model.step(state, torch.zeros(2, 3), other, 4, floor)
    assert all(torch.equal(one[name], four[name]) for name in one)


def test_a_lane_dreams_the_same_alone_and_among_lanes_of_other_ages():
    model = build()
    batches = [clips(lanes=1, frames=frames, seed=frames) for frames in (1, 3, 9)]
    states = [model.start(batch.latents, batch.actions) for batch in batches]
    states = [
        states[0],
        model.step(states[1], torch.zeros(1, 3), torch.randn(1, 2, 4, 4, 2), 1, BOUNDS)[1],
        states[2],
    ]
    together = {name: torch.cat([state[name] for state in states]) for name in states[0]}
    for _ in range(7):
        action, noise = torch.randn(3, 3), torch.randn(3, 2, 4, 4, 2)
        latents, together, spread = model.step(together, action, noise, 4, BOUNDS)
        for i in range(3):
            one = slice(i, i + 1)
            latent, states[i], own_spread = model.step(states[i], action[one], noise[one], 4, BOUNDS)
            assert torch.allclose(latents[one], latent, atol=1e-5)
            assert torch.allclose(spread[one], own_spread, atol=1e-5)


def test_samples_stay_within_bounds_and_half_precision_keeps_its_dtype():
    model = build().bfloat16()
    batch = clips(frames=3)
    state = model.start(batch.latents, batch.actions)
    assert state["keys"].dtype == torch.bfloat16
    narrow = torch.full((4, 4, 2), -0.1), torch.full((4, 4, 2), 0.1)
    latent, state, _ = model.step(state, torch.zeros(2, 3), torch.randn(2, 2, 4, 4, 2), 2, narrow)
    assert state["keys"].dtype == torch.bfloat16
    assert latent.abs().max() <= 0.1
    assert latent.dtype == torch.float32


def test_bootstrap_begins_late_and_reaches_every_parameter_without_a_gradient_through_the_teacher():
    model = build(bootstrap_fraction=0.5).train()
    model.set_progress(0.0)
    _, metrics = model(clips(lanes=4))
    assert "bootstrap" not in metrics
    model.set_progress(1.0)
    calls = []
    original = model.predict
    model.predict = lambda z, *rest: calls.append((torch.is_grad_enabled(), len(z))) or original(z, *rest)
    loss, metrics = model(clips(lanes=4))
    # Two frames of own making on one lane, the flow lanes, then two teacher passes before the bootstrap lanes.
    assert calls == [(False, 1), (False, 1), (True, 2), (False, 2), (False, 2), (True, 2)]
    assert metrics["bootstrap"] > 0
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_own_frames_are_context_and_carry_no_loss():
    model = build(self_context=1.0, self_frames=2).train()
    batch = clips(lanes=50)
    first = begin(50, 7)
    actions = torch.cat([torch.zeros(50, 1, 3), batch.actions], dim=1)
    frames, own = model._put_own_frames(batch.latents, actions, first, shortcuts=True)
    assert (own.sum(1) == 2).all()
    assert not own[:, 0].any()
    assert not own[:, -1].any()
    assert torch.equal(frames[~own], batch.latents[~own])
    assert (frames[own] != batch.latents[own]).flatten(1).any(1).all()
    level, size = model._draw(own, 0.5)
    assert (level[own] == model.context_level).all()
    assert (size[own] == model.schedule.finest).all()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"patch": 3}, "patch"),
        ({"max_steps": 2}, "max_steps"),
        ({"max_steps": 12}, "power of two"),
        ({"rollout": 0}, "rollout"),
    ],
)
def test_configs_that_do_not_fit_are_refused(changes, word):
    with pytest.raises(ValueError, match=word):
        TransformerDynamics(dataclasses.replace(TINY, **changes))


def test_clips_that_do_not_fit_are_refused():
    model, batch = build(), clips()
    with pytest.raises(ValueError, match="latents have shape"):
        model.start(batch.latents[..., :1], batch.actions)
    with pytest.raises(ValueError, match="at least one frame"):
        model.start(batch.latents[:, :0], batch.actions[:, :0])
    with pytest.raises(ValueError, match="one action between"):
        model.start(batch.latents, batch.actions[:, :-1])
    with pytest.raises(ValueError, match="actions have shape"):
        model(dataclasses.replace(batch, actions=batch.actions[..., :2]))
