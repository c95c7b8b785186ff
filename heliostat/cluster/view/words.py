"""The links of a machine in words for people: `NV12 each to each`, `NV2 in a ring, SYS elsewhere`. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations

from heliostat.cluster.catalogue import GIB
from heliostat.cluster.fabric import FabricLevel
from heliostat.cluster.machine import Device, Machine
from heliostat.cluster.topology import LinkClass, LinkKind

MEANING = {
    LinkKind.NVLINK: "NVLink",
    LinkKind.XGMI: "Infinity Fabric",
    LinkKind.PIX: "one PCIe switch",
    LinkKind.PXB: "several PCIe switches",
    LinkKind.PHB: "through a CPU's PCIe",
    LinkKind.NODE: "inside one CPU socket",
    LinkKind.SYS: "across CPU sockets",
    LinkKind.PCIE: "over PCIe, no detail told",
}
"""What a link of each kind crosses, for somebody who does not know the codes of `nvidia-smi topo -m`."""

Pair = tuple[str, str]


def links_in_words(machine: Machine) -> str:
    """How the devices are joined among one another; empty for a single one."""
    ends = list(dict.fromkeys(machine.end(device.index) for device in machine.devices)) if machine.topology else []
    if len(machine.devices) < 2:
        return ""
    if machine.topology is None:
        return "inside the host" if all(device.type == "cpu" for device in machine.devices) else "not told"
    by_class: dict[LinkClass | None, list[Pair]] = {}
    for a, b in combinations(ends, 2):
        by_class.setdefault(machine.topology.link(a, b), []).append((a, b))
    untold = by_class.pop(None, [])
    told = sorted(((link, pairs) for link, pairs in by_class.items() if link), key=lambda item: item[0].closeness)
    words = list(_shapes(ends, told))
    words += [f"{len(untold)} of {len(ends) * (len(ends) - 1) // 2} pairs not told"] if untold else []
    return ", ".join(words) or "instances of one GPU"


def meaning(link: LinkClass) -> str:
    """What `link` is, in plain words: `12 NVLinks`, `across CPU sockets`."""
    if link.num_links is not None:
        return f"{link.num_links} {MEANING[link.kind]}{'s' if link.num_links > 1 else ''}"
    return MEANING[link.kind] + (f", {link.hops} hop{'s' if link.hops > 1 else ''}" if link.hops else "")


def level_in_words(level: FabricLevel) -> str:
    """`400 Gbit/s a node, 14 us`."""
    rate = "as fast as the NICs" if level.bytes_per_s is None else f"{level.bytes_per_s * 8 / 1e9:g} Gbit/s a node"
    return f"{rate}, {level.latency_s * 1e6:g} us"


def count_in_words(count: int, what: str) -> str:
    """`1 node`, `1,250 nodes`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def product(device: Device) -> str:
    """What it is, whatever its speed: `A100-40GB-SXM/1g.5gb`."""
    return device.type if device.mig is None else f"{device.type}/{device.mig}"


def devices_in_words(devices: Iterable[Device]) -> str:
    """`8 x A100-40GB-SXM, 40 GiB`."""
    kinds = Counter((product(one), one.memory_bytes) for one in devices)
    return " + ".join(f"{count} x {kind}, {gib(num_bytes)}" for (kind, num_bytes), count in kinds.items())


def nics_in_words(machine: Machine) -> str:
    """`8 x 200 Gbit/s, PIX to the nearest device`; empty where none are told."""
    topology = machine.topology
    if topology is None or not topology.nics:
        return ""
    speeds = Counter(nic.bits_per_s for nic in topology.nics)
    words = " + ".join(f"{count} x {_speed(bits)}" for bits, count in speeds.items())
    nearest = {
        topology.link(device.name, name) for device in topology.devices for name in _one_nic(machine, device.name)
    }
    codes = sorted((link for link in nearest if link is not None), key=lambda link: link.closeness)
    return f"{words}, nearest over {' or '.join(map(str, codes))}" if codes else words


def gib(num_bytes: int) -> str:
    """`80 GiB`, `4.8 GiB`."""
    return f"{num_bytes / GIB:.3g} GiB" if num_bytes < 1000 * GIB else f"{num_bytes / GIB / 1024:,.1f} TiB"


def _speed(bits_per_s: int | None) -> str:
    return "unknown speed" if bits_per_s is None else f"{bits_per_s / 1e9:g} Gbit/s"


def _one_nic(machine: Machine, device: str) -> tuple[str, ...]:
    assert machine.topology is not None
    return machine.topology.nearest_nics(device)[:1]


def _shapes(ends: list[str], told: list[tuple[LinkClass, list[Pair]]]) -> Iterator[str]:
    closer: list[Pair] = []
    for place, (link, pairs) in enumerate(told):
        groups = _components(ends, closer + pairs)
        nested = len(closer + pairs) == sum(len(group) * (len(group) - 1) // 2 for group in groups)
        yield f"{link} {_shape(ends, pairs, groups if nested else None, first=place == 0)}"
        closer = closer + pairs


def _shape(ends: list[str], pairs: list[Pair], cliques: list[frozenset[str]] | None, *, first: bool) -> str:
    """What `pairs` make of `ends`; `cliques` are the groups that they fill up together with closer links."""
    if cliques is not None and len(cliques) == 1:
        return "each to each" if first else "elsewhere"
    sizes = {len(group) for group in cliques or ()}
    if cliques is not None and len(sizes) == 1:
        return "in pairs" if sizes == {2} else f"in groups of {sizes.pop()}"
    rings = _components(ends, pairs)
    degree = Counter(end for pair in pairs for end in pair)
    if set(degree.values()) == {2} and len(degree) == len(ends) and len({len(ring) for ring in rings}) == 1:
        return "in a ring" if len(rings) == 1 else f"in rings of {len(rings[0])}"
    return f"on {len(pairs)} pair{'s' if len(pairs) > 1 else ''}"


def _components(ends: list[str], pairs: list[Pair]) -> list[frozenset[str]]:
    group: Mapping[str, frozenset[str]] = {end: frozenset({end}) for end in ends}
    for a, b in pairs:
        merged = group[a] | group[b]
        group = {**group, **dict.fromkeys(merged, merged)}
    return list(dict.fromkeys(group.values()))
