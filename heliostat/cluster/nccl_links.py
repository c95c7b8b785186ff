"""The NVLinks and XGMI links in a topology XML of NCCL.

A link to an NVSwitch leads to every GPU that has links to NVSwitches, with as many links as the poorer of the two has.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from heliostat.cluster.matrix import Cell, fold
from heliostat.cluster.nccl_tree import BusId, attribute, bus_id, integer, refuse
from heliostat.cluster.topology import LinkClass, LinkKind
from heliostat.cluster.xml_lines import Element

_KINDS = {"nvlink": LinkKind.NVLINK, "xgmi": LinkKind.XGMI}
# PCI classes of what a link may lead to: NVSwitch, POWER9 CPU, GPU (3D controller, display, accelerator)
_NVSWITCH, _CPU, _GPU = "0x068000", "0x068001", ("0x03", "0x12")

Pair = tuple[str, str]


class Gpu(NamedTuple):
    """A GPU that NCCL described."""

    name: str
    bus: BusId
    element: Element


def peer_links(gpus: Sequence[Gpu], source: str) -> tuple[dict[Pair, LinkClass], list[str]]:
    """The NVLinks and XGMI links of each pair that has any, and in words where links go that lead nowhere in the file.

    Raises:
        UserError: the two ends of a link contradict each other, or it leads to something that is not known.
    """
    names = {gpu.bus: gpu.name for gpu in gpus}
    cells: dict[Pair, Cell[LinkClass]] = {}
    missing: list[str] = []
    for gpu in gpus:
        for link in _to_gpus(gpu, source):
            target = attribute(link, "target", source)
            peer = names.get(bus_id(target, link, source))
            if peer is None:
                missing.append(f"the GPU at {target}, where an {link.tag} of {gpu.name} leads (line {link.line})")
            elif peer == gpu.name:
                missing.append(f"where the {link.tag} of {gpu.name} leads: line {link.line} names {gpu.name} itself")
            else:
                cells[gpu.name, peer] = _bundle(cells.get((gpu.name, peer)), link, source)
    for (a, b), cell in cells.items():
        if (b, a) not in cells:
            raise refuse(f"{a} has {cell.value} to {b}, and {b} has none to {a}", source, _element(gpus, b))
    return _switched(gpus, source) | fold([gpu.name for gpu in gpus], cells, source), missing


def _links(gpu: Gpu) -> Iterator[Element]:
    return (child for child in gpu.element.children if child.tag in _KINDS)


def _to_gpus(gpu: Gpu, source: str) -> Iterator[Element]:
    for link in _links(gpu):
        target_class = link.attributes.get("tclass", _GPU[0])
        if target_class.startswith(_GPU):
            yield link
        elif target_class not in {_NVSWITCH, _CPU}:
            raise refuse("a link leads to a PCI class that is no GPU, NVSwitch or CPU", source, link, target_class)


def _bundle(before: Cell[LinkClass] | None, link: Element, source: str) -> Cell[LinkClass]:
    """The links of `link` with those of an earlier element for the same peer."""
    count = _count(link, source) + (before.value.num_links or 0 if before else 0)
    return Cell(value=LinkClass(kind=_KINDS[link.tag], num_links=count), line=link.line)


def _count(link: Element, source: str) -> int:
    count = integer(link, "count", source)
    if count < 1:
        raise refuse("a link that is there counts at least once", source, link, str(count))
    return count


def _switched(gpus: Sequence[Gpu], source: str) -> dict[Pair, LinkClass]:
    counts = {
        gpu.name: sum(_count(link, source) for link in _links(gpu) if link.attributes.get("tclass") == _NVSWITCH)
        for gpu in gpus
    }
    return {
        (a, b): LinkClass(kind=LinkKind.NVLINK, num_links=min(counts[a], counts[b]))
        for a, b in combinations(counts, 2)
        if counts[a] and counts[b]
    }


def _element(gpus: Sequence[Gpu], name: str) -> Element:
    return next(gpu.element for gpu in gpus if gpu.name == name)
