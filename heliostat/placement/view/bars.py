"""Where time and memory go: a bar for each stage or group of equal devices, its parts side by side. Pure."""

from collections.abc import Callable, Iterator, Mapping

from heliostat.placement.view.account import MEMORY_PARTS, TIME_PARTS, Account, DeviceGroup, StageAccount
from heliostat.placement.view.svg import (
    GUTTER,
    IDLE,
    WIDTH,
    Drawing,
    axis,
    legend,
    line,
    rect,
    row_name,
    text,
    ticks,
    time_ticks,
)
from heliostat.placement.view.words import GIB, MEMORY_WORDS, TIME_WORDS, devices_in_words, gib, seconds

BAR, GAP, TITLE = 26.0, 12.0, 28.0
NOTE = 182.0
"""Right of a bar, for its sum."""
PLOT = WIDTH - GUTTER - NOTE
TIME_COLORS = {
    "compute": "var(--blue)",
    "recompute": "var(--cyan)",
    "tensor": "var(--red)",
    "gather": "var(--green)",
    "host": "var(--grey)",
    "bubble": IDLE,
    "sync": "var(--purple)",
    "optimizer": "var(--yellow)",
}
MEMORY_COLORS = {
    "parameters": "var(--blue)",
    "gradients": "var(--cyan)",
    "optimizer": "var(--yellow)",
    "activations": "var(--red)",
    "temporary": "var(--green)",
    "reserve": "var(--grey)",
}
LIGHT = ("var(--cyan)", "var(--yellow)", "var(--red)", "var(--grey)")
"""Colours that dark text is read on."""


def time_bars(page: Account) -> Drawing:
    """What each stage does in one step."""
    most = max(sum(stage.seconds.values()) for stage in page.stages)
    scale = PLOT / most
    shown = [part for part in TIME_PARTS if any(stage.seconds[part] > most / 2000 for stage in page.stages)]
    colors = legend(TITLE, [(TIME_COLORS[part], TIME_WORDS[part]) for part in shown])
    top = TITLE + colors.height + 8
    bottom = top + len(page.stages) * (BAR + GAP)
    found = [text(0, 14, "Where the time goes, per stage and step", "title"), colors.body]
    values = ticks(most)
    found.append(axis(bottom, top - 4, scale, values, time_ticks(values)))
    for stage in page.stages:
        y = top + stage.number * (BAR + GAP)
        found.append(row_name(y, f"stage {stage.number}", devices_in_words(stage.groups)))
        found.extend(_parts(stage.seconds, TIME_COLORS, shown, scale, y, TIME_WORDS, seconds))
        found.append(text(GUTTER + PLOT + 8, y + 17, f"busy {stage.busy_s / page.step_s:.0%} of the step"))
    return Drawing(bottom + 22, "".join(found))


def memory_bars(page: Account) -> Drawing:
    """What one device of each group holds at its peak, and how much it has."""
    rows = [(stage, group) for stage in page.stages for group in stage.groups]
    most = max(max(group.capacity_bytes, group.used_bytes) for _, group in rows)
    scale = PLOT / most
    shown = [part for part in MEMORY_PARTS if any(group.memory_bytes[part] > most / 2000 for _, group in rows)]
    colors = legend(TITLE, [(MEMORY_COLORS[part], MEMORY_WORDS[part]) for part in shown])
    top = TITLE + colors.height + 8
    bottom = top + len(rows) * (BAR + GAP)
    found = [text(0, 14, "Memory of one device at its peak; the thick line is what it has", "title"), colors.body]
    values = ticks(most / GIB)
    words = [f"{value:g} GiB" if value else "0" for value in values]
    found.append(axis(bottom, top - 4, scale * GIB, values, words))
    for number, (stage, group) in enumerate(rows):
        found.append(_memory_row(stage, group, scale, top + number * (BAR + GAP), shown))
    return Drawing(bottom + 22, "".join(found))


def _memory_row(stage: StageAccount, group: DeviceGroup, scale: float, y: float, shown: list[str]) -> str:
    limit = GUTTER + group.capacity_bytes * scale
    found = [row_name(y, f"stage {stage.number}", f"each of {devices_in_words([group])}")]
    found.append(rect(GUTTER, y, group.capacity_bytes * scale, BAR, "var(--idle)"))
    found.extend(_parts(group.memory_bytes, MEMORY_COLORS, shown, scale, y, MEMORY_WORDS, gib))
    found.append(line([(limit, y - 3), (limit, y + BAR + 3)], "limit"))
    part = group.used_bytes / group.capacity_bytes
    note = f"{gib(group.used_bytes)} of {gib(group.capacity_bytes)}, {part:.0%}"
    found.append(text(GUTTER + PLOT + 8, y + 17, note, "" if group.fits else "alarm"))
    return "".join(found)


def _parts(
    values: Mapping[str, float],
    colors: Mapping[str, str],
    shown: list[str],
    scale: float,
    y: float,
    words: Mapping[str, str],
    say: Callable[[float], str],
) -> Iterator[str]:
    x = GUTTER
    for part in shown:
        width = values[part] * scale
        if width > 0:
            tip = f"{words[part]}: {say(values[part])}"
            yield rect(x, y, width, BAR, colors[part], style="cut" if width > 3 else "", tip=tip)
        if width > 46 and colors[part] != IDLE:
            style = "on-light" if colors[part] in LIGHT else "on-dark"
            yield text(x + width / 2, y + BAR / 2 + 4, say(values[part]), style, anchor="middle")
        x += width
