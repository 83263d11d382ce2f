import pytest
import torch

from neuralsim.data.clips import ClipMix, ClipSampler, cut_clip
from neuralsim.data.latents import LatentEpisode


def episode(length: int, number: int = 0) -> LatentEpisode:
    """Latent t is filled with t, action t is [1, t]; one reward at step 40, the end at the last step."""
    latents = torch.arange(length + 1.0).reshape(-1, 1, 1, 1).expand(-1, 2, 2, 1).to(torch.bfloat16)
    actions = torch.stack([torch.ones(length), torch.arange(length)], dim=1)
    rewards, terminated = torch.zeros(length), torch.zeros(length)
    if length > 40:
        rewards[40] = 1.0
    terminated[-1] = 1.0
    return LatentEpisode(number, latents, actions, rewards, terminated, torch.zeros(length, dtype=torch.long),
                         torch.zeros(length, dtype=torch.long))  # fmt: skip


def test_action_t_leads_from_latent_t_to_the_next():
    latents, actions, rewards, _, valid = cut_clip(episode(60), last=45, length=10)
    assert latents[:, 0, 0, 0].tolist() == list(range(36, 46))
    assert actions[:, 1].tolist() == list(range(36, 45))
    assert rewards.nonzero().tolist() == [[4]]  # action 40 led from frame 40 to frame 41
    assert bool(valid.all())


def test_before_the_episode_the_first_frame_repeats_with_unknown_actions():
    latents, actions, _, _, valid = cut_clip(episode(60), last=2, length=6)
    assert latents[:, 0, 0, 0].tolist() == [0, 0, 0, 0, 1, 2]
    assert actions.tolist() == [[0, 0], [0, 0], [0, 0], [1, 0], [1, 1]]
    assert valid.tolist() == [False, False, False, True, True, True]


def test_draws_depend_on_seed_and_step_alone():
    make = lambda seed: ClipSampler([episode(60), episode(50, 1)], 12, 4, ClipMix(0.3, 0.1, 0.1, 0.1), seed)  # noqa: E731
    first = make(0).draw(5, 8)
    make(0).draw(4, 8)
    assert torch.equal(first.latents, make(0).draw(5, 8).latents)
    assert not torch.equal(first.latents, make(1).draw(5, 8).latents)


def test_event_clips_hold_an_event_among_their_predicted_frames():
    batch = ClipSampler([episode(60)], 12, 4, ClipMix(1, 0, 0, 0)).draw(0, 64)
    tail = (batch.rewards[:, -4:] != 0) | (batch.terminated[:, -4:] > 0)
    assert bool(tail.any(1).all())


def test_end_clips_hold_the_end_among_their_predicted_frames():
    batch = ClipSampler([episode(60)], 12, 4, ClipMix(0, 1, 0, 0)).draw(0, 64)
    assert bool((batch.terminated[:, -4:] > 0).any(1).all())


def test_a_mix_without_events_to_show_falls_back_on_any_frame():
    endless = episode(30)
    endless.terminated[:] = 0
    batch = ClipSampler([endless], 12, 4, ClipMix(0.5, 0.5, 0, 0)).draw(0, 64)
    assert len(batch.latents[:, -1, 0, 0, 0].unique()) > 10


@pytest.mark.parametrize("mix", [ClipMix(0.5, 0.5, 0.1, 0), ClipMix(-0.1, 0, 0, 0)])
def test_shares_that_are_none_are_refused(mix):
    with pytest.raises(ValueError, match="at most 1 together"):
        ClipSampler([episode(60)], 12, 4, mix)


def test_start_clips_begin_with_the_episode():
    batch = ClipSampler([episode(60)], 12, 4, ClipMix(0, 0, 0, 1)).draw(0, 8)
    assert bool((batch.latents[:, -1, 0, 0, 0] == 4).all())


def test_every_frame_is_drawn():
    sampler = ClipSampler([episode(45), episode(50, 1)], 6, 2)
    lasts = {float(batch) for step in range(60) for batch in sampler.draw(step, 16).latents[:, -1, 0, 0, 0]}
    assert lasts == set(map(float, range(2, 51)))


def test_too_short_episodes_are_named():
    with pytest.raises(ValueError, match="longest of 1 episodes has 3 steps, but clips predict 8"):
        ClipSampler([episode(3)], 12, 8)


def test_aftermath_clips_end_within_40_frames_of_the_reward():
    sampler = ClipSampler([episode(200)], 12, 4, ClipMix(0, 0, 1, 0))
    lasts = {int(last) for step in range(40) for last in sampler.draw(step, 16).latents[:, -1, 0, 0, 0]}
    assert min(lasts) == 41
    assert max(lasts) == 80  # bfloat16 latents hold integers up to 256 exactly


def test_clips_of_turns_end_in_a_turn_or_just_after():
    turning, straight = episode(100), episode(100, 1)
    turning.turns[[30, 70]] = 1
    sampler = ClipSampler([turning, straight], 10, 1, ClipMix(events=0, ends=0, aftermath=0, starts=0, turns=1))
    last = sampler.draw(0, 200).latents[:, -1, 0, 0, 0]
    assert set(last.int().tolist()) == {31, 32, 33, 71, 72, 73}


def test_turns_are_shown_as_often_as_they_say():
    turning = episode(100)
    turning.turns[30], turning.turns[70] = 3, 1
    sampler = ClipSampler([turning], 10, 1, ClipMix(events=0, ends=0, aftermath=0, starts=0, turns=1))
    last = sampler.draw(0, 1000).latents[:, -1, 0, 0, 0]
    assert 700 < int((last < 50).sum()) < 800


def test_clips_of_comebacks_hide_what_was_before():
    served, other = episode(60), episode(60, 1)
    served.comebacks[29] = 20  # gone from frame 20 on, back in frame 30
    served.comebacks[58] = 50  # too near the end for the frames after it
    mix = ClipMix(events=0, ends=0, aftermath=0, starts=0, comebacks=1)
    batch = ClipSampler([served, other], 16, 4, mix).draw(0, 20)
    for latents, actions in zip(batch.latents[:, :, 0, 0, 0].int().tolist(), batch.actions, strict=True):
        assert latents == [20, 20, 20, *range(21, 34)]
        assert actions[:, 1].tolist() == list(range(18, 33))  # what was done is still known
