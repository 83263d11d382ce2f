"""Blocks, films and pictures as one HTML page that needs no network."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

import numpy as np
from markdown_it import MarkdownIt
from PIL import Image

from neuralsim.evaluation.plots import Chart, draw, legend
from neuralsim.pictures import check_frame

Film = tuple[str, np.ndarray, float]
"""Title, frames ``(T, H, W, 3)`` uint8, frames per second."""
Picture = tuple[str, np.ndarray, str]
"""Title, picture ``(H, W, 3)`` uint8, caption."""


LARGEST = 2**20
"""Bytes of a film from which on it is compressed with loss."""


@dataclass(frozen=True)
class Tile:
    """A key figure.

    Attributes:
        label: What it is.
        value: The figure.
        interval: Its 95 % interval, or nothing.
        beside: What to compare it with, line by line.
    """

    label: str
    value: str
    interval: str = ""
    beside: tuple[str, ...] = ()


Block = Tile | Chart | str
"""A key figure, a plot, or a paragraph of plain text."""


def blocks(shown: list[Block], count: Iterable[int]) -> list[str]:
    """Blocks as HTML; neighbours of one kind share a grid."""
    numbers, parts = iter(count), []
    for kind, group in itertools.groupby(shown, type):
        if kind is str:
            parts += [f"<p>{escape(str(block))}</p>" for block in group]
            continue
        parts.append(f'<div class="{"tiles" if kind is Tile else "charts"}">')
        for block in group:
            if isinstance(block, Tile):
                rows = [("label", block.label), ("value", block.value), ("interval", block.interval)]
                rows += [("beside", line) for line in block.beside]
                inner = "".join(f'<div class="{name}">{escape(row)}</div>' for name, row in rows if row)
                parts.append(f'<div class="tile">{inner}</div>')
            elif isinstance(block, Chart):
                drawing = draw(block, f"plot{next(numbers)}")
                parts.append(
                    f"<figure><h3>{escape(block.title)}</h3>{drawing}{legend(block)}"
                    f"<figcaption>{escape(block.caption)}</figcaption></figure>"
                )
        parts.append("</div>")
    return parts


def films(shown: Iterable[Film]) -> list[str]:
    """Films as a section; nothing without any."""
    parts = []
    for title, frames, fps in shown:
        data = base64.b64encode(webp(frames, fps)).decode()
        width, rate = frames[0].shape[1], f"{len(frames)} frames, {fps:g} a second"
        # A page enlarges for nothing what a file would pay for; by whole numbers, on a phone and on a desk.
        small, large = (max(1, room // width) * width for room in (288, 480))
        parts.append(
            f'<figure><img class="film" alt="{escape(title)}" style="--small:{small}px;--large:{large}px" '
            f'src="data:image/webp;base64,{data}"><figcaption>{escape(title)} ({rate})</figcaption></figure>'
        )
    return ["<section><h2>Real and dreamed</h2>", '<div class="films">', *parts, "</div></section>"] if parts else []


def webp(frames: np.ndarray, fps: float) -> bytes:
    """Frames ``(T, H, W, 3)`` uint8 as an animation: every pixel as it is, unless that takes more than a megabyte.

    Raises:
        ValueError: If they are no frames, or there are none.
    """
    if not len(frames):
        raise ValueError("a film has no frames")
    images = [Image.fromarray(check_frame(frame)) for frame in frames]
    for options in ({"lossless": True, "quality": 30}, {"quality": 80}):
        buffer = io.BytesIO()
        images[0].save(
            buffer,
            "WEBP",
            save_all=True,
            append_images=images[1:],
            duration=round(1000 / fps),
            loop=0,
            method=2,
            **options,
        )
        if buffer.tell() <= LARGEST:
            break
    return buffer.getvalue()


def pictures(shown: Iterable[Picture]) -> list[str]:
    """Attention maps as a section, which says so where there are none."""
    parts = []
    for title, picture, caption in shown:
        buffer = io.BytesIO()
        Image.fromarray(check_frame(picture)).save(buffer, format="PNG", optimize=True)
        data = base64.b64encode(buffer.getvalue()).decode()
        parts.append(
            f'<figure><h3>{escape(title)}</h3><div class="scroll"><img alt="{escape(title)}" '
            f'src="data:image/png;base64,{data}"></div><figcaption>{escape(caption)}</figcaption></figure>'
        )
    none = "<p>No attention maps: only a world whose dynamics is a transformer has attention to show.</p>"
    inner = ['<div class="pictures">', *parts, "</div>"] if parts else [none]
    return ["<section><h2>What does it look at?</h2>", *inner, "</section>"]


def markdown(text: str) -> str:
    """Markdown as HTML; its headings one level down, its tables in boxes that scroll, HTML in it as text."""
    # No pictures: they would be fetched from wherever the text says.
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = parser.parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1:]) + 1)}"
    html = parser.renderer.render(tokens, parser.options, {})
    return html.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")


# Nothing may be fetched, whatever stands in the card: the browser itself sees to it.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
STYLE = """
:root{color-scheme:light dark;--page:#f6f7f9;--box:#fff;--text:#1c1f24;--soft:#545a64;--edge:#d9dde3}
@media (prefers-color-scheme:dark){:root{--page:#101216;--box:#191c22;--text:#e8eaee;--soft:#a9b0bb;--edge:#323741}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);font:1rem/1.5 system-ui,sans-serif}
main{max-width:76rem;margin:auto;padding:1rem clamp(.75rem,3vw,2rem) 4rem}
h1{font-size:1.7rem;line-height:1.2;margin:.6rem 0 .3rem}
h2{font-size:1.3rem;line-height:1.25;margin:2.2rem 0 .8rem}
h3{font-size:1rem;margin:0 0 .4rem}
h1,h2,h3,figcaption,.label,.beside,li{overflow-wrap:anywhere}
.lead,figcaption,.interval,.beside{color:var(--soft)}
.note{padding:.7rem 1rem;border:1px solid var(--edge);border-left:4px solid var(--orange);background:var(--box)}
.tiles,.charts,.pictures{display:grid;gap:.8rem}
.tiles{grid-template-columns:repeat(auto-fill,minmax(min(100%,13.5rem),1fr));margin-bottom:.8rem}
.charts{grid-template-columns:repeat(auto-fill,minmax(min(100%,22rem),1fr))}
.pictures{grid-template-columns:minmax(0,1fr)}
.films{display:flex;flex-wrap:wrap;gap:.8rem}
.films figcaption{width:0;min-width:100%}
.tile,figure{margin:0;padding:.8rem 1rem;background:var(--box);border:1px solid var(--edge);border-radius:.6rem}
.label{font-size:.85rem;font-weight:600}
.value{font-size:1.75rem;line-height:1.3;font-weight:650;font-variant-numeric:tabular-nums}
.interval,.beside,figcaption{font-size:.85rem;line-height:1.4}
.plot{display:block;width:100%;height:auto}
.plot *{stroke-linejoin:round;stroke-linecap:butt}
.legend{display:flex;flex-wrap:wrap;gap:.1rem 1rem;margin:.4rem 0;padding:0;font-size:.8rem;list-style-position:inside}
ul.legend{list-style:none}
.swatch{width:26px;height:8px;margin-right:.4rem}
figcaption{margin-top:.4rem}
img{display:block;image-rendering:pixelated}
.film{width:var(--small);max-width:100%}
@media (min-width:60rem){.film{width:var(--large)}}
.scroll{overflow-x:auto}
.card{margin-top:3rem;border-top:1px solid var(--edge)}
.card h3{font-size:1.1rem;margin:1.6rem 0 .5rem}
code{font-size:.9em;overflow-wrap:anywhere}
table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .6rem;text-align:left;white-space:nowrap;border-bottom:1px solid var(--edge)}
th:first-child,td:first-child{position:sticky;left:0;background:var(--page)}
"""
