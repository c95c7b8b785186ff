"""The graph of a live node, from what NVML says of its GPUs and `/sys` of its PCI bus. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations, product

from heliostat.cluster.nvml_record import Ancestor, Gpu, NvmlRecord, Remote
from heliostat.cluster.sysfs import NicFunction, PciFunction, SysfsRecord, pcie_class
from heliostat.cluster.topology import Connection, LinkClass, LinkKind, Nic, NodeTopology, TopologyDevice

_PCIE_KINDS = {
    Ancestor.INTERNAL: LinkKind.PIX,
    Ancestor.SINGLE: LinkKind.PIX,
    Ancestor.MULTIPLE: LinkKind.PXB,
    Ancestor.HOST_BRIDGE: LinkKind.PHB,
    Ancestor.NODE: LinkKind.NODE,
    Ancestor.SYSTEM: LinkKind.SYS,
}


def topology_of(gpus: NvmlRecord, pci: SysfsRecord) -> NodeTopology:
    """The devices, the NICs that NCCL would use, and the link of each pair of them that the two records tell.

    Bus ids stay out of it: nodes with equal boards may number their buses differently.
    """
    places = {one.bus_id: one for one in pci.gpus}
    functions = {name_of(gpu): places.get(gpu.bus_id) for gpu in gpus.gpus}
    nics = _nics_in_use(pci)
    links = [*_gpu_links(gpus), *_pci_links(functions, nics)]
    ends = [*functions, *(nic.name for nic in nics)]
    return NodeTopology(
        source="NVML and /sys",
        devices=tuple(_device(gpu, functions[name_of(gpu)], pci.cpu_lists) for gpu in gpus.gpus),
        nics=tuple(
            Nic(name=nic.name, label=nic.name, numa_affinity=_numa(nic), bits_per_s=nic.bits_per_s) for nic in nics
        ),
        links=tuple(links),
        missing=tuple(_missing(ends, links, functions)),
    )


def name_of(gpu: Gpu) -> str:
    """`GPU0`, as nvidia-smi calls it."""
    return f"GPU{gpu.index}"


def _nics_in_use(pci: SysfsRecord) -> tuple[NicFunction, ...]:
    """The NICs that are up: those with RDMA, or where there are none all others, as NCCL chooses."""
    up = tuple(nic for nic in pci.nics if nic.is_up)
    return tuple(nic for nic in up if nic.rdma) or up


def _numa(function: PciFunction | None) -> tuple[int, ...]:
    return () if function is None or function.numa_node is None else (function.numa_node,)


def _device(gpu: Gpu, function: PciFunction | None, cpu_lists: Mapping[int, str]) -> TopologyDevice:
    numa = _numa(function)
    return TopologyDevice(
        name=name_of(gpu),
        index=gpu.index,
        cpu_affinity=cpu_lists.get(numa[0]) if numa else None,
        numa_affinity=numa,
    )


def _gpu_links(gpus: NvmlRecord) -> Iterator[Connection]:
    ancestors = {frozenset((pair.a, pair.b)): pair.ancestor for pair in gpus.pairs}
    for a, b in combinations(gpus.gpus, 2):
        num_links, ancestor = _num_nvlinks(a, b), ancestors.get(frozenset((a.index, b.index)))
        if num_links:
            link = LinkClass(kind=LinkKind.NVLINK, num_links=num_links)
        elif ancestor is not None:
            link = LinkClass(kind=_PCIE_KINDS[ancestor])
        else:
            continue
        yield Connection(a=name_of(a), b=name_of(b), link=link)


def _num_nvlinks(a: Gpu, b: Gpu) -> int:
    """Links that both ends have up, direct ones or else those to switches."""
    # in MIG mode a GPU reaches no other over NVLink: MIG user guide, deployment considerations
    if a.mig or b.mig:
        return 0
    direct = min(_num_links_to(a, b.bus_id), _num_links_to(b, a.bus_id))
    return direct or min(_num_switch_links(a), _num_switch_links(b))


def _num_links_to(gpu: Gpu, bus_id: str) -> int:
    return sum(link.is_up and link.remote_bus_id == bus_id for link in gpu.nvlinks)


def _num_switch_links(gpu: Gpu) -> int:
    return sum(link.is_up and link.remote is Remote.SWITCH for link in gpu.nvlinks)


def _pci_links(gpus: Mapping[str, PciFunction | None], nics: tuple[NicFunction, ...]) -> Iterator[Connection]:
    """From GPUs to NICs and among NICs; NVML tells the others."""
    places = {name: function for name, function in gpus.items() if function is not None}
    by_name = {nic.name: nic for nic in nics}
    for (a, one), (b, other) in [*product(places.items(), by_name.items()), *combinations(by_name.items(), 2)]:
        link = pcie_class(one.path, other.path, one.numa_node, other.numa_node)
        if link is not None:
            yield Connection(a=a, b=b, link=link)


def _missing(ends: Iterable[str], links: Iterable[Connection], gpus: Mapping[str, PciFunction | None]) -> Iterator[str]:
    told = {frozenset((link.a, link.b)) for link in links}
    pairs = [f"{a} - {b}" for a, b in combinations(ends, 2) if frozenset((a, b)) not in told]
    if pairs:
        yield f"the links {', '.join(pairs)}"
    unknown = [name for name, function in gpus.items() if not _numa(function)]
    if unknown:
        yield f"the NUMA node of {', '.join(unknown)}"
