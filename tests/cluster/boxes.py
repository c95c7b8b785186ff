"""Nodes made from the texts of `nvidia-smi topo -m` in the reference folder: what NVML would say on them.

They are constructed, not recorded: bus ids, uuids and what the text does not tell are invented.
"""

from pathlib import Path

from heliostat.cluster.catalogue import GIB
from heliostat.cluster.node_report import NodeReport
from heliostat.cluster.nvml_record import Ancestor, Gpu, GpuPair, NvLink, NvLinkState, NvmlRecord, Remote
from heliostat.cluster.parse_nvidia_smi import parse_nvidia_smi
from heliostat.cluster.sysfs import SysfsRecord
from heliostat.cluster.topology import LinkKind, NodeTopology

FIXTURES = Path(__file__).parent / "fixtures"
REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "topology"
_ANCESTORS = {
    LinkKind.PIX: Ancestor.SINGLE,
    LinkKind.PXB: Ancestor.MULTIPLE,
    LinkKind.PHB: Ancestor.HOST_BRIDGE,
    LinkKind.NODE: Ancestor.NODE,
    LinkKind.SYS: Ancestor.SYSTEM,
    LinkKind.NVLINK: Ancestor.NODE,
}


def reference(name: str) -> NodeTopology:
    return parse_nvidia_smi((REFERENCE / name).read_text(), name)


def bus_id(index: int) -> str:
    return f"0000:{16 * (index % 8 + 1):02x}:{index // 8:02x}.0"


def nvml_record(
    box: NodeTopology, name: str, *, memory_bytes: int = 80 * GIB, switched: bool = False, serial: int = 0
) -> NvmlRecord:
    """The record of a box wired as `box`; with `switched` all NVLinks end at four switches.

    `serial` tells two boxes of one model apart.
    """
    gpus = tuple(
        Gpu(
            index=one.index,
            name=name,
            uuid=f"GPU-{serial:08x}-{one.index}",
            bus_id=bus_id(one.index),
            memory_bytes=memory_bytes,
            mig=False,
            nvlinks=nvlinks(box, one.name, switched=switched),
            temperature_c=30 + one.index,
        )
        for one in box.devices
    )
    pairs = (
        GpuPair(a=a.index, b=b.index, ancestor=_ANCESTORS[link.kind])
        for place, a in enumerate(box.devices)
        for b in box.devices[place + 1 :]
        if (link := box.link(a.name, b.name)) is not None
    )
    return NvmlRecord(
        driver_version="550.54.15", nvml_version="12.550.54.15", cuda_version="12.4", gpus=gpus, pairs=tuple(pairs)
    )


def nvlinks(box: NodeTopology, name: str, *, switched: bool) -> tuple[NvLink, ...]:
    counts = {
        other.index: link.num_links
        for other in box.devices
        if (link := box.link(name, other.name)) is not None and link.num_links is not None
    }
    if switched:
        ends = [(Remote.SWITCH, f"0000:c{number % 4}:00.0") for number in range(max(counts.values()))]
    else:
        ends = [(Remote.GPU, bus_id(index)) for index, num_links in counts.items() for _ in range(num_links)]
    return tuple(
        NvLink(number=number, state=NvLinkState.ACTIVE, version="2.0", remote=remote, remote_bus_id=far)
        for number, (remote, far) in enumerate(ends)
    )


def report(gpus: NvmlRecord | None, pci: SysfsRecord | None = None, *, serial: int = 0) -> NodeReport:
    return NodeReport(
        hostname=f"host-{serial}",
        platform="Linux-6.8.0-x86_64-with-glibc2.39",
        versions={"python": "3.11.7"},
        num_cpus=80,
        memory_bytes=503 * GIB + serial * 2**20,
        gpus=gpus,
        pci=pci or SysfsRecord(),
    )
