"""Bandwidth inside a node, on boxes whose wiring is known."""

from itertools import combinations
from pathlib import Path

import pytest

from heliostat.cluster.catalogue import builtin
from heliostat.cluster.links import Link
from heliostat.cluster.machine import Device, Machine
from heliostat.cluster.measured import Curve, GroupShape, Measured, Sample
from heliostat.cluster.spec_file import read_topology
from heliostat.cluster.wiring import Wiring

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "topology"


def box(file: str, type_: str, measured: Measured | None = None, **figures: Link) -> Wiring:
    topology = read_topology(REFERENCE / file)
    devices = tuple(Device(type=type_, index=one.index, memory_bytes=1) for one in topology.devices)
    machine = Machine(name="box", devices=devices, topology=topology, figures=figures)
    return Wiring(machine, {type_: builtin().find(type_)}, measured)


def gb_per_s(rate: float | None) -> float:
    assert rate is not None
    return round(rate / 1e9, 1)


def test_a_switched_box_gives_every_set_a_devices_whole_bandwidth() -> None:
    """8 x A100, NV12 each to each: 12 links of 25 GB/s at 0.8, whoever takes part."""
    a100 = box("hgx_a100_8gpu_nv12.txt", "A100-80GB-SXM")
    assert {gb_per_s(a100.collective_bytes_per_s(list(range(size)))) for size in range(2, 9)} == {240.0}
    assert gb_per_s(a100.links[0, 7].bytes_per_s) == 240.0


def test_a_mesh_gives_a_set_the_links_within_it() -> None:
    """8 x MI300X, one link of 64 GB/s at 0.75 for each pair: a set of n devices has n - 1 links at each."""
    mi300x = box("mi300x_8gpu_xgmi_rocm_smi.txt", "MI300X")
    rates = [gb_per_s(mi300x.collective_bytes_per_s(list(range(size)))) for size in range(2, 9)]
    assert rates == [48.0 * (size - 1) for size in range(2, 9)]


def test_a_v100_cube_prefers_pairs_with_two_links_and_falls_back_to_pcie() -> None:
    """DGX-1: GPU0 has NV1 to 1 and 2, NV2 to 3 and 4 and only SYS to 5, 6 and 7; six links of 20 GB/s at each GPU."""
    dgx1 = box("dgx1_v100_8gpu_1nic.txt", "V100-16GB-SXM")
    peers = {other: gb_per_s(dgx1.collective_bytes_per_s([0, other])) for other in range(1, 8)}
    assert peers == {1: 20.0, 2: 20.0, 3: 40.0, 4: 40.0, 5: 10.0, 6: 10.0, 7: 10.0}
    assert gb_per_s(dgx1.collective_bytes_per_s(range(8))) == 120.0
    assert gb_per_s(dgx1.collective_bytes_per_s([0, 1, 2, 3])) == 80.0
    assert gb_per_s(dgx1.collective_bytes_per_s([0, 3, 5])) == 10.0


def test_a_ring_over_pcie_is_as_fast_as_its_weakest_hop() -> None:
    """L40S: GPU0 and GPU1 on one NUMA node, the others across sockets."""
    l40s = box("l40s_4gpu_2nic_node_sys.txt", "L40S")
    rates = {pair: gb_per_s(l40s.collective_bytes_per_s(pair)) for pair in combinations(range(4), 2)}
    assert rates[0, 1] > rates[0, 2]
    assert gb_per_s(l40s.collective_bytes_per_s(range(4))) == min(rates.values())


def test_more_links_never_make_a_set_slower() -> None:
    dgx1 = box("dgx1_v100_8gpu_1nic.txt", "V100-16GB-SXM")
    for pair in combinations(range(8), 2):
        assert dgx1.links[pair] == dgx1.links[pair[::-1]]
        together = dgx1.collective_bytes_per_s(pair)
        assert together is not None
        assert together >= dgx1.links[pair].bytes_per_s * (1 - 1e-9)


def test_one_nic_is_shared_by_all_and_an_unknown_speed_stays_unknown() -> None:
    """The RCCL box has one NIC of 200 Gbit/s; the table of the A100 box names ten and no speed."""
    rccl = box("nccl_xml/rccl_topo_8p6l.xml", "MI250X")
    assert [gb_per_s(rccl.egress_bytes_per_s(range(size))) for size in (1, 8)] == [24.0, 24.0]
    assert box("hgx_a100_8gpu_10nic_pxb.txt", "A100-80GB-SXM").egress_bytes_per_s([0]) is None


def test_a_measurement_goes_before_a_given_figure_and_that_before_the_catalogue() -> None:
    given = Link(latency_s=1e-6, bytes_per_s=33e9)
    curve = Curve(
        operation="send_recv",
        group=GroupShape(num_ranks=2, num_nodes=1, device_type="V100-16GB-SXM", link="NV2"),
        samples=(Sample(num_bytes=1, seconds=2e-6, spread=0),),
        line=Link(latency_s=2e-6, bytes_per_s=44e9),
    )
    measured = Measured(date="2026-11-22", emulated=False, curves=(curve,))
    plain = box("dgx1_v100_8gpu_1nic.txt", "V100-16GB-SXM")
    told = box("dgx1_v100_8gpu_1nic.txt", "V100-16GB-SXM", NV2=given)
    both = box("dgx1_v100_8gpu_1nic.txt", "V100-16GB-SXM", measured, NV2=given)
    assert [gb_per_s(one.links[0, 3].bytes_per_s) for one in (plain, told, both)] == [40.0, 33.0, 44.0]
    assert gb_per_s(both.links[0, 1].bytes_per_s) == 20.0


def test_what_nobody_told_is_not_known() -> None:
    devices = tuple(Device(type="T4", index=index, memory_bytes=1) for index in range(2))
    wiring = Wiring(Machine(name="m", devices=devices), {"T4": builtin().find("T4")})
    assert wiring.links == {}
    assert wiring.collective_bytes_per_s([0, 1]) is None
    assert wiring.egress_bytes_per_s([0]) is None


@pytest.mark.parametrize("part", [[0, 1], [2, 5, 7]])
def test_a_part_of_a_box_keeps_its_bandwidth(part: list[int]) -> None:
    whole = box("hgx_a100_8gpu_nv12.txt", "A100-80GB-SXM")
    alone = Wiring(whole.machine.part(part), {"A100-80GB-SXM": builtin().find("A100-80GB-SXM")})
    assert alone.collective_bytes_per_s(part) == pytest.approx(whole.collective_bytes_per_s(part))


def test_switches_that_reduce_make_an_all_reduce_faster_than_a_ring() -> None:
    """H100: 0.85 of the ring's rate, 2 (n - 1) / n times less to move. A pair gains nothing; A100 has no such sums."""
    h100, a100 = box("hgx_h100_8gpu_nv18.txt", "H100-80GB-SXM"), box("hgx_a100_8gpu_nv12.txt", "A100-80GB-SXM")
    rates = {size: gb_per_s(h100.all_reduce_bytes_per_s(range(size))) for size in (2, 4, 8)}
    assert rates == {2: 360.0, 4: 360.0, 8: 468.6}
    assert gb_per_s(a100.all_reduce_bytes_per_s(range(8))) == 240.0
