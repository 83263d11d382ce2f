import sys
import zipfile

import numpy as np
import pytest
from gymnasium import spaces
from tiny_game import ACTIONS

from neuralsim.agents.policies import POLICIES, PlayerQuit, PolicyChoice, make_policy, parse_policies
from neuralsim.agents.random import NoopPolicy, RandomPolicy, StickyRandomPolicy
from neuralsim.agents.scripted import PongIdle, PongMix, PongPlayer, arrival
from neuralsim.envs.real import make_real

FRAME = np.zeros((64, 64, 3), np.uint8)


def act(policy, steps, seed):
    policy.reset(seed)
    return [policy.act(FRAME, {}) for _ in range(steps)]


@pytest.mark.parametrize("kind", [RandomPolicy, StickyRandomPolicy, NoopPolicy])
@pytest.mark.parametrize("space", ACTIONS.values(), ids=ACTIONS)
def test_policies_that_look_at_nothing(kind, space):
    policy = kind(space)
    actions = act(policy, 30, 5)
    assert all(space.contains(action) for action in actions)
    assert repr(actions) == repr(act(policy, 30, 5)) == repr(act(kind(space), 30, 5))
    if kind is not NoopPolicy:
        assert repr(actions) != repr(act(policy, 30, 6))


def test_sticky_random_holds():
    actions = act(StickyRandomPolicy(spaces.Discrete(6), longest=12), 3000, 0)
    changes = np.count_nonzero(np.diff(actions))
    assert 3000 / 12 < changes < 3000 / 4
    with pytest.raises(ValueError, match="0"):
        StickyRandomPolicy(spaces.Discrete(2), longest=0)


def test_noop_respects_the_bounds():
    assert NoopPolicy(spaces.Box(1.0, 2.0, (2,))).action.tolist() == [1.0, 1.0]
    assert NoopPolicy(spaces.Discrete(3, start=4)).action == 4


def test_names_and_weights():
    assert parse_policies(["random:0.1", "scripted=0.9:2", "sb3=C:/x.zip", "sb3=a.zip:3"]) == [
        PolicyChoice("random", None, 0.1),
        PolicyChoice("scripted", "0.9", 2.0),
        PolicyChoice("sb3", "C:/x.zip", 1.0),
        PolicyChoice("sb3", "a.zip", 3.0),
    ]
    for wrong, message in [
        (["clever"], "clever.*sticky-random"),
        (["random:x"], "'x' is no number"),
        (["random:0"], "positive"),
        (["random:-1"], "positive"),
        ([], "no policy"),
    ]:
        with pytest.raises(ValueError, match=message):
            parse_policies(wrong)


def test_every_name_is_known_and_refusals_explain():
    env = make_real("tiny_game:Tiny-v0")
    for name in ("random", "sticky-random", "noop"):
        assert make_policy(name, env).name == name
        assert name in POLICIES
    for name in ("scripted", "pong-mix", "pong-idle"):
        with pytest.raises(ValueError, match="only Atari Pong"):
            make_policy(name, env)
    for name in ("tree-feller", "minetest-mix"):
        with pytest.raises(ValueError, match=r"plays only Minetest.*, and this is"):
            make_policy(name, env)
        with pytest.raises(ValueError, match="takes no argument"):
            make_policy(f"{name}=3", env)
    with pytest.raises(ValueError, match=r"sb3=PATH\.zip"):
        make_policy("sb3", env)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        make_policy("sb3=nowhere.zip", env)
    with pytest.raises(ValueError, match="takes no argument"):
        make_policy("random=3", env)


def test_skill_is_checked():
    pytest.importorskip("ale_py")
    env = make_real("ALE/Pong-v5")
    assert make_policy("scripted=0.5", env).skill == 0.5
    assert make_policy("scripted", env).skill is None  # a new one for each episode
    for wrong in ("2", "-0.1", "good"):
        with pytest.raises(ValueError, match=wrong):
            make_policy(f"scripted={wrong}", env)


def test_where_the_ball_arrives():
    assert arrival((45.1, 30.0), (1.0, 0.5)) == pytest.approx(35.0)
    assert arrival((45.1, 55.0), (1.0, 0.5)) == pytest.approx(2 * 58.5 - 60.0)
    assert arrival((45.1, 12.0), (1.0, -0.5)) == pytest.approx(2 * 9.25 - 7.0)
    assert arrival((57.0, 40.0), (1.0, 3.0)) == 40.0


def play_pong(player, steps, seed=0, labels=True):
    pytest.importorskip("ale_py")
    env = make_real("ALE/Pong-v5", {"repeat_action_probability": 0.0})
    frame, info = env.reset(seed=seed)
    player.reset(seed)
    won = lost = 0
    for _ in range(steps):
        frame, reward, terminated, truncated, info = env.step(player.act(frame, info if labels else {}))
        won, lost = won + (reward > 0), lost + (reward < 0)
        if terminated or truncated:
            break
    return won, lost


def test_skill_makes_a_difference():
    weak, strong = play_pong(PongPlayer(0.0), 900), play_pong(PongPlayer(1.0), 900)
    assert weak[1] >= 10
    assert strong[1] <= 4
    assert strong[0] - strong[1] > weak[0] - weak[1]


def test_plays_from_pixels_alone():
    won, lost = play_pong(PongPlayer(1.0), 600, labels=False)
    assert lost <= 3
    assert lost <= won + 2


def test_scripted_players_repeat_themselves():
    pytest.importorskip("ale_py")
    env = make_real("ALE/Pong-v5", {"repeat_action_probability": 0.0})

    def actions(player, seed):
        frame, info = env.reset(seed=0)
        player.reset(seed)
        taken = []
        for _ in range(60):
            taken.append(player.act(frame, info))
            frame, *_, info = env.step(taken[-1])
        return taken

    for kind in (PongPlayer, PongMix):
        player = kind()
        first = actions(player, 3)
        assert first == actions(player, 3) == actions(kind(seed=9), 3)
        assert first != actions(player, 4)


def test_the_mix_has_all_personalities():
    mix = PongMix(seed=0)
    names = set()
    for seed in range(300):
        mix.reset(seed)
        names.add(mix.name.removeprefix("pong-mix/"))
    assert names == set(PongMix.PERSONALITIES)
    assert sum(PongMix.PERSONALITIES.values()) == pytest.approx(1.0)
    labels = {"ball_present": 1.0, "ball_x": 30.0, "ball_y": 30.0, "player_present": 1.0, "player_y": 40.0}
    assert {int(mix.act(FRAME, {"labels": labels})) for _ in range(2000)} == set(range(6))


def test_the_idle_player_rests_at_many_places():
    mix = PongIdle(seed=0)
    labels = {"ball_present": 1.0, "ball_x": 30.0, "ball_y": 30.0, "player_present": 1.0, "player_y": 40.0}
    assert mix.name == "pong-idle"
    moves = np.isin([mix.act(FRAME, {"labels": labels}) for _ in range(4000)], [2, 3, 4, 5])
    edges = np.flatnonzero(np.diff(np.r_[False, moves, False].astype(int)))
    walks = edges[1::2] - edges[::2]  # lengths of its walks
    assert 0.005 < moves.mean() < 0.1
    assert len(walks) > 5
    assert walks.max() < 30


def test_a_player_survives_garbage():
    player = PongPlayer(0.9, seed=0)
    rng = np.random.default_rng(0)
    for _ in range(30):
        assert player.act(rng.integers(0, 256, (64, 64, 3), np.uint8), {}) in range(6)


def test_stable_baselines_model(tmp_path):
    sb3 = pytest.importorskip("stable_baselines3")
    from neuralsim.agents.sb3 import StableBaselinesPolicy, algorithm

    env = make_real("tiny_game:Tiny-v0", {"length": 200}, {"size": (36, 36)})
    file = str(tmp_path / "model.zip")
    sb3.PPO("CnnPolicy", env, n_steps=8, batch_size=8, seed=0).save(file)
    assert algorithm(file) == "PPO"
    policy = make_policy(f"sb3={file}", env)
    assert policy.name == "sb3=model.zip"
    frame, info = env.reset(seed=0)

    def actions():
        policy.reset(7)
        return [policy.act(frame, info) for _ in range(20)]

    first = actions()
    assert all(env.action_space.contains(action) for action in first)
    assert first == actions()
    with pytest.raises(ValueError, match=r"36.*--size"):
        policy.act(FRAME, {})
    with pytest.raises(ValueError, match=r"Discrete\(3\).*Discrete\(4\)"):
        StableBaselinesPolicy(file, spaces.Discrete(4))


def test_files_that_are_no_models(tmp_path):
    pytest.importorskip("stable_baselines3")
    from neuralsim.agents.sb3 import algorithm

    (tmp_path / "text.zip").write_text("hello")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("data", "{}")
    for name in ("text.zip", "other.zip"):
        with pytest.raises(ValueError, match=name):
            algorithm(str(tmp_path / name))


def test_keyboard(monkeypatch):
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    policy = make_policy("keyboard", make_real("tiny_game:Tiny-v0"))
    try:
        policy.fps = 0  # no waiting
        policy.reset(0)
        assert policy.act(FRAME, {}) == 0
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_w))
        assert policy.act(FRAME, {}) == 1
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_DOWN))
        pygame.event.post(pygame.event.Event(pygame.KEYUP, key=pygame.K_w))
        assert policy.act(FRAME, {}) == 2
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_ESCAPE))
        with pytest.raises(PlayerQuit):
            policy.act(FRAME, {})
    finally:
        policy.close()


@pytest.mark.parametrize(
    ("policy", "module", "extra"), [("keyboard", "pygame", "play"), ("sb3=x.zip", "stable_baselines3", "rl")]
)
def test_missing_extras_are_named(monkeypatch, policy, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=rf"neuralsim-gym\[{extra}\]"):
        make_policy(policy, make_real("tiny_game:Tiny-v0"))
