"""A plan as one HTML file to look at: pictures, words and tables, nothing loaded from anywhere. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from heliostat.placement.timeline import StepTimeline
from heliostat.placement.view.account import Account
from heliostat.placement.view.bars import memory_bars, time_bars
from heliostat.placement.view.devices import device_map
from heliostat.placement.view.explain import explain, origin_in_words, subject
from heliostat.placement.view.gantt import gantt
from heliostat.placement.view.svg import STYLE, Drawing, picture, stack, text
from heliostat.placement.view.words import SCHEDULE_WORDS, kinds_in_words, large, seconds

PAGE_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.55 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 24px; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 44px 0 4px; }
p { margin: 6px 0; max-width: 46em; }
.faint { color: var(--faint); }
.origin { margin: 14px 0; padding: 8px 14px; border-left: 4px solid var(--yellow); background: var(--card);
  max-width: none; }
.origin.emulated { border-color: var(--alarm); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 12px; margin: 20px 0; }
.figure { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px 16px; }
.figure b { display: block; font-size: 24px; line-height: 1.3; }
.figure span { color: var(--faint); font-size: 13px; }
svg.plan { width: 100%; height: auto; margin: 10px 0 4px; }
table { border-collapse: collapse; font-size: 14px; margin: 10px 0; width: 100%; }
th { text-align: left; font-weight: 600; border-bottom: 1px solid var(--line); padding: 4px 12px 4px 0; }
td { border-bottom: 1px solid var(--line); padding: 5px 12px 5px 0; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
""".strip()


def html(page: Account, step: StepTimeline) -> str:
    """The whole file."""
    return "\n".join(_lines(page, step)) + "\n"


def overview_svg(page: Account, step: StepTimeline) -> str:
    """One picture by itself: who holds what, the step over time, memory."""
    title = f"{page.name} on {kinds_in_words(page.devices)}: {seconds(page.step_s)} a step"
    heading = text(0, 18, title, "heading") + text(0, 38, f"{subject(page)}. {origin_in_words(page)}", "faint")
    first = next(gantt(page, step))
    drawing = stack([Drawing(42.0, heading), device_map(page), first, memory_bars(page)], gap=34.0)
    return picture(drawing, f"The plan of {page.name}", margin=24.0, alone=True) + "\n"


def _lines(page: Account, step: StepTimeline) -> Iterator[str]:
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(page.name)}: plan</title><style>{STYLE}\n{PAGE_STYLE}</style></head><body><main>"
    yield f"<h1>{escape(page.name)} on {escape(kinds_in_words(page.devices))}</h1>"
    yield f'<p class="faint">{escape(subject(page))}</p>'
    style = "origin emulated" if page.origin == "emulated" else "origin"
    yield f'<p class="{style}">{escape(origin_in_words(page))}</p>'
    yield _figures(page)
    sections = dict(explain(page))
    yield _section("The plan", sections["plan"], [device_map(page)])
    yield _section("Over time", _how_to_read_time(page), list(gantt(page, step)))
    yield _section("Time", sections["time"], [time_bars(page)])
    yield _section("Memory", sections["memory"], [memory_bars(page)])
    yield _section("What keeps it from being faster", sections["binding"], [])
    yield from _others(page, sections)
    yield "</main></body></html>"


def _figures(page: Account) -> str:
    samples = page.global_batch / page.step_s
    tokens = samples * page.seq_len
    fullest = max(
        (group.used_bytes / group.capacity_bytes for stage in page.stages for group in stage.groups), default=0.0
    )
    peak = (f"{page.utilisation:.0%}", "of the devices' peak, in useful operations") if page.utilisation else None
    figures = (
        (seconds(page.step_s), f"a step; four of five between {seconds(page.low_s)} and {seconds(page.high_s)}"),
        (f"{large(tokens)}", "tokens a second" if page.seq_len > 1 else "samples a second"),
        peak,
        (f"{fullest:.0%}", "of the memory of the fullest device" if page.fits else "of its memory: it does NOT fit"),
    )
    boxes = "".join(
        f'<div class="figure"><b>{escape(value)}</b><span>{escape(words)}</span></div>'
        for value, words in filter(None, figures)
    )
    return f'<div class="figures">{boxes}</div>'


def _section(title: str, words: Iterable[str], drawings: Sequence[Drawing]) -> str:
    paragraphs = "".join(f"<p>{escape(one)}</p>" for one in words)
    pictures = "".join(picture(one, title) for one in drawings)
    return f"<h2>{escape(title)}</h2>{paragraphs}{pictures}"


def _how_to_read_time(page: Account) -> Iterator[str]:
    if len(page.stages) == 1:
        yield "The lane is what the slowest replica does in one step. Numbers are those of its micro-batches."
        return
    yield (
        f"Each lane is a stage. A micro-batch goes through the stages from the top down (forward), then its gradients "
        f"come back up (backward); the schedule, {SCHEDULE_WORDS[page.schedule]}, says who does what when. Where a "
        f"lane is hatched, the stage waits. Numbers are those of the micro-batches; times are of the slowest replica."
    )


def _others(page: Account, sections: dict[str, list[str]]) -> Iterator[str]:
    if page.rivals:
        yield "<h2>Runners-up, and why they lost</h2>"
        yield '<table><tr><th class="number">step</th><th>plan</th><th>why it lost</th></tr>'
        yield f'<tr><td class="number">{seconds(page.step_s)}</td><td><b>this plan</b></td><td></td></tr>'
        for one in page.rivals:
            yield f'<tr><td class="number">{seconds(one.step_s)}</td><td>{escape(one.plan)}</td>'
            yield f"<td>{escape(one.why)}</td></tr>"
        yield "</table>"
    if sections["search"]:
        yield "<h2>What was looked at</h2>" + "".join(f"<p>{escape(one)}</p>" for one in sections["search"])
