"""The convolutional dynamics on a toy: a dot that moves left or right by the action."""

import dataclasses

import numpy as np
import pytest
import torch

from neuralsim.dynamics import build_dynamics
from neuralsim.dynamics.base import ClipBatch
from neuralsim.dynamics.convolutional import ConvolutionalDynamics, ConvolutionalDynamicsConfig
from neuralsim.dynamics.shortcut import ShortcutLoss
from neuralsim.dynamics.unrolling import agreement, alike_with, count_by_change, draw_stains
from neuralsim.heads import Heads, HeadsConfig
from neuralsim.training.world_model import WorldModel

CONFIG = ConvolutionalDynamicsConfig(
    height=8,
    width=8,
    latent_channels=2,
    action_size=2,
    history=(1, 2, 4),
    past_actions=2,
    channels=16,
    embedding=16,
    denoiser_blocks=1,
    max_steps=8,
    rollout=3,
)
BOUNDS = (torch.full((8, 8, 2), -6.0), torch.full((8, 8, 2), 6.0))


def toy_clips(model: ConvolutionalDynamics, lanes: int, seed: int) -> ClipBatch:
    rng = np.random.default_rng(seed)
    steps = model.clip_length
    actions = rng.integers(0, 2, (lanes, steps - 1))
    columns = (
        rng.integers(0, 8, (lanes, 1))
        + np.concatenate([np.zeros((lanes, 1), int), np.cumsum(2 * actions - 1, axis=1)], axis=1)
    ) % 8
    latents = torch.zeros(lanes, steps, 8, 8, 2)
    lane, frame = np.ogrid[:lanes, :steps]
    latents[lane, frame, 3, columns] = 4.0
    zeros = torch.zeros(lanes, steps - 1)
    return ClipBatch(
        latents,
        torch.nn.functional.one_hot(torch.from_numpy(actions), 2).float(),
        zeros,
        zeros,
        torch.ones(lanes, steps, dtype=torch.bool),
    )


@pytest.fixture(scope="module")
def trained() -> ConvolutionalDynamics:
    torch.manual_seed(0)
    model = ConvolutionalDynamics(CONFIG)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(80):
        model.set_progress(step / 80)
        loss, _ = model(toy_clips(model, 8, step))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def awaken(model: ConvolutionalDynamics) -> None:
    """Untrained residual branches are zero; random ones make every input matter."""
    for name, parameter in model.named_parameters():
        if name.endswith(("conv2.weight", "conv_out.weight")):
            torch.nn.init.normal_(parameter, std=0.05)


def dream(model: ConvolutionalDynamics, batch: ClipBatch, actions: torch.Tensor, steps: int = 4) -> torch.Tensor:
    begin = model.context_length
    state = model.start(batch.latents[:, :begin], batch.actions[:, : begin - 1])
    frames = []
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for t in range(begin, begin + CONFIG.rollout):
            noise = torch.randn(len(actions), 2, 8, 8, 2, generator=generator)
            latent, state, _ = model.step(state, actions[:, t - 1], noise, steps, BOUNDS)
            frames.append(latent)
    return torch.stack(frames, dim=1)


@pytest.mark.parametrize("steps", [1, 4])
def test_learns_to_move_the_dot(trained, steps):
    batch = toy_clips(trained, 64, 999)
    real = batch.latents[:, trained.context_length :]
    error = (dream(trained, batch, batch.actions, steps) - real).square().mean()
    copy = (batch.latents[:, trained.context_length - 1 : -1] - real).square().mean()
    assert float(error) < 0.2 * float(copy)


def test_what_changes_by_less_than_the_dead_zone_stays_as_it_is():
    torch.manual_seed(0)
    model = ConvolutionalDynamics(dataclasses.replace(CONFIG, dead_zone=0.5, dream_noise=0.0)).eval()
    with torch.no_grad():
        model.denoiser.conv_out.bias.copy_(torch.tensor([0.4, -1.5]))
    batch = toy_clips(model, 4, 0)
    last = batch.latents[:, model.context_length - 1]
    made = dream(model, batch, batch.actions, steps=1)
    assert torch.equal(made[:, 0, ..., 0], last[..., 0])
    assert torch.allclose(made[:, 0, ..., 1], last[..., 1] - 1.0)
    assert torch.equal(made[:, -1, ..., 0], last[..., 0])
    # Its training asks for the whole change.
    losses = []
    for dead_zone in (0.5, 0.0):
        model.config = dataclasses.replace(model.config, dead_zone=dead_zone, self_context=0.0)
        torch.manual_seed(0)
        losses.append(model.train()(batch)[1]["flow"])
    assert torch.equal(*losses)


def test_shuffled_actions_cost_more(trained):  # check 13
    batch = toy_clips(trained, 64, 1000)
    real = batch.latents[:, trained.context_length :]
    aligned = (dream(trained, batch, batch.actions) - real).square().mean()
    shuffled = (dream(trained, batch, batch.actions.roll(1, dims=0)) - real).square().mean()
    assert float(shuffled) > 3 * float(aligned)


def test_lag_scan_of_the_actions_has_its_minimum_at_zero(trained):  # check 12
    batch = toy_clips(trained, 64, 1001)
    real = batch.latents[:, trained.context_length :]
    errors = {
        lag: float((dream(trained, batch, batch.actions.roll(lag, dims=1)) - real).square().mean())
        for lag in (-2, -1, 0, 1, 2)
    }
    assert min(errors, key=errors.__getitem__) == 0


def test_samples_stay_in_range(trained):  # check 19
    batch = toy_clips(trained, 8, 5)
    tight = (torch.full((8, 8, 2), -0.5), torch.full((8, 8, 2), 0.5))
    state = trained.start(batch.latents[:, :4], batch.actions[:, :3])
    latent, _, _ = trained.step(state, batch.actions[:, 3], torch.randn(8, 2, 8, 8, 2), 2, tight)
    assert float(latent.detach().abs().max()) <= 0.5


def test_future_frames_and_actions_change_nothing_before_them():  # check 10
    torch.manual_seed(0)
    model = ConvolutionalDynamics(CONFIG).eval()
    awaken(model)
    batch = toy_clips(model, 2, 0)
    longer = ClipBatch(batch.latents.clone(), batch.actions.clone(), batch.rewards, batch.terminated, batch.valid)
    longer.actions[:, -1] = 1 - longer.actions[:, -1]
    first, second = dream(model, batch, batch.actions), dream(model, longer, longer.actions)
    assert torch.equal(first[:, :-1], second[:, :-1])
    assert not torch.equal(first[:, -1], second[:, -1])


def test_a_step_leaves_the_state_it_was_given():
    torch.manual_seed(0)
    model = ConvolutionalDynamics(CONFIG).eval()
    awaken(model)
    batch = toy_clips(model, 3, 0)
    state = model.start(batch.latents[:, :4], batch.actions[:, :3])
    before = {name: value.clone() for name, value in state.items()}
    noise = torch.randn(3, 2, 8, 8, 2)
    first = model.step(state, batch.actions[:, 3], noise, 2, BOUNDS)
    again = model.step(state, batch.actions[:, 3], noise, 2, BOUNDS)
    assert all(torch.equal(state[name], before[name]) for name in before)
    assert torch.equal(first[0], again[0])


def test_a_single_frame_is_context_enough_and_repeats():
    model = ConvolutionalDynamics(CONFIG).eval()
    frame = torch.randn(2, 1, 8, 8, 2)
    state = model.start(frame, torch.zeros(2, 0, 2))
    assert torch.equal(state["latents"], frame.expand(-1, 4, -1, -1, -1))
    assert float(state["actions"].abs().sum()) == 0


def test_untrained_model_copies_the_last_frame():
    model = ConvolutionalDynamics(CONFIG).eval()
    batch = toy_clips(model, 2, 0)
    state = model.start(batch.latents[:, :4], batch.actions[:, :3])
    noise = torch.randn(2, 2, 8, 8, 2)
    latent, following, _ = model.step(state, batch.actions[:, 3], noise, 4, BOUNDS)
    torch.testing.assert_close(latent, batch.latents[:, 3])
    remembered = 0.93 * latent + 0.07 * noise[:, 1]  # the history holds it with a little noise
    torch.testing.assert_close(following["latents"][:, -1], remembered)


def test_shortcuts_and_own_context_come_in_with_progress():
    torch.manual_seed(0)
    model = ConvolutionalDynamics(CONFIG)
    batch = toy_clips(model, 4, 0)
    assert "bootstrap" not in model(batch)[1]  # check 7: the start is flow only
    model.set_progress(0.5)
    assert "bootstrap" in model(batch)[1]


def test_a_lead_of_own_frames_goes_before_the_frames_with_a_loss():
    config = dataclasses.replace(
        CONFIG, lead=2, self_context=1.0, context_noise=0.0, dream_noise=0.0, short_history=0.0, contradiction=np.inf
    )
    model = ConvolutionalDynamics(config)
    awaken(model)
    model.set_progress(1.0)
    batch = toy_clips(model, 4, 0)
    changed = dataclasses.replace(batch, latents=batch.latents.clone())
    changed.latents[:, -config.rollout - 1] += 1.0  # the frame before those with a loss, which a lead dreams anew
    leads = set()
    for seed in range(12):
        losses, leads_here = [], set()
        for clip in (batch, changed):
            torch.manual_seed(seed)
            made = model.rollout(clip)
            metrics, own = made.metrics, made.own
            losses.append(float(metrics["flow"]))
            leads_here.add(own.shape[1] - config.rollout)
        (lead,) = leads_here
        leads.add(lead)
        assert (losses[0] == losses[1]) == (lead > 0)
    assert leads == {0, 1, 2}


def test_half_of_the_lanes_are_stained_with_noise_or_another_clip():
    model = ConvolutionalDynamics(dataclasses.replace(CONFIG, context_stain=0.3))
    batch = toy_clips(model, 400, 0)
    torch.manual_seed(0)
    stain, amount = draw_stains(model, batch)
    shown = batch.latents[:, 0].roll(1, 0)
    other = (stain == shown).flatten(1).all(1)
    assert 150 < int(other.sum()) < 250
    assert float(stain[~other].std()) == pytest.approx(1.0, abs=0.02)
    assert 150 < int((amount == 0).sum()) < 250
    assert 0.25 < float(amount.max()) < 0.3
    assert float(amount[amount > 0].mean()) == pytest.approx(0.15, abs=0.02)
    alone = toy_clips(model, 1, 0)
    assert not any(torch.equal(draw_stains(model, alone)[0], alone.latents[:, 0]) for _ in range(9))


@pytest.mark.parametrize(("own", "share"), [(0.01, 0.005), (50.0, 1.0)])
def test_the_data_weigh_at_least_as_much_as_the_model_to_itself(monkeypatch, own, share):
    model = ConvolutionalDynamics(dataclasses.replace(CONFIG, bootstrap_start=0.0, rollout=1))
    flow, bootstrap = (torch.tensor(value, requires_grad=True) for value in (2.0, own))
    terms = ShortcutLoss(flow, bootstrap, torch.zeros(8), torch.zeros(()))
    monkeypatch.setattr("neuralsim.dynamics.unrolling.shortcut_loss", lambda *_, **__: terms)
    model.rollout(toy_clips(model, 8, 0)).loss.backward()
    assert float(bootstrap.grad * own / (flow.grad * 2)) == pytest.approx(share)


def test_a_stain_is_the_same_on_all_of_the_past():
    config = dataclasses.replace(CONFIG, context_stain=0.9, context_noise=0.0, dream_noise=0.0, short_history=0.0)
    model = ConvolutionalDynamics(config)
    batch, seen = toy_clips(model, 8, 0), []
    read = model.features
    model.features = lambda context, *rest: seen.append(context) or read(context, *rest)
    torch.manual_seed(0)
    model.rollout(batch)
    t, shares = model.context_length, torch.linspace(0, 0.9, 901)
    amounts = []
    for step, context in enumerate(seen):
        clean = torch.stack([batch.latents[:, t + step - offset] for offset in model.history], dim=1)
        for lane in range(8):
            # context = (1 - s) clean + s stain: what is left over is one picture, for one s of the lane.
            spread = torch.stack([(context[lane] - (1 - s) * clean[lane]).std(0).max() for s in shares])
            assert float(spread.min()) < 0.01
            amounts.append(float(shares[spread.argmin()]))
    by_step = np.array(amounts).reshape(len(seen), 8)
    assert np.ptp(by_step, axis=0).max() < 0.02
    assert 0 < (by_step[0] > 0.05).sum() < 8
    model.eval()
    seen.clear()
    model.rollout(batch)
    assert torch.equal(seen[0][:, 0], batch.latents[:, t - 1])  # figures are measured on clean clips


def test_nothing_is_dreamed_before_an_episode_begins():
    config = dataclasses.replace(
        CONFIG, lead=2, self_context=1.0, context_noise=0.0, dream_noise=0.0, short_history=0.0
    )
    model = ConvolutionalDynamics(config)
    awaken(model)
    model.set_progress(1.0)
    batch = toy_clips(model, 4, 0)
    first = model.clip_length - config.rollout - 1  # the episode's first frame is the last before those with a loss
    batch.valid[:, :first] = False
    for seed in range(8):
        torch.manual_seed(seed)
        own = model.rollout(batch).own
        lead = own.shape[1] - config.rollout
        real = batch.latents[:, first + 1 - lead : first + 1]
        assert torch.equal(own[:, :lead], real)
        assert not torch.equal(own[:, lead], batch.latents[:, first + 1])


def test_what_a_dream_has_misplaced_is_no_target_and_what_it_has_lost_is():
    real = torch.zeros(3, 8, 8, 2)
    real[:, 1, 1] = 4.0
    dreamed = real.clone()
    dreamed[1, 1, 1] = 1.0  # fainter
    dreamed[2, 1, 1], dreamed[2, 6, 6] = 0.0, 4.0  # elsewhere
    weight = agreement(dreamed, real, contradiction=2.0)[..., 0]
    assert bool((weight[:2] == 1).all())
    assert bool((weight[2, :4, :4] == 0).all())  # where it should be
    assert bool((weight[2, 4:, 4:] == 0).all())  # and where it is
    assert float(weight[2].sum()) == 64 - 32


def test_a_dream_is_alike_where_it_shows_nothing_that_is_not_there():
    model = ConvolutionalDynamics(CONFIG)
    real = torch.zeros(3, 5, 8, 8, 2)
    real[..., 1, 1, :] = 4.0
    own = real.clone()
    own[1, 3, 1, 1], own[1, 3, 6, 6] = 0.0, 4.0  # elsewhere, in the second predicted frame
    own[2, 1, 1, 1] = 0.0  # lost
    alike = alike_with(model, own, real)
    assert alike.tolist() == [[True] * 5, [True, True, True, False, True], [True] * 5]
    # A transition counts if all frames do that the heads see of it, here three.
    heads = Heads(HeadsConfig(height=8, width=8, latent_channels=2, action_size=2, channels=4, hidden=16, frames=3))
    assert WorldModel(model, heads)._all_seen(alike)[1].tolist() == [True, True, True, False, False]


def test_thicker_noise_reaches_the_network_at_the_size_it_is_used_to():
    thin, thick = (ConvolutionalDynamics(dataclasses.replace(CONFIG, noise_scale=scale)) for scale in (1.0, 5.0))
    assert torch.equal(thin.denoiser.input_scale, torch.ones(CONFIG.max_steps))
    tau = torch.arange(CONFIG.max_steps) / CONFIG.max_steps
    variance = (5 * (1 - tau)) ** 2 + tau**2  # of noise of 5 mixed with latents of 1
    torch.testing.assert_close(variance * thick.denoiser.input_scale**2, (1 - tau) ** 2 + tau**2)

    awaken(thin)
    thick.load_state_dict(thin.state_dict())
    batch = toy_clips(thin, 3, 0)
    # At tau = 0 there is noise alone, and the network sees the same of both; later it sees more of the other.
    torch.testing.assert_close(dream(thin, batch, batch.actions, 1), dream(thick, batch, batch.actions, 1))
    assert not torch.allclose(dream(thin, batch, batch.actions, 2), dream(thick, batch, batch.actions, 2))


def test_wrong_configs_are_explained():
    with pytest.raises(ValueError, match=r"\(2, 1\)"):
        ConvolutionalDynamics(ConvolutionalDynamicsConfig(history=(2, 1)))
    with pytest.raises(ValueError, match=r"dream_noise is 0\.3"):
        ConvolutionalDynamics(ConvolutionalDynamicsConfig(dream_noise=0.3, context_noise=0.2))
    with pytest.raises(ValueError, match=r"context_stain is 1\.0"):
        ConvolutionalDynamics(ConvolutionalDynamicsConfig(context_stain=1.0))
    with pytest.raises(ValueError, match=r"dead_zone is -0\.1"):
        ConvolutionalDynamics(ConvolutionalDynamicsConfig(dead_zone=-0.1))
    with pytest.raises(ValueError, match=r"noise_scale is 0\.0"):
        ConvolutionalDynamics(ConvolutionalDynamicsConfig(noise_scale=0.0))
    with pytest.raises(ValueError, match="self_steps is 3"):
        ConvolutionalDynamics(ConvolutionalDynamicsConfig(self_steps=3))
    with pytest.raises(ValueError, match="10x16"):
        ConvolutionalDynamics(ConvolutionalDynamicsConfig(height=10))
    with pytest.raises(ValueError, match="convolutional, transformer"):
        build_dynamics("recurrent", {})


def test_own_frames_take_no_more_steps_than_there_are():
    with pytest.raises(ValueError, match="self_steps is 16"):
        ConvolutionalDynamics(dataclasses.replace(CONFIG, self_steps=16))


@pytest.mark.parametrize(
    "more", [{"past_actions": 4}, {"blocks": (3, 2, 4, 2, 1)}, {"past_actions": 3, "blocks": (2, 3, 2, 1, 2)}]
)
def test_weights_of_a_smaller_model_compute_the_same(more):
    torch.manual_seed(0)
    small = ConvolutionalDynamics(CONFIG).eval()
    awaken(small)
    larger = ConvolutionalDynamics(dataclasses.replace(CONFIG, **more)).eval()
    larger.load_state_dict(larger.fitted(small.state_dict()))
    context = torch.randn(2, 3, 8, 8, 2)
    actions = torch.randn(2, larger.config.past_actions, 2)
    before, after = small.features(context, actions[:, -2:])[0], larger.features(context, actions)[0]
    assert torch.allclose(before, after, atol=1e-6)
    # Half an action is missing: that cannot be made to fit.
    unlike = {"past.action.weight": torch.zeros(16, 5)}
    assert larger.fitted(unlike)["past.action.weight"] is unlike["past.action.weight"]


def test_weights_of_a_deeper_model_do_not_fit():
    deeper = ConvolutionalDynamics(dataclasses.replace(CONFIG, blocks=(2, 2, 3, 1, 1)))
    model = ConvolutionalDynamics(CONFIG)
    with pytest.raises(RuntimeError, match=r"blocks_bottom\.2"):
        model.load_state_dict(model.fitted(deeper.state_dict()))


@pytest.mark.parametrize("blocks", [(2, 2, 2, 1), (2, 2, 0, 1, 1)])
def test_blocks_are_five_numbers(blocks):
    with pytest.raises(ValueError, match="five numbers"):
        ConvolutionalDynamics(dataclasses.replace(CONFIG, blocks=blocks))


def test_clips_count_by_what_copying_gets_wrong():
    weight = count_by_change(torch.tensor([0.0, 0.1, 0.3]), floor=0.1)
    assert torch.allclose(weight, torch.tensor([10.0, 5.0, 2.5]) / (17.5 / 3))
    still, moving = toy_clips(ConvolutionalDynamics(CONFIG), 4, 0), toy_clips(ConvolutionalDynamics(CONFIG), 4, 1)
    still.latents[:] = still.latents[:, :1]
    both = ClipBatch(*(torch.cat([getattr(b, n) for b in (still, moving)])
                       for n in ("latents", "actions", "rewards", "terminated", "valid")))  # fmt: skip
    gradients = []
    for floor in (0.0, 0.01):
        torch.manual_seed(0)
        model = ConvolutionalDynamics(dataclasses.replace(CONFIG, copy_floor=floor, self_context=0.0)).train()
        loss, _ = model(both)
        loss.backward()
        gradients.append(model.denoiser.conv_out.bias.grad.clone())
    assert not torch.allclose(gradients[0], gradients[1])
