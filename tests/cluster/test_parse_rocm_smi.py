"""`rocm-smi --showtopo`: the reference text checked by hand, the other tables, and damaged copies."""

from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat.cluster.parse_rocm_smi import parse_rocm_smi
from heliostat.cluster.topology import Island, LinkClass, LinkKind
from heliostat.errors import UserError

XGMI = LinkClass(kind=LinkKind.XGMI)


def test_mi300x() -> None:
    """Eight MI300X, each with one XGMI link to each of the seven others; the diagonal is 0.

    The text is of `--showtopotype` alone: hops, weights and NUMA nodes were not asked for, so they are None and not
    missing; how many links a pair has, the tool never says.
    """
    folder = Path(__file__).parents[3] / "shared" / "reference" / "topology"
    assert folder.is_dir(), f"the reference texts must be beside the checkout, in {folder}"
    box = parse_rocm_smi((folder / "mi300x_8gpu_xgmi_rocm_smi.txt").read_text())
    names = tuple(f"GPU{index}" for index in range(8))
    assert tuple(device.name for device in box.devices) == names
    assert {(one.a, one.b): one.link for one in box.links} == dict.fromkeys(combinations(names, 2), XGMI)
    assert box.islands() == (Island(devices=names, link=XGMI),)
    assert (box.nics, box.missing) == ((), ())
    assert {device.numa_affinity for device in box.devices} == {()}


FULL = """\
============================ ROCm System Management Interface ============================
================================ Weight between two GPUs =================================
       GPU0         GPU1         GPU2
GPU0   0            15           72
GPU1   15           0            72
GPU2   72           72           0

================================= Hops between two GPUs ==================================
       GPU0         GPU1         GPU2
GPU0   0            1            3
GPU1   1            0            3
GPU2   3            3            0

=============================== Link Type between two GPUs ===============================
       GPU0         GPU1         GPU2
GPU0   0            XGMI         PCIE
GPU1   XGMI         0            PCIE
GPU2   PCIE         PCIE         0

======================================= Numa Nodes =======================================
GPU[0]\t\t: (Topology) Numa Node: 0
GPU[0]\t\t: (Topology) Numa Affinity: 0
GPU[1]\t\t: (Topology) Numa Node: 0
GPU[1]\t\t: (Topology) Numa Affinity: 0
GPU 2          : (Topology) Numa Node: 1
GPU 2          : (Topology) Numa Affinity: -1
==================================== Product Info ========================================
GPU[0]\t\t: Card Series: \t\tAMD Instinct MI100
================================== End of ROCm SMI Log ===================================
"""


def test_all_tables() -> None:
    """Weight, hops, NUMA (both ways the tool has written it; -1 is none); sections of other things are passed over."""
    box = parse_rocm_smi(FULL)
    assert box.link("GPU0", "GPU1") == LinkClass(kind=LinkKind.XGMI, hops=1, weight=15)
    assert box.link("GPU2", "GPU1") == LinkClass(kind=LinkKind.PCIE, hops=3, weight=72)
    assert [device.numa_affinity for device in box.devices] == [(0,), (0,), ()]
    assert [island.devices for island in box.islands()] == [("GPU0", "GPU1"), ("GPU2",)]
    assert box.missing == ()


def test_a_link_the_driver_does_not_tell_is_missing() -> None:
    box = parse_rocm_smi(FULL.replace("XGMI", "XXXX"))
    assert box.link("GPU0", "GPU1") is None
    assert "the links GPU0 - GPU1 in 'Link Type between two GPUs'" in box.missing


def test_cut_rows_and_tables_are_missing() -> None:
    """The type table ends inside GPU1's row: the column of GPU2 is told by GPU0 alone."""
    box = parse_rocm_smi(FULL[: FULL.index("PCIE\nGPU2")])
    assert box.link("GPU0", "GPU2") == LinkClass(kind=LinkKind.PCIE, hops=3, weight=72)
    assert box.missing == tuple(
        f"{words} in 'Link Type between two GPUs'"
        for words in ("the row of GPU2", "row GPU1 under GPU2", "the links GPU1 - GPU2")
    )
    hops = parse_rocm_smi(FULL[: FULL.index("====== Link Type")])
    assert (hops.links, hops.missing) == ((), ("the table 'Link Type between two GPUs', so no link is known",))


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("GPU1   XGMI", "GPU1   PCIE", ["row GPU0 under GPU1 says XGMI (line 16)", "row GPU1 under GPU0 says PCIE"]),
        ("GPU1   XGMI", "GPU1   QPI ", ["row GPU1 under GPU0", "line 17 of", "got: QPI"]),
        ("GPU1   XGMI         0", "GPU1   0            XGMI", ["row GPU1 under GPU0", "got: 0"]),
        ("GPU1   15 ", "GPU1   1.5", ["row GPU1 under GPU0", "Weight", "got: 1.5"]),
        ("GPU2   PCIE", "GPU3   PCIE", ["is no row", "line 18 of"]),
        ("GPU2   PCIE", "GPU1   PCIE", ["there already", "line 18 of"]),
        ("GPU1         GPU2\nGPU0   0            1 ", "GPU1\nGPU0   0            1 ", ["is no row of 'Hops"]),
    ],
)
def test_contradictions_and_unknown_words_are_refused(before: str, after: str, words: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        parse_rocm_smi(FULL.replace(before, after, 1), "paste.txt")
    message = str(raised.value)
    assert "paste.txt" in message
    assert not [word for word in words if word not in message], message


@pytest.mark.parametrize("text", ["", "GPU0 GPU1\nGPU0 0 XGMI\nGPU1 XGMI 0\n", "====== Numa Nodes ======\n"])
def test_a_text_without_a_table_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="none of rocm-smi's tables"):
        parse_rocm_smi(text)


def test_tables_of_different_devices_are_refused() -> None:
    two = "=== Hops between two GPUs ===\nGPU0 GPU1\nGPU0 0 1\nGPU1 1 0\n"
    three = FULL[FULL.index("====== Link Type") :]
    with pytest.raises(UserError, match="lists other devices"):
        parse_rocm_smi(two + three)


@given(
    num_devices=st.integers(1, 6),
    gap=st.sampled_from([" ", "\t", "      "]),
    kinds=st.lists(st.sampled_from(["XGMI", "PCIE"]), min_size=15, max_size=15),
)
def test_any_box_in_any_spacing(num_devices: int, gap: str, kinds: list[str]) -> None:
    names = [f"GPU{index}" for index in range(num_devices)]
    links = dict(zip(combinations(names, 2), kinds, strict=False))
    cells = {**links, **{(b, a): kind for (a, b), kind in links.items()}, **{(name, name): "0" for name in names}}
    rows = [gap.join([row, *(cells[row, col] for col in names)]) for row in names]
    box = parse_rocm_smi("\n".join(["== Link Type between two GPUs ==", gap.join(names), *rows, "== End =="]))
    assert {(one.a, one.b): str(one.link.kind) for one in box.links} == links
    assert box.missing == ()
