"""Drawing in SVG: shapes and text as strings, and how pictures look. Pure.

Colours are CSS variables, so that one picture serves light and dark pages, inside a page and on its own. They are the
`bright` scheme of Paul Tol (2021), which people with any colour vision tell apart; waiting is hatched, not coloured.
"""

import textwrap
from collections.abc import Iterable, Sequence
from html import escape
from math import ceil, floor, log10
from typing import NamedTuple

WIDTH = 1080.0
LETTER, SMALL_LETTER = 6.9, 6.1
"""Width of a letter of text and of small text, in the mean of wide fonts."""
GUTTER = 190.0
"""Left of a chart, for the names of its rows."""

STYLE = """
:root { --paper: #ffffff; --card: #f5f7f9; --ink: #1b2a38; --faint: #5d6c7a; --line: #cdd6de; --alarm: #b3007d;
  --idle: #e6ebef; --hatch: #c3ccd4; --blue: #4477aa; --cyan: #66ccee; --green: #228833; --yellow: #ccbb44;
  --red: #ee6677; --purple: #aa3377; --grey: #a9b1b8; }
@media (prefers-color-scheme: dark) { :root { --paper: #14191e; --card: #1c2329; --ink: #e4eaf0; --faint: #9aa8b5;
  --line: #3a454f; --alarm: #ff7ac8; --idle: #262e35; --hatch: #3d4852; --blue: #5d93c9; --cyan: #7fd4f2;
  --green: #3aa552; --yellow: #d4c455; --red: #f07f8e; --purple: #c9589a; --grey: #7d8790; } }
.plan text { font: 12px system-ui, sans-serif; fill: var(--ink); }
.plan .heading { font-size: 19px; font-weight: 600; }
.plan .title { font-size: 15px; font-weight: 600; }
.plan .strong { font-weight: 600; }
.plan .faint { fill: var(--faint); }
.plan .small { font-size: 10.5px; }
.plan .alarm { fill: var(--alarm); font-weight: 600; }
.plan .on-dark { fill: #ffffff; font-size: 10px; }
.plan .on-light { fill: #14222e; font-size: 10px; }
.plan .axis { stroke: var(--line); stroke-width: 1; fill: none; }
.plan .frame { stroke: var(--faint); stroke-width: 1.2; fill: none; }
.plan .limit { stroke: var(--ink); stroke-width: 2; fill: none; }
.plan .box { fill: var(--card); stroke: var(--line); }
.plan .cut { stroke: var(--paper); stroke-width: 1; }
""".strip()
HATCH = (
    '<defs><pattern id="idle" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="6" height="6" fill="var(--idle)"/><rect width="2" height="6" fill="var(--hatch)"/></pattern></defs>'
)
IDLE = "url(#idle)"


class Drawing(NamedTuple):
    """A part of a picture."""

    height: float
    body: str


def stack(parts: Iterable[Drawing], gap: float = 28.0) -> Drawing:
    """The parts below one another."""
    placed, y = [], 0.0
    for part in parts:
        placed.append(f'<g transform="translate(0 {y:.1f})">{part.body}</g>')
        y += part.height + gap
    return Drawing(max(0.0, y - gap), "".join(placed))


def picture(drawing: Drawing, label: str, *, margin: float = 0.0, alone: bool = False) -> str:
    """The `svg` element; `alone`, a file by itself, with what a page else says."""
    width, height = WIDTH + 2 * margin, drawing.height + 2 * margin
    start = (
        f'<svg class="plan" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'role="img" aria-label="{escape(label)}">'
    )
    paper = f'<style>{STYLE}</style><rect width="100%" height="100%" fill="var(--paper)"/>' if alone else ""
    body = f'<g transform="translate({margin:.0f} {margin:.0f})">{drawing.body}</g>'
    return f"{start}{paper}{HATCH}{body}</svg>"


def text(x: float, y: float, words: str, style: str = "", *, anchor: str = "start") -> str:
    """A line of text that stands on `y`."""
    aligned = "" if anchor == "start" else f' text-anchor="{anchor}"'
    named = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{named}{aligned}>{escape(words)}</text>'


def rect(x: float, y: float, width: float, height: float, fill: str = "", *, style: str = "", tip: str = "") -> str:
    """A rectangle; `tip` shows when the pointer rests on it."""
    attributes = f' fill="{fill}"' if fill else ""
    attributes += f' class="{style}"' if style else ""
    place = f'x="{x:.2f}" y="{y:.1f}" width="{max(width, 0.0):.2f}" height="{height:.1f}"'
    return f"<rect {place}{attributes}><title>{escape(tip)}</title></rect>" if tip else f"<rect {place}{attributes}/>"


def line(points: Sequence[tuple[float, float]], style: str) -> str:
    """Straight lines through the points."""
    return f'<polyline class="{style}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def legend(y: float, items: Iterable[tuple[str, str]]) -> Drawing:
    """Colours and what they mean, side by side below one another, from `y` on."""
    found, x, top = [], GUTTER, y
    for fill, words in items:
        width = 17 + LETTER * len(words)
        if x > GUTTER and x + width > WIDTH:
            x, y = GUTTER, y + 18
        found.append(rect(x, y, 12, 12, fill) + text(x + 17, y + 10, words))
        x += width + 18
    return Drawing(y + 18 - top, "".join(found))


def row_name(y: float, name: str, words: str) -> str:
    """The name of the row that begins at `y`, and in small letters what it is, in up to two lines."""
    lines = wrapped(words, GUTTER - 8)[:2]
    found = [text(0, y + (13 if len(lines) < 2 else 8), name, "strong")]
    found += [
        text(0, y + (26 if len(lines) < 2 else 19 + 11 * number), words_, "faint small")
        for number, words_ in enumerate(lines)
    ]
    return "".join(found)


def wrapped(words: str, width: float) -> list[str]:
    """`words` in lines that small text has room for in `width`."""
    return textwrap.wrap(words, max(1, int(width / SMALL_LETTER)))


def ticks(most: float, wanted: int = 6) -> list[float]:
    """Round values from 0 up to `most`, about as many as `wanted`."""
    if most <= 0:
        return [0.0]
    rough = most / wanted
    size = 10.0 ** floor(log10(rough))
    step = next(one * size for one in (1, 2, 2.5, 5, 10) if one * size >= rough * 0.999)
    return [step * number for number in range(ceil(most / step + 1e-9))]


def time_ticks(values: Sequence[float]) -> list[str]:
    """Seconds at an axis, all in one unit."""
    factor, unit = (1.0, "s") if max(values, default=1.0) >= 1 else (1e3, "ms")
    return [f"{value * factor:g} {unit}" if value else "0" for value in values]


def axis(y: float, top: float, scale: float, values: Iterable[float], words: Iterable[str]) -> str:
    """A horizontal axis at `y` with grid lines up to `top`; `scale` is pixels per unit."""
    found = []
    for value, word in zip(values, words, strict=True):
        x = GUTTER + value * scale
        anchor = "middle" if x < WIDTH - 30 else "end"
        found.append(line([(x, top), (x, y)], "axis") + text(x, y + 15, word, "faint small", anchor=anchor))
    return "".join(found)
