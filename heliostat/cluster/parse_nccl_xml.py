"""Reads the topology XML of NCCL and RCCL: what NCCL_TOPO_DUMP_FILE writes, and what clouds ship for NCCL_TOPO_FILE.

A `cpu` is a NUMA node with a tree of `pci` below it; the class of a link follows from where two branches meet, as in
NCCL (src/graph/topo.cc): one switch on the way is PIX, several are PXB, the `cpu` is PHB, two of them SYS. The file
does not know host bridges, so NODE never results.

Files shipped by clouds often hold only `pci` elements, for NCCL to complete on the machine. Their GPUs and NICs are
told by PCI class code and named in PCI bus order, as NVML does; `missing` says what such a file leaves open.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

from heliostat.cluster.nccl_links import Gpu, Pair, peer_links
from heliostat.cluster.nccl_tree import Endpoint, attribute, endpoints, integer, pcie_link, refuse, system
from heliostat.cluster.topology import Connection, LinkClass, Nic, NodeTopology, TopologyDevice
from heliostat.cluster.xml_lines import Element


def parse_nccl_xml(text: str, source: str = "NCCL topology XML") -> NodeTopology:
    """The topology in the XML that NCCL or RCCL reads and writes.

    Args:
        text: the whole file.
        source: what to call it in errors and in the result.

    Raises:
        UserError: the text is not XML, holds an element or a value that NCCL does not write, or contradicts itself.
    """
    root = system(text, source)
    ends = [end for cpu in root.children for end in endpoints(cpu, source)]
    _refuse_twins(((end.bus_text, end.element) for end in ends if end.bus), source)
    gpus, unindexed = _gpus([end for end in ends if end.is_gpu], source)
    nics, unnamed = _nics([end for end in ends if end.is_nic], source)
    placed = [(gpu.name, end) for gpu, end in gpus] + [(nic.name, end) for nic, end in nics]
    _refuse_twins(((name, end.element) for name, end in placed), source)
    described = [Gpu(gpu.name, end.bus, end.gpu) for gpu, end in gpus if end.bus and end.gpu]
    peers, stray = peer_links(described, source)
    return NodeTopology(
        source=source,
        devices=tuple(gpu for gpu, _ in gpus),
        nics=tuple(nic for nic, _ in nics),
        links=tuple(_connections(placed, peers)),
        missing=(*_unknown_classes(ends), *_unknown_affinities(root), *unindexed, *unnamed, *stray),
    )


def _connections(placed: Sequence[tuple[str, Endpoint]], peers: dict[Pair, LinkClass]) -> Iterator[Connection]:
    for (a, here), (b, there) in combinations(placed, 2):
        yield Connection(a=a, b=b, link=peers.get((a, b)) or pcie_link(here, there))


def _gpus(ends: Sequence[Endpoint], source: str) -> tuple[list[tuple[TopologyDevice, Endpoint]], list[str]]:
    """The GPUs by the index NCCL gives them, or in PCI bus order if it gives none; and in words what is not told."""
    indexed = [(integer(end.gpu, "dev", source), end) for end in ends if end.gpu]
    silent = [end for end in ends if not end.gpu]
    if indexed or not silent:
        lost = [f"the index of the GPU at {end.bus_text}, which has no gpu element and is left out" for end in silent]
        return [(_device(index, end), end) for index, end in sorted(indexed, key=lambda pair: pair[0])], lost
    in_order = sorted(silent, key=lambda end: end.bus or ())
    words = "the gpu elements: which NVLinks or XGMI links there are, and the indices, here in the order of the bus ids"
    return [(_device(index, end), end) for index, end in enumerate(in_order)], [words]


def _device(index: int, end: Endpoint) -> TopologyDevice:
    return TopologyDevice(
        name=f"GPU{index}",
        index=index,
        cpu_affinity=_cpus(end.above[0], end.source),
        numa_affinity=_numa(end),
        bus_id=end.bus_text,
    )


def _nics(ends: Sequence[Endpoint], source: str) -> tuple[list[tuple[Nic, Endpoint]], list[str]]:
    """The NICs, one for each name; and in words which names are not told."""
    nics: list[tuple[Nic, Endpoint]] = []
    unnamed: list[str] = []
    for end in ends:
        # the ports of one device have one name and are one NIC
        nets = {attribute(net, "name", source): net for nic in end.nics for net in nic.all("net")}
        nics += [(_nic(name, net, end), end) for name, net in nets.items()]
        if not nets and end.bus:
            nics.append((_nic(end.bus_text, None, end), end))
        unnamed += [] if nets else [end.bus_text if end.bus else f"line {end.element.line}"]
    in_order = sorted(nics, key=lambda pair: pair[1].bus or ()) if len(unnamed) == len(nics) else nics
    words = f"the net elements of the NICs at {', '.join(unnamed)}: their names, here the bus ids, and their speeds"
    return in_order, [words] if unnamed else []


def _nic(name: str, net: Element | None, end: Endpoint) -> Nic:
    megabits = integer(net, "speed", end.source) if net and "speed" in net.attributes else 0
    return Nic(
        name=name,
        label=name,
        numa_affinity=_numa(end),
        bus_id=end.bus_text if end.bus else None,
        bits_per_s=megabits * 10**6 if megabits > 0 else None,
    )


def _numa(end: Endpoint) -> tuple[int, ...]:
    """The NUMA node of the tree that `end` is in; NCCL writes -1 where the machine does not say."""
    node = integer(end.above[0], "numaid", end.source)
    return (node,) if node >= 0 else ()


def _cpus(cpu: Element, source: str) -> str | None:
    """The CPU mask (hexadecimal groups, the highest first) as a list of ranges: `0-19,40-59`."""
    mask = cpu.attributes.get("affinity")
    if mask is None:
        return None
    if not re.fullmatch(r"[0-9a-fA-F]+(,[0-9a-fA-F]{8})*", mask):
        raise refuse("the attribute affinity is no CPU mask", source, cpu, mask)
    bits = f"{int(mask.replace(',', ''), 16):b}"[::-1]
    ends = [(run.start(), run.end() - 1) for run in re.finditer("1+", bits)]
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in ends) or None


def _unknown_classes(ends: Sequence[Endpoint]) -> list[str]:
    unknown = [end.bus_text for end in ends if not end.is_gpu and not end.is_nic and end.pci_class is None]
    return [f"the class of the pci elements {', '.join(unknown)}: GPU, NIC or neither"] if unknown else []


def _unknown_affinities(root: Element) -> list[str]:
    nodes = [cpu.attributes.get("numaid", "?") for cpu in root.children if "affinity" not in cpu.attributes]
    return [f"the CPU affinity of NUMA node {', '.join(nodes)}"] if nodes else []


def _refuse_twins(named: Iterable[tuple[str, Element]], source: str) -> None:
    seen: dict[str, Element] = {}
    for name, element in named:
        if name in seen:
            raise refuse(f"{name} is there already, on line {seen[name].line}", source, element)
        seen[name] = element
