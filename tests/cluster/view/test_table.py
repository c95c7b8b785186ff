"""What the terminal shows: everything that was found, and an emulation cannot be mistaken for hardware."""

import io
from typing import Any

import pytest
from rich.console import Console

from heliostat.cluster.spec import ClusterSpec
from heliostat.cluster.survey import LostNode, Survey
from heliostat.cluster.view.overview import Overview, some
from heliostat.cluster.view.table import page
from tests.cluster.view.clusters import A100, CPU, large, mixed
from tests.cluster.view.test_comparison import measured


def shown(survey: Survey, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(page(Overview.of(survey, "here"), survey.cluster))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_pools_islands_and_fabric() -> None:
    text = shown(Survey(cluster=mixed()))
    for words in (
        "here: 6 nodes, 48 devices: 16 x A100-40GB-SXM, 32 x V100-32GB-SXM",
        "2: a100-0, a100-1",
        "4: v100-0 .. v100-3",
        "NV2 in a ring, NV1 in a ring, SYS elsewhere",
        "islands  2 groups of 8 x A100-40GB-SXM over NV12; 4 groups of 8 x V100-32GB-SXM over NV2",
        "site: 100 Gbit/s a node, 20 us",
        "rack r1: 400 Gbit/s a node, 14 us",
        "4 x v100",
    ):
        assert words in text
    assert "EMULATED" not in text
    assert "LOST" not in text


def test_an_emulation_says_so_where_one_looks() -> None:
    overview = Overview.of(Survey(cluster=mixed(origin="emulated")), "here")
    text = shown(Survey(cluster=mixed(origin="emulated")))
    assert text.startswith(" EMULATED: ")
    assert "Nodes (EMULATED)" in text
    assert overview.model_dump()["origin"] == "emulated"


def test_lost_nodes_have_a_row_of_their_own() -> None:
    lost = (LostNode(node_id="x", name="v100-9", why="its raylet is gone"),)
    text = shown(Survey(cluster=mixed(), lost=lost))
    assert "6 nodes and 1 LOST" in text
    row = next(line for line in text.splitlines() if "v100-9" in line)
    assert "LOST" in row
    assert "its raylet is gone" in row


def test_measured_figures_stand_beside_expected_ones() -> None:
    text = shown(Survey(cluster=mixed().model_copy(update={"measured": measured()})))
    row = next(line for line in text.splitlines() if "fp16" in line)
    assert [word in row for word in ("90 TFLOP/s", "125 TFLOP/s", "72%")] == [True] * 3
    assert "torch 2.13" in text
    emulated = measured().model_copy(update={"emulated": True})
    assert "on EMULATED devices" in shown(
        Survey(cluster=mixed(origin="emulated").model_copy(update={"measured": emulated}))
    )


def test_speeds_that_were_measured_are_told() -> None:
    cluster = ClusterSpec.model_validate(
        {"machines": {"c": CPU}, "nodes": [{"machine": "c", "count": 2, "speeds": [[1.0, 0.5], [0.8, 0.9]]}]}
    )
    assert "measured speed 0.50 to 1.00" in shown(Survey(cluster=cluster))


def test_ten_thousand_gpus_fit_on_a_screen() -> None:
    text = shown(Survey(cluster=large()), width=150)
    assert len(text.splitlines()) < 25
    for words in ("1,250 nodes, 10,000 devices", "3 x pod (pod-0, pod-1, pod-2)", "20 x rack", "16 x h100", "rails"):
        assert words in text


@pytest.mark.parametrize("width", [40, 80])
def test_a_narrow_terminal_cuts_nothing(width: int) -> None:
    lines = shown(Survey(cluster=mixed()), width).splitlines()
    assert max(map(len, lines)) <= width
    assert "\u2026" not in "".join(lines)


def test_names_are_not_taken_for_markup() -> None:
    data: dict[str, Any] = {"machines": {"a[red]": A100}, "nodes": [{"machine": "a[red]", "count": 1}]}
    survey = Survey(cluster=ClusterSpec.model_validate(data), remarks=("[bold]odd[/bold]",))
    assert "a[red]-0" in shown(survey)
    assert "remark: [bold]odd[/bold]" in shown(survey)


def test_an_empty_cluster_is_told_as_such() -> None:
    lost = (LostNode(node_id="x", name="n1", why="gone"),)
    text = shown(Survey(cluster=ClusterSpec(nodes=(), origin="live"), lost=lost))
    assert "0 nodes and 1 LOST, 0 devices" in text


def test_many_names_are_told_by_the_ends() -> None:
    assert some(["a", "b", "c"]) == "a, b, c"
    assert some([f"n{number}" for number in range(9)]) == "n0 .. n8"
