"""Rewards from preferences: the loss, what the model sees, and how well it finds out what somebody goes by."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from conftest import build_tiny_world
from tiny_game import ACTIONS
from walks import GAME, SEGMENT, SIZE, make_store, words

from neuralsim import World
from neuralsim.agents.planners.options import MPCOptions, make_mpc
from neuralsim.agents.planners.rewards import RewardFunction
from neuralsim.agents.preferences.labelling import RewardLabeller
from neuralsim.agents.preferences.pairs import Label, Pair, PairSampler, PreferencePairs, Segment
from neuralsim.agents.preferences.reward_model import (
    PreferenceReward,
    PreferenceRewardConfig,
    bradley_terry_loss,
    look_back,
    make_members,
)
from neuralsim.agents.preferences.training import LabelledPairs, PreferenceTraining, judge, split_labels
from neuralsim.cli import main
from neuralsim.data.latents import load_latents
from neuralsim.tensor_files import read_tensors, write_tensors


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("walks") / "data")


@pytest.fixture(scope="module")
def world(tmp_path_factory, store):
    """A world of random parts, whose tokenizer sees the block."""
    made = build_tiny_world(ACTIONS["discrete"], SIZE, **GAME)
    made.tokenizer.fit_statistics(torch.from_numpy(store.frames(0)))
    return made.save(tmp_path_factory.mktemp("world") / "world")


# -- the loss


def test_bradley_terry_by_hand():
    left, right = torch.tensor([2.0, 0.0, 1.0]), torch.tensor([0.0, 2.0, 1.0])
    # sigmoid(2) = 0.880797, -ln of it 0.126928; of 1 - it 2.126928; ln 2 = 0.693147
    assert bradley_terry_loss(left, right, torch.ones(3)).tolist() == pytest.approx([0.126928, 2.126928, 0.693147])
    assert bradley_terry_loss(left, right, torch.zeros(3)).tolist() == pytest.approx([2.126928, 0.126928, 0.693147])
    tie = bradley_terry_loss(left, right, torch.full((3,), 0.5)).tolist()
    assert tie == pytest.approx([1.126928, 1.126928, 0.693147])
    # 0.9 * 0.880797 + 0.05 = 0.842717
    wary = bradley_terry_loss(left, right, torch.ones(3), mistakes=0.1).tolist()
    assert wary == pytest.approx([-math.log(0.842717), -math.log(1 - 0.842717), math.log(2)], rel=1e-5)


@pytest.mark.parametrize("mistakes", [0.0, 0.1])
def test_bradley_terry_is_symmetric_and_pulls_the_right_way(mistakes):
    rng = torch.Generator().manual_seed(0)
    left, right = (torch.randn(50, generator=rng).requires_grad_() for _ in range(2))
    target = torch.tensor([0.0, 0.5, 1.0]).repeat(17)[:50]
    loss = bradley_terry_loss(left, right, target, mistakes)
    assert torch.allclose(loss, bradley_terry_loss(right, left, 1 - target, mistakes))
    shifted = bradley_terry_loss(left + 7, right + 7, target, mistakes)
    assert torch.allclose(loss, shifted, atol=1e-5)  # rewards are known up to a shift
    loss.sum().backward()
    assert bool((left.grad[target == 1] < 0).all())  # more for the chosen one
    assert bool((left.grad[target == 0] > 0).all())
    gap = (left - right).detach()
    assert bool((left.grad.sign() == gap.sign())[target == 0.5].all())  # a tie draws them together
    assert torch.allclose(left.grad, -right.grad)
    far = torch.tensor([1e4, -1e4], requires_grad=True)
    certain = bradley_terry_loss(far, torch.zeros(2), torch.ones(2), mistakes)
    certain.sum().backward()
    assert bool(certain.isfinite().all() and far.grad.isfinite().all())


# -- what the model sees

GRID = {"height": 4, "width": 8, "latent_channels": 2, "action_size": 3, "channels": 4, "hidden": 16}


@pytest.fixture(scope="module")
def episodes(store, world):
    return load_latents(store, store.ids, World.load(world).tokenizer)


def labelled(store, count, **kwargs) -> list[Label]:
    sampler, labeller = PairSampler(store, SEGMENT), RewardLabeller(store, **kwargs)
    return [Label(pair, labeller.choose(pair, i)) for i, pair in enumerate(map(sampler.draw, range(count)))]


def test_a_batch_holds_the_segments_and_what_was_before_them(store, episodes):
    labels = [
        Label(Pair(Segment(0, 3, 10), Segment(1, 0, 10)), "left"),
        Label(Pair(Segment(2, 7, 5), Segment(2, 30, 5)), "tie"),
        Label(Pair(Segment(0, 9, 1), Segment(3, 9, 1)), "right"),
    ]
    pairs = LabelledPairs(labels, episodes, frames=3)
    batch = pairs.take([0, 1, 2])
    assert batch.seen.shape == (3, 2, 12, 4, 8, 2)
    assert batch.known.sum(1).tolist() == [10, 5, 1]
    assert batch.target.tolist() == [1.0, 0.5, 0.0]
    first = episodes[0].latents.float()
    assert torch.equal(batch.seen[0, 0], first[2:14])  # steps 3 to 12: frames 2 and 3 before, 4 to 13 after
    assert torch.equal(batch.seen[0, 1], episodes[1].latents.float()[[0, *range(11)]])  # the first frame again
    assert torch.equal(batch.actions[0, 0], episodes[0].actions[3:13])
    assert torch.equal(batch.seen[1, 0, :7], episodes[2].latents.float()[6:13])
    assert float(batch.paid[1, 1]) == pytest.approx(float(episodes[2].rewards[30:35].sum()))
    model = PreferenceTraining(PreferenceRewardConfig(**GRID, frames=3))
    torch.nn.init.normal_(model.members[0].out.weight)
    returns = model.returns(batch)
    for row, one in enumerate(labels):
        for side, segment in enumerate((one.pair.left, one.pair.right)):
            episode = episodes[segment.episode]
            seen = look_back(episode.latents, segment.start, segment.stop, 3)
            alone = model.members[0](seen, episode.actions[segment.start : segment.stop]).sum()
            assert float(returns[row, side, 0].detach()) == pytest.approx(float(alone.detach()), abs=1e-4)


def test_a_draw_depends_on_seed_and_step_alone(store, episodes):
    labels = labelled(store, 40)

    def make(seed):
        return LabelledPairs(labels, episodes, 2, members=3, seed=seed)

    first, other = make(0).draw(5, 8), make(0)
    other.draw(4, 8)
    for name, value in vars(first).items():
        assert torch.equal(value, getattr(other.draw(5, 8), name)), name
    assert not torch.equal(first.seen, make(0).draw(6, 8).seen)
    assert not torch.equal(first.seen, make(1).draw(5, 8).seen)


def test_members_learn_from_samples_of_their_own(store, episodes):
    labels = labelled(store, 40)
    weights = LabelledPairs(labels, episodes, 2, members=3).weights
    assert weights.sum(0).tolist() == [40, 40, 40]
    assert not torch.equal(weights[:, 0], weights[:, 1])
    assert bool((LabelledPairs(labels, episodes, 2).weights == 1).all())


def test_labels_are_split_alike_in_choices_and_ties(store):
    labels = labelled(store, 100)
    learned, held = split_labels(labels, 0.2, seed=0)
    ties = [sum(one.choice == "tie" for one in part) for part in (labels, held)]
    assert len(learned) + len(held) == 100
    assert not set(learned) & set(held)
    assert (len(held), ties[1]) == (round(0.2 * (100 - ties[0])) + round(0.2 * ties[0]), round(0.2 * ties[0]))
    assert split_labels(labels, 0.2, seed=0) == (learned, held)
    with pytest.raises(ValueError, match="in 9 of 9 labelled pairs one segment is better, and it takes at least 10"):
        split_labels([one for one in labels if one.choice != "tie"][:9], 0.2, seed=0)
    with pytest.raises(ValueError, match="held_out is 1"):
        split_labels(labels, 1.0, seed=0)


def test_what_several_people_said_of_a_pair_is_learned_or_judged_by_not_both(store):
    ada = labelled(store, 40)
    bob = [replace(one, choice="tie", by="Bob") for one in ada]
    learned, held = split_labels(ada + bob, 0.2, seed=0)
    assert not {one.pair for one in learned} & {one.pair for one in held}
    assert (len(learned), len(held)) == tuple(2 * len(part) for part in split_labels(ada, 0.2, seed=0))


def test_an_untrained_model_prefers_nothing_and_cannot_be_normalised(store, episodes):
    config = PreferenceRewardConfig(**GRID, members=2)
    model = PreferenceTraining(config, mistakes=0.0)
    loss, metrics = model(LabelledPairs(labelled(store, 20), episodes, config.frames, 2).draw(0, 64))
    assert float(loss.detach()) == pytest.approx(math.log(2), rel=0.3)  # weights of the samples vary
    assert float(metrics["accuracy"]) == 0
    with pytest.raises(ValueError, match="nothing was learned"):
        PreferenceReward(config, model.members, {}).normalise(episodes)
    with pytest.raises(ValueError, match="hold no step"):
        PreferenceReward(config, model.members, {}).normalise([])


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("frames", [1, 2, 4])
def test_the_reward_is_normalised_over_the_recordings(episodes, frames, members):
    torch.manual_seed(0)
    config = PreferenceRewardConfig(**GRID, frames=frames, members=members)
    nets = make_members(config)
    for i, net in enumerate(nets):
        torch.nn.init.normal_(net.out.weight, std=10.0 ** (i + 1))
        torch.nn.init.constant_(net.out.bias, 50.0)
    reward = PreferenceReward(config, nets, {})
    reward.normalise(episodes)
    opinions, disagreement = [], []
    for episode in episodes:
        seen = look_back(episode.latents, 0, len(episode), max(frames, 2))
        said = reward.opinions(seen[:, :-1], episode.actions, seen[:, -1])
        assert torch.equal(said.mean(1), reward(seen[:, :-1], episode.actions, seen[:, -1]))
        opinions.append(said)
        disagreement.append(reward.disagreement(seen[:, :-1], episode.actions, seen[:, -1]))
    every = torch.cat(opinions).double()
    assert float(every.mean()) == pytest.approx(0, abs=1e-4)
    assert float(every.mean(1).std(correction=0)) == pytest.approx(1, rel=1e-4)
    spread = every.std(0, correction=0)
    assert torch.allclose(spread, spread.mean().expand(members), rtol=1e-4)  # none counts for more than another
    assert bool((torch.cat(disagreement) > 0).any()) == (members > 1)


def test_the_reward_sees_what_there_is_of_the_past(episodes):
    torch.manual_seed(0)
    config = PreferenceRewardConfig(**GRID, frames=4)
    nets = make_members(config)
    torch.nn.init.normal_(nets[0].out.weight)
    reward = PreferenceReward(config, nets, {})
    latents, action = episodes[0].latents.float(), episodes[0].actions[4:5]
    after = latents[5:6]
    usual = reward(latents[None, 2:5], action, after)
    assert torch.equal(reward(latents[None, 0:5], action, after), usual)  # a longer past is not looked at
    repeated = latents[None, [4, 4, 4]]
    assert torch.equal(reward(latents[None, 4:5], action, after), reward(repeated, action, after))
    assert torch.equal(reward(latents[4:5], action, after), reward(repeated, action, after))
    assert not torch.equal(usual, reward(latents[None, 2:5], action.roll(1, -1), after))  # the action counts
    assert usual.dtype == torch.float32
    assert reward(latents[None, 2:5].bfloat16(), action, after.bfloat16()).shape == (1,)
    for wrong in (
        (latents[None, 2:5, :2], action, after),
        (latents[None, 2:5], action[:, :2], after),
        (latents[None, 2:5], action, after[..., :1]),
    ):
        with pytest.raises(ValueError, match=r"sees latents before \(B, m, 4, 8, 2\), an action \(B, 3\)"):
            reward(*wrong)


@pytest.mark.parametrize(
    ("change", "message"), [({"frames": 0}, "frames is 0"), ({"members": 0}, "members is 0; it must be at least 1")]
)
def test_sizes_that_make_no_model_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        PreferenceTraining(PreferenceRewardConfig(**GRID, **change))


# -- the whole way

ON_CPU = ["--loop.device", "cpu", "--loop.log-every", "50"]
SMALL = ["--reward.channels", "8", "--reward.hidden", "32", "--loop.learning-rate", "3e-3", "--loop.warmup-steps", "5",
         "--loop.evaluate-every", "50", *ON_CPU]  # fmt: skip


def training(store, world, labels, out, *more):
    return words("agent", "train", "preference", "--world", world, "--data", store.path, "--labels", labels,
                 "--out", out, *SMALL, *more)  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory, store, world):
    """Labels by a script, and a reward model that learned from them."""
    home = tmp_path_factory.mktemp("preferences")
    arguments = words("preferences", "label", "--data", store.path, "--out", home / "labels.jsonl", "--pairs", 150,
                      "--segment", SEGMENT, "--labeller", "reward")  # fmt: skip
    assert main(arguments) == 0
    assert main(training(store, world, home / "labels.jsonl", home / "run", "--loop.steps", 150)) == 0
    return home


def test_the_order_of_held_out_choices_is_found_and_so_is_the_reward(home, store, episodes):
    reward = PreferenceReward.load(home / "run")
    trained = reward.facts["trained"]
    assert trained["accuracy"] > 0.9
    assert trained["return_correlation"] > 0.9
    assert trained["held_out_pairs"] == 30
    assert trained["by"] == ["reward"]
    said, paid = [], []
    for episode in episodes:
        seen = look_back(episode.latents, 0, len(episode), reward.config.frames)
        said.append(reward(seen[:, :-1], episode.actions, seen[:, -1]))
        paid.append(episode.rewards)
    said, paid = torch.cat(said).double(), torch.cat(paid).double()
    assert float(said.mean()) == pytest.approx(0, abs=1e-4)
    assert float(said.std(correction=0)) == pytest.approx(1, rel=1e-4)
    assert float(torch.corrcoef(torch.stack([said, paid]))[0, 1]) > 0.8
    rows = [json.loads(line) for line in (home / "run" / "metrics.jsonl").read_text().splitlines()]
    told = [row for row in rows if row["kind"] == "held-out"]
    assert [row["step"] for row in told] == [50, 100, 150]
    assert told[-1]["accuracy"] == pytest.approx(trained["accuracy"])


def test_a_few_wrong_labels_do_little_harm(store, episodes):
    labels = labelled(store, 200, error_rate=0.15)
    torch.manual_seed(0)
    model = PreferenceTraining(PreferenceRewardConfig(**GRID | {"channels": 8, "hidden": 32}, frames=2), mistakes=0.3)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.1)
    sampler = LabelledPairs(labels, episodes, 2)
    for step in range(100):
        loss, _ = model(sampler.draw(step, 16))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = LabelledPairs(labelled(store, 300)[200:], episodes, 2)
    assert judge(model.eval(), right)["accuracy"] > 0.85


def test_a_run_that_was_stopped_ends_as_the_uninterrupted_one(home, store, world, tmp_path, monkeypatch):
    from neuralsim.training.loop import TrainingRun

    def stop_at(self, *arguments, original=TrainingRun._train_step):
        if self.step == 17:
            raise KeyboardInterrupt
        return original(self, *arguments)

    def run(name):
        more = ["--loop.steps", 30, "--loop.checkpoint-every", 10, "--reward.members", 2]
        return main(training(store, world, home / "labels.jsonl", tmp_path / name, *more))

    assert run("whole") == 0
    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "_train_step", stop_at)
        assert run("parts") == 130
    assert not (tmp_path / "parts" / "preference.safetensors").exists()
    assert run("parts") == 0
    whole, parts = (read_tensors(tmp_path / name / "preference.safetensors") for name in ("whole", "parts"))
    assert whole[0].keys() == parts[0].keys()
    assert all(torch.equal(value, parts[0][name]) for name, value in whole[0].items())
    assert whole[1]["config"] == parts[1]["config"]
    assert PreferenceReward.load(tmp_path / "parts").shift.shape == (2,)


def test_more_labels_are_another_run(home, store, world, tmp_path, capsys):
    shutil.copytree(home / "run", tmp_path / "run")
    labels = PreferencePairs(shutil.copy(home / "labels.jsonl", tmp_path), store)
    labels.undo()
    assert main(training(store, world, labels.path, tmp_path / "run", "--loop.steps", 150)) == 2
    assert "another labels" in capsys.readouterr().err


def test_planners_take_it_for_the_reward(home, world, episodes):
    reward = PreferenceReward.load(home / "run")
    reward.check_fits(World.load(world))
    seen = look_back(episodes[0].latents, 0, 60, 4)
    steps = seen[:, :-1], episodes[0].actions, seen[:, -1]
    paid = RewardFunction(reward, sees="transitions")(World.load(world), *steps)
    assert torch.equal(paid, reward(*steps))


def test_plans_are_made_by_it(home, world, store):
    played = World.load(world)
    mpc = make_mpc(played, MPCOptions(reward=str(home / "run"), horizon=2, candidates=4))
    assert played.action_space.contains(int(mpc.act(store.frames(0)[:1])[0]))
    paid = mpc.model.reward.function
    assert torch.equal(paid.scale, PreferenceReward.load(home / "run").scale)
    stranger = build_tiny_world(ACTIONS["discrete"], SIZE, **GAME)  # another tokenizer
    with pytest.raises(ValueError, match="learned with tokenizer"):
        make_mpc(stranger, MPCOptions(reward=str(home / "run")))


def test_a_loaded_reward_says_the_same(home, tmp_path, episodes):
    reward = PreferenceReward.load(home / "run")
    again = PreferenceReward.load(reward.save(tmp_path / "new" / "reward.safetensors"))
    seen = look_back(episodes[0].latents, 0, 60, 4)
    said = [model(seen[:, :-1], episodes[0].actions, seen[:, -1]) for model in (reward, again)]
    assert torch.equal(*said)
    assert again.facts == reward.facts
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_damaged_and_foreign_files_are_refused(home, world, tmp_path):
    file = home / "run" / "preference.safetensors"
    content = file.read_bytes()
    for name, part in (("cut", content[: len(content) // 2]), ("empty", b"")):
        (tmp_path / name).write_bytes(part)
        with pytest.raises(ValueError, match="damaged or incomplete"):
            PreferenceReward.load(tmp_path / name)
    with pytest.raises(ValueError, match="holds no reward model"):
        PreferenceReward.load(world / "world.safetensors")
    tensors, metadata = read_tensors(file)
    for config in ("{}", "nonsense", metadata["config"].replace('"channels": 8', '"channels": 4')):
        write_tensors(tmp_path / "other", tensors, {**metadata, "config": config})
        with pytest.raises(ValueError, match="does not fit this version"):
            PreferenceReward.load(tmp_path / "other")
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError, match="neuralsim agent train preference"):
            PreferenceReward.load(path)


def test_a_reward_belongs_to_the_latents_it_was_learned_on(home, world, tmp_path):
    reward = PreferenceReward.load(home / "run")
    reward.check_fits(World.load(world))
    reward.check_fits(World.load(world, dtype="bfloat16"))
    other = World.load(world)
    with torch.no_grad():
        other.tokenizer.latent_scale.mul_(1.5)
    other.save(tmp_path / "other")
    with pytest.raises(ValueError, match="learned with tokenizer"):
        reward.check_fits(World.load(tmp_path / "other"))
    six = build_tiny_world(frame_size=SIZE)
    with pytest.raises(ValueError, match="learned with actions"):
        reward.check_fits(six)


def test_training_that_makes_no_sense_ends_with_status_2(home, store, world, tmp_path, capsys):
    def refused(message, labels=home / "labels.jsonl", data=store, world=world, more=()):
        assert main(training(data, world, labels, tmp_path / "out", *more)) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
        assert not (tmp_path / "out" / "preference.safetensors").exists()

    refused("there are no labels", labels=tmp_path / "none.jsonl")
    refused("these labels are of other recordings", data=make_store(tmp_path / "other", seed=1))
    refused("holds no episodes: record some", data=make_store(tmp_path / "empty", ()))
    few = tmp_path / "few.jsonl"
    few.write_bytes(b"".join((home / "labels.jsonl").read_bytes().splitlines(keepends=True)[:5]))
    refused("of 5 labelled pairs one segment is better, and it takes at least 10", labels=few)
    few.write_bytes(b"")
    refused("in 0 of 0 labelled pairs", labels=few)
    refused("batch_size is 0", more=["--batch-size", "0"])
    refused("mistakes is 1.0", more=["--mistakes", "1"])
    refused("held_out is 0.0", more=["--held-out", "0"])
    build_tiny_world(ACTIONS["discrete"], SIZE, **GAME | {"env_id": "ALE/Tiny-v5"}).save(tmp_path / "world")
    refused("has env_id tiny_game:Tiny-v0, but the world has ALE/Tiny-v5", world=tmp_path / "world")
    refused("nowhere", world=tmp_path / "nowhere")
