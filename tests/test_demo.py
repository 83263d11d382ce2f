"""The demo: a window where there is a display, otherwise a film and a table."""

import gymnasium as gym
import numpy as np
import pytest
from fake_games import FakeDream
from gymnasium import spaces
from PIL import Image

import neuralsim.envs.demo as demo_module
from neuralsim.cli import main
from neuralsim.envs.demo import DemoConfig, demo, play_scripted


@pytest.fixture
def fake_dream(monkeypatch):
    """Lets the demo find a fake dream in the place of the bundled one."""
    opened = []

    def open_fake(config):
        opened.append(config)
        return FakeDream(length=25, size=64)

    monkeypatch.setattr(demo_module, "open_game", open_fake)
    return opened


def test_headless_plays_films_and_tells(fake_dream, tmp_path, capsys):
    out = tmp_path / "new" / "demo.gif"
    result = demo(DemoConfig(headless=True, steps=60, out=out, seed=3, sampling_steps=2))
    assert result.score.step == 60
    assert result.ends == 2
    assert result.frames == 60 + 1 + 2  # with the first frame of each of three games
    assert result.score.total == result.score.gained - result.score.lost
    assert result.rate > 0
    assert (fake_dream[0].game, fake_dream[0].seed, fake_dream[0].sampling_steps) == ("Dream-Pong-v0", 3, 2)
    film = Image.open(out)
    assert film.size == (256, 256)
    duration = 0
    for i in range(film.n_frames):
        film.seek(i)
        duration += film.info["duration"]
    assert duration == 63 * 50
    text = capsys.readouterr().out
    for words in ("steps/s", "return", "won : lost", "ends of games", str(out.resolve())):
        assert words in text, words


def test_the_same_seed_gives_the_same_film(fake_dream, tmp_path):
    for name in ("a.gif", "b.gif"):
        demo(DemoConfig(headless=True, steps=40, out=tmp_path / name, seed=5))
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()


def test_without_a_display_the_scripted_player_plays(fake_dream, tmp_path, monkeypatch):
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert demo(DemoConfig(steps=5, out=tmp_path / "demo.gif")) is not None
    assert (tmp_path / "demo.gif").exists()


def test_with_a_display_the_window_opens(monkeypatch, tmp_path):
    pytest.importorskip("pygame")
    played = []
    monkeypatch.setattr(demo_module, "has_display", lambda: True)
    monkeypatch.setattr(demo_module, "play", played.append)
    assert demo(DemoConfig(out=tmp_path / "demo.gif", world="some/where", seed=2)) is None
    assert (played[0].game, played[0].seed) == ("some/where", 2)
    assert not list(tmp_path.iterdir())


def test_a_display_without_pygame_still_gives_a_film(fake_dream, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(demo_module, "has_display", lambda: True)
    monkeypatch.setattr(demo_module.importlib.util, "find_spec", lambda name: None)
    demo(DemoConfig(steps=3, out=tmp_path / "demo.gif"))
    assert "neuralsim-gym[play]" in capsys.readouterr().out
    assert (tmp_path / "demo.gif").exists()


def test_mistakes_are_named_before_anything_is_played(fake_dream, tmp_path):
    with pytest.raises(ValueError, match="--steps 0"):
        demo(DemoConfig(headless=True, steps=0))
    with pytest.raises(ValueError, match=r"\.gif or \.mp4"):
        demo(DemoConfig(headless=True, out=tmp_path / "demo.webm"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write the film"):
        demo(DemoConfig(headless=True, out=tmp_path / "file" / "demo.gif"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_only_pong_has_a_scripted_player(tmp_path):
    class Other(FakeDream):
        def get_action_meanings(self):
            return ["LEFT", "RIGHT"]

    env = Other()
    env.action_space = spaces.Discrete(2)
    with pytest.raises(ValueError, match=r"Atari Pong.*LEFT"):
        play_scripted(env, DemoConfig(out=tmp_path / "demo.gif"))
    assert not list(tmp_path.iterdir())


def test_the_command_line(fake_dream, tmp_path, capsys):
    assert main(["demo", "--headless", "--steps", "4", "--out", str(tmp_path / "demo.gif")]) == 0
    assert (tmp_path / "demo.gif").exists()
    assert main(["demo", "--headless", "--steps", "0"]) == 2
    assert "--steps 0 must be at least 1" in capsys.readouterr().err


def test_an_interrupted_demo_leaves_no_film(fake_dream, tmp_path, monkeypatch):
    def interrupted(self, action):
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeDream, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo(DemoConfig(headless=True, out=tmp_path / "demo.gif"))
    assert not list(tmp_path.iterdir())


def test_the_bundled_dream(tmp_path):
    """The main job itself, short: needs the bundled world."""
    from neuralsim.world_files import find_world

    try:
        find_world("pong")
    except FileNotFoundError:
        pytest.skip("no bundled world in this checkout")
    result = demo(DemoConfig(headless=True, steps=30, out=tmp_path / "demo.gif"))
    assert result.score.step == 30
    assert (tmp_path / "demo.gif").stat().st_size < 6e6
    film = Image.open(tmp_path / "demo.gif").convert("RGB")
    assert np.asarray(film).std() > 5
    assert "Dream-Pong-v0" in gym.registry


def test_a_real_dream_of_random_parts(tmp_path, capsys):
    from conftest import build_tiny_world

    from neuralsim.agents.scripted import PONG_ACTIONS

    world = build_tiny_world(frame_size=(64, 64), action_meanings=PONG_ACTIONS).save(tmp_path / "world")
    pytest.importorskip("av")
    out = tmp_path / "demo.mp4"
    config = DemoConfig(headless=True, steps=30, out=out, world=str(world), sampling_steps=1, device="cpu")
    result = demo(config)
    assert result.score.step == 30
    assert out.stat().st_size > 0
    assert str(out) in capsys.readouterr().out
