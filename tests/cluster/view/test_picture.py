"""The picture: what is on it, and that nothing is drawn beyond its edges or over one another."""

from collections import Counter
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from heliostat.cluster.spec import ClusterSpec
from heliostat.cluster.survey import LostNode
from heliostat.cluster.view.picture import draw, draw_on
from heliostat.cluster.view.picture_style import WIDTH
from heliostat.errors import UserError
from tests.cluster.view.clusters import A100, CPU, DGX1, large, mixed, mottled

LOST = (LostNode(node_id="x", name="v100-9", why="gone"),)
SINGLE = ClusterSpec.model_validate({"machines": {"dgx1": DGX1}, "nodes": [{"machine": "dgx1"}]})
PLAIN = ClusterSpec.model_validate(
    {"machines": {"c": CPU, "t": {"devices": "1 x T4"}}, "nodes": [{"machine": "c"}, {"machine": "t", "count": 2}]}
)
MANY_NICS = ClusterSpec.model_validate(
    {
        "machines": {
            "p5": {
                "devices": "8 x H100-80GB-SXM",
                "links": "NV18",
                "nics": [
                    {"name": f"rdmap{number}", "near": [number // 4], "numa": number // 16} for number in range(32)
                ],
            }
        },
        "nodes": [{"machine": "p5", "count": 2}],
    }
)


def drawn(cluster: ClusterSpec, lost: tuple[LostNode, ...] = ()) -> tuple[Axes, float]:
    axes = Figure().add_axes((0, 0, 1, 1))
    return axes, draw_on(axes, cluster, lost)


def texts(cluster: ClusterSpec, lost: tuple[LostNode, ...] = ()) -> Counter[str]:
    return Counter(text.get_text() for text in drawn(cluster, lost)[0].texts)


def test_every_pair_of_ends_has_its_cell() -> None:
    """28 pairs of 8 GPUs: 8 by NV2, 8 by NV1, 12 by SYS; the NIC is near four. Each twice, and once in the legend."""
    found = texts(SINGLE)
    assert [found[code] for code in ("NV2", "NV1", "SYS", "PIX", "?")] == [17, 17, 25, 9, 9]
    assert found["40 GB/s expected"] == 1
    assert found["2 NVLinks"] == 1
    assert (found["GPU7"], found["mlx5_0"]) == (2, 2)


def test_the_tree_shows_levels_and_folded_domains() -> None:
    found = texts(large())
    for words in ("3 x pod", "20 x rack", "16 x h100", "rack-78", "800 Gbit/s a node, 14 us", "1,250 nodes"):
        assert words in found
    assert any(text.startswith("rails: ") for text in found)


def test_many_different_racks_are_summed_up() -> None:
    found = texts(mottled(40))
    assert "and 25 more" in found
    assert f"{sum(range(16, 41)):,} nodes in all" in found


def test_emulation_and_losses_are_on_the_picture() -> None:
    found = texts(mixed(origin="emulated"), LOST)
    assert any(text.startswith("EMULATED: ") for text in found)
    assert "LOST: v100-9" in found
    assert not any("EMULATED" in text for text in texts(mixed()))


@pytest.mark.parametrize("cluster", [SINGLE, PLAIN, MANY_NICS, mixed(origin="emulated"), large(), mottled(40)])
def test_no_text_leaves_the_page_or_covers_another(cluster: ClusterSpec) -> None:
    axes, bottom = drawn(cluster, LOST)
    figure = axes.figure
    assert isinstance(figure, Figure)
    canvas = FigureCanvasAgg(figure)
    axes.set(xlim=(0, WIDTH), ylim=(bottom, 0))
    figure.set_size_inches(WIDTH, bottom)
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in axes.texts if text.get_text()]
    assert all(figure.bbox.containsx(box.x0) and figure.bbox.containsx(box.x1) for box in boxes)
    assert all(figure.bbox.containsy(box.y0) and figure.bbox.containsy(box.y1) for box in boxes)
    boxes.sort(key=lambda box: float(box.y0))
    overlaps = [
        (one, other)
        for place, one in enumerate(boxes)
        for other in boxes[place + 1 : place + 60]
        if one.overlaps(other) and min(one.y1, other.y1) - max(one.y0, other.y0) > 3
    ]
    assert overlaps == []


def test_more_kinds_of_machine_than_fit_are_counted() -> None:
    machines = {f"m{number}": {**A100, "links": f"NV{number + 1}"} for number in range(10)}
    cluster = ClusterSpec.model_validate({"machines": machines, "nodes": [{"machine": name} for name in machines]})
    found = texts(cluster)
    assert "Machine m7" in found
    assert "Machine m8" not in found
    assert "and 2 more kinds of machine: see the table" in found


def test_it_is_written_as_png(tmp_path: Path) -> None:
    draw(SINGLE, tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(content[16:20], "big") == 1320
    with pytest.raises(UserError, match="cannot be written"):
        draw(SINGLE, tmp_path / "nowhere" / "x.png")
