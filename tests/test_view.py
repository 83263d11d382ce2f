"""Past frames turned into the view of a camera, on a panorama whose every direction has a colour."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from neuralsim.actions import ActionCodec
from neuralsim.dynamics.base import ClipBatch
from neuralsim.dynamics.convolutional import ConvolutionalDynamics, ConvolutionalDynamicsConfig
from neuralsim.dynamics.view import TurnedView, pitched, yawed
from neuralsim.tokenizers.convolutional import ConvolutionalTokenizer, ConvolutionalTokenizerConfig
from neuralsim.training.dynamics import DynamicsRun, build_world_model

CONFIG = ConvolutionalDynamicsConfig(
    height=8,
    width=8,
    latent_channels=2,
    action_size=3,
    history=(1, 2, 4),
    past_actions=2,
    channels=16,
    embedding=16,
    max_steps=8,
    rollout=2,
    camera=(1, 2),
    camera_degrees=10.0,
)


def panorama(pitch: float, yaw: float, size: int = 64) -> torch.Tensor:
    """What a camera sees in a world that is a smooth function of direction: ``(1, size, size)``."""
    extent_y, extent_x = (math.tan(math.radians(angle) / 2) for angle in CONFIG.field_of_view)
    at = (torch.arange(size) + 0.5) / size * 2 - 1
    down, right = torch.meshgrid(at * extent_y, at * extent_x, indexing="ij")
    rays = torch.stack([right, down, torch.ones_like(down)]).flatten(1)
    turn = yawed(torch.tensor(math.radians(yaw))) @ pitched(torch.tensor(math.radians(pitch)))
    x, y, z = turn @ (rays / rays.norm(dim=0))
    return (x + 0.5 * torch.sin(4 * z) + torch.cos(3 * y + x)).view(1, size, size)


@given(
    pitch=st.floats(-60, 60),
    down=st.floats(-10, 10),
    right=st.floats(-20, 20),
)
def test_a_turned_picture_is_what_the_camera_sees(pitch, down, right):
    view = TurnedView(CONFIG)
    angles = [torch.tensor([[math.radians(a)]]) for a in (pitch, pitch + down, right)]
    grid, inside = view.look(*angles, torch.Size((64, 64)))
    before, after = panorama(pitch, 30.0), panorama(pitch + down, 30.0 + right)
    turned = torch.nn.functional.grid_sample(before[None], grid, align_corners=False)
    inner = inside & (grid.abs() < 0.97).all(-1)[:, None]
    assert inner.float().mean() > 0.3
    assert float((turned - after[None])[inner].abs().max()) < 0.02


def test_turns_add_up_from_the_oldest_frame_to_the_new_one():
    view = TurnedView(CONFIG)
    actions = torch.zeros(1, 4, 3)
    actions[0, :, 1] = torch.tensor([0.1, 0.2, 0.3, 0.4])  # pitch, in tens of degrees
    actions[0, :, 2] = torch.tensor([0.0, 1.0, 0.0, -0.5])
    then, now, yaw = (x[0].rad2deg() for x in view.turns(torch.zeros(1, 8, 8, 2), actions))
    # One, two and four actions since; the camera that saw the last frame looked straight ahead.
    assert torch.allclose(now, torch.full((3,), 4.0), atol=1e-4)
    assert torch.allclose(then, torch.tensor([0.0, -3.0, -6.0]), atol=1e-4)
    assert torch.allclose(yaw, torch.tensor([-5.0, -5.0, 5.0]), atol=1e-4)


def read_and_move(view: TurnedView, context: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What is read of the past, and the last frame as it has moved, where the features say nothing."""
    read, turned = view.turn(context, context[:, 0], actions)
    return read, view.move(turned, torch.zeros(len(context), CONFIG.channels, CONFIG.height, CONFIG.width))


def test_a_camera_at_rest_changes_nothing():
    torch.manual_seed(0)
    view = TurnedView(CONFIG)
    context, rest = torch.randn(2, 3, 8, 8, 2), torch.zeros(2, 4, 3)
    _, base = read_and_move(view, context, rest)
    assert torch.allclose(base, context[:, 0], atol=1e-4)
    turned = rest.clone()
    turned[..., 2] = 1.0
    read, base = read_and_move(view, context, turned)
    assert not torch.allclose(base, context[:, 0], atol=0.1)
    assert torch.equal(read, torch.zeros_like(read))


def even_view() -> TurnedView:
    """A view whose pictures show each latent as a square of its colour, and back."""
    view = TurnedView(CONFIG)
    with torch.no_grad():
        for layer in (view.picture_out, view.latent_out, view.flow_out):
            layer.weight.zero_()
        for channel in range(2):
            view.picture_out.weight[16 * channel : 16 * (channel + 1), channel, 1, 1] = 1.0
            view.latent_out.weight[channel, channel] = 1 / 16
        view.picture_out.bias.zero_()
        view.flow_out.bias[2:] = 30.0  # everything turns
    return view


@pytest.mark.parametrize(("flow", "shift"), [((1.0, 0.0), (0, -1)), ((0.0, -2.0), (2, 0)), ((0.0, 0.0), (0, 0))])
def test_the_flow_says_where_what_is_seen_came_from(flow, shift):
    torch.manual_seed(1)
    view = even_view()
    with torch.no_grad():
        view.flow_out.bias[:2] = torch.tensor(flow)
        context = torch.randn(1, 3, 8, 8, 2)
        _, base = read_and_move(view, context, torch.zeros(1, 4, 3))
    last = context[0, 0]
    moved = last.roll(shift, (0, 1))
    came_into_view = torch.zeros(8, 8, dtype=torch.bool)
    if shift[0]:
        came_into_view[: shift[0]] = True
    if shift[1]:
        came_into_view[:, shift[1] :] = True
    assert torch.allclose(base[0][~came_into_view], moved[~came_into_view], atol=1e-4)
    # What was not on the last frame stays as it was, for the network to fill in.
    assert torch.allclose(base[0][came_into_view], last[came_into_view], atol=1e-4)


def test_what_hangs_before_the_camera_does_not_turn():
    torch.manual_seed(2)
    view = even_view()
    with torch.no_grad():
        view.flow_out.bias[0] = 1.0
        view.flow_out.bias[2:] = -30.0
        context = torch.randn(1, 3, 8, 8, 2)
        _, base = read_and_move(view, context, torch.zeros(1, 4, 3))
    assert torch.allclose(base, context[:, 0], atol=1e-5)


def learn(model: ConvolutionalDynamics, clips: Callable[..., ClipBatch], steps: int) -> None:
    """Trains all that may be trained, on other clips in each step."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for step in range(steps):
        loss, _ = model(clips(model, 16, step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()


def sliding_clips(model: ConvolutionalDynamics, lanes: int, seed: int) -> ClipBatch:
    """Films of a smooth picture that slides by half a position while a button is held, as a wall one walks along."""
    generator = torch.Generator().manual_seed(seed)
    steps = model.clip_length
    actions = torch.zeros(lanes, steps - 1, 3)
    actions[..., 0] = torch.randint(0, 2, (lanes, steps - 1), generator=generator).float()
    at = torch.cat([torch.zeros(lanes, 1), 0.5 * actions[..., 0].cumsum(1)], dim=1)
    columns = torch.arange(8.0) + at[..., None]
    phase = 6.3 * torch.rand(lanes, 1, 1, 2, generator=generator)
    waves = torch.sin(columns[..., None] * torch.tensor([0.9, 1.4]) + phase)
    tilt = torch.linspace(0.5, 1.0, 8)[:, None, None]
    zeros = torch.zeros(lanes, steps - 1)
    latents = waves[:, :, None] * tilt
    return ClipBatch(latents, actions, zeros, zeros, torch.ones(lanes, steps, dtype=torch.bool))


def test_flows_are_learned_by_how_well_the_moved_frame_fits():
    torch.manual_seed(0)
    model = ConvolutionalDynamics(ConvolutionalDynamicsConfig(**{**vars(CONFIG), "rollout": 1}))
    model.denoiser.requires_grad_(False)  # nothing but the moved frame itself teaches the flow
    model.predict = lambda features, base, z, level, size: base.permute(0, 2, 3, 1).detach()
    learn(model, sliding_clips, 150)
    clips = sliding_clips(model, 64, 1000)
    with torch.no_grad():
        moved = float(model(clips)[1]["moved"])
    copied = float((clips.latents[:, -1] - clips.latents[:, -2]).square().mean())
    assert moved < 0.85 * copied


def test_noise_lies_on_what_is_read_but_not_on_what_is_moved():
    torch.manual_seed(0)
    bounds = (torch.full((8, 8, 2), -9.0), torch.full((8, 8, 2), 9.0))
    first, second = torch.randn(2, 4, 8, 8, 2), torch.randn(2, 4, 8, 8, 2)
    second[:, 0] = first[:, 0]
    for amount, awake in ((0.15, False), (0.15, True), (0.0, True)):
        torch.manual_seed(0)
        model = ConvolutionalDynamics(ConvolutionalDynamicsConfig(**{**vars(CONFIG), "dream_noise": amount})).eval()
        if awake:
            torch.nn.init.normal_(model.denoiser.conv_out.weight, std=0.1)
        batch = turning_clips(model, 2, 0)
        state = model.start(batch.latents[:, : model.context_length], batch.actions[:, : model.context_length - 1] * 0)
        with torch.no_grad():
            latent, following, _ = model.step(state, torch.zeros(2, 3), first, 4, bounds)
            other, _, _ = model.step(state, torch.zeros(2, 3), second, 4, bounds)
        assert model.noise_slots == 1 + len(CONFIG.history)
        assert torch.equal(following["latents"][:, -1], latent)
        assert torch.equal(latent, other) == (not awake or amount == 0)
        if not awake:
            # An untrained denoiser adds nothing: what is left is the frame that was moved, at rest the last one.
            assert torch.allclose(latent, batch.latents[:, model.context_length - 1], atol=1e-5)


def test_in_training_too_the_moved_frame_has_no_noise(monkeypatch):
    model = ConvolutionalDynamics(ConvolutionalDynamicsConfig(**{**vars(CONFIG), "rollout": 1, "short_history": 0.0}))
    seen = []
    turn = model.view.turn
    monkeypatch.setattr(model.view, "turn", lambda *given: seen.append(given) or turn(*given))
    batch = turning_clips(model, 4, 0)
    model(batch)
    ((context, last, _),) = seen
    assert torch.equal(last, batch.latents[:, -2])
    assert not torch.allclose(context[:, 0], last, atol=1e-3)


@pytest.mark.parametrize("flow", [(0.1, 0.0), (0.4, -0.3), (-1.5, 0.7)])
def test_a_picture_of_one_colour_stays_so_however_it_moves(flow):
    view = even_view()
    with torch.no_grad():
        view.flow_out.bias[:2] = torch.tensor(flow)
        context = torch.ones(1, 3, 8, 8, 2)
        actions = torch.zeros(1, 4, 3)
        actions[..., 2] = 0.2
        for _ in range(20):
            _, base = read_and_move(view, context, actions)
            context = torch.cat([base[:, None], context[:, :-1]], dim=1)
    assert torch.allclose(base, torch.ones_like(base), atol=1e-4)


def test_in_dreams_short_flows_are_none():
    torch.manual_seed(3)
    view = even_view()
    view.dead_zone = 0.1
    context = torch.randn(1, 3, 8, 8, 2)
    still = {}
    for length in (0.05, 0.5):
        for training in (False, True):
            view.train(training)
            with torch.no_grad():
                view.flow_out.bias[:2] = torch.tensor([length, 0.0])
                _, base = read_and_move(view, context, torch.zeros(1, 4, 3))
            still[length, training] = torch.allclose(base, context[:, 0], atol=1e-4)
    assert still == {(0.05, False): True, (0.05, True): False, (0.5, False): False, (0.5, True): False}


def turning_clips(model: ConvolutionalDynamics, lanes: int, seed: int) -> ClipBatch:
    """Films of a panorama by a camera that turns at random, folded to latents of every fourth pixel."""
    rng = np.random.default_rng(seed)
    steps = model.clip_length
    turns = rng.uniform(-1, 1, (lanes, steps - 1, 2)).astype(np.float32)
    yaws = rng.uniform(0, 360, (lanes, 1)) + np.concatenate(
        [np.zeros((lanes, 1)), 10 * turns[..., 1].cumsum(1)], axis=1
    )
    pitches = np.concatenate([np.zeros((lanes, 1)), 10 * turns[..., 0].cumsum(1)], axis=1)
    films = torch.stack(
        [
            torch.stack([panorama(p, y, 8)[0] for p, y in zip(*lane, strict=True)])
            for lane in zip(pitches, yaws, strict=True)
        ]
    )
    latents = torch.stack([films, films.square() - 1], dim=-1)
    actions = torch.cat([torch.zeros(lanes, steps - 1, 1), torch.from_numpy(turns)], dim=2)
    zeros = torch.zeros(lanes, steps - 1)
    return ClipBatch(latents, actions, zeros, zeros, torch.ones(lanes, steps, dtype=torch.bool))


def test_a_turning_camera_is_learned_sooner_with_turned_frames():
    errors = {}
    for camera in (CONFIG.camera, ()):
        torch.manual_seed(0)
        model = ConvolutionalDynamics(ConvolutionalDynamicsConfig(**{**vars(CONFIG), "camera": camera, "rollout": 1}))
        learn(model, turning_clips, 60)
        with torch.no_grad():
            errors[camera] = float(model(turning_clips(model, 64, 1000))[1]["relative_to_copy"])
    assert errors[CONFIG.camera] < 0.7 * errors[()]


def test_a_step_remembers_the_turns_that_its_oldest_frame_needs():
    torch.manual_seed(0)
    model = ConvolutionalDynamics(CONFIG).eval()
    for part in model.view.parameters():
        torch.nn.init.normal_(part, std=0.1)
    batch = turning_clips(model, 2, 0)
    begin = model.context_length
    state = model.start(batch.latents[:, :begin], batch.actions[:, : begin - 1])
    assert state["actions"].shape == (2, 3, 3)  # and the action taken now makes four, as far back as the history goes
    bounds = (torch.full((8, 8, 2), -9.0), torch.full((8, 8, 2), 9.0))
    noise = torch.zeros(2, 4, 8, 8, 2)
    other = {**state, "actions": state["actions"].clone()}
    other["actions"][:, 0, 2] += 1.0
    with torch.no_grad():
        first, following, _ = model.step(state, batch.actions[:, begin - 1], noise, 1, bounds)
        second, _, _ = model.step(other, batch.actions[:, begin - 1], noise, 1, bounds)
    assert following["actions"].shape == state["actions"].shape
    assert not torch.equal(first, second)
    context = batch.latents[:, [begin - offset for offset in CONFIG.history]]
    whole = batch.actions[:, :begin]
    changed = whole.clone()
    changed[:, 0, 2] += 1.0
    with torch.no_grad():
        assert not torch.equal(model.features(context, whole)[0], model.features(context, changed)[0])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"camera": (1,)}, "two places"),
        ({"camera": (1, 3)}, "among the 3 numbers"),
        ({"camera_degrees": 0.0}, "camera_degrees is 0.0"),
        ({"field_of_view": (70.0, 180.0)}, "field_of_view"),
        ({"view_channels": 0}, "view_channels is 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(change, word):
    with pytest.raises(ValueError, match=word):
        ConvolutionalDynamics(ConvolutionalDynamicsConfig(**{**vars(CONFIG), **change}))


def test_codec_finds_the_camera():
    space = spaces.Dict(
        {"attack": spaces.Discrete(2), "camera": spaces.Box(-10, 10, (2,), np.float32), "jump": spaces.Discrete(2)}
    )
    assert ActionCodec(space).camera() == ((2, 3), 10.0)
    assert ActionCodec(spaces.Discrete(3)).camera() is None
    lopsided = spaces.Dict({"camera": spaces.Box(-10, 20, (2,), np.float32)})
    assert ActionCodec(lopsided).camera() is None


def test_training_finds_the_camera_among_the_actions():
    tokenizer = ConvolutionalTokenizer(ConvolutionalTokenizerConfig(32, 32, latent_channels=2, channels=8, blocks=1))
    space = spaces.Dict({"attack": spaces.Discrete(2), "camera": spaces.Box(-5, 5, (2,), np.float32)})
    for run, expected in (
        (DynamicsRun(), (2, 3)),
        (DynamicsRun(convolutional=ConvolutionalDynamicsConfig(turn_view=False)), ()),
    ):
        dynamics = build_world_model(run, tokenizer, ActionCodec(space)).dynamics
        assert dynamics.config.camera == expected
        assert (dynamics.view is not None) == bool(expected)
        assert not expected or dynamics.config.camera_degrees == 5.0
    assert build_world_model(DynamicsRun(), tokenizer, ActionCodec(spaces.Discrete(6))).dynamics.view is None


def test_the_pitch_is_learned_where_recordings_know_it():
    torch.manual_seed(0)
    view = TurnedView(CONFIG)
    rng = np.random.default_rng(0)

    def frames(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        pitch = rng.uniform(-40, 40, count)
        seen = torch.stack([panorama(p, y, 8)[0] for p, y in zip(pitch, rng.uniform(0, 360, count), strict=True)])
        return torch.stack([seen, seen.square() - 1], dim=-1), torch.from_numpy(pitch).float()

    optimizer = torch.optim.AdamW(view.parameters(), lr=3e-3)
    for _ in range(150):
        latents, pitch = frames(64)
        loss, _ = view.pitch_loss(latents[:, None], pitch[:, None], noise=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    latents, pitch = frames(200)
    estimate = torch.rad2deg(view.estimate(latents)).detach()
    assert float((estimate - pitch).abs().mean()) < 0.4 * float(pitch.abs().mean())


def test_clips_tell_the_pitch_of_every_frame():
    model = ConvolutionalDynamics(CONFIG)
    batch = turning_clips(model, 2, 0)
    _, metrics = model(batch)
    assert "pitch_off" not in metrics
    batch.pitch = torch.full((2, model.clip_length), 12.0)
    _, metrics = model(batch)
    assert float(metrics["pitch_off"]) == pytest.approx(12.0, abs=0.01)  # an untrained camera looks straight ahead
