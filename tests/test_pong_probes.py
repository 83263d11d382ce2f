import functools

import numpy as np
import pytest

from neuralsim.agents.scripted import PongPlayer
from neuralsim.envs.atari import PONG_LABELS, PongLabels, pong_labels
from neuralsim.envs.preprocessing import resize
from neuralsim.envs.real import make_real
from neuralsim.evaluation.pong_probes import probe

WHITE, GREEN, BROWN = (236, 236, 236), (92, 186, 92), (213, 130, 74)


@functools.cache
def play(steps=1000, skill=0.75):
    """Real frames ``(T+1, 64, 64, 3)``, their labels, and the screens ``(T+1, 210, 160, 3)``."""
    pytest.importorskip("ale_py")
    env = make_real("ALE/Pong-v5", {"repeat_action_probability": 0.0})
    player = PongPlayer(skill, seed=0)
    frame, info = env.reset(seed=0)
    frames, labels, screens = [frame], [info["labels"]], [env.unwrapped.ale.getScreenRGB()]
    for _ in range(steps):
        frame, _, terminated, truncated, info = env.step(player.act(frame, info))
        frames.append(frame)
        labels.append(info["labels"])
        screens.append(env.unwrapped.ale.getScreenRGB())
        if terminated or truncated:
            break
    return np.stack(frames), {name: np.array([x[name] for x in labels]) for name in PONG_LABELS}, np.stack(screens)


@pytest.mark.parametrize(("name", "colour"), [("ball", WHITE), ("player", GREEN), ("enemy", BROWN)])
def test_labels_are_where_things_are_drawn(name, colour):
    _, labels, screens = play()
    drawn = (screens[:, 34:194] == colour).all(-1)
    present = drawn.any((1, 2))
    assert (present == (labels[f"{name}_present"] > 0)).mean() > 0.999
    rows, columns = drawn.any(2), drawn.any(1)
    for axis, lines, first, scale in (("y", rows, 34, 64 / 210), ("x", columns, 0, 64 / 160)):
        if f"{name}_{axis}" not in labels:
            continue
        low, high = lines.argmax(1), lines.shape[1] - 1 - lines[:, ::-1].argmax(1)
        centre = (first + (low + high + 1) / 2) * scale - 0.5
        both = present & (labels[f"{name}_present"] > 0)
        error = np.abs(centre - labels[f"{name}_{axis}"])[both]
        assert error.mean() < 0.05
        assert np.quantile(error, 0.99) < 0.31  # one row of the screen


def test_probes_find_what_the_labels_say():
    frames, labels, _ = play()
    found = probe(frames)
    assert set(found) == {*PONG_LABELS, "ball_mass"}
    for name in ("ball", "player", "enemy"):
        here = labels[f"{name}_present"] > 0
        assert (found[f"{name}_present"] == here).mean() >= 0.99
        both = here & (found[f"{name}_present"] > 0)
        for key in (f"{name}_x", f"{name}_y"):
            if key in found:
                error = np.abs(found[key] - labels[key])[both]
                assert (error <= 0.5).mean() >= 0.99
                assert error.mean() < 0.2
                assert np.isnan(found[key][found[f"{name}_present"] == 0]).all()
    for name in ("player_score", "enemy_score"):
        assert (found[name] == labels[name]).mean() >= 0.99  # the screen shows a point a frame after the memory


def draw(ball=(100, 80), player=100, enemy=100, score=None):
    """A screen; ball, player and enemy are top rows (and the ball's left column), None for absent."""
    screen = np.empty((210, 160, 3), np.uint8)
    screen[:] = (144, 72, 17)
    screen[24:34] = screen[194:] = WHITE
    for top, left, width, colour in ((player, 140, 4, GREEN), (enemy, 16, 4, BROWN)):
        if top is not None:
            screen[max(34, top) : min(194, top + 16), left : left + width] = colour
    if ball is not None:
        screen[max(34, ball[0]) : min(194, ball[0] + 4), ball[1] : ball[1] + 2] = WHITE
    return resize(screen, (64, 64))


@pytest.mark.parametrize("ball", [(34, 80), (60, 4), (190, 150), (100, 139), (100, 141), (104, 17), (113, 142)])
def test_the_ball_is_found_everywhere(ball):
    found = probe(draw(ball)[None])
    assert found["ball_present"][0] == 1
    assert found["ball_y"][0] == pytest.approx((ball[0] + 2) * 64 / 210 - 0.5, abs=0.25)
    assert found["ball_x"][0] == pytest.approx((ball[1] + 1) * 64 / 160 - 0.5, abs=0.31)
    assert found["player_y"][0] == pytest.approx(108 * 64 / 210 - 0.5, abs=0.35)
    assert found["enemy_y"][0] == pytest.approx(108 * 64 / 210 - 0.5, abs=0.35)


def test_absent_things_are_absent():
    found = probe(draw(None, None, None)[None])
    for name in ("ball", "player", "enemy"):
        assert found[f"{name}_present"][0] == 0
        assert np.isnan(found[f"{name}_y"][0])
    assert np.isnan(found["player_score"][0])  # no digits at all


def test_a_tokenizers_grain_does_not_matter():
    frames = np.stack([draw((40 + i, 30 + i), 60, 120) for i in range(100)])
    grain = np.random.default_rng(0).normal(0, 3, frames.shape)
    found = probe(np.clip(frames + grain, 0, 255).round().astype(np.uint8))
    assert found["ball_present"].all()
    assert np.abs(found["ball_y"] - ((np.arange(100) + 42) * 64 / 210 - 0.5)).mean() < 0.2
    assert np.abs(found["player_y"] - (68 * 64 / 210 - 0.5)).max() < 0.4
    nothing = np.clip(np.stack([draw(None)] * 100) + grain, 0, 255).round().astype(np.uint8)
    assert probe(nothing)["ball_present"].mean() == 0


def test_a_court_full_of_specks_holds_no_ball():
    court = draw((40, 30), 60, 120).astype(np.float32)
    specks = np.random.default_rng(0).random((100, 64, 64, 1)) < 0.05
    noisy = np.where(specks, (court + WHITE) / 2, court).astype(np.uint8)
    assert probe(noisy)["ball_present"].mean() == 0
    assert probe(court[None])["ball_present"].all()


@pytest.mark.parametrize("shape", [(64, 64, 3), (2, 32, 64, 3), (2, 64, 64, 1)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="64, 64, 3"):
        probe(np.zeros(shape, np.uint8))


def test_labels_follow_the_size_of_the_frame():
    ram = np.zeros(128, np.uint8)
    ram[[49, 54, 51, 50, 13, 14]] = [149, 114, 114, 115, 3, 7]
    small, large = pong_labels(ram), pong_labels(ram, (210, 160))
    assert (large["ball_x"], large["ball_y"]) == (100.5, 101.5)
    assert (large["player_y"], large["enemy_y"]) == (107.5, 107.5)
    assert small["ball_x"] == pytest.approx(101 * 0.4 - 0.5)
    assert (small["player_score"], small["enemy_score"]) == (7, 3)
    ram[54] = 0
    assert pong_labels(ram)["ball_present"] == 0
    assert np.isnan(pong_labels(ram)["ball_y"])


def test_labels_are_for_pong_only():
    with pytest.raises(ValueError, match="Pong"):
        PongLabels(make_real("tiny_game:Tiny-v0"))
    pytest.importorskip("ale_py")
    _, info = make_real("ALE/Breakout-v5").reset(seed=0)
    assert "labels" not in info
    _, info = make_real("ALE/Pong-v5", None, {"crop": (34, 0, 160, 160)}).reset(seed=0)
    assert "labels" not in info
