"""`nvidia-smi topo -m`: the reference texts checked by hand, texts of our own, and every way a copy can be damaged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.cluster.parse_nvidia_smi import parse_nvidia_smi
from heliostat.cluster.topology import NodeTopology
from heliostat.errors import UserError

Reference = Callable[[str], NodeTopology]


@pytest.fixture(scope="session")
def reference() -> Reference:
    folder = Path(__file__).parents[3] / "shared" / "reference" / "topology"
    assert folder.is_dir(), f"the reference texts must be beside the checkout, in {folder}"
    return lambda name: parse_nvidia_smi((folder / name).read_text(), name)


def matrix(topology: NodeTopology, *, columns: str = "devices") -> list[str]:
    """One line of classes for each device: over the devices, or over the NICs in their order."""
    across = [end.name for end in (topology.devices if columns == "devices" else topology.nics)]
    return [" ".join(str(topology.link(row.name, name)) for name in across) for row in topology.devices]


def islands(topology: NodeTopology) -> list[tuple[str, str]]:
    """Each island as its device indices run together, and its class."""
    return [
        ("".join(name.removeprefix("GPU") for name in island.devices), str(island.link))
        for island in topology.islands()
    ]


def nv2_ring(topology: NodeTopology) -> list[int]:
    """The ring that NV2 links form, walked from GPU0 towards its lower neighbour."""
    names = [device.name for device in topology.devices]
    peers = {a: [b for b in names if str(topology.link(a, b)) == "NV2"] for a in names}
    assert all(len(found) == 2 for found in peers.values())
    ring = ["GPU0", peers["GPU0"][0]]
    while len(ring) < len(names):
        ring.append(next(peer for peer in peers[ring[-1]] if peer != ring[-2]))
    return [int(name.removeprefix("GPU")) for name in ring]


def test_dgx1(reference: Reference) -> None:
    """DGX-1 V100, 6 NVLinks a GPU (each row adds up to 6), in a cube mesh.

    The double links are the pairs 0-3, 0-4, 1-2, 1-5, 2-3, 4-7, 5-6 and 6-7, one ring through all eight.

    The only NIC is mlx5_2 by the legend although the table calls it NIC0; it hangs on socket 0, so GPUs 0-3 reach it as
    NODE and GPUs 4-7 across sockets. `GPU NUMA ID` is N/A behind the two tabs the tool prints.
    """
    box = reference("dgx1_v100_8gpu_1nic.txt")
    assert matrix(box) == [
        "X NV1 NV1 NV2 NV2 SYS SYS SYS",
        "NV1 X NV2 NV1 SYS NV2 SYS SYS",
        "NV1 NV2 X NV2 SYS SYS NV1 SYS",
        "NV2 NV1 NV2 X SYS SYS SYS NV1",
        "NV2 SYS SYS SYS X NV1 NV1 NV2",
        "SYS NV2 SYS SYS NV1 X NV2 NV1",
        "SYS SYS NV1 SYS NV1 NV2 X NV2",
        "SYS SYS SYS NV1 NV2 NV1 NV2 X",
    ]
    assert matrix(box, columns="nics") == ["NODE"] * 4 + ["SYS"] * 4
    assert [(nic.label, nic.name) for nic in box.nics] == [("NIC0", "mlx5_2")]
    assert [device.cpu_affinity for device in box.devices] == ["0-19,40-59"] * 4 + ["20-39,60-79"] * 4
    assert [device.numa_affinity for device in box.devices] == [(0,)] * 4 + [(1,)] * 4
    assert {device.gpu_numa_id for device in box.devices} == {None}
    assert box.missing == ()


def test_v100_excerpt_that_is_cut(reference: Reference) -> None:
    """The last row ends in `24-47,` and the rows of both NICs are gone.

    All links of GPUs are still told, NIC links by the GPUs' rows; what nobody tells is mlx5_0 - mlx5_1 and the rest of
    GPU7's CPUs, which must not be taken for 24-47.
    """
    box = reference("v100_sxm2_8gpu_2nic_cut_last_row.txt")
    assert matrix(box) == [
        "X NV2 NV2 NV1 NV1 SYS SYS SYS",
        "NV2 X NV1 NV2 SYS NV1 SYS SYS",
        "NV2 NV1 X NV1 SYS SYS NV2 SYS",
        "NV1 NV2 NV1 X SYS SYS SYS NV2",
        "NV1 SYS SYS SYS X NV2 NV2 NV1",
        "SYS NV1 SYS SYS NV2 X NV1 NV2",
        "SYS SYS NV2 SYS NV2 NV1 X NV1",
        "SYS SYS SYS NV2 NV1 NV2 NV1 X",
    ]
    assert matrix(box, columns="nics") == ["NODE NODE"] * 2 + ["PIX PIX"] * 2 + ["SYS SYS"] * 4
    assert box.link("mlx5_0", "mlx5_1") is None
    assert [device.cpu_affinity for device in box.devices] == ["0-23,48-71"] * 4 + ["24-47,72-95"] * 3 + [None]
    assert box.missing == (
        "the row of mlx5_0",
        "the row of mlx5_1",
        "the links mlx5_0 - mlx5_1",
        "the CPU Affinity of GPU7, which is cut after '24-47,'",
    )


def test_v100_with_mangled_tabs(reference: Reference) -> None:
    """One, two or four blanks or tabs between cells, yet every row has all its words, so nothing is missing.

    A NIC on each socket: mlx5_0 is closest (PIX) to GPUs 2 and 3, mlx5_1 to GPUs 6 and 7, and each is NODE to the two
    others of its socket.
    """
    box = reference("v100_sxm2_8gpu_2nic_variant_mangled_tabs.txt")
    assert matrix(box) == [
        "X NV1 NV2 NV1 SYS SYS SYS NV2",
        "NV1 X NV1 NV2 SYS SYS NV2 SYS",
        "NV2 NV1 X NV2 SYS NV1 SYS SYS",
        "NV1 NV2 NV2 X NV1 SYS SYS SYS",
        "SYS SYS SYS NV1 X NV2 NV2 NV1",
        "SYS SYS NV1 SYS NV2 X NV1 NV2",
        "SYS NV2 SYS SYS NV2 NV1 X NV1",
        "NV2 SYS SYS SYS NV1 NV2 NV1 X",
    ]
    assert matrix(box, columns="nics") == ["NODE SYS"] * 2 + ["PIX SYS"] * 2 + ["SYS NODE"] * 2 + ["SYS PIX"] * 2
    assert [box.nearest_nics(device.name) for device in box.devices] == [("mlx5_0",)] * 4 + [("mlx5_1",)] * 4
    assert str(box.link("mlx5_0", "mlx5_1")) == "SYS"
    assert [device.numa_affinity for device in box.devices] == [(0,)] * 4 + [(1,)] * 4
    assert box.missing == ()


def test_three_v100_boxes_are_wired_in_three_ways(reference: Reference) -> None:
    """All three are one island with a ring of double links, but the ring visits the GPUs in three different orders.

    So the best pair for GPU0 differs: 3 or 4, 1 or 2, 2 or 7. A table for "the V100 box" would be wrong on two of them.
    """
    boxes = [
        reference(name)
        for name in (
            "dgx1_v100_8gpu_1nic.txt",
            "v100_sxm2_8gpu_2nic_cut_last_row.txt",
            "v100_sxm2_8gpu_2nic_variant_mangled_tabs.txt",
        )
    ]
    assert [nv2_ring(box) for box in boxes] == [
        [0, 3, 2, 1, 5, 6, 7, 4],
        [0, 1, 3, 7, 5, 4, 6, 2],
        [0, 2, 3, 1, 6, 4, 5, 7],
    ]
    assert [islands(box) for box in boxes] == [[("01234567", "NV2")]] * 3


def test_hgx_a100_with_ten_nics(reference: Reference) -> None:
    """NVSwitch: every GPU pair is NV12. The order of the NICs does not follow the GPUs.

    GPUs 0-1 sit with NICs 2-3, 2-3 with 0-1, 4-5 with 8-9, 6-7 with 4-5; NICs 6-7 are the front end, SYS to every GPU.
    Only NICs 0-1 and 6-7 share one bridge (PIX).
    """
    box = reference("hgx_a100_8gpu_10nic_pxb.txt")
    assert islands(box) == [("01234567", "NV12")]
    assert matrix(box)[0] == "X NV12 NV12 NV12 NV12 NV12 NV12 NV12"
    near = [("mlx5_2", "mlx5_3"), ("mlx5_0", "mlx5_1"), ("mlx5_8", "mlx5_9"), ("mlx5_4", "mlx5_5")]
    assert [box.nearest_nics(device.name) for device in box.devices] == [pair for pair in near for _ in range(2)]
    assert {str(box.link("GPU0", nic)) for nic in near[0]} == {"PXB"}
    assert {str(box.link(device.name, nic)) for device in box.devices for nic in ("mlx5_6", "mlx5_7")} == {"SYS"}
    twins = [(f"mlx5_{first}", f"mlx5_{first + 1}") for first in range(0, 10, 2)]
    assert [str(box.link(a, b)) for a, b in twins] == ["PIX", "PXB", "PXB", "PIX", "PXB"]
    assert box.devices[7].cpu_affinity == "64-127,192-254"
    assert box.missing == ()
    assert len(box.links) == 18 * 17 // 2


@pytest.mark.parametrize(
    ("name", "link", "cpus"),
    [("hgx_a100_8gpu_nv12.txt", "NV12", ("0-23", "24-47")), ("hgx_h100_8gpu_nv18.txt", "NV18", ("0-51", "52-103"))],
)
def test_hgx_without_nics(reference: Reference, name: str, link: str, cpus: tuple[str, str]) -> None:
    """The command line is above the table; no NIC, no legend, no `GPU NUMA ID` column: an older driver, not a cut."""
    box = reference(name)
    assert islands(box) == [("01234567", link)]
    assert [device.cpu_affinity for device in box.devices] == [cpus[0]] * 4 + [cpus[1]] * 4
    assert [device.numa_affinity for device in box.devices] == [(0,)] * 4 + [(1,)] * 4
    assert (box.nics, box.missing, box.nearest_nics("GPU0")) == ((), (), ())


def test_gb200_tray(reference: Reference) -> None:
    """Four GPUs on two Grace CPUs, all pairs NV18 though they belong to different NUMA nodes."""
    box = reference("gb200_tray_4gpu.txt")
    assert islands(box) == [("0123", "NV18")]
    told = [(device.cpu_affinity, device.numa_affinity) for device in box.devices]
    assert told == [("0-71", (0,))] * 2 + [("72-143", (1,))] * 2


def test_container_that_hides_cpus(reference: Reference) -> None:
    """A container with CPUs of socket 0 alone: the CPU affinity of GPUs 1-3 is blank, so their rows read `NV18 1 N/A`.

    By words the 1 would become CPU 1; by the tool's tabs it is NUMA node 1, and the CPU affinity is what is missing.
    """
    box = reference("h100_4gpu_partial_affinity_container.txt")
    assert islands(box) == [("0123", "NV18")]
    told = [(device.cpu_affinity, device.numa_affinity, device.gpu_numa_id) for device in box.devices]
    assert told == [("44-51,148-155", (0,), None)] + [(None, (1,), None)] * 3
    assert box.missing == tuple(f"the CPU Affinity of GPU{index}" for index in (1, 2, 3))


def test_k80_node(reference: Reference) -> None:
    """All pairs NODE on one socket, and only the CPU affinity column that drivers of that time printed."""
    box = reference("k80_4gpu_node.txt")
    assert islands(box) == [("0123", "NODE")]
    assert [(device.cpu_affinity, device.numa_affinity) for device in box.devices] == [("0-11", ())] * 4
    assert box.missing == ()


def test_l40s_with_both_nics_on_one_socket(reference: Reference) -> None:
    """Two pairs joined as NODE. Both NICs are on socket 1, so GPUs 2-3 reach them as NODE and GPUs 0-1 as SYS."""
    box = reference("l40s_4gpu_2nic_node_sys.txt")
    assert islands(box) == [("01", "NODE"), ("23", "NODE")]
    assert str(box.link("GPU1", "GPU2")) == "SYS"
    assert matrix(box, columns="nics") == ["SYS SYS"] * 2 + ["NODE NODE"] * 2
    assert str(box.link("mlx5_0", "mlx5_1")) == "PIX"
    assert box.devices[3].cpu_affinity == "96-191,288-383"
    assert box.missing == ()


def test_pcie_box(reference: Reference) -> None:
    """Four switches with two GPUs each (PIX), two switches a socket (PHB), two sockets (SYS)."""
    box = reference("pcie_8gpu_pix_phb_sys_numa.txt")
    assert islands(box) == [("01", "PIX"), ("23", "PIX"), ("45", "PIX"), ("67", "PIX")]
    assert matrix(box)[2] == "PHB PHB X PIX SYS SYS SYS SYS"
    assert matrix(box)[7] == "SYS SYS SYS SYS PHB PHB PIX X"
    assert [device.numa_affinity for device in box.devices] == [(0,)] * 4 + [(1,)] * 4


def test_workstations(reference: Reference) -> None:
    """Two GPUs on one host bridge, whose NUMA affinity N/A means none and not missing.

    And four GPUs in two NV1 pairs, with a legend that describes NV1 itself.
    """
    pair = reference("workstation_2gpu_phb.txt")
    assert (islands(pair), pair.missing) == ([("01", "PHB")], ())
    assert [(device.cpu_affinity, device.numa_affinity) for device in pair.devices] == [("0-11", ())] * 2
    four = reference("workstation_4gpu_nv1_pairs_sys.txt")
    assert (islands(four), four.missing) == ([("01", "NV1"), ("23", "NV1")], ())
    assert str(four.link("GPU1", "GPU2")) == "SYS"


TRAY = """\
\t\x1b[4mGPU0\tGPU1\tNIC0\tNIC1\tNIC2\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m
GPU0\t X \tNV12\tPXB\tSYS\tNODE\t0-15,32-47\t0-1\t\t4
GPU1\tNV12\t X \tSYS\tPXB\tSYS\t\t\t\tN/A
NIC0\tPXB\tSYS\t X \tSYS\tNODE\t\t\t\t
NIC1\tSYS\tPXB\tSYS\t X \tSYS\t\t\t\t
NIC2\tNODE\tSYS\tNODE\tSYS\t X \t\t\t\t

Legend:

  X    = Self
  NV#  = Connection traversing a bonded set of # NVLinks

NIC Legend:

  NIC0: mlx5_3
  NIC1: rocep1s0f0
  NIC2: mlx5_0

"""


def test_underlined_header_legend_order_and_gpu_numa() -> None:
    """NV12 beside SYS; NICs named in an order of their own; several NUMA nodes, and memory that is a NUMA node."""
    box = parse_nvidia_smi(TRAY)
    assert [(nic.label, nic.name) for nic in box.nics] == [
        ("NIC0", "mlx5_3"),
        ("NIC1", "rocep1s0f0"),
        ("NIC2", "mlx5_0"),
    ]
    assert (box.nearest_nics("GPU0"), box.nearest_nics("GPU1")) == (("mlx5_3",), ("rocep1s0f0",))
    assert (box.devices[0].numa_affinity, box.devices[0].gpu_numa_id) == ((0, 1), 4)
    assert box.missing == ("the CPU Affinity of GPU1", "the NUMA Affinity of GPU1")
    assert parse_nvidia_smi(TRAY.replace("\x1b", "")) == box


def test_pasted_between_other_output() -> None:
    """What stands before the table and after its last row belongs to somebody else."""
    assert parse_nvidia_smi(f"root@host:~# nvidia-smi topo -m\n{TRAY}\nroot@host:~# exit") == parse_nvidia_smi(TRAY)
    bare = "GPU0 GPU1\nGPU0 X PIX\nGPU1 PIX X\n```\nThen I ran it."
    assert islands(parse_nvidia_smi(bare)) == [("01", "PIX")]


def test_no_affinity_columns_and_one_gpu() -> None:
    box = parse_nvidia_smi("\tGPU0\nGPU0\t X \n")
    assert (box.devices[0].cpu_affinity, box.links, box.missing) == (None, (), ())


def test_names_of_older_drivers() -> None:
    """SOC was the name of SYS, PSB that of a switch on the board."""
    box = parse_nvidia_smi("GPU0 GPU1 GPU2\nGPU0 X PSB SOC\nGPU1 PSB X SOC\nGPU2 SOC SOC X\n")
    assert matrix(box) == ["X PIX SYS", "PIX X SYS", "SYS SYS X"]


def test_wrapped_by_a_narrow_terminal() -> None:
    """The header breaks inside `CPU Affinity`, rows break between cells and before the affinities."""
    text = """\
        GPU0    GPU1    mlx5_0  CPU
Affinity        NUMA Affinity
GPU0     X      NV4
NODE    0-7     0
GPU1    NV4      X      SYS
8-15    1
mlx5_0  NODE    SYS      X
"""
    box = parse_nvidia_smi(text)
    assert (matrix(box), matrix(box, columns="nics")) == (["X NV4", "NV4 X"], ["NODE", "SYS"])
    assert [(device.cpu_affinity, device.numa_affinity) for device in box.devices] == [("0-7", (0,)), ("8-15", (1,))]
    assert box.missing == ()


def test_rows_that_are_cut_leave_what_the_others_tell() -> None:
    """GPU1's row ends after its X and GPU3's is gone: GPU2's row still tells both of its links, nobody tells 1 - 3."""
    box = parse_nvidia_smi("GPU0 GPU1 GPU2 GPU3\nGPU0 X PIX SYS SYS\nGPU1 PIX X\nGPU2 SYS SYS X NV2\n")
    assert matrix(box) == ["X PIX SYS SYS", "PIX X SYS None", "SYS SYS X NV2", "SYS None NV2 X"]
    assert box.missing == ("the row of GPU3", "row GPU1 under GPU2, GPU3", "the links GPU1 - GPU3")


def test_affinities_that_blanks_cannot_place_are_not_guessed() -> None:
    """The container's rows after a terminal turned tabs into blanks: is the 1 a CPU or a NUMA node?"""
    text = "GPU0 GPU1 CPU Affinity  NUMA Affinity\nGPU0 X NV18 0-7 0\nGPU1 NV18 X 1\n"
    box = parse_nvidia_smi(text)
    assert (box.devices[1].cpu_affinity, box.devices[1].numa_affinity) == (None, ())
    assert box.missing == ("which of the affinities of GPU1 is which: fewer values than columns, and no tabs to tell",)


def test_nic_legend_that_is_cut() -> None:
    """Labels stand in for the names; a name without a column means the table lost one."""
    head = TRAY.partition("NIC Legend")[0]
    box = parse_nvidia_smi(head)
    assert [nic.name for nic in box.nics] == ["NIC0", "NIC1", "NIC2"]
    assert "the names of NIC0, NIC1, NIC2: no NIC legend" in box.missing
    assert "the column of NIC3, which the legend names" in parse_nvidia_smi(f"{TRAY}  NIC3: mlx5_9\n").missing


PAIR = "\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \tNV2\t0-7\nGPU1\tNV2\t X \t0-7\n"


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("GPU1\tNV2", "GPU1\tNV4", ["row GPU0 under GPU1 says NV2 (line 2)", "row GPU1 under GPU0 says NV4 (line 3)"]),
        ("GPU1\tNV2", "GPU1\tNVX", ["row GPU1 under GPU0", "line 3 of", "got: NVX"]),
        ("GPU1\tNV2", "GPU1\tNV0", ["row GPU1 under GPU0", "got: NV0"]),
        ("GPU1\tNV2\t X ", "GPU1\t X \tNV2", ["row GPU1 under GPU0 is out of place", "got: X"]),
        ("GPU0\t X \tNV2", "GPU0\tPIX\tNV2", ["row GPU0 under GPU0 is out of place", "got: PIX"]),
        ("GPU0\t X \tNV2\t0-7", "GPU0\t X \t0-7", ["row GPU0 under GPU1", "got: 0-7"]),
        ("NV2\t0-7", "NV2\tall", ["row GPU0 under CPU Affinity", "got: all"]),
        ("NV2\t0-7", "NV2\t0-7\t0", ["row GPU0 has more values than there are columns", "got: 0-7 0"]),
        ("GPU1\tNV2", "GPU0\tNV2", ["row of GPU0 is there twice, first on line 2", "line 3 of"]),
        ("GPU1\tNV2", "GPUs\tNV2", ["line 3 of", "begins with GPUs"]),
        ("CPU Affinity", "CPU Affinity\tMood", ["column 'Mood' is not known", "line 1 of"]),
        ("GPU1\tCPU", "GPU0\tCPU", ["column 'GPU0' is there twice"]),
        ("\tGPU0\tGPU1\tCPU Affinity\n", "", ["no header row"]),
    ],
)
def test_contradictions_and_unknown_words_are_refused(before: str, after: str, words: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        parse_nvidia_smi(PAIR.replace(before, after, 1), "paste.txt")
    message = str(raised.value)
    assert "paste.txt" in message
    assert not [word for word in words if word not in message], message


@pytest.mark.parametrize(
    ("extra", "words"),
    [(TRAY, "a second table begins here"), ("  NIC3: mlx5_0\n", "the NIC legend gives one name to two NICs")],
)
def test_two_tables_and_ambiguous_legends_are_refused(extra: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_nvidia_smi(TRAY + extra)


CLASSES = st.sampled_from(["PIX", "PXB", "PHB", "NODE", "SYS", *(f"NV{count}" for count in range(1, 19))])
GAPS = st.sampled_from(["\t", "\t\t", " ", "   ", " \t", "\t "])


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Any]:
    """A random box: labels, one class for each pair, affinities."""
    num_devices, num_nics = draw(st.integers(1, 6)), draw(st.integers(0, 3))
    style = draw(st.sampled_from(["NIC{}", "mlx5_{}", "bnxt_re{}"]))
    labels = [f"GPU{i}" for i in range(num_devices)] + [style.format(i) for i in range(num_nics)]
    pairs = [(a, b) for i, a in enumerate(labels) for b in labels[i + 1 :]]
    return {
        "labels": labels,
        "links": {pair: draw(CLASSES) for pair in pairs},
        "affinity": [draw(st.sampled_from(["0-19,40-59", "20-39", "7"])) for _ in range(num_devices)],
    }


def rendered(table: dict[str, Any], gap: Callable[[], str], names: dict[str, str]) -> str:
    labels, links = table["labels"], table["links"]
    lines = [gap() + gap().join([*labels, "CPU Affinity", "NUMA Affinity"])]
    for index, row in enumerate(labels):
        cells = ["X" if row == col else links.get((row, col)) or links[col, row] for col in labels]
        tail = [table["affinity"][index], "0"] if row.startswith("GPU") else []
        lines.append(gap().join([row, *cells, *tail]))
    legend = [f"  {label}: {name}" for label, name in names.items()]
    return "\n".join([*lines, "", "Legend:", "", *legend])


@given(table=tables(), data=st.data())
def test_any_box_in_any_spacing(table: dict[str, Any], data: st.DataObject) -> None:
    nics = [label for label in table["labels"] if not label.startswith("GPU")]
    names = {label: f"mlx5_{9 - index}" for index, label in enumerate(nics) if label.startswith("NIC")}
    box = parse_nvidia_smi(rendered(table, lambda: data.draw(GAPS), names))
    told = {(one.a, one.b): str(one.link) for one in box.links}
    assert told == {tuple(names.get(end, end) for end in pair): link for pair, link in table["links"].items()}
    assert [device.cpu_affinity for device in box.devices] == table["affinity"]
    assert box.missing == ()
    assert box == parse_nvidia_smi(rendered(table, lambda: "\t", names))
