"""Cluster files: what they say, what they refuse and where, and that nothing is lost on the way out and back."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.cluster.fabric import Fabric, FabricLevel
from heliostat.cluster.links import Link
from heliostat.cluster.machine import Device, Machine
from heliostat.cluster.measured import Curve, GroupShape, Measured, Sample
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.cluster.spec_file import load, save
from heliostat.cluster.topology import Connection, LinkClass, LinkKind, Nic, NodeTopology, TopologyDevice
from heliostat.errors import ConfigError

Write = Callable[[str], Path]

MIXED = """\
machines:
  a100:
    devices: 4 x A100-40GB-SXM
    links: NV12
    nics: 2 x 200 Gbit/s
    cpus: 96
  mixed:
    devices: [2 x T4, {type: V100-32GB-SXM, count: 2, memory_gib: 31}]
    links: {NV2: [[GPU2, GPU3]], SYS: all}
    nics:
      - {name: mlx5_1, gbit_per_s: 100, near: [2, 3], numa: 1}
      - {name: mlx5_0, gbit_per_s: 100}
    bandwidth: {SYS: {gb_per_s: 8.5, latency_us: 9}}
  slices:
    devices:
      - {type: A100-40GB-SXM, count: 7, mig: 1g.5gb, gpu: 0}
nodes:
  - {machine: a100, count: 2, labels: {zone: west}}
  - {machine: a100, labels: {zone: east}}
  - {machine: mixed, ids: [odd], labels: {zone: east}}
  - {machine: slices, labels: {zone: east}}
fabric:
  rails: true
  levels:
    - {name: rack, nodes: 2, gbit_per_s: 400}
    - {name: zone, gb_per_s: 20, latency_us: 25}
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(text: str) -> Path:
        path = tmp_path / "cluster.yaml"
        path.write_text(text)
        return path

    return to_file


def test_what_a_file_says(write: Write) -> None:
    cluster = load(write(MIXED))
    assert [node.node_id for node in cluster.nodes] == ["a100-0", "a100-1", "a100-2", "odd", "slices-0"]
    assert [node.labels for node in cluster.nodes][1:4] == [
        {"zone": "west", "rack": "rack-0"},
        {"zone": "east", "rack": "rack-1"},
        {"zone": "east", "rack": "rack-1"},
    ]
    assert cluster.count_by_kind() == {
        "A100-40GB-SXM": 12,
        "T4": 2,
        "V100-32GB-SXM": 2,
        "A100-40GB-SXM/1g.5gb": 7,
    }
    odd = cluster.by_id["odd"].machine
    assert odd.devices[3] == Device(type="V100-32GB-SXM", index=3, memory_bytes=31 << 30)
    assert [str(odd.link(*pair)) for pair in ((2, 3), (0, 1), (1, 2))] == ["NV2", "SYS", "SYS"]
    assert odd.figures == {"SYS": Link(latency_s=9e-6, bytes_per_s=8.5e9)}
    assert odd.topology is not None
    assert odd.topology.nearest_nics("GPU3") == ("mlx5_1",)
    assert odd.topology.nearest_nics("GPU0") == ()
    assert cluster.by_id["slices-0"].machine.devices[6].memory_bytes == 5 << 30
    assert cluster.fabric == Fabric(
        rails=True,
        levels=(
            FabricLevel(name="rack", bytes_per_s=50e9),
            FabricLevel(name="zone", bytes_per_s=20e9, latency_s=25e-6),
        ),
    )
    assert cluster.nodes[0].machine is cluster.nodes[1].machine


@pytest.mark.parametrize("name", ["out.yaml", "out.json"])
def test_a_cluster_goes_through_a_file_unchanged(write: Write, tmp_path: Path, name: str) -> None:
    before = load(write(MIXED))
    save(before, tmp_path / name)
    after = load(tmp_path / name)
    assert after == before
    assert after.nodes[0].machine is after.nodes[2].machine


def test_a_topology_may_be_in_a_file_beside(write: Write, tmp_path: Path) -> None:
    table = "\tGPU0\tGPU1\tCPU Affinity\nGPU0\tX\tNV2\t0-7\nGPU1\tNV2\tX\t0-7\n"
    (tmp_path / "box.txt").write_text(table)
    text = "machines: {box: {devices: 2 x V100-16GB-SXM, topology: box.txt}}\nnodes: [{machine: box}]\n"
    assert str(load(write(text)).nodes[0].machine.link(0, 1)) == "NV2"
    (tmp_path / "box.txt").write_text(table.replace("NV2", "NW2"))
    with pytest.raises(ConfigError, match=r"cluster.yaml:1:\d+: machines.box.topology: .*NW2.*box.txt"):
        load(write(text))


BAD = {
    "unknown type": (
        "machines: {m: {devices: 8 x A100-40GB-SMX}}\nnodes: [{machine: m}]",
        r"yaml:1:\d+: machines.m.devices.0: there is no device type 'A100-40GB-SMX' \(did you mean 'A100-40GB-SXM'\?\)",
    ),
    "unknown machine": (
        "machines: {box: {devices: T4}}\nnodes:\n  - {machine: bxo}",
        r"yaml:3:6: nodes.0.machine: there is no machine 'bxo' \(did you mean 'box'\?\)",
    ),
    "unknown key": (
        "machines: {box: {devices: T4, link: NV1}}\nnodes: [{machine: box}]",
        r"machines.box.link: unknown key \(did you mean 'links'\?\)",
    ),
    "duplicate uuid": (
        (
            "machines: {m: {devices: 2 x T4}}\nnodes:\n  - {machine: m, uuids: [[a, b]]}\n"
            "  - {machine: m, uuids: [[c, a]]}"
        ),
        r"yaml:4:5: nodes.1: device uuid 'a' is there twice, first in nodes\[0\]",
    ),
    "duplicate node": (
        "machines: {m: {devices: T4}}\nnodes:\n  - {machine: m, ids: [x]}\n  - {machine: m, ids: [x]}",
        r"yaml:4:5: nodes.1: node 'x' is there twice, first in nodes\[0\]",
    ),
    "duplicate index": (
        "machines: {m: {devices: [{type: T4, index: 0}, {type: T4, index: 0}]}}\nnodes: [{machine: m}]",
        r"machines.m: device index 0 is there twice",
    ),
    "asymmetric links": (
        (
            "machines:\n  m:\n    devices: 2 x V100-16GB-SXM\n    links:\n      NV1: [[GPU0, GPU1]]\n"
            "      NV2: [[GPU1, GPU0]]\nnodes: [{machine: m}]"
        ),
        r"yaml:6:7: machines.m.links.NV2: GPU1 - GPU0 is asymmetric: NV1 in one direction, NV2 in the other",
    ),
    "unknown link": (
        "machines: {m: {devices: 2 x T4, links: PIXX}}\nnodes: [{machine: m}]",
        r"machines.m.links.PIXX: there is no class of link 'PIXX' \(did you mean 'PIX'\?\)",
    ),
    "link to nobody": (
        "machines: {m: {devices: 2 x T4, links: {PIX: [[GPU0, GPU2]]}}}\nnodes: [{machine: m}]",
        r"machines.m.links.PIX: GPU0 - GPU2 does not join two of GPU0, GPU1",
    ),
    "negative bandwidth": (
        "machines: {m: {devices: 2 x T4, bandwidth: {PIX: {gb_per_s: -3}}}}\nnodes: [{machine: m}]",
        r"machines.m.bandwidth.PIX.gb_per_s: must be greater than 0.*got -3",
    ),
    "negative fabric": (
        "machines: {m: {devices: T4}}\nnodes: [{machine: m}]\nfabric: {levels: [{name: net, gbit_per_s: -1}]}",
        r"yaml:3:\d+: fabric.levels.0.gbit_per_s: must be greater than 0.*got -1",
    ),
    "two units": (
        (
            "machines: {m: {devices: T4}}\nnodes: [{machine: m}]\n"
            "fabric: {levels: [{name: net, gbit_per_s: 1, gb_per_s: 1}]}"
        ),
        r"fabric.levels.0: give one of gb_per_s and gbit_per_s",
    ),
    "label clash": (
        (
            "machines: {m: {devices: T4}}\nnodes: [{machine: m, labels: {rack: r1}}]\n"
            "fabric: {levels: [{name: rack, nodes: 2}, {name: net}]}"
        ),
        r"yaml:2:\d+: nodes.0.labels.rack: the label 'rack' is also the fabric level that counts nodes off",
    ),
    "label twice": (
        "machines: {m: {devices: T4}}\nnodes: [{machine: m, labels: {rack: r1, rack: r2}}]",
        r"yaml:2:\d+: nodes.0.labels.rack: .*twice",
    ),
    "label that Ray refuses": (
        "machines: {m: {devices: T4}}\nnodes: [{machine: m, labels: {rack: 'row 7'}}]",
        r"nodes.0.labels: the label rack: 'row 7' would be refused by Ray",
    ),
    "rack in two zones": (
        (
            "machines: {m: {devices: T4}}\nnodes:\n  - {machine: m, labels: {rack: r1, zone: a}}\n"
            "  - {machine: m, labels: {rack: r1, zone: b}}\nfabric: {levels: [{name: rack}, {name: zone}]}"
        ),
        r"rack 'r1' is in zone 'a' \(node m-0\) and in zone 'b' \(node m-1\)",
    ),
    "no label": (
        (
            "machines: {m: {devices: T4}}\nnodes:\n  - {machine: m, count: 2}\n"
            "fabric: {levels: [{name: rack}, {name: net}]}"
        ),
        r"yaml:3:5: nodes.0: no label 'rack': which rack is m-0 in\?",
    ),
    "no such profile": (
        "machines: {m: {devices: [{type: A30, mig: 1g.5gb, gpu: 0}]}}\nnodes: [{machine: m}]",
        r"machines.m.devices.0: A30 has no MIG profile '1g.5gb'; it has 1g.6gb",
    ),
    "no memory": (
        "machines: {m: {devices: 2 x cpu}}\nnodes: [{machine: m}]",
        r"machines.m.devices.0: a device of type 'cpu' needs memory_gib",
    ),
    "own type without figures": (
        "types: {X9: {memory_gib: 80, source: me}}\nmachines: {m: {devices: X9}}\nnodes: [{machine: m}]",
        r"types.X9: memory_gib, memory_gb_per_s and tflops must be given",
    ),
    "nothing": ("machines: {m: {devices: T4}}", r"nodes: there is no node"),
    "no topology file": (
        "machines: {m: {devices: T4, topology: box.txt}}\nnodes: [{machine: m}]",
        r"yaml:1:\d+: machines.m.topology: cannot read the topology: .*box.txt",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_mistakes_are_told_with_their_place(write: Write, name: str) -> None:
    text, message = BAD[name]
    with pytest.raises(ConfigError, match=message):
        load(write(text))


def test_all_mistakes_are_told_at_once(write: Write) -> None:
    text = "machines: {m: {devices: T5}, n: {devices: 2 x T4, links: PIXX}}\nnodes: [{machine: m}, {machine: o}]"
    with pytest.raises(ConfigError, match="3 mistakes in the cluster"):
        load(write(text))


def test_own_types_are_used_and_kept(write: Write, tmp_path: Path) -> None:
    text = (
        "types: {X9: {memory_gib: 80, memory_gb_per_s: 3000, tflops: {bf16: 500}, source: its maker}}\n"
        "machines: {m: {devices: 2 x X9}}\nnodes: [{machine: m}]\n"
    )
    cluster = load(write(text))
    assert cluster.catalogue.find("X9").flops("bf16") == 500e12
    save(cluster, tmp_path / "out.yaml")
    assert load(tmp_path / "out.yaml") == cluster


LINKS = st.sampled_from(
    [
        LinkClass(kind=LinkKind.NVLINK, num_links=2),
        LinkClass(kind=LinkKind.SYS),
        LinkClass(kind=LinkKind.XGMI, hops=1, weight=15),
    ]
)


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    indices = sorted(draw(st.sets(st.integers(0, 9), min_size=1, max_size=5)))
    kinds = draw(st.lists(st.sampled_from(["T4", "A30"]), min_size=len(indices), max_size=len(indices)))
    devices = tuple(
        Device(type=kind, index=index, memory_bytes=draw(st.integers(1, 1 << 40)))
        for kind, index in zip(kinds, indices, strict=True)
    )
    names = [f"GPU{index}" for index in indices]
    ends = [*names, "mlx5_0"]
    pairs = [(a, b) for place, a in enumerate(ends) for b in ends[place + 1 :]]
    told = draw(st.lists(st.tuples(st.sampled_from(pairs), LINKS), unique_by=lambda one: one[0], max_size=6))
    topology = NodeTopology(
        source=draw(st.text(max_size=5)),
        devices=tuple(
            TopologyDevice(name=name, index=index, numa_affinity=(index % 2,), bus_id=draw(st.none() | st.just("0:1")))
            for name, index in zip(names, indices, strict=True)
        ),
        nics=(Nic(name="mlx5_0", label="NIC0", bits_per_s=draw(st.none() | st.integers(1, 1 << 40))),),
        links=tuple(Connection(a=a, b=b, link=link) for (a, b), link in told),
        missing=draw(st.sampled_from([(), ("the row of GPU3",)])),
    )
    figures = draw(st.dictionaries(st.sampled_from(["NV2", "SYS"]), st.just(Link(latency_s=1e-6, bytes_per_s=0.1))))
    return Machine(
        name=draw(st.sampled_from(["a", "b"])),
        devices=devices,
        topology=draw(st.none() | st.just(topology)),
        figures=figures,
        num_cpus=draw(st.none() | st.just(8)),
    )


@given(
    drawn=st.lists(machines(), min_size=1, max_size=3),
    labels=st.sampled_from([{}, {"rack": "r1"}]),
    speed=st.floats(0.1, 1),
)
def test_whatever_a_cluster_holds_can_be_written_and_read(
    drawn: list[Machine], labels: dict[str, str], speed: float
) -> None:
    nodes = tuple(
        Node(node_id=f"n{place}", machine=machine, labels=labels, hostname="h", speeds=(speed,) * len(machine.devices))
        for place, machine in enumerate([*drawn, drawn[0]])
    )
    curve = Curve(
        operation="all_reduce",
        group=GroupShape(num_ranks=2, num_nodes=1, device_type="T4", link="SYS"),
        samples=(Sample(num_bytes=4, seconds=1e-5, spread=0.0),),
        line=Link(latency_s=1e-5, bytes_per_s=1e9),
    )
    measured = Measured(date="2026-11-22T00:00:00+00:00", emulated=True, curves=(curve,))
    before = ClusterSpec(nodes=nodes, origin="emulated", measured=measured)
    after = ClusterSpec.model_validate_json(before.model_dump_json())
    renamed = [
        node.model_copy(update={"machine": node.machine.model_copy(update={"name": ""})}) for node in after.nodes
    ]
    expected = [node.model_copy(update={"machine": node.machine.model_copy(update={"name": ""})}) for node in nodes]
    assert renamed == expected
    assert (after.origin, after.measured) == ("emulated", measured)
