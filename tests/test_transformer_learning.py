"""The transformer dynamics learns: a dot that moves as the action says, dreamed from its own frames."""

import dataclasses

import pytest
import torch

from neuralsim.dynamics import ClipBatch
from neuralsim.dynamics.transformer import TransformerDynamics, TransformerDynamicsConfig

TOY = TransformerDynamicsConfig(
    channels=32,
    heads=4,
    kv_heads=2,
    layers=3,
    time_every=2,
    height=2,
    width=4,
    latent_channels=2,
    action_size=3,
    patch=1,
    registers=1,
    context_length=3,
    rollout=2,
    max_steps=16,
    image_share=0.1,
    short_share=0.0,
    self_start=0.6,
    ramp=0.0,
    zero_fraction=0.3,
)


def moving_dot(lanes: int, frames: int, seed: int) -> ClipBatch:
    """A dot on a ring of eight cells that goes back, stays or goes on, as the action says."""
    generator = torch.Generator().manual_seed(seed)
    choice = torch.randint(0, 3, (lanes, frames - 1), generator=generator)
    cell = torch.randint(0, 8, (lanes, 1), generator=generator)
    cell = torch.cat([cell, cell + (choice - 1).cumsum(1)], dim=1) % 8
    dot = torch.nn.functional.one_hot(cell, 8).view(lanes, frames, 2, 4, 1).float()
    zeros = torch.zeros(lanes, frames - 1)
    valid = torch.ones(lanes, frames, dtype=torch.bool)
    actions = torch.nn.functional.one_hot(choice, 3).float()
    return ClipBatch(torch.cat([2 * dot, -dot], dim=-1), actions, zeros, zeros, valid)


@pytest.fixture(scope="module")
def trained() -> TransformerDynamics:
    """A tiny model after a few hundred steps on the moving dot."""
    torch.manual_seed(0)
    model = TransformerDynamics(TOY)
    steps, peak = 200, 6e-3
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.98))
    for step in range(steps):
        model.set_progress(step / steps)
        optimizer.param_groups[0]["lr"] = peak * min(1, step / 30, 2 * (1 - step / steps))
        loss, _ = model(moving_dot(16, model.clip_length, seed=step))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def dream_error(model: TransformerDynamics, shuffled: bool = False, steps: int = 2) -> float:
    """Squared error of 5 dreamed frames over that of copying the last context frame."""
    batch = moving_dot(64, 9, seed=10_000)
    actions = batch.actions.roll(1, 0) if shuffled else batch.actions
    state = model.start(batch.latents[:, :4], batch.actions[:, :3])
    noise = torch.randn(64, 5, 2, *model.latent_shape, generator=torch.Generator().manual_seed(1))
    bounds = torch.full(model.latent_shape, -3.0), torch.full(model.latent_shape, 3.0)
    error = copied = 0.0
    for t in range(5):
        latent, state, _ = model.step(state, actions[:, 3 + t], noise[:, t], steps, bounds)
        error += float((latent - batch.latents[:, 4 + t]).square().mean())
        copied += float((batch.latents[:, 3] - batch.latents[:, 4 + t]).square().mean())
    return error / copied


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_learns_a_moving_dot(trained, steps):
    assert dream_error(trained, steps=steps) < 0.2


def test_shuffled_actions_cost_more(trained):
    assert dream_error(trained, shuffled=True) > 2 * dream_error(trained)
    losses = {}
    for name, order in (("aligned", slice(None)), ("shuffled", torch.arange(64).roll(1))):
        batch = moving_dot(64, trained.clip_length, seed=10_001)
        torch.manual_seed(0)
        with torch.no_grad():
            _, losses[name] = trained(dataclasses.replace(batch, actions=batch.actions[order]))
    assert losses["shuffled"]["flow"] > losses["aligned"]["flow"]
    assert losses["aligned"]["relative_to_copy"] < losses["shuffled"]["relative_to_copy"]
