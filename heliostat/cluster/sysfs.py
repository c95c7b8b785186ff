"""Reads from `/sys` where the GPUs and NICs of this node are on its PCI bus, and what joins two of them.

What a file does not tell is None; nothing is taken from a name.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path

from pydantic import Field

from heliostat.cluster.topology import LinkClass, LinkKind
from heliostat.values import Frozen

SYS = Path("/sys")
NVIDIA, AMD = "0x10de", "0x1002"
"""PCI vendor ids."""
_GPU_CLASSES = ("0x0300", "0x0302", "0x0380", "0x1200")
"""VGA, 3D and other display controllers, processing accelerators."""
_HOST_BRIDGE = re.compile(r"pci[0-9a-f]{4,}:[0-9a-f]{2}")
_BUS_ID = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_RATE = re.compile(r"([\d.]+) Gb/sec")


class PciFunction(Frozen):
    """One function on the PCI bus."""

    bus_id: str
    """`0000:61:00.0`."""
    vendor: str
    """`0x10de`."""
    path: tuple[str, ...]
    """What is above it, from the top: the host bridge `pci0000:5d`, then the bus ids of bridges."""
    numa_node: int | None = None
    """None where the firmware does not tell and there are several."""


class NicFunction(PciFunction):
    """One network device."""

    name: str
    """`mlx5_0`, the RDMA name that NCCL_IB_HCA wants, or `eth0` of a device without RDMA."""
    rdma: bool
    netdevs: tuple[str, ...] = ()
    """Its names among the network interfaces."""
    is_up: bool = False
    """Whether at least one of its ports has a link."""
    bits_per_s: int | None = None
    """Of its fastest port that is up."""


class SysfsRecord(Frozen):
    """What `/sys` tells of one node."""

    gpus: tuple[PciFunction, ...] = ()
    """Of NVIDIA and AMD, whether or not a driver drives them, in the order of the bus ids."""
    nics: tuple[NicFunction, ...] = ()
    """By name, numbers as numbers; interfaces that are not on the PCI bus are left out."""
    cpu_lists: dict[int, str] = Field(default_factory=dict)
    """NUMA node -> its CPUs as ranges, `0-19,40-59`; nodes of memory alone are left out."""


def pcie_class(
    path_a: Sequence[str], path_b: Sequence[str], numa_a: int | None, numa_b: int | None
) -> LinkClass | None:
    """The class of the way between two functions, as `nvidia-smi topo -m` defines it; None where /sys does not tell.

    A switch is a tree of bridges: a port up, and below it a port down for each device. Two devices under one switch
    share all but the port down.

    Args:
        path_a: what is above the one, as in `PciFunction.path`.
        path_b: what is above the other.
        numa_a: NUMA node of the one.
        numa_b: NUMA node of the other.
    """
    num_common = len(list(takewhile(lambda ends: ends[0] == ends[1], zip(path_a, path_b, strict=False))))
    if num_common > 1:
        below = max(len(path_a), len(path_b)) - num_common
        return LinkClass(kind=LinkKind.PIX if below <= 1 else LinkKind.PXB)
    if num_common == 1:
        return LinkClass(kind=LinkKind.PHB)
    if numa_a is None or numa_b is None:
        return None
    return LinkClass(kind=LinkKind.NODE if numa_a == numa_b else LinkKind.SYS)


def read(root: Path = SYS) -> SysfsRecord:
    """What the tree at `root` tells; nothing where there is no such tree."""
    cpu_lists = dict(sorted(_cpu_lists(root)))
    only_node = next(iter(cpu_lists)) if len(cpu_lists) == 1 else None
    return SysfsRecord(
        gpus=tuple(_gpus(root, only_node)),
        nics=tuple(sorted(_nics(root, only_node), key=lambda nic: _by_number(nic.name))),
        cpu_lists=cpu_lists,
    )


def _by_number(name: str) -> list[tuple[str, int]]:
    """A key that sorts `mlx5_2` before `mlx5_10`."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name)]


def _text(file: Path) -> str | None:
    """None also for a file that cannot be read now, such as the speed of a port without a cable."""
    try:
        return file.read_text().strip()
    except OSError:
        return None


def _cpu_lists(root: Path) -> Iterator[tuple[int, str]]:
    for node in root.glob("devices/system/node/node[0-9]*"):
        if cpus := _text(node / "cpulist"):
            yield int(node.name.removeprefix("node")), cpus


def _gpus(root: Path, only_node: int | None) -> Iterator[PciFunction]:
    for link in sorted(root.glob("bus/pci/devices/*")):
        if (_text(link / "class") or "").startswith(_GPU_CLASSES) and _text(link / "vendor") in {NVIDIA, AMD}:
            yield PciFunction.model_validate(_place(link.resolve(), only_node))


def _place(function: Path, only_node: int | None) -> dict[str, object]:
    """The fields of the `PciFunction` at `function`."""
    parts = [part for part in function.parent.parts if _HOST_BRIDGE.fullmatch(part) or _BUS_ID.fullmatch(part)]
    told = int(_text(function / "numa_node") or -1)
    return {
        "bus_id": function.name,
        "vendor": _text(function / "vendor") or "",
        "path": tuple(parts),
        "numa_node": only_node if told < 0 else told,
    }


def _nics(root: Path, only_node: int | None) -> Iterator[NicFunction]:
    netdevs, rdmas = _by_function(root / "class" / "net"), _by_function(root / "class" / "infiniband")
    for function in {**netdevs, **rdmas}:
        ports = [_rdma_port(port) for rdma in rdmas[function] for port in sorted(rdma.glob("ports/*"))]
        ports = ports or [_netdev_port(netdev) for netdev in netdevs[function]]
        yield NicFunction.model_validate(
            _place(function, only_node)
            | {
                "name": (rdmas[function] or netdevs[function])[0].name,
                "rdma": bool(rdmas[function]),
                "netdevs": tuple(netdev.name for netdev in netdevs[function]),
                "is_up": any(is_up for is_up, _ in ports),
                "bits_per_s": max((speed for is_up, speed in ports if is_up and speed), default=None),
            }
        )


def _by_function(folder: Path) -> defaultdict[Path, list[Path]]:
    """PCI function -> its entries in a folder of `class`."""
    found = defaultdict[Path, list[Path]](list)
    for entry in sorted(folder.glob("*")):
        device = (entry / "device").resolve()
        if device.name.startswith("virtio"):
            device = device.parent
        if _BUS_ID.fullmatch(device.name):
            found[device].append(entry)
    return found


def _rdma_port(port: Path) -> tuple[bool, int | None]:
    """Whether the port is up, and its speed: `4: ACTIVE`, `200 Gb/sec (4X HDR)`."""
    rate = _RATE.match(_text(port / "rate") or "")
    return (_text(port / "state") or "").startswith("4:"), int(float(rate[1]) * 1e9) if rate else None


def _netdev_port(netdev: Path) -> tuple[bool, int | None]:
    """Whether the port is up, and its speed, which the kernel gives in Mbit/s and as -1 where it has none."""
    megabits = int(_text(netdev / "speed") or -1)
    return _text(netdev / "operstate") == "up", megabits * 10**6 if megabits > 0 else None
