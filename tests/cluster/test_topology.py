"""The graph of a node as a value, and the questions it answers."""

import pytest

from heliostat.cluster.topology import Connection, Island, LinkClass, LinkKind, Nic, NodeTopology, TopologyDevice
from heliostat.errors import UserError

NV2, NV1 = (LinkClass(kind=LinkKind.NVLINK, num_links=count) for count in (2, 1))
PIX, PHB, SYS = (LinkClass(kind=kind) for kind in (LinkKind.PIX, LinkKind.PHB, LinkKind.SYS))


def node(num_devices: int, links: dict[tuple[str, str], LinkClass], nics: tuple[str, ...] = ()) -> NodeTopology:
    return NodeTopology(
        source="test",
        devices=tuple(TopologyDevice(name=f"GPU{index}", index=index) for index in range(num_devices)),
        nics=tuple(Nic(name=name, label=name) for name in nics),
        links=tuple(Connection(a=a, b=b, link=link) for (a, b), link in links.items()),
    )


def test_a_link_is_told_in_both_directions_and_to_itself() -> None:
    pair = node(3, {("GPU0", "GPU1"): NV2})
    assert pair.link("GPU0", "GPU1") == pair.link("GPU1", "GPU0") == NV2
    assert str(pair.link("GPU1", "GPU1")) == "X"
    assert pair.link("GPU0", "GPU2") is None


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match=r"no device or NIC 'GPU9' \(did you mean 'GPU"):
        node(2, {}).link("GPU0", "GPU9")


def test_closer_links_sort_first() -> None:
    xgmi = LinkClass(kind=LinkKind.XGMI, hops=1, weight=15)
    far = LinkClass(kind=LinkKind.XGMI, hops=2, weight=30)
    order = [NV2, NV1, xgmi, far, PIX, PHB, SYS]
    assert sorted([PHB, far, NV1, SYS, xgmi, NV2, PIX], key=lambda link: link.closeness) == order
    assert [str(link) for link in order] == ["NV2", "NV1", "XGMI", "XGMI", "PIX", "PHB", "SYS"]


def test_nearest_nics_are_all_that_are_equally_close() -> None:
    links = {("GPU0", "a"): PHB, ("GPU0", "b"): PIX, ("c", "GPU0"): PIX, ("GPU1", "a"): SYS}
    box = node(2, links, ("a", "b", "c"))
    assert box.nearest_nics("GPU0") == ("b", "c")
    assert box.nearest_nics("GPU1") == ("a",)
    assert node(1, {}).nearest_nics("GPU0") == ()


def test_islands_take_each_devices_best_class() -> None:
    """The best of GPU0 and GPU3 is PHB to GPUs that have better, so they stand alone; GPU4 has no link at all."""
    far = {(a, b): PHB for a in ("GPU0", "GPU3") for b in ("GPU1", "GPU2")}
    box = node(5, {("GPU1", "GPU2"): PIX, **far})
    assert box.islands() == (
        Island(devices=("GPU0",), link=None),
        Island(devices=("GPU1", "GPU2"), link=PIX),
        Island(devices=("GPU3",), link=None),
        Island(devices=("GPU4",), link=None),
    )


def test_islands_keep_link_counts_apart() -> None:
    """Two NV2 pairs joined by NV1 are two islands: a ring inside either is twice as fast as one across."""
    links = {("GPU0", "GPU3"): NV2, ("GPU1", "GPU2"): NV2, ("GPU0", "GPU1"): NV1, ("GPU2", "GPU3"): NV1}
    assert [island.devices for island in node(4, links).islands()] == [("GPU0", "GPU3"), ("GPU1", "GPU2")]


def test_a_ring_of_the_best_class_is_one_island() -> None:
    ring = {(f"GPU{index}", f"GPU{(index + 1) % 4}"): NV2 for index in range(4)}
    assert node(4, ring).islands() == (Island(devices=("GPU0", "GPU1", "GPU2", "GPU3"), link=NV2),)


def test_json_round_trip() -> None:
    box = node(2, {("GPU0", "GPU1"): NV2, ("GPU1", "mlx5_0"): PIX}, ("mlx5_0",))
    assert NodeTopology.model_validate_json(box.model_dump_json()) == box


@pytest.mark.parametrize(
    ("links", "nics", "message"),
    [
        ({}, ("GPU0",), "listed twice"),
        ({("GPU0", "GPU7"): PIX}, (), "links name GPU7"),
        ({("GPU0", "GPU0"): PIX}, (), "two different ends"),
        ({("GPU0", "GPU1"): PIX, ("GPU1", "GPU0"): PIX}, (), "each pair once"),
    ],
)
def test_a_value_that_is_no_graph_is_refused(
    links: dict[tuple[str, str], LinkClass], nics: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        node(2, links, nics)
