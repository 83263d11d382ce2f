"""Cloning: which moments are drawn, what is seen and what is to be predicted; what can be learned and what cannot."""

import math

import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from neuralsim.actions import ActionCodec
from neuralsim.agents.action_distribution import ActionDistribution
from neuralsim.agents.actor import ActorConfig
from neuralsim.agents.cloning import Cloning, MomentSampler, discounted
from neuralsim.data.latents import LatentEpisode

SMALL = ActorConfig(height=2, width=3, latent_channels=2, frames=2, channels=8, hidden=32, ahead=3, bins=31)


def counted(length: int, number: int = 0, first: int = 0) -> LatentEpisode:
    """Latent t is filled with first + t, action t is [1, first + t], reward t is t."""
    latents = first + torch.arange(length + 1.0).reshape(-1, 1, 1, 1).expand(-1, 2, 3, 1)
    actions = torch.stack([torch.ones(length), first + torch.arange(length)], dim=1)
    return finished(number, latents, actions, torch.arange(float(length)))


def finished(number, latents, actions, rewards) -> LatentEpisode:
    length = len(actions)
    return LatentEpisode(number, latents.to(torch.bfloat16), actions, rewards, torch.zeros(length),
                         torch.zeros(length, dtype=torch.bool), torch.zeros(length, dtype=torch.long))  # fmt: skip


def test_an_action_is_chosen_seeing_the_frame_before_it_and_no_later_one():
    # One frame too many, and the clone reads the action off what it did: perfect in training, useless in play.
    batch = MomentSampler([counted(40)], frames=4, ahead=3, gamma=0.9).draw(0, 200)
    assert batch.recent.shape == (200, 4, 2, 3, 1)
    now = batch.recent[:, -1, 0, 0, 0]
    assert torch.equal(batch.actions[:, 0, 1], now)
    expected = (now[:, None] + torch.arange(-3, 1)).clamp(min=0)
    assert torch.equal(batch.recent[:, :, 0, 0, 0], expected)
    inside = batch.known > 0
    assert torch.equal(batch.actions[..., 1][inside], (now[:, None] + torch.arange(3))[inside])


def test_before_the_first_frame_it_is_repeated():
    batch = MomentSampler([counted(2)], frames=4, ahead=1, gamma=0.9).draw(0, 50)
    seen = {tuple(row) for row in batch.recent[:, :, 0, 0, 0].int().tolist()}
    assert seen == {(0, 0, 0, 0), (0, 0, 0, 1)}


def test_what_is_known_ends_with_the_episode():
    batch = MomentSampler([counted(5)], frames=1, ahead=3, gamma=0.9).draw(0, 100)
    told = {int(now): known for now, known in zip(batch.recent[:, 0, 0, 0, 0], batch.known.tolist(), strict=True)}
    assert told == {0: [1, 1, 1], 1: [1, 1, 1], 2: [1, 1, 1], 3: [1, 1, 0], 4: [1, 0, 0]}


def test_every_moment_of_every_episode_is_drawn_alike():
    sampler = MomentSampler([counted(3), counted(1, 1, first=100), counted(6, 2, first=200)], 2, 2, 0.9)
    drawn = torch.cat([sampler.draw(step, 500).recent[:, -1, 0, 0, 0] for step in range(8)])
    moments, counts = drawn.unique(return_counts=True)
    assert moments.int().tolist() == [0, 1, 2, 100, 200, 201, 202, 203, 204, 205]
    assert bool(((counts - 400).abs() < 5 * 19).all())  # five standard deviations


def test_moments_never_reach_into_another_episode():
    sampler = MomentSampler([counted(3), counted(4, 1, first=100)], frames=3, ahead=4, gamma=0.9)
    batch = sampler.draw(0, 200)
    late = batch.recent[:, -1, 0, 0, 0] >= 100
    assert bool(((batch.recent[:, :, 0, 0, 0] >= 100) == late[:, None]).all())
    assert bool(((batch.actions[..., 1] >= 100) == late[:, None]).all())


def test_returns_by_hand():
    # 1 + .5 (0 + .5 (-2 + .5 * 4))
    assert discounted(torch.tensor([1.0, 0.0, -2.0, 4.0]), 0.5).tolist() == [1.0, 0.0, 0.0, 4.0]
    assert discounted(torch.tensor([1.0, 1.0, 1.0]), 0.9).tolist() == pytest.approx([2.71, 1.9, 1.0])
    batch = MomentSampler([counted(3)], 1, 1, 0.5).draw(0, 50)
    told = dict(zip(batch.recent[:, 0, 0, 0, 0].int().tolist(), batch.returns.tolist(), strict=True))
    assert told == {0: 0 + 0.5 * (1 + 0.5 * 2), 1: 1 + 0.5 * 2, 2: 2}  # from the action now on, its reward included


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=30), st.floats(0, 1))
def test_returns_are_sums(rewards, gamma):
    expected = [sum(gamma**i * r for i, r in enumerate(rewards[t:])) for t in range(len(rewards))]
    assert discounted(torch.tensor(rewards), gamma).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-3)


def test_a_draw_depends_on_seed_and_step_alone():
    make = lambda seed: MomentSampler([counted(60), counted(50, 1)], 2, 2, 0.9, seed)  # noqa: E731
    first = make(0).draw(5, 16)
    other = make(0)
    other.draw(4, 16)
    torch.manual_seed(7)
    for name, value in vars(first).items():
        assert torch.equal(value, getattr(other.draw(5, 16), name)), name
    assert not torch.equal(first.recent, make(1).draw(5, 16).recent)
    assert not torch.equal(first.recent, make(0).draw(6, 16).recent)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_reward_that_is_no_number_is_refused(wrong):
    bad = counted(5, 17)
    bad.rewards[3] = wrong
    with pytest.raises(ValueError, match=r"episode 17 .*NaN"):
        MomentSampler([counted(5), bad], 2, 2, 0.9)


@pytest.mark.parametrize("episodes", [[], [counted(0)]])
def test_recordings_without_a_step_are_refused(episodes):
    with pytest.raises(ValueError, match=f"{len(episodes)} recorded episodes hold no step"):
        MomentSampler(episodes, 2, 2, 0.9)


def test_an_episode_without_a_step_is_passed_over():
    batch = MomentSampler([counted(0), counted(4, 1, first=100), counted(0, 2)], 2, 2, 0.9).draw(0, 20)
    assert bool((batch.recent[:, -1] >= 100).all())


def played(seed: int, act, episodes: int = 4, length: int = 250, actions: int = 3) -> list[LatentEpisode]:
    """Random latents, and the actions that ``act`` chooses for all of them; the last action pays."""
    rng = torch.Generator().manual_seed(seed)
    result = []
    for number in range(episodes):
        latents = torch.randn(length + 1, 2, 3, 2, generator=rng).sign()  # clear cut: nothing lies on a border
        chosen = act(latents[:-1], rng)
        encoded = torch.nn.functional.one_hot(chosen, actions).float()
        result.append(finished(number, latents, encoded, encoded[:, -1]))
    return result


def train(episodes, steps=150, config=SMALL, actions=3):
    torch.manual_seed(0)
    model = Cloning(config, ActionDistribution(ActionCodec(spaces.Discrete(actions))))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    sampler = MomentSampler(episodes, config.frames, config.ahead, gamma=0.9)
    for step in range(steps):
        loss, _ = model(sampler.draw(step, 64))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def held_out(model, episodes, config=SMALL):
    _, metrics = model(MomentSampler(episodes, config.frames, config.ahead, 0.9, seed=1).draw(0, 1500))
    return {name: float(value) for name, value in metrics.items()}


def test_random_actions_cannot_be_foretold():
    # Below ln A the clone sees the action that it is to predict, in its input or by an index that is off by one.
    at_random = lambda latents, rng: torch.randint(3, (len(latents),), generator=rng)  # noqa: E731
    model = train(played(0, at_random))
    told = held_out(model, played(1, at_random))
    assert told["cloning"] >= math.log(3) - 0.02
    assert told["cloning_now"] >= math.log(3) - 0.02
    assert told["cloning_accuracy"] < 0.4


def test_random_actions_that_the_next_frame_shows_cannot_be_foretold_either():
    # As in any game: what was done is seen in the frame after it, which the policy must not have yet.
    def shown(seed):
        episodes = played(seed, lambda latents, rng: torch.randint(3, (len(latents),), generator=rng))
        for episode in episodes:
            episode.latents[1:, 0, :, 0] = 3 * episode.actions.to(episode.latents)
        return episodes

    told = held_out(train(shown(0)), shown(1))
    assert told["cloning_now"] >= math.log(3) - 0.02
    assert told["cloning_accuracy"] < 0.4


def test_an_untrained_clone_is_uniform_and_expects_nothing():
    model = Cloning(SMALL, ActionDistribution(ActionCodec(spaces.Discrete(3))))
    told = held_out(model, played(0, lambda latents, rng: torch.randint(3, (len(latents),), generator=rng)))
    assert told["cloning"] == pytest.approx(math.log(3), rel=1e-5)
    assert told["policy_entropy"] == pytest.approx(math.log(3), rel=1e-5)
    assert bool((model.value.value(torch.randn(5, 2, 2, 3, 2)) == 0).all())


def by_sight(latents, rng):
    """0 or 1 by the sign of one number, 2 where another is above 0."""
    return torch.where(latents[:, 1, 2, 1] > 0, 2, (latents[:, 0, 0, 0] > 0).long())


def test_a_player_who_goes_by_the_present_frame_is_cloned():
    told = held_out(train(played(0, by_sight, episodes=8), steps=300), played(1, by_sight))
    assert told["cloning_accuracy"] > 0.95
    # What comes after depends on frames that are not there yet: there is nothing to know about it but how often.
    assert told["cloning"] > 0.6


def test_what_comes_after_the_end_is_not_learned():
    def loss(last):
        episode = played(0, by_sight, episodes=1, length=2)[0]
        episode.actions[-1] = torch.eye(3)[last]  # repeated where there is nothing
        torch.manual_seed(0)
        model = Cloning(SMALL, ActionDistribution(ActionCodec(spaces.Discrete(3))))
        torch.nn.init.normal_(model.policy.out.weight)
        batch = MomentSampler([episode], 2, 3, 0.9).draw(0, 20)
        first = batch.recent[:, -1, 0, 0, 0] == episode.latents[0, 0, 0, 0].float()
        keep = vars(batch) | {"known": batch.known * torch.tensor([1.0, 0.0, 0.0])}
        logs = model.distribution.log_prob(model.policy(batch.recent).detach(), batch.actions)
        whole, now = model(batch)[1]["cloning"], model(type(batch)(**keep))[1]["cloning"]
        assert bool((batch.known.sum(1) == torch.where(first, 2, 1)).all())
        assert float(now) == pytest.approx(float(-logs[:, 0].mean()), rel=1e-5)
        assert float(whole) == pytest.approx(float(-(logs * batch.known).sum() / batch.known.sum()), rel=1e-5)
        return float(whole)

    assert loss(0) != loss(1)  # the last action itself counts


def test_policy_and_value_share_nothing():
    model = Cloning(SMALL, ActionDistribution(ActionCodec(spaces.Discrete(3))))
    policy, value = ({id(p) for p in part.parameters()} for part in model.separate_parts())
    assert not policy & value
    assert policy | value == {id(p) for p in model.parameters()}


def test_returns_that_the_recording_does_not_tell_are_left_out():
    cut_off, over = counted(100), counted(100)
    over.terminated[-1] = 1.0
    for episode, least in ((cut_off, 29), (over, 0)):  # 0.9^29 < 0.05: what lies that far ahead hardly counts
        batch = MomentSampler([episode], 1, 1, gamma=0.9).draw(0, 256)
        left = 100 - batch.recent[:, 0, 0, 0, 0]
        assert torch.equal(batch.told > 0, left >= least)
        assert float(batch.told.mean()) > 0
