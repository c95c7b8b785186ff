"""How pictures look: sizes in inches, colours that people with any colour vision tell apart, and text."""

from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

Color = tuple[float, float, float]
WIDTH, MARGIN = 12.0, 0.4
INK, FAINT, ALARM, PAPER, TINT = "#1b2a38", "#7c8a97", "#b3007d", "#f3f6f8", "#dbe8f2"
_RAMP = colormaps["YlGnBu"]
"""Lightness falls all along it, so that it reads in grey too (ColorBrewer)."""


def strong(strength: float) -> Color:
    """A colour for 0, far apart, to 1, joined closely."""
    red, green, blue, _ = _RAMP(strength)
    return red, green, blue


def readable_on(background: Color) -> str:
    """The colour of text on `background`."""
    red, green, blue = to_rgb(background)
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else INK


def write(axes: Axes, x: float, y: float, text: str, *, size: float, **style: Any) -> None:
    """Write `text` literally, from `x` on and centred on `y` unless `style`, in matplotlib's words, says else."""
    usual = {"color": INK, "ha": "left", "va": "center"}
    axes.text(x, y, text, fontsize=size, parse_math=False, **(usual | style))


def shortened(text: str, length: int) -> str:
    """`text`, its end cut where it is longer than `length`."""
    return text if len(text) <= length else f"{text[: length - 1]}\u2026"
