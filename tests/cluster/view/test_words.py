"""Links in words: each wiring is told by the shape that its links make."""

from typing import Any

import pytest

from heliostat.cluster.topology import LinkClass
from heliostat.cluster.view.words import devices_in_words, gib, links_in_words, meaning, nics_in_words
from tests.cluster.view.clusters import A100, CPU, DGX1, machine, pairs

PCIE = {
    "devices": "8 x L40S",
    "links": {
        "PIX": pairs("01 23 45 67"),
        "PHB": pairs("02 03 12 13 46 47 56 57"),
        "SYS": "all",
    },
}
TWO_SQUARES = {
    "devices": "8 x V100-16GB-SXM",
    "links": {"NV2": pairs("01 12 23 30 45 56 67 74"), "SYS": "all"},
}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (A100, "NV12 each to each"),
        (DGX1, "NV2 in a ring, NV1 in a ring, SYS elsewhere"),
        (PCIE, "PIX in pairs, PHB in groups of 4, SYS elsewhere"),
        (TWO_SQUARES, "NV2 in rings of 4, SYS elsewhere"),
        ({"devices": "4 x A40", "links": {"NV4": [["GPU2", "GPU3"]], "SYS": "all"}}, "NV4 on 1 pair, SYS elsewhere"),
        ({"devices": "3 x A40", "links": {"NV4": [["GPU0", "GPU1"]]}}, "NV4 on 1 pair, 2 of 3 pairs not told"),
        ({"devices": "2 x T4"}, "not told"),
        ({"devices": "1 x T4"}, ""),
        (CPU, "inside the host"),
        (
            {"devices": {"type": "A30", "mig": "1g.6gb", "gpu": 0, "count": 4}, "nics": "1 x 25 Gbit/s"},
            "instances of one GPU",
        ),
    ],
)
def test_links(row: dict[str, Any], words: str) -> None:
    assert links_in_words(machine(row)) == words


def test_classes_have_a_meaning() -> None:
    codes = ("NV1", "NV12", "XGMI hops=2 weight=30", "PIX", "SYS")
    assert [meaning(LinkClass.parse(code)) for code in codes] == [
        "1 NVLink",
        "12 NVLinks",
        "Infinity Fabric, 2 hops",
        "one PCIe switch",
        "across CPU sockets",
    ]


def test_devices_and_nics() -> None:
    sliced = machine(
        {"devices": ["1 x A100-40GB-SXM", {"type": "A100-40GB-SXM", "mig": "1g.5gb", "gpu": 1, "count": 2}]}
    )
    assert devices_in_words(sliced.devices) == "1 x A100-40GB-SXM, 40 GiB + 2 x A100-40GB-SXM/1g.5gb, 5 GiB"
    assert nics_in_words(sliced) == ""
    assert nics_in_words(machine(A100)) == "8 x 200 Gbit/s"
    assert nics_in_words(machine(DGX1)) == "1 x 100 Gbit/s, nearest over PIX"
    assert nics_in_words(machine({**A100, "nics": [{"name": "x"}]})) == "1 x unknown speed"
    assert (gib(5 << 29), gib(2 << 40)) == ("2.5 GiB", "2.0 TiB")
