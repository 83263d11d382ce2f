"""Weights that go on with other actions: what both spaces have does what it did."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from neuralsim.actions import ActionCodec
from neuralsim.dynamics.convolutional import ConvolutionalDynamics, ConvolutionalDynamicsConfig
from neuralsim.envs.minerl_spaces import BUTTONS, V0_BUTTONS, action_space, noop_action
from neuralsim.heads import Heads, HeadsConfig
from neuralsim.training.other_actions import refit_actions

HUMAN, V0 = (ActionCodec(action_space(buttons, camera_limit=10)) for buttons in (BUTTONS, V0_BUTTONS))


def model_of(codec: ActionCodec, seed: int) -> tuple[ConvolutionalDynamics, Heads]:
    torch.manual_seed(seed)
    sizes = {"height": 8, "width": 8, "latent_channels": 2, "action_size": codec.size}
    dynamics = ConvolutionalDynamics(
        ConvolutionalDynamicsConfig(
            **sizes, history=(1, 2), past_actions=3, channels=8, embedding=16, camera=codec.camera()[0]
        )
    )
    heads = Heads(HeadsConfig(**sizes))
    for part in (dynamics, heads):
        for parameter in part.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return dynamics.eval(), heads.eval()


def moves(count: int, seed: int) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [
        {**{name: int(rng.integers(2)) for name in V0_BUTTONS}, "camera": rng.uniform(-10, 10, 2).astype(np.float32)}
        for _ in range(count)
    ]


def encoded(codec: ActionCodec, actions: list[dict]) -> torch.Tensor:
    whole = [{**noop_action(codec.space), **action} for action in actions]
    return torch.from_numpy(np.stack([codec.encode(action) for action in whole]))


def test_buttons_that_both_know_do_the_same():
    (old, old_heads), (new, new_heads) = model_of(HUMAN, 0), model_of(V0, 1)
    new.load_state_dict(refit_actions(old.state_dict(), HUMAN, V0))
    new_heads.load_state_dict(refit_actions(old_heads.state_dict(), HUMAN, V0))
    context, actions = torch.randn(1, 2, 8, 8, 2), moves(3, 0)
    with torch.no_grad():
        before = old.features(context, encoded(HUMAN, actions)[None])
        after = new.features(context, encoded(V0, actions)[None])
        frames = (torch.randn(3, old_heads.config.frames - 1, 8, 8, 2), torch.randn(3, 8, 8, 2))
        paid, paid_now = old_heads(*frames, encoded(HUMAN, actions)), new_heads(*frames, encoded(V0, actions))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(before, after, strict=True))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(paid, paid_now, strict=True))


def test_a_camera_that_may_turn_less_turns_as_far():
    wide = ActionCodec(action_space(V0_BUTTONS, camera_limit=180))
    torch.manual_seed(0)
    layer = {"action.weight": torch.randn(4, 2 * wide.size), "action.bias": torch.randn(4)}
    narrow = refit_actions(layer, wide, V0)
    actions = moves(2, 0)
    before, after = (
        weights["action.weight"] @ encoded(codec, actions).flatten() + weights["action.bias"]
        for weights, codec in ((layer, wide), (narrow, V0))
    )
    assert torch.allclose(before, after, atol=1e-4)


def test_buttons_that_are_new_do_nothing_yet():
    (old, _), (new, _) = model_of(V0, 0), model_of(HUMAN, 1)
    new.load_state_dict(refit_actions(old.state_dict(), V0, HUMAN))
    context, actions = torch.randn(1, 2, 8, 8, 2), moves(3, 0)
    with torch.no_grad():
        before = old.features(context, encoded(V0, actions)[None])
        after = new.features(context, encoded(HUMAN, [{**a, "drop": 1, "hotbar.3": 1} for a in actions])[None])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(before, after, strict=True))


def test_spaces_without_anything_in_common_are_refused():
    weights = model_of(V0, 0)[0].state_dict()
    for other in (spaces.Discrete(18), spaces.Dict({"fire": spaces.Discrete(2)})):
        with pytest.raises(ValueError, match="nothing in common"):
            refit_actions(weights, V0, ActionCodec(other))
