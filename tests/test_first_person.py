"""First-person games: every button has a key, the mouse looks around, and the window grabs and frees it."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from fake_games import FakeDream, FakeGame
from fake_voxels import FakeVoxels
from gymnasium import spaces

from neuralsim.envs.first_person import FirstPersonKeys, is_first_person, keys_of
from neuralsim.envs.hud import PANEL, PANEL_WIDTH, Hud, Speed, controls_of
from neuralsim.envs.keyboard import CTRL, ESCAPE, LEFT, MOUSE_LEFT, MOUSE_RIGHT, SHIFT, SPACE, UP, KeyMap
from neuralsim.envs.minerl_spaces import BUTTONS, V0_CHOICES, action_space, human_action_space
from neuralsim.envs.play import Window
from neuralsim.envs.session import Session

W, D = ord("w"), ord("d")


@pytest.fixture
def keys() -> FirstPersonKeys:
    return FirstPersonKeys(human_action_space(10.0), sensitivity=0.5)


def test_which_games_are_played_so():
    camera = spaces.Box(-180, 180, (2,), np.float32)
    assert is_first_person(human_action_space())
    assert is_first_person(spaces.Dict({"jump": spaces.Discrete(2), "camera": camera}))
    assert not is_first_person(spaces.Dict({"jump": spaces.Discrete(2)}))
    assert not is_first_person(spaces.Dict({"camera": camera}))
    assert not is_first_person(spaces.Dict({"jump": spaces.Discrete(2), "camera": spaces.Discrete(121)}))
    assert not is_first_person(spaces.Discrete(6))
    assert isinstance(keys_of(FakeVoxels()), FirstPersonKeys)
    assert type(keys_of(FakeGame())) is KeyMap


def test_all_buttons_can_be_held_at_once(keys):
    held = [W, D, SPACE, SHIFT, CTRL, MOUSE_LEFT, MOUSE_RIGHT, ord("3"), ord("e"), ord("z")]
    action = keys.action(held)
    assert keys.camera is not None
    assert human_action_space(10.0).contains(action)
    pressed = {name for name in BUTTONS if action[name]}
    assert pressed == {"forward", "right", "jump", "sneak", "sprint", "attack", "use", "hotbar.3", "inventory"}
    assert not any(np.any(part) for part in keys.action([]).values())


def test_the_mouse_is_summed_clipped_and_carried_over(keys):
    keys.look(3, 0)
    keys.look(5, -2)
    camera = keys.action([])["camera"]
    assert camera.dtype == np.float32
    assert camera.tolist() == [-1, 4]  # up and to the right, half a degree per pixel
    assert keys.action([])["camera"].tolist() == [0, 0]
    keys.look(-50, 21)
    assert [keys.action([])["camera"].tolist() for _ in range(4)] == [[10, -10], [0.5, -10], [0, -5], [0, 0]]
    keys.look(1000, 0)
    keys.forget()
    assert not keys.action([])["camera"].any()


def test_arrows_look_around_where_there_is_no_mouse(keys):
    assert keys.action([UP, LEFT, W])["camera"].tolist() == [-3, -3]
    keys.look(-100, 0)
    assert keys.action([LEFT])["camera"].tolist() == [0, -10]
    assert keys.action([LEFT])["camera"].tolist() == [0, -10]  # what the arrow had too much is not carried over


def test_choices_without_a_key_stay_idle():
    space = action_space(("attack", "forward"), V0_CHOICES["MineRLObtainDiamond-v0"])
    action = FirstPersonKeys(space).action([W, ord("e"), ord("1")])
    assert space.contains(action)
    assert (action["forward"], action["craft"], action["place"]) == (1, 0, 0)


def test_what_the_screen_says(keys):
    assert keys.legend[:4] == [
        (["mouse", "arrows"], "look around"), (["W", "A", "S", "D"], "walk"), (["space"], "jump"),
        (["shift", "ctrl"], "sneak, sprint"),
    ]  # fmt: skip
    assert (["1 - 9"], "take in hand") in keys.legend
    assert (["left click"], "attack") in keys.legend
    keys.look(5, 0)
    assert keys.describe(keys.action([SPACE, W])) == "forward, jump, look 0 2.5"
    assert keys.describe(keys.action([])) == "-"
    assert [names for names, _ in FirstPersonKeys(action_space(("jump",))).legend] == [["mouse", "arrows"], ["space"]]
    session = Session(FakeVoxels())
    assert {meaning: caps for caps, meaning in controls_of(session)}["free the mouse, quit"] == "esc"


@pytest.mark.parametrize("sensitivity", [0, -1, float("nan"), float("inf")])
def test_a_sensitivity_that_makes_no_sense_is_named(sensitivity):
    with pytest.raises(ValueError, match=f"sensitivity {sensitivity} must be a positive number"):
        keys_of(FakeVoxels(), sensitivity)


@pytest.mark.parametrize("render_mode", [None, "rgb_array"])
def test_a_session_shows_the_picture_among_the_observations(render_mode):
    session = Session(FakeVoxels(render_mode=render_mode))
    before = session.frame
    session.keys.look(40, 0)
    session.advance([W])
    assert session.frame.shape == (64, 64, 3)
    assert (session.frame != before).any()
    assert (session.env.actions[0]["forward"], session.env.actions[0]["camera"].tolist()) == (1, [0, 6])


def test_the_panel_tells_where_weights_come_from():
    plain, env = FakeDream(), FakeDream()
    env.world.config = SimpleNamespace(**vars(env.world.config), notice="the weights come from Minetest, not Minecraft")
    session = Session(env)
    assert session.origin.startswith("the weights")
    assert (Session(plain).origin, Session(FakeGame()).origin) == ("", "")
    hud, without = Hud(session), Hud(Session(plain))
    assert hud.panel_height > without.panel_height
    panel = np.asarray(hud.draw((640 + PANEL_WIDTH, hud.panel_height), Speed()))[:, 640:]
    assert (panel[:, -12:] == PANEL).all()
    assert (panel[-3:] == PANEL).all()


@pytest.fixture
def window(monkeypatch):
    """A window that nobody sees, of a game with MineRL's actions."""
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    pygame.display.init()
    pygame.event.clear()
    yield Window(Session(FakeVoxels(BUTTONS)))
    pygame.display.quit()


def send(window, kind, **facts):
    import pygame

    event = pygame.event.Event(getattr(pygame, kind), **facts)
    window.handle(event, 0.0)


def click(window, button=1, up=True):
    send(window, "MOUSEBUTTONDOWN", button=button, pos=(9, 9))
    if up:
        send(window, "MOUSEBUTTONUP", button=button, pos=(9, 9))


def steps(window, *times):
    """Lets steps pass at these seconds and returns the actions that were played, named."""
    env, keys = window.session.env, window.session.keys
    before = len(env.actions)
    for now in times:
        window.tick(now)
    return [keys.describe(action) for action in env.actions[before:]]


def test_a_click_grabs_the_mouse_and_escape_frees_it(window):
    import pygame

    assert "click into the picture" in window.session.notice
    send(window, "MOUSEMOTION", rel=(100, 0), pos=(9, 9), buttons=(0, 0, 0))
    click(window, button=3)
    assert steps(window, 0.0) == ["-"]  # neither moved nor pressed anything
    click(window)
    assert pygame.event.get_grab()
    assert not pygame.mouse.get_visible()
    assert "esc frees the mouse" in window.session.notice
    assert steps(window, 0.06) == ["-"]  # the click that grabs attacks nobody
    send(window, "MOUSEMOTION", rel=(20, 0), pos=(9, 9), buttons=(0, 0, 0))
    send(window, "MOUSEMOTION", rel=(0, -10), pos=(9, 9), buttons=(0, 0, 0))
    click(window, up=False)
    assert steps(window, 0.12) == ["attack, look -1.5 3"]
    send(window, "MOUSEBUTTONUP", button=1, pos=(9, 9))
    click(window, button=3)  # between two steps: it counts
    assert steps(window, 0.18, 0.24) == ["use", "-"]
    send(window, "MOUSEMOTION", rel=(900, 0), pos=(9, 9), buttons=(0, 0, 0))
    send(window, "KEYDOWN", key=ESCAPE, mod=0, unicode="")
    assert window.open
    assert not pygame.event.get_grab()
    assert pygame.mouse.get_visible()
    assert steps(window, 0.3) == ["-"]
    send(window, "KEYDOWN", key=ESCAPE, mod=0, unicode="")
    assert not window.open


def test_ctrl_sprints_and_takes_no_letter_away(window):
    import pygame

    send(window, "KEYDOWN", key=CTRL, mod=0, unicode="")
    send(window, "KEYDOWN", key=W, mod=pygame.KMOD_LCTRL, unicode="\x17")
    send(window, "KEYDOWN", key=SHIFT, mod=pygame.KMOD_LCTRL, unicode="")
    assert steps(window, 0.0) == ["forward, sneak, sprint"]
    send(window, "KEYUP", key=W, mod=0)
    assert steps(window, 0.06) == ["sneak, sprint"]
    send(window, "KEYDOWN", key=ord("p"), mod=0, unicode="p")
    assert window.session.paused


def test_movements_of_a_pause_or_another_window_are_forgotten(window):
    import pygame

    click(window)
    window.session.toggle_pause()
    send(window, "MOUSEMOTION", rel=(50, 0), pos=(9, 9), buttons=(0, 0, 0))
    assert steps(window, 0.0) == []
    window.session.toggle_pause()
    assert steps(window, 0.06) == ["-"]
    send(window, "MOUSEMOTION", rel=(50, 0), pos=(9, 9), buttons=(0, 0, 0))
    send(window, "KEYDOWN", key=W, mod=0, unicode="w")
    send(window, "WINDOWFOCUSLOST")
    assert not pygame.event.get_grab()
    assert steps(window, 0.12) in (["-"], ["forward"])  # a tap may still count, but is not held
    assert steps(window, 0.18) == ["-"]


def test_a_person_records_with_the_mouse(window):
    """The window of ``neuralsim record --policy keyboard`` understands the same."""
    import pygame

    from neuralsim.agents.keyboard import KeyboardPolicy
    from neuralsim.agents.policies import PlayerQuit

    env = FakeVoxels()
    policy = KeyboardPolicy(env)
    frame = env.reset(seed=0)[0]["pov"]
    policy.act(frame, {})
    pygame.event.clear()
    for kind, facts in (
        ("MOUSEBUTTONDOWN", {"button": 1}),
        ("MOUSEBUTTONUP", {"button": 1}),
        ("MOUSEMOTION", {"rel": (20, 0)}),
        ("MOUSEBUTTONDOWN", {"button": 1}),
        ("KEYDOWN", {"key": W}),
    ):
        pygame.event.post(pygame.event.Event(getattr(pygame, kind), **facts))
    assert policy.keys.describe(policy.act(frame, {})) == "forward, attack, look 0 3"
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=ESCAPE))
    policy.act(frame, {})  # frees the mouse
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=ESCAPE))
    with pytest.raises(PlayerQuit):
        policy.act(frame, {})
    policy.close()


def test_neither_keys_nor_session_need_pygame():
    import subprocess

    code = "import neuralsim.envs.hud, neuralsim.envs.session, sys; assert 'pygame' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
