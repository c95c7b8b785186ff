"""The page and its pictures: well-formed, self-contained, and drawn to scale."""

import re
from xml.etree import ElementTree as ET

import pytest

from heliostat.placement.plan_file import PlanFile
from heliostat.placement.strategy import Strategy
from heliostat.placement.view.account import account_of
from heliostat.placement.view.gantt import COLORS, MAX_BARS, gantt
from heliostat.placement.view.page import html, overview_svg
from heliostat.placement.view.svg import GUTTER, WIDTH, picture, ticks
from tests.placement.view.plans import CLUSTER, plan, strategy, uneven

SPLITS = [strategy(), strategy(schedule="zero-bubble"), strategy(schedule="interleaved", chunks=2), uneven()]


def drawn(written: PlanFile) -> tuple[str, list[ET.Element]]:
    page = html(*account_of(written))
    return page, [ET.fromstring(one) for one in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


@pytest.mark.parametrize("split", SPLITS)
def test_a_page_is_whole_and_loads_nothing(split: Strategy) -> None:
    page, pictures = drawn(plan(split))
    assert len(pictures) >= 4
    assert page.count("<main>") == page.count("</main>") == 1
    links = re.findall(r'https?://[^"<\s]+', page)
    assert set(links) <= {"http://www.w3.org/2000/svg"}
    for word in ("<script", "<link", "<img", "@import", "url(http", "nan", "inf"):
        assert word not in page


@pytest.mark.parametrize("split", SPLITS)
def test_nothing_is_drawn_outside(split: Strategy) -> None:
    _, pictures = drawn(plan(split))
    for one in pictures:
        _, _, width, height = map(float, one.attrib["viewBox"].split())
        for shape in one.iter("{http://www.w3.org/2000/svg}rect"):
            if "x" in shape.attrib:
                assert float(shape.attrib["x"]) + float(shape.attrib["width"]) <= width + 0.1
                assert float(shape.attrib["y"]) + float(shape.attrib["height"]) <= height + 0.1


def test_names_are_escaped() -> None:
    written = plan()
    workload = written.workload.model_copy(update={"name": "<b>&amp;"})
    page, _ = drawn(written.model_copy(update={"workload": workload}))
    assert "<b>&amp;" not in page.replace("&lt;b&gt;&amp;amp;", "").replace("<b>this plan", "")


def test_passes_are_drawn_to_scale() -> None:
    written = plan(strategy(schedule="gpipe", micro_batch=16))
    account, step = account_of(written)
    first = next(gantt(account, step))
    bars = [
        shape
        for shape in ET.fromstring(picture(first, "x")).iter("{http://www.w3.org/2000/svg}rect")
        if shape.attrib.get("fill") == COLORS["F"] and len(shape)
    ]
    scale = (WIDTH - GUTTER - 12) / step.step_s
    widths = sorted(float(shape.attrib["width"]) for shape in bars)
    expected = sorted((one.end_s - one.start_s) * scale for one in step.passes if one.kind == "F")
    assert widths == pytest.approx(expected, abs=0.01)


def test_many_passes_are_drawn_as_parts_of_the_time() -> None:
    account, step = account_of(plan())
    rounds = [
        one._replace(start_s=one.start_s + number * step.pipeline_s, end_s=one.end_s + number * step.pipeline_s)
        for number in range(50)
        for one in step.passes
    ]
    long = step._replace(passes=tuple(rounds), step_s=50 * step.pipeline_s, pipeline_s=50 * step.pipeline_s)
    assert len(rounds) > MAX_BARS
    first = next(gantt(account, long))
    assert "heights: parts of the time" in first.body
    assert len(first.body) < 200_000


def test_the_picture_alone_brings_its_style() -> None:
    text = overview_svg(*account_of(plan()))
    assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme: dark" in text


def test_an_emulation_is_marked() -> None:
    page, _ = drawn(plan(cluster=CLUSTER.model_copy(update={"origin": "emulated"})))
    assert 'class="origin emulated">EMULATED' in page


@pytest.mark.parametrize("most", [0.0, 3e-4, 0.9, 1.0, 7.0, 24.2, 760.0, 1e5])
def test_ticks_are_round_and_few(most: float) -> None:
    found = ticks(most)
    assert found[0] == 0
    assert len(found) <= 12
    assert all(value <= most * 1.001 for value in found)


def test_what_does_not_fit_is_marked() -> None:
    page, _ = drawn(plan(strategy(micro_batch=16)))
    assert 'class="alarm"' in page
    assert "it does NOT fit" in page
    assert 'class="alarm"' not in drawn(plan())[0]
