"""The pipeline of one step over time: a lane for each stage, a bar for each pass. Pure."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from heliostat.placement.schedule import Pass
from heliostat.placement.timeline import StepTimeline
from heliostat.placement.view.account import Account
from heliostat.placement.view.svg import (
    GUTTER,
    IDLE,
    WIDTH,
    Drawing,
    axis,
    legend,
    rect,
    row_name,
    text,
    ticks,
    time_ticks,
)
from heliostat.placement.view.words import devices_in_words, seconds

LANE, GAP, TITLE = 30.0, 8.0, 28.0
DIGIT_WIDTH = 7.0
"""Of the number of a micro-batch, which a bar has room for or not."""
COLORS = {"F": "var(--cyan)", "B": "var(--blue)", "W": "var(--green)"}
PASS_WORDS = {"F": "forward pass", "B": "backward pass", "W": "gradients of the parameters"}
INK_ON = {"F": "on-light", "B": "on-dark", "W": "on-dark"}
SYNC, UPDATE = "var(--purple)", "var(--yellow)"
MAX_BARS, BUCKET = 6000, 4.0
"""More bars than that are not drawn one by one but as parts of the time, for so many pixels at once."""
PLOT = WIDTH - GUTTER - 12


def gantt(page: Account, step: StepTimeline) -> Iterator[Drawing]:
    """The whole step, and where that is too fine to read, its beginning and its end."""
    most = max((one.end_s for one in step.passes), default=step.step_s)
    crowded = (_shortest(step.passes) * PLOT / step.step_s) < 2 * DIGIT_WIDTH
    yield _chart(page, step, 0.0, step.step_s, "One step, from its first forward pass to the update")
    if crowded:
        window = min(step.step_s / 2, _warm_up_s(step))
        yield _chart(page, step, 0.0, window, f"The first {seconds(window)}: how the pipeline fills")
        yield _chart(
            page, step, max(most - window * 0.9, 0.0), step.step_s, "The end: it drains, gradients are synchronised"
        )


def _shortest(passes: Sequence[Pass]) -> float:
    return min((one.end_s - one.start_s for one in passes), default=0.0)


def _warm_up_s(step: StepTimeline) -> float:
    """Until every stage has done two backward passes, and three forward passes longer."""
    stages = range(len(step.in_flight))
    second = [[one.end_s for one in step.passes if one.stage == stage and one.kind == "B"][:2][-1:] for stage in stages]
    forward = max((one.end_s - one.start_s for one in step.passes if one.kind == "F"), default=0.0)
    return max((ends[0] for ends in second if ends), default=step.step_s) + 3 * forward


def _chart(page: Account, step: StepTimeline, begin: float, end: float, title: str) -> Drawing:
    scale = PLOT / (end - begin)
    whole = begin == 0.0 and end == step.step_s
    crowded = whole and len(step.passes) > MAX_BARS
    colors = legend(TITLE, _colors(step)) if whole else Drawing(0.0, "")
    top = TITLE + colors.height + 8
    bottom = top + len(page.stages) * (LANE + GAP)
    note = "; heights: parts of the time" if crowded else ""
    found = [text(0, 14, f"{title}{note}", "title"), colors.body]
    values = [value for value in ticks(end, 8 if whole else int(8 * end / (end - begin))) if value >= begin]
    words = time_ticks(values)
    found.append(axis(bottom, top - 4, scale, [value - begin for value in values], words))
    for stage in page.stages:
        y = top + stage.number * (LANE + GAP)
        found.append(row_name(y, f"stage {stage.number}", devices_in_words(stage.groups)))
        found.append(rect(GUTTER, y, PLOT, LANE, IDLE))
        mine = [one for one in step.passes if one.stage == stage.number and one.end_s > begin and one.start_s < end]
        draw = _strip if crowded else _bars
        found.append("".join(draw(mine, begin, end, scale, y)))
        found.append(_tail(step, stage.number, begin, scale, y))
    return Drawing(bottom + 22, "".join(found))


def _bars(passes: Sequence[Pass], begin: float, end: float, scale: float, y: float) -> Iterator[str]:
    """Bars with a number and a tip where there is room, all narrow ones of a kind in one shape."""
    narrow: dict[str, list[str]] = {}
    for one in passes:
        first, last = max(one.start_s, begin), min(one.end_s, end)
        x, width = GUTTER + (first - begin) * scale, (last - first) * scale
        if width < DIGIT_WIDTH * (len(str(one.micro_batch)) + 0.7):
            narrow.setdefault(one.kind, []).append(f"M{x:.1f} {y:.0f}h{width:.1f}v{LANE:.0f}h-{width:.1f}z")
            continue
        chunk = f", part {one.chunk}" if one.chunk else ""
        tip = f"micro-batch {one.micro_batch}{chunk}, {PASS_WORDS[one.kind]}: {seconds(one.end_s - one.start_s)}"
        yield rect(x, y, width, LANE, COLORS[one.kind], style="cut", tip=tip)
        yield text(x + width / 2, y + LANE / 2 + 4, str(one.micro_batch), INK_ON[one.kind], anchor="middle")
    for kind, shapes in narrow.items():
        yield f'<path fill="{COLORS[kind]}" d="{"".join(shapes)}"/>'


def _strip(passes: Sequence[Pass], begin: float, end: float, scale: float, y: float) -> Iterator[str]:
    """For each few pixels how much of the time each kind of pass takes, as heights; equal neighbours in one bar."""
    wide = BUCKET / scale
    buckets: list[dict[str, float]] = [dict.fromkeys(COLORS, 0.0) for _ in range(int((end - begin) / wide) + 1)]
    for one in passes:
        first, last = (one.start_s - begin) / wide, (one.end_s - begin) / wide
        for at in range(int(first), min(int(last) + 1, len(buckets))):
            buckets[at][one.kind] += min(last, at + 1) - max(first, at)
    heights = [tuple(round(LANE * part) for part in one.values()) for one in buckets]
    edges = [0, *(at for at in range(1, len(heights)) if heights[at] != heights[at - 1]), len(heights)]
    for first_bucket, end_bucket in pairwise(edges):
        bottom = y + LANE
        for kind, height in zip(COLORS, heights[first_bucket], strict=True):
            bottom -= height
            if height:
                width = (end_bucket - first_bucket) * BUCKET
                yield rect(GUTTER + first_bucket * BUCKET, bottom, width, height, COLORS[kind])


def _tail(step: StepTimeline, stage: int, begin: float, scale: float, y: float) -> str:
    """What follows the passes."""
    found, start = [], step.pipeline_s
    for length, color, words in (
        (step.sync_s[stage], SYNC, "gradient synchronisation"),
        (step.optimizer_s[stage], UPDATE, "update of the parameters"),
    ):
        x, width = GUTTER + (start - begin) * scale, length * scale
        visible = min(width, GUTTER + PLOT - x)
        if visible > 0.2:
            found.append(rect(x, y, visible, LANE, color, tip=f"{words}: {seconds(length)}"))
        start += length
    return "".join(found)


def _colors(step: StepTimeline) -> list[tuple[str, str]]:
    kinds = {one.kind for one in step.passes}
    items = [(COLORS[kind], PASS_WORDS[kind]) for kind in COLORS if kind in kinds]
    return [*items, (SYNC, "gradient synchronisation"), (UPDATE, "update"), (IDLE, "waiting")]
