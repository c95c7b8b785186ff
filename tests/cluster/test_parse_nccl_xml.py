"""NCCL's topology XML: the reference files checked by hand, files as NCCL dumps them, and damaged ones."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.cluster.parse_nccl_xml import parse_nccl_xml
from heliostat.cluster.topology import NodeTopology
from heliostat.errors import UserError

Reference = Callable[[str], NodeTopology]
NO_GPUS = "the gpu elements: which NVLinks or XGMI links there are, and the indices, here in the order of the bus ids"


@pytest.fixture(scope="session")
def reference() -> Reference:
    folder = Path(__file__).parents[3] / "shared" / "reference" / "topology" / "nccl_xml"
    assert folder.is_dir(), f"the reference files must be beside the checkout, in {folder}"
    return lambda name: parse_nccl_xml((folder / name).read_text(), name)


def matrix(topology: NodeTopology, *, columns: str = "devices") -> list[str]:
    across = [end.name for end in (topology.devices if columns == "devices" else topology.nics)]
    return [" ".join(str(topology.link(row.name, name)) for name in across) for row in topology.devices]


def unnamed(*bus_ids: str) -> str:
    return f"the net elements of the NICs at {', '.join(bus_ids)}: their names, here the bus ids, and their speeds"


def test_g5_lists_only_bus_ids(reference: Reference) -> None:
    """No class, no gpu, no net: eight of the nine are GPUs and one is a NIC, but the file does not say which."""
    box = reference("g5.48xl-topo.xml")
    assert (box.devices, box.nics, box.links) == ((), (), ())
    buses = ["16", "17", "18", "19", "1a", "1b", "1c", "1d", "15"]
    listed = ", ".join(f"0000:00:{bus}.0" for bus in buses)
    assert box.missing == (
        f"the class of the pci elements {listed}: GPU, NIC or neither",
        "the CPU affinity of NUMA node 0, 1",
    )


def test_ncv4(reference: Reference) -> None:
    """Four A100 PCIe, each alone on its NUMA node, so SYS apart.

    Each lists 12 NVLinks to its own bus id: the links are there, their other end is not told, and none is made up. eth0
    hangs on the first node itself: PHB to GPU0.
    """
    box = reference("ncv4-topo.xml")
    assert matrix(box) == ["X SYS SYS SYS", "SYS X SYS SYS", "SYS SYS X SYS", "SYS SYS SYS X"]
    assert matrix(box, columns="nics") == ["PHB", "SYS", "SYS", "SYS"]
    assert [(nic.name, nic.bits_per_s, nic.bus_id) for nic in box.nics] == [("eth0", 100 * 10**9, None)]
    assert [device.cpu_affinity for device in box.devices] == ["0-23", "24-47", "48-71", "72-95"]
    assert [device.numa_affinity for device in box.devices] == [(0,), (1,), (2,), (3,)]
    assert box.missing == tuple(
        f"where the nvlink of GPU{index} leads: line {line} names GPU{index} itself"
        for index, line in enumerate([5, 15, 22, 29])
    )


def test_ndv2(reference: Reference) -> None:
    """Eight V100 without switches: PHB on one NUMA node, SYS across; their NVLinks are what the file does not tell.

    Classes 0x030200 are the GPUs; the NIC is the 0x020700 (InfiniBand) on node 0, PHB to GPUs 0-3.
    """
    box = reference("ndv2-topo.xml")
    assert matrix(box)[0] == "X PHB PHB PHB SYS SYS SYS SYS"
    assert matrix(box)[7] == "SYS SYS SYS SYS PHB PHB PHB X"
    assert [device.bus_id for device in box.devices] == [f"{index:04x}:00:00.0" for index in range(1, 9)]
    assert matrix(box, columns="nics") == ["PHB"] * 4 + ["SYS"] * 4
    assert [device.cpu_affinity for device in box.devices] == ["0-19"] * 4 + ["20-39"] * 4
    assert box.missing == (NO_GPUS, unnamed("0101:00:00.0"))


def test_ndv4(reference: Reference) -> None:
    """Eight A100, on each NUMA node one switch with two GPUs and two NICs.

    The file goes through the nodes in order; by bus id, as NVML counts, GPUs 0-1 (0001, 0002) are on node 1, 2-3 on
    node 0, 4-5 (000b, 000c) on node 3, 6-7 (000d, 000e) on node 2. So GPUs 0-1 have NICs 0101 and 0102 behind their
    switch, and so on in the order of the NICs' bus ids.
    """
    box = reference("ndv4-topo.xml")
    assert matrix(box)[4] == "SYS SYS SYS SYS X PIX SYS SYS"
    order = ["0001", "0002", "0003", "0004", "000b", "000c", "000d", "000e"]
    assert [device.bus_id for device in box.devices] == [f"{domain}:00:00.0" for domain in order]
    assert [device.numa_affinity for device in box.devices] == [(1,), (1,), (0,), (0,), (3,), (3,), (2,), (2,)]
    nics = [f"010{index}:00:00.0" for index in range(1, 9)]
    assert [nic.name for nic in box.nics] == nics
    near = [tuple(nics[index - index % 2 : index - index % 2 + 2]) for index in range(8)]
    assert [box.nearest_nics(device.name) for device in box.devices] == near
    assert {str(box.link(f"GPU{index}", nics[index])) for index in range(8)} == {"PIX"}
    in_file = [nics[index] for index in (2, 3, 0, 1, 6, 7, 4, 5)]
    assert box.missing == (NO_GPUS, unnamed(*in_file))


def test_p4d(reference: Reference) -> None:
    """Two switches a socket, each with two GPUs and one EFA NIC (class 0x020000).

    So PIX behind a switch, PHB between the two of a socket, SYS across. The mask of socket 0,
    000000ff,ffff0000,00ffffff, has the bits 0-23 and 48-71.
    """
    box = reference("p4d-24xl-topo.xml")
    assert matrix(box)[0] == "X PIX PHB PHB SYS SYS SYS SYS"
    assert matrix(box)[6] == "SYS SYS SYS SYS PHB PHB X PIX"
    assert matrix(box, columns="nics")[1:4:2] == ["PIX PHB SYS SYS", "PHB PIX SYS SYS"]
    assert [device.cpu_affinity for device in box.devices] == ["0-23,48-71"] * 4 + ["24-47,72-95"] * 4
    nics = [f"0000:{bus}:1b.0" for bus in ("10", "20", "90", "a0")]
    assert [box.nearest_nics(f"GPU{index}") for index in range(8)] == [(nics[index // 2],) for index in range(8)]
    assert box.missing == (NO_GPUS, unnamed(*nics))


def test_rccl_8p6l(reference: Reference) -> None:
    """Eight GPUs with six XGMI links each, so each lacks one peer: 0-5, 1-4, 2-7, 3-6, all across sockets, hence SYS.

    Everything is told: `dev` numbers the GPUs against their bus ids (GPU0 is 63, GPU3 is 03), mlx5_0 is on node 1.
    """
    box = reference("rccl_topo_8p6l.xml")
    strangers = {frozenset(pair) for pair in [(0, 5), (1, 4), (2, 7), (3, 6)]}
    for a in range(8):
        for b in set(range(8)) - {a}:
            expected = "SYS" if frozenset((a, b)) in strangers else "XGMI1"
            assert str(box.link(f"GPU{a}", f"GPU{b}")) == expected
    assert [device.bus_id for device in box.devices][:4] == [f"0000:{bus}:00.0" for bus in ("63", "43", "24", "03")]
    assert matrix(box, columns="nics") == ["SYS"] * 4 + ["PHB"] * 4
    assert [(nic.name, nic.bits_per_s) for nic in box.nics] == [("mlx5_0", 200 * 10**9)]
    assert box.missing == ()


def gpu(bus: str, index: int, links: str = "") -> str:
    return f'<pci busid="{bus}" class="0x030200"><gpu dev="{index}">{links}</gpu></pci>'


def nic(bus: str, *names: str) -> str:
    nets = "".join(f'<net name="{name}" speed="400000" port="{port}"/>' for port, name in enumerate(names, 1))
    return f'<pci busid="{bus}" class="0x020000"><nic>{nets}</nic></pci>'


def switch(bus: str, *children: str) -> str:
    return f'<pci busid="{bus}" class="0x060400">{"".join(children)}</pci>'


def host(*nodes: str) -> str:
    cpus = (f'<cpu numaid="{node}" affinity="{0xFF << 8 * node:x}">{inner}</cpu>' for node, inner in enumerate(nodes))
    return f'<system version="1">\n{chr(10).join(cpus)}\n</system>'


def links(tag: str, *peers: tuple[str, int], tclass: str = "0x030200") -> str:
    return "".join(f'<{tag} target="{bus}" count="{count}" tclass="{tclass}"/>' for bus, count in peers)


def test_switches_over_switches() -> None:
    """One switch on the way is PIX, more are PXB, also when both ends are behind their own switch of a common one."""
    inner = switch("0000:02:00.0", gpu("0000:03:00.0", 0), gpu("0000:04:00.0", 1))
    twin = switch("0000:05:00.0", gpu("0000:06:00.0", 2), nic("0000:07:00.0", "mlx5_0"))
    tree = switch("0000:01:00.0", inner, twin, nic("0000:08:00.0", "mlx5_1"))
    box = parse_nccl_xml(host(tree, gpu("0000:81:00.0", 3)))
    assert matrix(box) == ["X PIX PXB SYS", "PIX X PXB SYS", "PXB PXB X SYS", "SYS SYS SYS X"]
    assert matrix(box, columns="nics") == ["PXB PXB", "PXB PXB", "PIX PXB", "SYS SYS"]
    assert [device.cpu_affinity for device in box.devices] == ["0-7"] * 3 + ["8-15"]


def test_ports_and_functions_of_one_card() -> None:
    """Two ports of a NIC with one name are one NIC; two functions of a card are as close as behind one bridge."""
    box = parse_nccl_xml(
        host(nic("0000:9a:00.0", "mlx5_0", "mlx5_0") + nic("0000:9a:00.1", "mlx5_1") + nic("0000:9b:00.0", "x0"))
    )
    assert [end.name for end in box.nics] == ["mlx5_0", "mlx5_1", "x0"]
    assert [str(box.link("mlx5_0", other)) for other in ("mlx5_1", "x0")] == ["PIX", "PHB"]


def test_switches_with_a_link_of_their_own() -> None:
    """Broadcom switches can be joined directly (`pcilink`): the path then does not pass the host bridge."""
    left = switch("0000:01:00.0", '<pcilink target="0000:11:00.0"/>', gpu("0000:02:00.0", 0))
    right = switch("0000:11:00.0", '<pcilink target="0000:01:00.0"/>', gpu("0000:12:00.0", 1))
    assert matrix(parse_nccl_xml(host(left + right))) == ["X PXB", "PXB X"]


def test_nvlinks_between_gpus() -> None:
    """Counts of several elements for one peer add up; other pairs stay on PCIe."""
    twice = links("nvlink", ("0000:02:00.0", 1), ("0000:02:00.0", 1))
    back = links("nvlink", ("0000:01:00.0", 2))
    box = parse_nccl_xml(host(gpu("0000:01:00.0", 0, twice) + gpu("0000:02:00.0", 1, back), gpu("0000:81:00.0", 2)))
    assert matrix(box) == ["X NV2 SYS", "NV2 X SYS", "SYS SYS X"]


def test_nvlinks_to_nvswitches() -> None:
    """Twelve links over six switches join every two GPUs with 12; one with a link down has 11 to all."""
    targets = [f"0000:c{index}:00.0" for index in range(6)]
    full = links("nvlink", *((bus, 2) for bus in targets), tclass="0x068000")
    poor = full.replace('count="2"', 'count="1"', 1)
    c2c = '<c2c bw="450000" count="1"/>'
    box = parse_nccl_xml(
        host(gpu("0000:01:00.0", 0, full) + gpu("0000:02:00.0", 1, full + c2c), gpu("0000:81:00.0", 2, poor))
    )
    assert matrix(box) == ["X NV12 NV11", "NV12 X NV11", "NV11 NV11 X"]
    assert box.missing == ()


def test_links_of_power9_cpus_join_no_gpus() -> None:
    to_cpu = links("nvlink", ("0000:00:00.0", 3), tclass="0x068001")
    box = parse_nccl_xml(host(gpu("0000:01:00.0", 0, to_cpu) + gpu("0000:02:00.0", 1, to_cpu)))
    assert matrix(box) == ["X PHB", "PHB X"]


def test_a_peer_outside_the_file_is_missing() -> None:
    """As in a dump of a job that saw one GPU of the box."""
    box = parse_nccl_xml(host(gpu("0000:01:00.0", 0, links("nvlink", ("0000:02:00.0", 12)))))
    assert box.missing == ("the GPU at 0000:02:00.0, where an nvlink of GPU0 leads (line 2)",)


def test_accelerator_class_and_others() -> None:
    """0x120000 is a GPU (Instinct), 0x010802 a disk: of no concern."""
    text = host('<pci busid="0000:01:00.0" class="0x120000"/><pci busid="0000:02:00.0" class="0x010802"/>')
    box = parse_nccl_xml(text)
    assert [device.bus_id for device in box.devices] == ["0000:01:00.0"]
    assert box.missing == (NO_GPUS,)


def test_a_gpu_that_nccl_left_out_has_no_index() -> None:
    box = parse_nccl_xml(host(gpu("0000:05:00.0", 4) + '<pci busid="0000:01:00.0" class="0x030200"/>'))
    assert [device.name for device in box.devices] == ["GPU4"]
    assert box.missing == ("the index of the GPU at 0000:01:00.0, which has no gpu element and is left out",)


def test_unknown_numa_node_and_empty_mask() -> None:
    box = parse_nccl_xml(host(gpu("0000:01:00.0", 0)).replace('numaid="0" affinity="ff"', 'numaid="-1" affinity="0"'))
    assert (box.devices[0].numa_affinity, box.devices[0].cpu_affinity) == ((), None)


PAIR = host(
    gpu("0000:01:00.0", 0, links("nvlink", ("0000:02:00.0", 2)))
    + gpu("0000:02:00.0", 1, links("nvlink", ("0000:01:00.0", 2)))
)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('02:00.0" count="2"', '02:00.0" count="4"', ["row GPU0 under GPU1 says NV4 (line 2)", "under GPU0 says NV2"]),
        (links("nvlink", ("0000:01:00.0", 2)), "", ["GPU0 has NV2 to GPU1, and GPU1 has none to GPU0", "line 2"]),
        ("<gpu", "<tpu/><gpu", ["<pci> of NCCL's topology holds no <tpu>", "line 2"]),
        ('dev="1"', 'dev="0"', ["GPU0 is there already, on line 2"]),
        ('dev="1"', 'dev="one"', ["attribute dev is not a whole number", "got: one"]),
        (' dev="1"', "", ["attribute dev is not there", "line 2"]),
        ('<pci busid="0000:02:00.0"', '<pci busid="0000:01:00.0"', ["0000:01:00.0 is there already"]),
        ('<pci busid="0000:02:00.0"', '<pci busid="slot 2"', ["no PCI bus id", "got: slot 2"]),
        ('affinity="ff"', 'affinity="0-7"', ["no CPU mask", "got: 0-7"]),
        ('count="2"', 'count="0"', ["counts at least once", "got: 0"]),
        ('tclass="0x030200"', 'tclass="0x010802"', ["no GPU, NVSwitch or CPU", "got: 0x010802"]),
        ('version="1"', 'version="9"', ["begins with <system version>, 1 or 2"]),
        ("system", "graphs", ["begins with <system version>"]),
        ("</cpu>", '</cpu><cpu numaid="1" host_hash="0xb"/><cpu numaid="2" host_hash="0xa"/>', ["describes 2 hosts"]),
        ("</cpu>\n</system>", "", ["not well-formed", "inside system > cpu", "the file was cut"]),
        ("<system", "<!DOCTYPE x [<!ENTITY a 'b'>]><system", ["must not declare a document type"]),
        (PAIR, "GPU0 GPU1", ["not well-formed"]),
    ],
)
def test_contradictions_and_unknown_words_are_refused(before: str, after: str, words: list[str]) -> None:
    text = PAIR.replace(before, after) if before == "system" else PAIR.replace(before, after, 1)
    with pytest.raises(UserError) as raised:
        parse_nccl_xml(text, "dump.xml")
    message = str(raised.value)
    assert "dump.xml" in message
    assert not [word for word in words if word not in message], message


@given(
    counts=st.lists(st.integers(0, 4), min_size=10, max_size=10),
    split=st.integers(0, 5),
    gap=st.sampled_from(["", "\n", "\n    <!-- note -->\n"]),
)
def test_any_wiring_in_any_layout(counts: list[int], split: int, gap: str) -> None:
    """Five GPUs on two NUMA nodes, with any number of NVLinks between any two."""
    buses = [f"0000:{index + 1:02x}:00.0" for index in range(5)]
    pairs = [(a, b) for a in range(5) for b in range(a)]
    wires = {**dict(zip(pairs, counts, strict=True)), **{(b, a): n for (a, b), n in zip(pairs, counts, strict=True)}}
    gpus = [
        gpu(buses[a], a, links("nvlink", *((buses[b], wires[a, b]) for b in range(5) if b != a and wires[a, b])))
        for a in range(5)
    ]
    box = parse_nccl_xml(host("".join(gpus[:split]), "".join(gpus[split:])).replace("><", f">{gap}<"))
    for a, b in pairs:
        path = "PHB" if (a < split) == (b < split) else "SYS"
        assert str(box.link(f"GPU{a}", f"GPU{b}")) == (f"NV{wires[a, b]}" if wires[a, b] else path)
