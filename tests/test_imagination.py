"""Dreams of a policy, and what is learned from them; the world is a tiny one of random parts."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from conftest import build_tiny_world
from gymnasium import spaces

import neuralsim.agents.imagination_training as module
from neuralsim.agents.action_distribution import ActionDistribution
from neuralsim.agents.actor import ActorConfig, PolicyNet, ValueNet
from neuralsim.agents.imagination import Imagined, imagine
from neuralsim.agents.imagination_training import ImaginationConfig, ImaginationTraining
from neuralsim.agents.lambda_returns import lambda_returns
from neuralsim.data.clips import ClipSampler
from neuralsim.data.latents import LatentEpisode
from neuralsim.training.gauges import frozen_gradients
from neuralsim.training.loop import LoopConfig, TrainingRun

FRAMES, DREAMS, HORIZON = 2, 8, 4


@pytest.fixture
def world():
    return build_tiny_world(spaces.Discrete(4), frame_size=(16, 32), starts=False)


def make_nets(world, random=True):
    height, width, channels = world.latent_shape
    config = ActorConfig(height, width, channels, frames=FRAMES, channels=4, hidden=16, ahead=2, bins=31)
    torch.manual_seed(0)
    policy, value = PolicyNet(config, world.actions.size), ValueNet(config)
    if random:
        torch.nn.init.normal_(policy.out.weight, std=2.0)
        with torch.no_grad():  # around 0, not around the outermost bins of 10^8
            value.out.bias.copy_(-3 * torch.linspace(-20, 20, config.bins).abs())
    return policy, value


def make_training(world, random=True, **changes):
    config = ImaginationConfig(**{"dreams": DREAMS, "horizon": HORIZON, "updates": 3, "batch_size": 16} | changes)
    return ImaginationTraining(world, *make_nets(world, random), FRAMES, config)


def make_sampler(world):
    rng = torch.Generator().manual_seed(0)
    episodes = []
    for number in range(3):
        latents = torch.randn(31, *world.latent_shape, generator=rng).to(torch.bfloat16)
        actions = torch.eye(world.actions.size)[torch.randint(world.actions.size, (30,), generator=rng)]
        nothing = torch.zeros(30)
        episodes.append(LatentEpisode(number, latents, actions, nothing, nothing, nothing.bool(), nothing.long()))
    return ClipSampler(episodes, world.dynamics.context_length, 1)


def dream(world, policy, batch, seed=0, horizon=HORIZON):
    rng = torch.Generator().manual_seed(seed)
    distribution = ActionDistribution(world.actions)
    return imagine(world, policy, distribution, FRAMES, batch.latents, batch.actions, horizon, 2, rng)


def weights(*modules):
    return {(i, name): value.clone() for i, part in enumerate(modules) for name, value in part.state_dict().items()}


def assert_same(before, after):
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert value.numpy().tobytes() == after[name].numpy().tobytes(), name


def paying(world, pay, ends=lambda actions, t: np.zeros(len(actions), np.bool_)):
    """The same world, but ``pay(actions, t)`` says what a step pays and ``ends(actions, t)`` whether it is the last."""
    step = world.step

    def step_and_pay(state, actions, **kwargs):
        t = int(state.step[0])
        following, said = step(state, actions, **kwargs)
        reward, over = (torch.from_numpy(np.asarray(what(actions, t))) for what in (pay, ends))
        return following, dataclasses.replace(said, reward=reward.float(), terminated=over.bool())

    world.step = step_and_pay
    return world


# -- a dream


def test_world_policy_and_recording_stay_as_they_are(world):
    policy, _ = make_nets(world)
    batch = make_sampler(world).draw(0, DREAMS)
    recording = {k: v for k, v in vars(batch).items() if v is not None}
    before = weights(*world.parts.values(), policy), {k: v.clone() for k, v in recording.items()}
    dreamed = dream(world, policy, batch)
    assert_same(before[0], weights(*world.parts.values(), policy))
    assert_same(before[1], recording)
    assert not any(value.requires_grad for value in vars(dreamed).values())
    # Tensors made in inference mode could not be learned from.
    assert not any(value.is_inference() for value in vars(dreamed).values())


def test_the_policy_sees_the_last_latents_and_the_world_gets_what_it_chose(world, monkeypatch):
    policy, _ = make_nets(world)
    batch = make_sampler(world).draw(0, DREAMS)
    seen, steps, step = [], [], world.step

    def look(recent):
        seen.append(recent.clone())
        return policy(recent)

    def note(state, actions, **kwargs):
        following, said = step(state, actions, **kwargs)
        steps.append((world.actions.encode(actions), said, kwargs["steps"]))
        return following, said

    monkeypatch.setattr(world, "step", note)
    dreamed = dream(world, look, batch)
    assert dreamed.latents.shape == (DREAMS, FRAMES + HORIZON, *world.latent_shape)
    assert dreamed.actions.shape == (DREAMS, HORIZON, 4)
    assert torch.equal(dreamed.latents[:, :FRAMES], batch.latents[:, -FRAMES:])
    windows = dreamed.windows(FRAMES)
    assert len(steps) == len(seen) == HORIZON
    for t, (action, said, sampling_steps) in enumerate(steps):
        assert torch.equal(seen[t], windows[:, t])
        assert torch.equal(torch.from_numpy(action), dreamed.actions[:, t])
        assert torch.equal(said.latent, dreamed.latents[:, FRAMES + t])
        assert torch.equal(said.reward, dreamed.rewards[:, t])
        assert torch.equal(1 - said.terminated.float(), dreamed.continues[:, t])
        assert sampling_steps == 2
    # ln pi is that of the action now, the first of the L that the policy predicts
    with torch.no_grad():
        logs = policy(windows[:, :-1].flatten(0, 1))[:, 0].log_softmax(-1)
    expected = (logs * dreamed.actions.flatten(0, 1)).sum(-1).unflatten(0, (DREAMS, HORIZON))
    assert torch.allclose(dreamed.log_prob, expected, atol=1e-4)


def test_the_first_of_the_predicted_actions_is_played(world):
    def policy(recent):
        logits = torch.zeros(len(recent), 2, 4)
        logits[:, 0, 1] = logits[:, 1, 3] = 100
        return logits

    dreamed = dream(world, policy, make_sampler(world).draw(0, DREAMS))
    assert bool((dreamed.actions.argmax(-1) == 1).all())


def test_dreams_go_on_from_their_own_past(world):
    policy, _ = make_nets(world)
    batch = make_sampler(world).draw(0, DREAMS)
    whole = dream(world, policy, batch)
    other = dataclasses.replace(batch, latents=batch.latents.clone())
    other.latents[1:] += 1
    changed = dream(world, policy, other)
    assert torch.equal(whole.latents[0, FRAMES], changed.latents[0, FRAMES])
    assert not torch.equal(whole.latents[1, FRAMES], changed.latents[1, FRAMES])


def test_the_same_generator_dreams_the_same(world):
    policy, _ = make_nets(world)
    batch = make_sampler(world).draw(0, DREAMS)
    first = dream(world, policy, batch, seed=1)
    torch.manual_seed(99)
    again, other = dream(world, policy, batch, seed=1), dream(world, policy, batch, seed=2)
    assert_same(vars(first), vars(again))
    assert not torch.equal(first.latents, other.latents)
    assert not torch.equal(first.actions, other.actions)


def test_a_dream_lives_up_to_and_including_the_step_that_ends():
    nothing = torch.zeros(3, 4)
    continues = torch.tensor([[1.0, 1, 1, 1], [1, 0, 1, 1], [0, 0, 1, 0]])  # after the end a world says anything
    dreamed = Imagined(nothing, nothing, nothing, nothing, continues)
    assert dreamed.alive.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]


def test_windows_by_hand():
    latents = torch.arange(5.0).reshape(1, 5, 1, 1, 1).expand(2, 5, 2, 3, 1) + torch.tensor([0.0, 10]).reshape(
        2, 1, 1, 1, 1
    )
    nothing = torch.zeros(2, 2)
    windows = Imagined(latents, nothing, nothing, nothing, nothing).windows(3)
    assert windows.shape == (2, 3, 3, 2, 3, 1)  # H + 1 windows of 3 frames, oldest first
    assert windows[0, :, :, 1, 2, 0].tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert windows[1, :, :, 0, 0, 0].tolist() == [[10, 11, 12], [11, 12, 13], [12, 13, 14]]


# -- learning from dreams


@pytest.mark.parametrize("objective", ["pmpo", "actor-critic"])
def test_no_gradient_reaches_the_world_or_the_prior(world, objective):
    model = make_training(world, objective=objective)
    frozen = [*world.parts.values(), model.prior]
    before = weights(*frozen)
    for part in frozen:
        part.requires_grad_(True)  # what was frozen by requires_grad alone would show now
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sampler = make_sampler(world)
    for step in range(4):
        loss, _ = model(sampler.draw(step, DREAMS))
        optimizer.zero_grad()
        loss.backward()
        for part in [*frozen, model.slow_value]:
            assert all(p.grad is None for p in part.parameters())
        assert all(p.grad is not None for part in model.separate_parts() for p in part.parameters())
        assert frozen_gradients(model) == 0
        optimizer.step()
    assert_same(before, weights(*frozen))


def test_policy_and_value_of_the_clone_stay_as_they_are(world):
    policy, value = make_nets(world)
    before = weights(policy, value)
    model = ImaginationTraining(world, policy, value, FRAMES, ImaginationConfig(dreams=8, horizon=4, batch_size=16))
    with torch.no_grad():
        for part in model.separate_parts():
            for parameter in part.parameters():
                parameter.add_(1)
    assert_same(before, weights(policy, value))
    assert_same(before, weights(model.prior, model.slow_value))


def test_new_futures_are_imagined_when_the_old_are_used_up(world, monkeypatch):
    calls, step = [], 0

    def count(*args):
        calls.append(step)
        return imagine(*args)

    monkeypatch.setattr(module, "imagine", count)
    model, sampler = make_training(world, updates=3), make_sampler(world)
    kept = []
    for step in range(8):
        _, metrics = model(sampler.draw(step, DREAMS))
        kept.append(model.latents.clone())
        assert ("return_per_1000" in metrics) == (step in (0, 3, 6))
    assert calls == [0, 3, 6]
    assert torch.equal(kept[0], kept[2])
    assert not torch.equal(kept[2], kept[3])


def test_returns_and_advantages_are_those_of_the_slow_value(world, monkeypatch):
    dreams = []
    monkeypatch.setattr(module, "imagine", lambda *args: dreams.append(imagine(*args)) or dreams[-1])
    pay = lambda actions, t: actions + t  # noqa: E731
    paying(world, pay, ends=lambda actions, t: (actions == 2) & (t == 1))
    model = make_training(world, gamma=0.8, lam=0.6)
    monkeypatch.setattr(model.slow_value, "value", lambda recent: 3 * recent[:, -1, 0, 0, 0] + recent[:, 0, 1, 2, 1])
    monkeypatch.setattr(model.value, "value", lambda recent: pytest.fail("a moving target"))
    model(make_sampler(world).draw(0, DREAMS))
    (dreamed,) = dreams
    assert set(dreamed.continues.unique().tolist()) == {0.0, 1.0}
    latents = dreamed.latents  # one frame before the first state, as the policy sees two
    values = 3 * latents[:, 1:, 0, 0, 0] + latents[:, :-1, 1, 2, 1]
    returns = lambda_returns(dreamed.rewards, dreamed.continues, values, 0.8, 0.6)
    assert torch.allclose(model.returns, returns, atol=1e-5)
    assert torch.allclose(model.advantages, returns - values[:, :-1], atol=1e-5)
    assert float(values.std()) > 1
    assert torch.equal(model.alive, dreamed.alive)


def test_every_imagined_step_is_looked_at_as_it_was_played(world, monkeypatch):
    # Before the first update ln pi is still what it was: a window or an action of another step would give another.
    seen = []

    def loss(log_prob, old, *rest, **more):
        seen.append((log_prob.detach(), old))
        return log_prob.sum()

    monkeypatch.setattr(module, "actor_critic_loss", loss)
    model = make_training(world, objective="actor-critic", batch_size=DREAMS * HORIZON)
    model(make_sampler(world).draw(0, DREAMS))
    ((log_prob, old),) = seen
    assert torch.allclose(log_prob, old, atol=1e-4)
    assert torch.equal(old.sort().values, model.log_prob.flatten().sort().values)  # each of them once
    assert len(old.unique()) > 20


def test_advantages_of_the_actor_critic_are_scaled_by_the_spread_of_returns(world):
    paying(world, lambda actions, t: 10 * actions)
    model = make_training(world, random=False, objective="actor-critic", slow_value=0.0)
    model(make_sampler(world).draw(0, DREAMS))
    low, high = np.quantile(model.returns.numpy(), [0.05, 0.95])
    assert float(model.return_range.spread) == pytest.approx(high - low, rel=1e-4)
    assert torch.allclose(model.advantages, model.returns / float(high - low), rtol=1e-4)  # the value still says 0


def test_the_slow_value_follows_in_training_alone(world):
    model, sampler = make_training(world, slow_value=0.25), make_sampler(world)
    with torch.no_grad():
        model.value.out.bias.add_(1)
    before = model.slow_value.out.bias.clone()
    model(sampler.draw(0, DREAMS))
    assert torch.allclose(model.slow_value.out.bias, before + 0.25)
    model.eval()(sampler.draw(1, DREAMS))
    assert torch.allclose(model.slow_value.out.bias, before + 0.25)


@pytest.mark.parametrize("objective", ["pmpo", "actor-critic"])
def test_a_batch_of_steps_after_the_end_is_safe(world, objective):
    # 8 dreams that all end with their first step: a batch of 2 of the 32 steps is often none that counts.
    paying(world, lambda actions, t: actions, ends=lambda actions, t: np.ones(len(actions), np.bool_))
    model, sampler = make_training(world, objective=objective, batch_size=2), make_sampler(world)
    torch.manual_seed(0)
    dead = 0
    for step in range(12):
        model.zero_grad()
        loss, _ = model(sampler.draw(step, DREAMS))
        loss.backward()
        assert torch.isfinite(loss), f"loss {loss} at step {step}"
        gradients = [p.grad for part in model.separate_parts() for p in part.parameters()]
        assert all(bool(torch.isfinite(g).all()) for g in gradients)
        dead += not any(bool((g != 0).any()) for g in (p.grad for p in model.value.parameters()))
    assert dead  # there was such a batch


@pytest.mark.parametrize("objective", ["pmpo", "actor-critic"])
def test_steps_after_the_end_teach_nothing(objective):
    # The first step ends every dream; what the world pays afterwards must not matter, however much it is.
    def values_of(afterwards):
        tiny = build_tiny_world(spaces.Discrete(4), frame_size=(16, 32), starts=False)
        paying(tiny, lambda actions, t: actions if t == 0 else actions * 0 + afterwards,
               ends=lambda actions, t: np.ones(len(actions), np.bool_))  # fmt: skip
        model, sampler = make_training(tiny, objective=objective, batch_size=32), make_sampler(tiny)
        # The range of returns looks at all of them; it only scales.
        model.return_range.eval()
        torch.manual_seed(0)
        model(sampler.draw(0, DREAMS))[0].backward()
        return [p.grad.clone() for part in model.separate_parts() for p in part.parameters()]

    for calm, wild in zip(values_of(-1000), values_of(1000), strict=True):
        assert torch.allclose(calm, wild, atol=1e-6)


def test_what_is_compiled_dreams_and_learns(world, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    training = make_training(world)
    training.compile_parts()
    assert {training.policy, training.value, world.heads} < set(compiled)
    assert any(part in compiled for part in world.dynamics.modules())
    # The prior and the slow value see one batch each; the tokenizer is not asked at all.
    assert not {training.prior, training.slow_value, world.tokenizer} & set(compiled)


@pytest.mark.parametrize(
    "changes",
    [
        {"dreams": 0},
        {"horizon": 0},
        {"updates": 0},
        {"batch_size": 0},
        {"batch_size": DREAMS * HORIZON + 1},
        {"sampling_steps": 3},
        {"sampling_steps": 16},
    ],
)
def test_numbers_that_make_no_sense_are_refused(world, changes):
    with pytest.raises(ValueError, match=f"{next(iter(changes.values()))}"):
        make_training(world, **changes)


@pytest.mark.parametrize("name", ["gamma", "lam", "alpha", "slow_value"])
def test_shares_lie_between_0_and_1(world, name):
    with pytest.raises(ValueError, match=rf"{name} is 1\.5"):
        make_training(world, **{name: 1.5})


def test_dreams_are_in_full_precision_where_training_is_not(world):
    plain, low = make_training(world), make_training(world)
    low.load_state_dict(plain.state_dict())
    batch = make_sampler(world).draw(0, plain.config.dreams)
    for model, dtype in ((plain, None), (low, torch.bfloat16)):
        torch.manual_seed(3)
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            model(batch)
    assert torch.equal(low.latents, plain.latents)
    assert torch.equal(low.actions, plain.actions)
    assert torch.equal(low.returns, plain.returns)


def test_no_mean_is_taken_of_what_was_imagined(world):
    model = make_training(world)
    assert set(model.not_averaged()) <= set(model.state_dict())
    floats = {name for name, value in model.named_buffers() if value.is_floating_point() and value.ndim > 1}
    assert {name for name in floats if "." not in name} == set(model.not_averaged())


def test_a_long_dream_is_paid_for_until_its_end(world, monkeypatch):
    monkeypatch.setattr(module, "LONG_STEPS", 6)
    paying(world, lambda actions, t: np.ones(len(actions)), ends=lambda actions, t: np.arange(len(actions)) + 2 == t)
    model = make_training(world)
    # Lane 0 ends with step 2 and is paid 3; then 4, 5, and the rest all 6.
    assert model.play(make_sampler(world).draw(0, 4)) == {"return_of_6": pytest.approx((3 + 4 + 5 + 6) / 4)}


def curve(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: (row["loss"], row["value_error"]) for row in rows if row["kind"] == "train"}


@pytest.mark.parametrize("objective", ["pmpo", "actor-critic"])
@pytest.mark.parametrize("updates", [3, 4])
def test_a_killed_and_resumed_run_continues_the_same_curve(tmp_path, world, objective, updates):
    """The checkpoint at step 4 lies in the middle of a cycle of 3 updates, and at the end of one of 4."""
    config = LoopConfig(steps=9, warmup_steps=2, checkpoint_every=4, log_every=1, device="cpu", learning_rate=1e-2)
    sampler = make_sampler(world)

    def make_run(name, kill_at=None):
        def draw(step):
            if step == kill_at:
                raise RuntimeError("killed")
            return sampler.draw(step, DREAMS)

        model = make_training(world, objective=objective, updates=updates)
        return TrainingRun(model, draw, tmp_path / name, config, {"kind": objective})

    whole = make_run("whole")
    whole.run()
    with pytest.raises(RuntimeError, match="killed"):
        make_run("parts", kill_at=6).run()
    resumed = make_run("parts")
    resumed.run()
    assert sorted(curve(tmp_path / "whole")) == list(range(1, 10))
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    assert_same(dict(whole.model.state_dict()), dict(resumed.model.state_dict()))
    assert_same(whole.ema, resumed.ema)


@pytest.mark.parametrize(
    ("objective", "changes"), [("pmpo", {"beta": 0.03}), ("actor-critic", {})], ids=["pmpo", "actor-critic"]
)
def test_the_action_that_pays_is_found(world, objective, changes):
    model, played = learn(paying(world, lambda actions, t: actions == 0), objective=objective, **changes)
    assert float(played[:, 0].mean()) > 0.9
    # Its worth goes beyond the 4 steps of a future, 3.44, to 1 + .9 + .81 + ... = 10.
    recent = make_sampler(world).draw(5, 200).latents[:, -FRAMES:]
    assert 3.5 < float(model.value.value(recent).detach().mean()) < 11


@pytest.mark.parametrize(
    ("objective", "changes"), [("pmpo", {"beta": 0.03}), ("actor-critic", {})], ids=["pmpo", "actor-critic"]
)
def test_what_pays_later_is_found(world, objective, changes):
    """Action 1 pays 0.2 at once and ends the episode, all others pay 0.1 for ever."""
    paying(world, lambda actions, t: np.where(actions == 1, 0.2, 0.1), ends=lambda actions, t: actions == 1)
    _, played = learn(world, objective=objective, **changes)
    assert float(played[:, 1].mean()) < 0.1


def test_a_strong_prior_keeps_the_policy_where_it_was(world):
    _, played = learn(paying(world, lambda actions, t: actions == 0), beta=30.0, steps=100)
    assert float(played[:, 0].mean()) < 0.4


def learn(world, steps=200, **changes):
    """The model after some training, and the probabilities ``(200, 4)`` of actions on recorded moments."""
    model = make_training(world, random=False, gamma=0.9, updates=6, **{"dreams": 32, "batch_size": 64} | changes)
    sampler = make_sampler(world)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0)
    torch.manual_seed(0)
    for step in range(steps):
        loss, _ = model(sampler.draw(step, 32))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        return model, model.policy(sampler.draw(10_000, 200).latents[:, -FRAMES:])[:, 0].softmax(-1)
