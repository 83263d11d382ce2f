"""The report: one page that holds the card's figures, fetches nothing, obeys nothing that stands in the card."""

import base64
import io
import math
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from neuralsim.evaluation import page, plots, report
from neuralsim.evaluation.page import Tile
from neuralsim.evaluation.plots import PENS, Chart, Series, draw, figure, spread
from neuralsim.evaluation.report import write_report

VOID = {"meta", "link", "img", "br", "hr", "path", "use"}
EVIL = "<script>alert(1)</script>"
TEXT = "# World card: tiny\n\n## Open loop\n\n| horizon | 16 |\n|---|---|\n| PSNR in dB | 41.4 (40.8 to 42.0) |\n"


class Page(HTMLParser):
    """Tags, attributes and visible text of a page; complains about tags that are not closed in order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "title"} & set(self.open):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def cell(value, around=1.0):
    return {"value": value, "low": value - around, "high": value + around, "n": 9}


def row(value, around):
    return {source: cell(value - i * 0.04, around) for i, source in enumerate(report.LINES)}


def make_card(name="tiny", thing="ball", event="reward", policy="random"):
    calibration = {"ece": 0.01, "bins": [[0.01, 0.0, 500], [0.9, 1.0, 3]]}
    return {
        "world": name,
        "env_id": "Tiny-v0",
        "sampling_steps": 4,
        "held_out": {"episodes": 2, "steps": 6000, "command": "c"},
        "open_loop": {
            h: {"psnr": row(41.4 - n, 0.6), "ssim": row(0.9 - n / 10, 0.01), thing: row(0.6, 0.05), "false_x": cell(0)}
            for n, h in enumerate(("4", "16", "64"))
        },
        "controllability": {
            "delta_psnr": cell(8.96, 0.5),
            "error_ratio": {name: {"4": cell(6.0), "16": cell(3.0)} for name in ("shuffled", "random", "noop")},
        },
        "events": {
            event: {
                "precision": 0.9, "recall": 0.8, "f1": 0.85, "calibration": calibration,
                "lags": {lag: {"precision": 0.9, "recall": 0.8} for lag in "012"},
            }
        },
        "returns": {"64": {"error": cell(0.44, 0.1), "constant": cell(0.57, 0.1)}, "256": {"error": cell(2.0)}},
        "games": {
            policy: {
                side: {"won": cell(share, 0.1), "points_per_1000": cell(5.0), "board": cell(math.nan)}
                for side, share in (("dream", 0.4), ("real", 0.3))
            }
        },
        "ranking": {
            "policies": {
                policy: {"dream": cell(-3.0, 1.0), "real": cell(-5.0, 2.0)},
                "good": {"dream": cell(4.0, 1.0), "real": cell(6.0, 2.0)},
                "best": {"dream": cell(9.0, 1.0), "real": cell(8.0, 2.0)},
            },
            "spearman": cell(0.93, 0.05),
            "pearson": cell(0.91, 0.05),
            "mmrv": cell(0.25, 0.1),
            "control": {"spearman": cell(0.12, 0.3)},
        },
    }  # fmt: skip


def film(frames=5, height=8, width=16):
    pictures = np.zeros((frames, height, width, 3), np.uint8)
    for t in range(frames):
        pictures[t, t % height, t % width] = (250, 10 * t, 3)
    return pictures


@pytest.fixture
def no_matplotlib(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def write(folder, card=None, text=TEXT, **extras):
    file = write_report(folder, card or make_card(), text, **extras)
    assert file == folder / "report.html"
    return file.read_text(encoding="utf-8")


def test_the_figures_of_the_card_are_there(tmp_path, no_matplotlib):
    page = Page(write(tmp_path / "new" / "folder"))
    for part in (
        "Picture after 16 steps (PSNR) 40.4 dB 95 %: 39.8 to 41.0 dB copy of the last frame: 40.3 dB random actions",
        "Ball in its place after 16 steps 60 % 95 %: 55 to 65 %",
        "Listens to actions (Δ PSNR) 9.0 dB 95 %: 8.5 to 9.5 dB a dream that does not listen: 0.0 dB",
        "reward (F1) 0.85 precision: 0.90 recall: 0.80",
        "Error of the return over 64 steps 0.44 95 %: 0.34 to 0.54 always saying the mean: 0.57",
        "Order of policies (Spearman) 0.93 95 %: 0.88 to 0.98 a dream that does not listen: 0.12",
        "Real score lost by wrong order (MMRV) 0.25",
        "A dream of Tiny-v0, with 4 sampling steps per frame, judged on 2 held-out episodes of 6,000 steps in all.",
        "PSNR in dB 41.4 (40.8 to 42.0)",
    ):
        assert part in page.text
    assert [tag for tag, _ in page.tags if tag == "h1"] == ["h1"]
    assert len(page.all("table")) == 1


def test_without_matplotlib_it_says_what_brings_the_plots(tmp_path, no_matplotlib):
    page = Page(write(tmp_path))
    assert (
        'needs the package "matplotlib", which is not installed: pip install "neuralsim-gym[evaluation]"' in page.text
    )
    assert page.all("svg") == []
    assert "steps into the dream" not in page.text


def test_a_page_with_everything_fetches_nothing(tmp_path):
    pytest.importorskip("matplotlib")
    html = write(
        tmp_path,
        text=TEXT + "![spy](https://example.org/spy.png) <img src=https://example.org/spy.png>\n",
        films=[("Clip", film(), 15.0)],
        pictures=[("Layer 1", film()[0], "where it looks")],
    )
    page = Page(html)
    assert len([svg for svg in page.all("svg") if svg["class"] == "plot"]) == 7
    assert len(page.all("img")) == 2
    fetching = ("src", "href", "srcset", "data", "action")  # but of links, which wait to be followed
    found = [(tag, name, value) for tag, given in page.tags for name, value in given.items() if name in fetching]
    assert all(value.startswith(("data:", "#")) for tag, _, value in found if tag != "a")
    assert "script" not in {tag for tag, _ in page.tags}
    assert not re.search(r"@import|url\((?!#)|xmlns|<!DOCTYPE svg", html)
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy.split(";")[0] == "default-src 'none'"
    ids = [found["id"] for _, found in page.tags if "id" in found]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', html))
    assert used
    assert used <= set(ids)


def test_what_stands_in_the_card_is_shown_and_not_obeyed(tmp_path):
    pytest.importorskip("matplotlib")
    html = write(
        tmp_path,
        make_card(name=EVIL, thing=EVIL, event=EVIL, policy=EVIL),
        text=f"# {EVIL}\n\n{EVIL}\n\n[link](javascript:alert(1))\n",
        films=[(f'"{EVIL}', film(), 15.0)],
        pictures=[(f'"{EVIL}', film()[0], EVIL)],
    )
    page = Page(html)
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any(target.startswith("javascript") for _, found in page.tags for target in found.values() if target)
    assert not any(name.startswith("on") for _, found in page.tags for name in found)
    # Heading and title of the world; thing: tile, heading, caption; event: tile, two headings, caption; policy;
    # text: heading, paragraph; film; picture: heading, caption.
    assert page.text.count("alert(1)") >= 13


@pytest.mark.parametrize("nothing", [None, math.nan, "cells"])
def test_what_was_not_measured_is_left_out(tmp_path, nothing):
    pytest.importorskip("matplotlib")

    def emptied(value):
        if isinstance(value, dict) and "value" in value:
            return dict.fromkeys(value, math.nan) if nothing == "cells" else nothing
        if isinstance(value, dict):
            return {key: emptied(part) for key, part in value.items()}
        return (None if nothing == "cells" else nothing) if isinstance(value, float) else value

    card = make_card()
    kept = {"world", "env_id"}
    bare = {key: value if key in kept else emptied(value) for key, value in card.items()}
    bare["events"]["reward"]["calibration"] = {"ece": None, "bins": []}
    page = Page(write(tmp_path, bare))
    assert [svg for svg in page.all("svg") if svg.get("class") == "plot"] == []
    assert not any(found.get("class") == "tile" for found in page.all("div"))
    assert not re.search(r"\bnan\b|None", page.text)
    empty = Page(write(tmp_path, {"world": "w", "fvd": None, "open_loop": {}, "events": None, "ranking": {}}))
    assert [found for found in empty.all("section") if found.get("class") != "card"] == [{}]  # the attention's


def test_one_gap_leaves_the_rest_of_a_plot(tmp_path):
    pytest.importorskip("matplotlib")
    card = make_card()
    card["open_loop"]["16"]["ball"]["dream"] = dict.fromkeys(("value", "low", "high"))
    page = Page(write(tmp_path, card))
    assert len([svg for svg in page.all("svg") if svg.get("class") == "plot"]) == 7
    assert "nan" not in page.text
    dream = next(chart for chart in report.open_loop(card) if "ball" in chart.title).series[0]
    assert [math.isnan(y) for y in dream.y] == [False, True, False]


def test_bands_are_the_intervals_and_only_the_dream_has_one():
    chart = report.open_loop(make_card())[0]
    dream, *baselines = chart.series
    assert (dream.label, dream.pen) == ("dream", "blue")
    assert dream.x == (4, 16, 64)
    assert dream.y == pytest.approx((41.4, 40.4, 39.4))
    assert dream.low == pytest.approx((40.8, 39.8, 38.8))
    assert dream.high == pytest.approx((42.0, 41.0, 40.0))
    assert [line.label for line in baselines] == [label for label, _ in report.LINES.values()][1:]
    assert all(line.low == () for line in baselines)


def test_bands_are_drawn_where_the_intervals_are():
    pytest.importorskip("matplotlib")
    line = Series("a", "blue", (1.0, 2.0, 4.0), (5.0, 6.0, 7.0), (4.0, 5.5, 3.0), (5.5, 6.5, 9.0))
    axes = figure(Chart("t", "c", "x", "y", (line,), steps=True)).axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[1, 5], [2, 6], [4, 7]]
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    for x, low, high in zip(line.x, line.low, line.high, strict=True):
        there = corners[corners[:, 0] == x, 1]
        assert (there.min(), there.max()) == (low, high)


def test_policies_are_points_with_bars_in_both_directions():
    pytest.importorskip("matplotlib")
    *tiles, chart = report.ranking(make_card())
    assert all(isinstance(tile, Tile) for tile in tiles)
    assert chart.names == ("random", "good", "best")
    (points,) = chart.series
    assert (points.x, points.y) == ((-5, 6, 8), (-3, 4, 9))
    assert (points.low[0], points.high[0], points.x_low[0], points.x_high[0]) == (-4, -2, -7, -3)
    axes = figure(chart).axes[0]
    assert axes.get_xlim() == axes.get_ylim()
    bars = [path.vertices.tolist() for one in axes.collections for path in one.get_paths()]
    assert [[-7, -3], [-3, -3]] in bars
    assert [[-5, -4], [-5, -2]] in bars
    assert [text.get_text() for text in axes.texts] == ["1", "2", "3"]


def test_whole_games_stand_beside_real_ones():
    tiles = report.games(make_card())
    assert [tile.label for tile in tiles] == ["Share of points won (random)", "Points per 1,000 steps (random)"]
    assert "30" in tiles[0].beside[0]


def test_reliability_bars_are_wilson_intervals():
    chart = report.events(make_card())[1]
    (points,) = chart.series
    assert (points.x, points.y) == ((0.01, 0.9), (0.0, 1.0))
    assert points.low == pytest.approx((0, 0.4385), abs=1e-4)  # 3 of 3: 1 / (1 + 1.96^2 / 3)
    assert points.high == pytest.approx((0.0076, 1), abs=1e-4)
    assert report._wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)


def test_captions_are_sentences_and_legends_name_every_line(tmp_path):
    charts = [b for section in report.SECTIONS.values() for b in section(make_card()) if isinstance(b, Chart)]
    assert len(charts) == 7
    for chart in charts:
        assert chart.caption.endswith(".")
        names = Page(plots.legend(chart)).text
        assert all(line.label in names for line in chart.series if not line.points)
        assert all(name in names for name in chart.names)


def test_the_same_card_gives_the_same_page_whatever_the_users_settings(tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    first = write(tmp_path / "a")
    with matplotlib.rc_context({"lines.linewidth": 9, "svg.fonttype": "path", "axes.facecolor": "red"}):
        second = write(tmp_path / "b")
        assert matplotlib.rcParams["lines.linewidth"] == 9
    assert first == second


def test_drawings_use_named_colours_only_and_all_of_them_are_defined():
    pytest.importorskip("matplotlib")
    charts = [b for section in report.SECTIONS.values() for b in section(make_card()) if isinstance(b, Chart)]
    for chart in charts:
        drawn = draw(chart, "x")
        assert not re.search(r"#[0-9a-fA-F]{6}\b|rgb", drawn)
        assert set(re.findall(r"var\(--(\w+)\)", drawn)) <= set(PENS)
        assert "<text" in drawn
    assert plots.colours().count("--blue:") == 2


def test_lines_can_be_read_on_light_and_dark_pages_and_told_apart_without_colour():
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(a, b):
        low, high = sorted((luminance(a), luminance(b)))
        return (high + 0.05) / (low + 0.05)

    boxes = re.findall(r"--box:(#\w+)", page.STYLE)
    light, dark = (box if len(box) == 7 else "#" + "".join(2 * c for c in box[1:]) for box in boxes)
    lines = [pen for name, pen in PENS.items() if name not in ("ink", "grid")]
    assert min(contrast(pen.light, light) for pen in lines) > 4.5
    assert min(contrast(pen.dark, dark) for pen in lines) > 4.5
    assert len({pen.dashes for pen in lines}) == len(lines)
    assert len({pen.light for pen in PENS.values()}) == len(PENS)


def test_numbers_on_a_logarithmic_axis_keep_their_distance():
    assert spread([1, 2, 4, 5, 8, 10, 16, 20, 32, 64, 128]) == [1, 2, 4, 8, 16, 32, 64, 128]
    assert spread([3]) == [3]


def test_films_are_embedded_whole_and_enlarged_by_whole_numbers(tmp_path, no_matplotlib):
    frames = film()
    (image,) = Page(write(tmp_path, films=[("Clip", frames, 10.0)])).all("img")
    kind, _, data = image["src"].partition(",")
    assert kind == "data:image/webp;base64"
    shown = Image.open(io.BytesIO(base64.b64decode(data)))
    for t, frame in enumerate(frames):
        shown.seek(t)
        assert np.array_equal(np.asarray(shown.convert("RGB")), frame)
    small, large = (int(x) for x in re.findall(r":(\d+)px", image["style"]))
    assert (small, large) == (288, 480)
    assert "image-rendering:pixelated" in page.STYLE


def test_films_of_many_colours_stay_small(tmp_path, no_matplotlib):
    frames = np.random.default_rng(0).integers(0, 256, (64, 64, 128, 3), dtype=np.uint8)  # nothing to compress
    one = len(write(tmp_path, films=[("Noise", frames, 15.0)])) - len(write(tmp_path))
    assert one < 1.5 * 2**20
    simple = len(write(tmp_path, films=[("Few colours", film(20, 64, 128), 15.0)])) - len(write(tmp_path))
    assert simple < 2**16


def test_pictures_keep_every_pixel(tmp_path, no_matplotlib):
    picture = film()[3]
    page = Page(write(tmp_path, pictures=[("Layer 1", picture, "where it looks")]))
    data = page.all("img")[0]["src"].partition(",")[2]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), picture)
    assert "where it looks" in page.text
    assert "No attention maps" not in page.text
    assert "No attention maps" in Page(write(tmp_path)).text


def test_films_and_pictures_of_another_kind_are_refused(tmp_path, no_matplotlib):
    with pytest.raises(ValueError, match="uint8"):
        write(tmp_path, films=[("Clip", film().astype(np.float32), 15.0)])
    with pytest.raises(ValueError, match="uint8"):
        write(tmp_path, pictures=[("Layer 1", film(), "four dimensions")])
    assert not (tmp_path / "report.html").exists()


def test_a_section_is_a_function_and_a_heading(tmp_path, no_matplotlib, monkeypatch):
    monkeypatch.setitem(report.SECTIONS, "Is 5 < 6?", lambda card: [f"{card['world']} & more", Tile("a", "1")])
    page = Page(write(tmp_path))
    assert "Is 5 < 6? tiny & more a 1" in page.text


def test_trust_futures_and_long_dreams_have_their_figures():
    card = {
        "trust": {
            "curve": {"steps": [1, 8], "errors": [0.1, 0.4]},
            "calibration": {"doubts": [0.5, 2.0], "expected": [0.05, 0.6]},
            "judged": {"rank_correlation": 0.9, "by_horizon": {"1": 0.5, "10": 0.73, "64": 0.3}},
        },
        "counterfactuals": {
            "return": {"order": cell(0.9, 0.05), "regret": cell(0.2, 0.1), "regret_random": cell(0.8, 0.1)},
            "things": {"ball_x": {"order": cell(0.7, 0.1)}},
        },
        "long_dreams": {"dream": {"windows": {"alien": [0.0, 0.5]}}, "real": {"windows": {"alien": [0.01]}}},
    }
    tile, curve, calibration = report.trust(card)
    assert (tile.value, curve.series[0].y, calibration.series[0].x) == ("0.73", (0.1, 0.4), (0.5, 2.0))
    values = {tile.label: tile.value for tile in report.counterfactuals(card)}
    assert values["Futures in the right order (return)"] == "90\N{NO-BREAK SPACE}%"
    assert values["Return lost by trusting the dream's choice"] == "0.20"
    (alien,) = report.long_dreams(card)
    assert [(line.label, line.x, line.y) for line in alien.series] == [
        ("dream", (500.0, 1000.0), (0.0, 0.5)),
        ("real", (500.0,), (0.01,)),
    ]
    assert report.trust({}) == report.counterfactuals({}) == report.long_dreams({}) == []
