"""Playing: keys become actions, the session keeps score, and the window obeys; all without a real display."""

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from fake_games import KEYS, MEANINGS, FakeDream, FakeGame
from gymnasium import spaces

from neuralsim.envs.hud import (
    PANEL,
    PANEL_WIDTH,
    Hud,
    Speed,
    best_scale,
    text_width,
    window_size,
    wrap,
)
from neuralsim.envs.keyboard import DOWN, RIGHT, SPACE, UP, KeyMap, idle_action, key_code, key_name
from neuralsim.envs.play import PlayConfig, Window, has_display, open_game, play, play_session
from neuralsim.envs.session import Session

PONG = KeyMap(KEYS, idle=0, meanings=MEANINGS, game="ALE/Pong-v5")


@pytest.mark.parametrize(
    ("held", "action"),
    [
        ([], "NOOP"),
        ([UP], "RIGHT"),
        ([ord("w")], "RIGHT"),
        ([DOWN], "LEFT"),
        ([ord("s")], "LEFT"),
        ([RIGHT], "RIGHT"),
        ([ord("a")], "LEFT"),
        ([SPACE], "FIRE"),
        ([SPACE, UP], "RIGHTFIRE"),
        ([DOWN, SPACE], "LEFTFIRE"),
        ([UP, DOWN], "LEFT"),  # of opposite keys the last one counts
        ([DOWN, UP], "RIGHT"),
        ([UP, DOWN, SPACE], "LEFTFIRE"),
        ([ord("z")], "NOOP"),
    ],
)
def test_keys_of_pong(held, action):
    assert PONG.action(held) == MEANINGS.index(action)


def test_up_and_down_mean_sideways_only_in_pong():
    other = KeyMap(KEYS, idle=0, meanings=MEANINGS, game="ALE/Breakout-v5")
    assert other.action([UP]) == 0
    assert other.action([RIGHT]) == 2
    assert UP not in other.codes


def test_an_own_key_is_not_taken_for_another():
    keys = KeyMap({("up",): 1, ("w",): 2, (): 7}, idle=0)
    assert keys.action([UP]) == 1
    assert keys.action([ord("w")]) == 2
    assert keys.action([]) == 7


def test_legend_names_keys_and_meanings():
    assert PONG.legend == [
        (["up", "W", "right", "D"], "up"),
        (["down", "S", "left", "A"], "down"),
        (["space"], "fire"),
    ]
    assert PONG.describe(2) == "2 RIGHT"


def test_keys_as_gymnasium_writes_them():
    assert KeyMap({"wd": 1, ord("x"): 2, ("space",): 3}, idle=0).action([ord("d"), ord("w")]) == 1
    assert KeyMap({"wd": 1, ord("x"): 2, ("space",): 3}, idle=0).action([ord("x")]) == 2
    assert key_code("space") == SPACE
    assert key_name(ord("q")) == "Q"
    with pytest.raises(ValueError, match=r"unknown key 'hyper'.*backspace"):
        key_code("hyper")


def test_actions_of_any_space_have_an_idle_one():
    space = spaces.Dict(
        {
            "jump": spaces.Discrete(2),
            "camera": spaces.Box(-180, 180, (2,)),
            "more": spaces.MultiDiscrete([3, 4]),
        }
    )
    idle = idle_action(space)
    assert space.contains(idle)
    assert not any(np.any(part) for part in idle.values())
    assert idle_action(spaces.Discrete(3), ["LEFT", "NOOP", "RIGHT"]) == 1
    keys = KeyMap({("w",): {**idle, "jump": 1}}, idle=idle)
    assert keys.action([UP])["jump"] == 1
    assert keys.describe(keys.action([UP])) == "jump 1"
    with pytest.raises(ValueError, match=r"get_keys_to_action"):
        idle_action(spaces.Text(3))


def test_a_small_space_without_keys_is_played_with_digits():
    class NoKeys(FakeGame):
        get_keys_to_action = None

        def __getattribute__(self, name):
            if name == "get_keys_to_action":
                raise AttributeError(name)
            return super().__getattribute__(name)

    keys = KeyMap.for_env(NoKeys())
    assert keys.action([ord("3")]) == 3
    large = NoKeys()
    large.action_space = spaces.Discrete(300)
    with pytest.raises(ValueError, match="get_keys_to_action"):
        KeyMap.for_env(large)


def test_session_keeps_score():
    session = Session(FakeGame(length=12), keys=PONG)
    assert session.fps == 20
    assert session.starts == 0
    assert not session.is_dream
    for _ in range(9):
        session.advance([UP, SPACE])
    score = session.score
    assert (score.step, score.reward, score.total, score.gained, score.lost) == (9, -1.0, -1.0, 0.0, 1.0)
    assert session.keys.describe(score.action) == "4 RIGHTFIRE"
    for _ in range(20):
        session.advance()
    assert session.over
    assert session.score.step == 12
    assert session.ending == "the game is over"


def play_some(session, seed=0):
    rng = np.random.default_rng(seed)
    frames = [session.frame.copy()]
    for _ in range(15):
        session.step(int(rng.integers(6)))
        frames.append(session.frame.copy())
    return np.stack(frames)


def test_restart_plays_the_same_again_and_next_start_another():
    session = Session(FakeDream(), seed=7, start=1)
    first = play_some(session)
    session.restart()
    np.testing.assert_array_equal(play_some(session), first)
    assert session.env.resets == [(7, {"start": 1}), (7, {"start": 1})]
    assert session.score.step == 15
    session.next_start()
    session.next_start()
    assert [start["start"] for _, start in session.env.resets] == [1, 1, 2, 0]
    assert {seed for seed, _ in session.env.resets} == {7}


def test_the_next_start_of_a_real_game_is_the_next_seed():
    session = Session(FakeGame(), seed=3)
    session.next_start()
    assert session.env.resets == [(3, {}), (4, {})]


def test_a_start_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="start 3 is not there: this world has starts 0 to 2"):
        Session(FakeDream(), start=3)


def test_sampling_steps_are_powers_of_two():
    session = Session(FakeDream())
    seen = []
    for factor in (2, 2, 0.5, 2, 2, 2, 2, 2):
        session.change_sampling_steps(factor)
        seen.append(session.env.sampling_steps)
    assert seen == [8, 16, 8, 16, 32, 64, 64, 64]
    for _ in range(9):
        session.change_sampling_steps(0.5)
    assert session.env.sampling_steps == 1
    real = Session(FakeGame())
    real.change_sampling_steps(2)
    assert "real game" in real.notice


def test_rewind_goes_back_to_what_was_and_the_future_repeats():
    session = Session(FakeDream(length=40))
    frames = []
    for _ in range(40):
        frames.append((session.frame.copy(), session.score))
        session.advance([UP])
    assert session.over
    last = session.score.step
    for _ in range(3):
        session.rewind()
        assert session.paused
        assert not session.over
        assert session.score.step < last
        last = session.score.step
        np.testing.assert_array_equal(session.frame, frames[last][0])
        assert session.score == frames[last][1]
    for step in range(last, 39):
        session.advance([UP])
        np.testing.assert_array_equal(session.frame, frames[step + 1][0])
    for _ in range(100):
        session.rewind()
    assert session.score.step == 0


def test_recording_holds_every_frame(tmp_path):
    from PIL import Image

    session = Session(FakeDream(), recordings=tmp_path / "films", film="gif", film_scale=2)
    session.toggle_recording()
    assert session.recording
    for _ in range(10):
        session.advance([UP])
    session.toggle_recording()
    assert not session.recording
    (path,) = (tmp_path / "films").iterdir()
    assert str(path) in session.notice
    film = Image.open(path)
    assert film.size == (32, 32)
    total = 0
    for i in range(film.n_frames):
        film.seek(i)
        total += film.info["duration"]
    assert total == 11 * 50
    session.toggle_recording()
    session.toggle_recording()
    assert len(list((tmp_path / "films").iterdir())) == 2


def test_closing_finishes_a_film(tmp_path):
    session = Session(FakeDream(), recordings=tmp_path, film="gif")
    session.toggle_recording()
    session.advance()
    session.close()
    assert [path.suffix for path in tmp_path.iterdir()] == [".gif"]


def test_without_the_video_extra_a_gif_is_recorded(tmp_path, monkeypatch):
    import importlib

    real = importlib.import_module

    def missing(name, *rest):
        if name == "av":
            raise ModuleNotFoundError("No module named 'av'", name="av")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    session = Session(FakeDream(), recordings=tmp_path, film="mp4")
    session.toggle_recording()
    assert "neuralsim-gym[video]" in session.notice
    session.close()
    assert [path.suffix for path in tmp_path.iterdir()] == [".gif"]


def test_a_film_that_cannot_be_written_does_not_end_the_game(tmp_path):
    (tmp_path / "file").write_text("")
    session = Session(FakeDream(), recordings=tmp_path / "file", film="gif")
    session.toggle_recording()
    assert not session.recording
    assert "cannot write" in session.notice
    session.advance()


def test_an_environment_without_pictures_is_refused():
    with pytest.raises(ValueError, match="shows no pictures"):
        Session(gym.make("CartPole-v1"), keys=KeyMap({}, idle=0))
    pytest.importorskip("pygame")
    session = Session(gym.make("CartPole-v1", render_mode="rgb_array"))
    assert session.frame.ndim == 3


def test_hud_enlarges_by_whole_pixels_and_shows_everything():
    session = Session(FakeDream())
    hud = Hud(session)
    scale = best_scale(session.frame.shape)
    size = window_size(session.frame.shape, scale, hud.panel_height)
    assert size == (16 * 40 + PANEL_WIDTH, max(640, hud.panel_height))
    session.advance([UP])
    screen = np.asarray(hud.draw(size, Speed(19.9, 20, 1.5)))
    assert screen.shape == (size[1], size[0], 3)
    blocks = screen[: 16 * 40, : 16 * 40]
    np.testing.assert_array_equal(blocks, session.frame.repeat(40, 0).repeat(40, 1))
    panel = screen[:, 16 * 40 :]
    assert (panel[:, :12] == PANEL).all()  # nothing is cut off at the left,
    assert (panel[:, -12:] == PANEL).all()  # at the right,
    assert (panel[-3:] == PANEL).all()  # or below
    assert (panel != PANEL).any()


@pytest.mark.parametrize("env", [FakeDream(size=64), FakeGame(size=9)])
@pytest.mark.parametrize("state", ["paused", "over", "recording", "message", "small", "large"])
def test_hud_draws_every_state_at_every_size(env, state, tmp_path):
    session = Session(env, recordings=tmp_path, film="gif")
    hud = Hud(session)
    size = {"small": (150, 90), "large": (2000, 1400)}.get(state, (900, 640))
    plain = np.asarray(hud.draw(size, Speed()))
    if state == "paused":
        session.toggle_pause()
    if state == "over":
        session.over, session.ending = True, "the game is over"
    if state == "recording":
        session.toggle_recording()
    message = "saved /a/very/long/path/" + "x" * 200 if state == "message" else ""
    screen = np.asarray(hud.draw(size, Speed(3, 20, 400.0), message, countdown=2.4))
    assert screen.shape == (size[1], size[0], 3)
    assert (screen != plain).any() or state == "small"
    assert (screen != screen[0, 0]).any()  # the game is seen even in the smallest window
    session.close()


def test_text_is_wrapped_and_shortened_to_its_width():
    rows = wrap("saved " + "/folder" * 60, 14, 300)
    assert len(rows) == 3
    assert max(text_width(row, 14) for row in rows) <= 300
    assert wrap("short", 14, 300) == ["short"]


def test_a_letter_that_plays_moves_the_command_to_ctrl():
    env = FakeDream()
    env.get_keys_to_action = lambda: {("p",): 1, ("w",): 2}
    from neuralsim.envs.hud import controls_of

    rows = {meaning: caps for caps, meaning in controls_of(Session(env))}
    assert rows["pause"] == "ctrl P"
    assert rows["same again"] == "R"


@pytest.fixture
def window_of(monkeypatch):
    """Makes windows that nobody sees, and closes the display at the end."""
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    pygame.display.init()
    pygame.event.clear()

    def make(session, **kwargs):
        return Window(session, **kwargs)

    yield make
    pygame.display.quit()


def press(window, key, now=0.0, up=True, mod=0, text=""):
    import pygame

    text = text or (chr(key) if 32 <= key < 127 else "")
    window.handle(pygame.event.Event(pygame.KEYDOWN, key=key, mod=mod, unicode=text), now)
    if up:
        window.handle(pygame.event.Event(pygame.KEYUP, key=key, mod=mod), now)


def test_held_keys_combine(window_of):
    session = Session(FakeDream())
    window = window_of(session)
    press(window, UP, up=False)
    window.tick(0.0)
    press(window, SPACE, up=False)
    window.tick(0.06)
    assert [MEANINGS[action] for action in session.env.actions] == ["RIGHT", "RIGHTFIRE"]


def test_a_tap_between_two_steps_is_played(window_of):
    session = Session(FakeDream())
    window = window_of(session)
    window.tick(0.0)
    press(window, DOWN)
    window.tick(0.06)
    window.tick(0.12)
    assert [MEANINGS[action] for action in session.env.actions] == ["NOOP", "LEFT", "NOOP"]


def test_the_window_keeps_the_real_rate_and_never_hurries(window_of):
    session = Session(FakeDream(length=1000))
    window = window_of(session)
    for i in range(101):
        window.tick(i * 0.01)
    assert 20 <= session.score.step <= 21
    window.tick(60.0)  # the machine was busy for a minute
    before = session.score.step
    window.tick(60.01)
    window.tick(60.02)
    assert session.score.step == before
    fast = Session(FakeDream(length=1000))
    quick = window_of(fast, fps=100)
    for i in range(101):
        quick.tick(100 + i * 0.01)
    assert 90 <= fast.score.step <= 101
    assert 80 < quick.speed.steps_per_second < 120


def test_commands_of_the_window(window_of, tmp_path, capsys):
    import pygame

    session = Session(FakeDream(), recordings=tmp_path, film="gif")
    window = window_of(session)
    press(window, ord("p"))
    assert session.paused
    window.tick(10.0)
    assert session.score.step == 0
    press(window, ord("n"))
    press(window, ord("."))
    assert session.score.step == 2
    press(window, ord("="), text="+")
    assert session.sampling_steps == 8
    press(window, ord("-"))
    press(window, ord("-"))
    assert session.sampling_steps == 2
    press(window, ord("v"))
    assert session.recording
    press(window, ord("v"))
    assert "saved" in capsys.readouterr().out
    assert len(list(tmp_path.iterdir())) == 1
    press(window, ord("r"))
    assert session.score.step == 0
    press(window, pygame.K_TAB)
    press(window, pygame.K_RETURN)
    assert session.start == 2
    press(window, ord("p"))
    assert not session.paused
    press(window, pygame.K_ESCAPE)
    assert not window.open


def test_backspace_rewinds_while_it_is_held(window_of):
    import pygame

    session = Session(FakeDream())
    window = window_of(session)
    for i in range(40):
        window.tick(i * 0.05)
    steps = session.score.step
    press(window, pygame.K_BACKSPACE, now=2.0, up=False)
    for i in range(50):
        window.tick(2.0 + i * 0.01)
    assert session.paused
    assert 0 < session.score.step < steps - 10
    at = session.score.step
    window.handle(pygame.event.Event(pygame.KEYUP, key=pygame.K_BACKSPACE, mod=0), 2.5)
    window.tick(9.0)
    assert session.score.step == at


def test_ctrl_reaches_a_command_whose_letter_plays(window_of):
    import pygame

    env = FakeDream()
    env.get_keys_to_action = lambda: {("p",): 1}
    session = Session(env)
    window = window_of(session)
    press(window, ord("p"))
    assert not session.paused
    press(window, ord("p"), mod=pygame.KMOD_LCTRL)
    assert session.paused


def test_leaving_the_window_lets_go_of_all_keys(window_of):
    import pygame

    session = Session(FakeDream())
    window = window_of(session)
    press(window, UP, up=False)
    window.handle(pygame.event.Event(pygame.WINDOWFOCUSLOST), 0.0)
    window.tick(1.0)
    window.tick(2.0)
    assert session.env.actions[-1] == 0


def test_after_the_end_the_next_episode_begins_by_itself(window_of):
    session = Session(FakeDream(length=3))
    window = window_of(session)
    for i in range(6):
        window.tick(i * 0.1)
    assert session.over
    window.tick(3.0)
    assert session.over  # the banner stays a moment
    window.tick(6.0)
    assert not session.over
    assert (session.start, session.episode) == (1, 2)


def test_a_window_of_another_size_is_filled(window_of):
    import pygame

    session = Session(FakeDream(size=64))
    window = window_of(session, scale=2)
    assert pygame.display.get_surface().get_width() == 128 + PANEL_WIDTH
    pygame.display.set_mode((1500, 1000), pygame.RESIZABLE)
    window.draw(0.0)
    seen = pygame.surfarray.array3d(pygame.display.get_surface())
    assert seen.shape == (1500, 1000, 3)
    ball = (seen == 236).all(-1).sum()
    assert ball == 15 * 15  # 960 of 1000 pixels: fifteen per pixel


class Leaving(FakeDream):
    """Closes the window after 5 steps, as a player would."""

    def step(self, action):
        import pygame

        if self.count == 5:
            pygame.event.post(pygame.event.Event(pygame.QUIT))
        return super().step(action)


def test_play_end_to_end(monkeypatch, tmp_path, capsys):
    pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    gym.register("FakeDream-v0", entry_point=Leaving)
    try:
        play(PlayConfig("FakeDream-v0", fps=200, recordings=tmp_path))
    finally:
        del gym.registry["FakeDream-v0"]
    out = capsys.readouterr().out
    assert "opening FakeDream-v0" in out
    assert "6 steps" in out


def test_a_film_is_finished_when_the_window_closes(monkeypatch, tmp_path, capsys):
    pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    session = Session(Leaving(), recordings=tmp_path, film="gif")
    session.toggle_recording()
    play_session(session, fps=200)
    assert [path.suffix for path in tmp_path.iterdir()] == [".gif"]
    assert "saved" in capsys.readouterr().out


def test_without_a_display_the_error_shows_the_way(monkeypatch):
    pytest.importorskip("pygame")
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert not has_display()
    with pytest.raises(OSError, match="neuralsim demo --headless"):
        play(PlayConfig("anything"))
    monkeypatch.setenv("SDL_VIDEODRIVER", "nonsense")
    with pytest.raises(OSError, match="no window can be opened"):
        play_session(Session(FakeDream()))


def test_without_the_play_extra_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    import importlib

    def missing(name, *_):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match=r"neuralsim-gym\[play\]"):
        play(PlayConfig())


def test_what_cannot_be_played_is_named(tmp_path):
    with pytest.raises(ValueError, match="unknown dream 'Dream-Ping-v0'; there is Dream-Pong-v0"):
        open_game(PlayConfig("Dream-Ping-v0"))
    with pytest.raises(ValueError, match=r"unknown environment 'CartPoll-v1'; did you mean CartPole-v1"):
        open_game(PlayConfig("CartPoll-v1"))
    with pytest.raises(ValueError, match="no JSON object"):
        open_game(PlayConfig("CartPole-v1", env_kwargs="[1]"))
    with pytest.raises(ValueError, match="no JSON object"):
        open_game(PlayConfig("CartPole-v1", env_kwargs="{x"))


@pytest.mark.parametrize(("option", "value"), [("scale", 0), ("fps", 0.0), ("fps", -3.0)])
def test_options_out_of_range_are_named(option, value, monkeypatch):
    pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    with pytest.raises(ValueError, match=f"--{option} {value}"):
        play(PlayConfig("CartPole-v1", **{option: value}))


@pytest.mark.parametrize(("view", "shape"), [("full", (210, 160, 3)), ("preprocessed", (64, 64, 3))])
def test_the_real_pong(view, shape):
    pytest.importorskip("ale_py")
    session = Session(open_game(PlayConfig("ALE/Pong-v5", view=view)))
    assert session.fps == 15.0
    assert session.frame.shape == shape
    assert session.can_rewind
    for _ in range(70):
        session.advance([UP])
    seen, step = session.frame.copy(), session.score.step
    session.rewind()
    while session.score.step < step:
        session.advance([UP])
    np.testing.assert_array_equal(session.frame, seen)
    session.close()


def test_importing_play_needs_neither_torch_nor_pygame():
    code = "import neuralsim.envs.demo, sys; print({'torch', 'pygame'} & set(sys.modules))"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "set()"


def test_a_real_dream(tiny_world, tmp_path):
    env = open_game(PlayConfig(str(tiny_world), sampling_steps=4, device="cpu"))
    session = Session(env, seed=5, start=2, recordings=tmp_path, film="gif")
    assert session.is_dream
    assert (session.name, session.fps, session.starts, session.sampling_steps) == ("tiny", 15.0, 4, 4)
    session.change_sampling_steps(0.5)
    first = []
    for _ in range(12):
        session.advance([UP])
        first.append(session.frame.copy())
        if session.over:
            break
    session.restart()
    for seen in first:
        session.advance([UP])
        np.testing.assert_array_equal(session.frame, seen)
    step = session.score.step
    for _ in range(2):
        session.rewind()
    assert session.score.step < step
    while session.score.step < step:
        session.advance([UP])
    np.testing.assert_array_equal(session.frame, first[-1])
    for _ in range(9):
        session.change_sampling_steps(2)
    assert session.sampling_steps == 8  # as many as this world was trained for
    session.next_start()
    assert session.start == 3
    assert Hud(session).draw((900, 640), Speed()).size == (900, 640)
    session.close()
