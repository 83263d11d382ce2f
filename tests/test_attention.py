"""Attention maps: they are what the layers use, they change nothing, and their pictures show them where they are."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import build_tiny_world
from einops import rearrange

from neuralsim.dynamics.transformer import TransformerDynamics, TransformerDynamicsConfig
from neuralsim.evaluation.attention import attention_maps, attention_pictures, attention_weights, heat_colours, over
from neuralsim.transformer import attend
from neuralsim.world import World

CONTEXT = 4


def transformer_world(**changes) -> World:
    """A tiny world with a random transformer; layers 2 and 4 attend through time."""
    small = build_tiny_world(starts=False)
    grid = dict(zip(("height", "width", "latent_channels"), small.latent_shape, strict=True))
    settings = {"agent_tokens": 0, "registers": 1, "logit_cap": 50.0, **changes}
    torch.manual_seed(0)
    dynamics = TransformerDynamics(
        TransformerDynamicsConfig(
            **grid, action_size=small.actions.size, channels=32, heads=4, kv_heads=2, layers=4, time_every=2,
            context_length=CONTEXT, rollout=2, max_steps=8, short_length=2, **settings,
        )
    )  # fmt: skip
    torch.nn.init.normal_(dynamics.tokens.latent_out.weight, std=0.3)
    for layer in dynamics.network.layers:
        layer.q_norm.scale.data.mul_(2)  # looks that differ
    described = {"type": "transformer", "config": dataclasses.asdict(dynamics.config)}
    config = dataclasses.replace(small.config, dynamics=described)
    return World(config, small.tokenizer, dynamics, small.heads, device="cpu", dtype="float32")


def clip(world, length, seed=1):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (length, *world.frame_shape), dtype=np.uint8)
    return frames, np.eye(world.actions.size, dtype=np.float32)[rng.integers(world.actions.size, size=length)]


@pytest.mark.parametrize("length", [1, 3, 9])
def test_every_row_sums_to_one_and_covers_all_there_is(length):
    world = transformer_world(agent_tokens=1)
    found = attention_maps(world, *clip(world, length))
    tokens = len(world.dynamics.tokens.positions)
    assert [(one.layer, one.kind) for one in found.maps] == [(0, "space"), (1, "time"), (2, "space"), (3, "time")]
    for one in found.maps:
        seen = tokens if one.kind == "space" else min(length, CONTEXT) + 1
        assert one.weights.shape == (4, tokens, seen)
        assert one.per_head.shape == (4, seen)
        assert (one.weights >= 0).all()
        assert one.weights.sum(-1) == pytest.approx(1, abs=1e-5)
        assert one.per_head.sum(-1) == pytest.approx(1, abs=1e-5)
        assert one.mean.sum() == pytest.approx(1, abs=1e-5)
    assert found.frame.shape == world.frame_shape
    assert found.grid[0] * found.grid[1] == len(range(tokens)[found.maps[0].spatial])


@pytest.mark.parametrize(
    ("cap", "agents", "length", "denoising"), [(50.0, 0, 3, 0), (2.0, 1, 9, 1), (0.0, 1, 9, 0), (0.0, 0, 1, 1)]
)
def test_the_weights_give_what_the_layers_really_put_out(cap, agents, length, denoising):
    world = transformer_world(logit_cap=cap, agent_tokens=agents)
    frames, actions = clip(world, length)
    layers = world.dynamics.network.layers
    given, put_out = [[] for _ in layers], [[] for _ in layers]
    hooks = []
    state = world.start(frames[None], world.actions.decode(actions[None, :-1]) if length > 1 else None)
    real_step = world.step

    def watched(*args, **kwargs):  # only the dreamed frame, not the context before it
        for i, layer in enumerate(layers):
            hooks.append(layer.attention_norm.register_forward_pre_hook(lambda _, x, i=i: given[i].append(x[0])))
            hooks.append(layer.attention_out.register_forward_pre_hook(lambda _, x, i=i: put_out[i].append(x[0])))
        return real_step(*args, **kwargs)

    world.step = watched
    found = attention_maps(world, frames, actions, steps=2, denoising=denoising)
    for hook in hooks:
        hook.remove()
    with torch.inference_mode():
        for i, one in enumerate(found.maps):
            _, _, values = layers[i].project(given[i][denoising])
            weights = torch.from_numpy(one.weights)
            if one.kind == "time":
                past = state.dynamics["values"][0, i // 2][:, :, : min(length, CONTEXT)]
                values = torch.cat([past, values[0]], dim=-2).repeat_interleave(2, dim=1)  # (N, H, S, E)
                again = torch.einsum("hns,nhse->nhe", weights, values)
                real = rearrange(put_out[i][denoising][0], "n 1 (h e) -> n h e", h=4)
            else:
                again = torch.einsum("hns,hse->nhe", weights, values[0].repeat_interleave(2, dim=0))
                real = rearrange(put_out[i][denoising][0], "n (h e) -> n h e", h=4)
            assert torch.allclose(again, real, atol=1e-5)
            even = torch.full_like(weights, 1 / weights.shape[-1])
            assert weights.shape[-1] == 1 or not torch.allclose(weights, even, atol=1e-2)


@pytest.mark.parametrize("cap", [0.0, 1.0])
def test_weights_are_those_of_attend(cap):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, 5, 8, generator=generator) for heads in (4, 2, 2))
    mask = torch.tril(torch.ones(5, 5, dtype=torch.bool))
    weights = attention_weights(q, k, mask, cap)
    again = rearrange(weights @ v.repeat_interleave(2, dim=1), "b h p e -> b p (h e)")
    assert torch.allclose(again, attend(q, k, v, mask, cap), atol=1e-5)
    assert (weights[..., ~mask] == 0).all()


def test_columns_in_time_run_from_the_oldest_frame():
    world = transformer_world(residual=False)  # a frame's keys depend on that frame alone
    frames, actions = clip(world, CONTEXT)
    other = frames.copy()
    other[0] = 255 - other[0]
    before, after = (attention_maps(world, x, actions, layers=[1]).maps[0].weights for x in (frames, other))
    assert not np.allclose(before[..., 0], after[..., 0], atol=1e-3)
    rest = [x[..., 1:] / x[..., 1:].sum(-1, keepdims=True) for x in (before, after)]
    assert rest[0] == pytest.approx(rest[1], abs=1e-4)


def test_passes_over_a_frame_are_told_apart():
    world = transformer_world()
    frames, actions = clip(world, 3)
    first, second = (attention_maps(world, frames, actions, steps=2, denoising=i).maps[0].weights for i in (0, 1))
    assert not np.allclose(first, second, atol=1e-3)


def test_looking_leaves_the_dream_as_it_was():
    world = transformer_world()
    frames, actions = clip(world, 3)
    state = world.start(frames[None], world.actions.decode(actions[None, :-1]), seed=5)
    following, said = world.step(state, world.actions.decode(actions[None, -1]))
    found = attention_maps(world, frames, actions, seed=5)
    assert np.array_equal(found.frame, world.decode(said.latent)[0].numpy())
    again, _ = world.step(state, world.actions.decode(actions[None, -1]))
    assert all(torch.equal(again.dynamics[name], following.dynamics[name]) for name in again.dynamics)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in world.dynamics.modules())


def test_hooks_go_also_when_a_dream_fails():
    world = transformer_world()
    frames, actions = clip(world, 3)
    with pytest.raises(ValueError, match="frames have shape"):
        attention_maps(world, frames[:, :-1], actions)
    world.step = lambda *args, **kwargs: 1 / 0
    with pytest.raises(ZeroDivisionError):
        attention_maps(world, frames, actions)
    assert not any(module._forward_hooks for module in world.dynamics.modules())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": [1, 4]}, r"layers are \[1, 4\]; this world has layers 0 to 3"),
        ({"layers": [-1]}, r"layers are \[-1\]"),
        ({"steps": 2, "denoising": 2}, "denoising is 2; with 2 sampling steps there are passes 0 to 1"),
        ({"steps": 3}, "power of two"),
    ],
)
def test_what_is_not_there_is_refused(changes, message):
    world = transformer_world()
    with pytest.raises(ValueError, match=message):
        attention_maps(world, *clip(world, 2), **changes)


def test_there_is_one_action_per_frame():
    world = transformer_world()
    frames, actions = clip(world, 3)
    with pytest.raises(ValueError, match="3 frames and 2 actions"):
        attention_maps(world, frames, actions[1:])


def test_a_world_without_attention_has_nothing_to_show():
    world = build_tiny_world(starts=False)
    frames, actions = clip(world, 3)
    assert attention_maps(world, frames, actions) is None
    assert attention_pictures(world, frames, actions) == []


def test_pictures_of_the_last_layers_or_of_those_asked_for():
    world = transformer_world()
    frames, actions = clip(world, 3)
    titles = [title for title, _, _ in attention_pictures(world, frames, actions)]
    assert titles == ["Layer 3, within the frame", "Layer 4, through time"]
    pictures = attention_pictures(world, frames, actions, layers=[1])
    assert [title for title, _, _ in pictures] == ["Layer 2, through time"]
    for _, picture, caption in [*pictures, *attention_pictures(world, frames, actions, layers=[0])]:
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
        assert "%" in caption


def test_heat_lies_where_the_looks_go():
    heat = np.zeros((2, 4))
    heat[1, 3] = 0.2
    shown = over(np.full((50, 80, 3), 100, np.uint8), heat).astype(int)
    assert (shown[:25] == 50).all()
    assert (shown[:, :60] == 50).all()
    assert (shown[25:, 60:, 0] > 200).all()
    assert (over(np.full((4, 4, 3), 100, np.uint8), np.zeros((2, 2))) == 50).all()


def test_heat_gets_brighter():
    shades = heat_colours(np.linspace(0, 1, 20)).astype(int).sum(-1)
    assert (np.diff(shades) > 0).all()
