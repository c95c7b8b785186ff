"""Bandwidth in a whole cluster: inside nodes, at the NICs, across the fabric."""

import pytest

from heliostat.cluster.network import Network
from heliostat.cluster.spec import ClusterSpec, DeviceId
from heliostat.errors import UserError

H100 = {"devices": "8 x H100-80GB-SXM", "links": "NV18", "nics": "8 x 400 Gbit/s"}
OWN_NICS = [{"name": f"mlx5_{index}", "gbit_per_s": 400, "near": [index]} for index in range(8)]
LEVELS = [
    {"name": "leaf", "nodes": 2, "gbit_per_s": 3200, "latency_us": 5},
    {"name": "pod", "nodes": 4, "gbit_per_s": 1600, "latency_us": 10},
    {"name": "core", "gbit_per_s": 80, "latency_us": 20},
]


def network(count: int = 8, *, rails: bool = False, **machine: object) -> Network:
    data = {
        "machines": {"h100": {**H100, **machine}},
        "nodes": [{"machine": "h100", "count": count}],
        "fabric": {"levels": LEVELS, "rails": rails},
    }
    return Network(ClusterSpec.model_validate(data))


def device(node: int, index: int) -> DeviceId:
    return DeviceId(f"h100-{node}", index)


def test_two_devices_get_the_narrowest_of_their_way() -> None:
    """A NIC of 400 Gbit/s gives 48 GB/s; the core gives a node 10 GB/s."""
    net = network(nics=OWN_NICS)
    rates = {far: net.link(device(0, 0), device(far, 3)).bytes_per_s / 1e9 for far in (1, 2, 3, 4)}
    assert rates == pytest.approx({1: 48, 2: 48, 3: 48, 4: 10})
    assert net.link(device(0, 0), device(1, 0)).latency_s == pytest.approx(5e-6)
    assert net.link(device(0, 0), device(7, 0)).latency_s == pytest.approx(20e-6)
    assert net.link(device(0, 0), device(0, 5)).bytes_per_s == pytest.approx(360e9)


def test_levels_where_nodes_meet() -> None:
    net = network()
    assert [net.meeting_level("h100-0", f"h100-{far}") for far in range(1, 8)] == [0, 1, 1, 2, 2, 2, 2]


def test_a_set_is_as_fast_as_its_narrowest_place() -> None:
    net = network(nics=OWN_NICS)
    inside = [device(0, index) for index in range(8)]
    leaf = [device(node, index) for node in (0, 1) for index in range(8)]
    assert net.collective_bytes_per_s(inside) == pytest.approx(360e9)
    assert net.collective_bytes_per_s(leaf) == pytest.approx(min(360000000000.0, 8 * 48000000000.0))
    assert net.collective_bytes_per_s([device(0, 0), device(1, 0)]) == pytest.approx(48e9)
    assert net.collective_bytes_per_s([device(0, 0), device(0, 1), device(1, 0)]) == pytest.approx(48e9)
    assert net.collective_bytes_per_s([*leaf, *[device(2, index) for index in range(8)]]) == pytest.approx(200e9)
    assert net.collective_bytes_per_s([*leaf, device(4, 0)]) == pytest.approx(10e9)


def test_with_rails_other_nics_meet_further_out() -> None:
    net = network(rails=True, nics=OWN_NICS)
    same, other = (net.link(device(0, 1), device(1, index)) for index in (1, 2))
    assert (same.latency_s, other.latency_s) == pytest.approx((5e-6, 10e-6))


def test_a_node_that_says_not_where_it_is_meets_the_others_at_the_top() -> None:
    net = network()
    lone = net.cluster.nodes[1].model_copy(update={"labels": {}})
    cluster = net.cluster.model_copy(update={"nodes": (net.cluster.nodes[0], lone)})
    assert Network(cluster).meeting_level("h100-0", "h100-1") == 2


def test_what_is_not_known_is_said_so() -> None:
    data = {"machines": {"t4": {"devices": "2 x T4"}}, "nodes": [{"machine": "t4", "count": 2}]}
    net = Network(ClusterSpec.model_validate(data))
    with pytest.raises(UserError, match="nothing tells how fast the links inside the node are"):
        net.link(DeviceId("t4-0", 0), DeviceId("t4-0", 1))
    with pytest.raises(UserError, match="nothing tells how fast the links between nodes are"):
        net.collective_bytes_per_s([DeviceId("t4-0", 0), DeviceId("t4-1", 0)])


def test_mig_instances_are_no_island() -> None:
    data = {
        "machines": {
            "m": {
                "devices": [{"type": "A30", "mig": "1g.6gb", "gpu": gpu, "count": 2} for gpu in (0, 1)],
                "links": "NV4",
            }
        },
        "nodes": [{"machine": "m"}],
    }
    found = Network(ClusterSpec.model_validate(data)).islands()
    assert [(one.devices, one.link) for one in found] == [((index,), "") for index in range(4)]


def test_islands_hold_equal_devices_with_one_class_of_link() -> None:
    machine = {
        "devices": ["2 x T4", "4 x V100-32GB-SXM"],
        "links": {"NV2": [["GPU2", "GPU3"], ["GPU4", "GPU5"]], "PIX": [["GPU0", "GPU1"]], "SYS": "all"},
    }
    data = {
        "machines": {"m": machine, "cpus": {"devices": {"type": "cpu", "count": 2, "memory_gib": 1}}},
        "nodes": [{"machine": "m"}, {"machine": "cpus"}],
    }
    found = [(one.node_id, one.devices, one.link) for one in Network(ClusterSpec.model_validate(data)).islands()]
    assert found == [
        ("m-0", (0, 1), "PIX"),
        ("m-0", (2, 3), "NV2"),
        ("m-0", (4, 5), "NV2"),
        ("cpus-0", (0,), ""),
        ("cpus-0", (1,), ""),
    ]
