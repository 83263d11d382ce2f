import numpy as np
import pytest
from PIL import Image
from test_episodes import SPACES, make_episode, make_store

from neuralsim.cli import main
from neuralsim.data.show import ShowConfig, contact_sheet, show, summarise


def test_counts(tmp_path):
    episodes = [make_episode(40, seed=0), make_episode(20, seed=1)]
    for episode, policy in zip(episodes, ("good", "bad"), strict=True):
        episode.rewards[:] = 0
        episode.rewards[3::10] = 1 if policy == "good" else -1
        episode.policy = policy
    store = make_store(tmp_path, *episodes)
    summary = summarise(store)
    assert (summary.episodes, summary.steps, summary.terminated, summary.truncated) == (2, 60, 2, 0)
    assert summary.rewards == {-1.0: 2, 1.0: 4}
    assert summary.policies == {"bad": [-2.0], "good": [4.0]}
    assert summary.lengths.tolist() == [40, 20]
    assert summary.hours == pytest.approx(60 / 15 / 3600)
    np.testing.assert_array_equal(summary.actions[""], np.concatenate([e.actions for e in episodes]))


@pytest.mark.parametrize("space", SPACES, ids=lambda space: type(space).__name__)
def test_text_and_picture(tmp_path, space, capsys):
    make_store(tmp_path, make_episode(40, space), make_episode(3, space), space=space)
    assert main(["data", "show", str(tmp_path), "--columns", "5", "--verify"]) == 0
    text = capsys.readouterr().out
    assert "2 episodes, 43 steps" in text
    assert "43 events of 43 values" in text or "rewards" in text
    with Image.open(tmp_path / "contact_sheet.png") as sheet:
        assert sheet.width == 5 * 6 + 4
    assert contact_sheet(make_store(tmp_path / "b", make_episode(4)), 3, 2).shape[1] == 2 * 6 + 1


def test_action_names_and_never_taken_actions(tmp_path, capsys):
    episode = make_episode(40)
    episode.actions[:] = 2
    store = make_store(tmp_path, episode)
    store.info.action_meanings = ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"]
    from neuralsim.data.show import describe

    lines = describe(store, summarise(store)).splitlines()
    assert any("2 RIGHT" in line and "100.0%" in line for line in lines)
    assert any("5 LEFTFIRE" in line and "0.0%" in line for line in lines)


def test_mistakes(tmp_path):
    with pytest.raises(FileNotFoundError, match="no dataset"):
        show(ShowConfig(tmp_path))
    store = make_store(tmp_path)
    with pytest.raises(ValueError, match="no episodes"):
        show(ShowConfig(tmp_path))
    store.add(make_episode(3))
    with pytest.raises(ValueError, match="--rows 0"):
        show(ShowConfig(tmp_path, rows=0))
    show(ShowConfig(tmp_path, sheet=tmp_path / "deep" / "sheet.png"))
    assert (tmp_path / "deep" / "sheet.png").exists()
