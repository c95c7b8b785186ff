"""The PCIe tree in a topology XML of NCCL: which elements it has, its leaves, and the class of the path between two."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from heliostat.cluster.topology import LinkClass, LinkKind
from heliostat.cluster.xml_lines import Element, read_xml
from heliostat.errors import UserError

_CHILDREN = {
    "system": {"cpu"},
    "cpu": {"pci", "nic"},
    "pci": {"pci", "gpu", "nic", "pcilink"},
    "gpu": {"nvlink", "xgmi", "c2c"},
    "nic": {"net"},
}
"""Elements by the element around them, as NCCL 2.28 (src/graph/xml.cc) and RCCL (`xgmi`) write them."""

_VERSIONS = {"1", "2"}  # NCCL's and RCCL's
_BUS_ID = re.compile(r"([0-9a-f]+):([0-9a-f]+):([0-9a-f]+)\.([0-9a-f])", re.IGNORECASE)
# base classes of the PCI code and ID assignment specification: display and processing accelerators; network
_GPU_CLASSES, _NIC_CLASSES = ("0x03", "0x12"), ("0x02",)

BusId = tuple[int, int, int, int]
"""Domain, bus, device, function. Sorted, it is the order in which NVML counts GPUs."""


def refuse(what: str, source: str, element: Element, got: str | None = None) -> UserError:
    """The error for `element`."""
    return UserError(what, where=f"line {element.line} of {source}, in <{element.tag}>", got=got)


def attribute(element: Element, name: str, source: str) -> str:
    """The value of an attribute that must be there."""
    if name not in element.attributes:
        raise refuse(f"the attribute {name} is not there", source, element)
    return element.attributes[name]


def integer(element: Element, name: str, source: str) -> int:
    """The value of an attribute that must be a whole number."""
    text = attribute(element, name, source)
    if not re.fullmatch(r"-?\d+", text):
        raise refuse(f"the attribute {name} is not a whole number", source, element, text)
    return int(text)


def bus_id(text: str, element: Element, source: str) -> BusId:
    """A PCI bus id taken apart, so that ways of writing it do not matter."""
    match = _BUS_ID.fullmatch(text)
    if match is None:
        raise refuse("this is no PCI bus id", source, element, text)
    domain, bus, device, function = (int(part, 16) for part in match.groups())
    return domain, bus, device, function


def system(text: str, source: str) -> Element:
    """The root element of `text`, with nothing in it that NCCL would not write, describing one host."""
    root = read_xml(text, source)
    if root.tag != "system" or root.attributes.get("version") not in _VERSIONS:
        raise refuse(f"a topology begins with <system version>, {' or '.join(sorted(_VERSIONS))}", source, root)
    _check(root, source)
    hosts = {cpu.attributes["host_hash"] for cpu in root.children if "host_hash" in cpu.attributes}
    if len(hosts) > 1:
        raise refuse(f"this file describes {len(hosts)} hosts; a topology is of one", source, root)
    return root


def _check(element: Element, source: str) -> None:
    for child in element.children:
        if child.tag not in _CHILDREN.get(element.tag, ()):
            raise refuse(f"<{element.tag}> of NCCL's topology holds no <{child.tag}>", source, child)
        _check(child, source)


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A leaf of the tree: a PCI function, or a NIC without one, and the elements from its `cpu` down to it."""

    above: tuple[Element, ...]
    element: Element
    source: str

    @cached_property
    def bus(self) -> BusId | None:
        """None for a NIC that hangs on the `cpu` itself."""
        return bus_id(self.bus_text, self.element, self.source) if self.element.tag == "pci" else None

    @property
    def bus_text(self) -> str:
        """The bus id as written."""
        return attribute(self.element, "busid", self.source).lower()

    @property
    def gpu(self) -> Element | None:
        """What NCCL says of the GPU, if it does."""
        return next(self.element.all("gpu"), None)

    @property
    def nics(self) -> list[Element]:
        """What NCCL says of the NIC, if it does."""
        return list(self.element.all("nic")) if self.element.tag == "pci" else [self.element]

    @property
    def pci_class(self) -> str | None:
        """The PCI class code, such as 0x030200; None where the file leaves it out."""
        return self.element.attributes.get("class")

    @property
    def is_gpu(self) -> bool:
        """Whether it is told to be a GPU, by a `gpu` element or by its class."""
        return self.gpu is not None or (self.pci_class or "").startswith(_GPU_CLASSES)

    @property
    def is_nic(self) -> bool:
        """Whether it is told to be a NIC, by a `nic` element or by its class."""
        return bool(self.nics) or (self.pci_class or "").startswith(_NIC_CLASSES)


def endpoints(parent: Element, source: str, above: tuple[Element, ...] = ()) -> Iterator[Endpoint]:
    """The leaves below `parent`, which is a `cpu` or a switch, in the order of the file."""
    above = (*above, parent)
    for child in parent.children:
        if child.tag == "pci" and any(child.all("pci")):
            yield from endpoints(child, source, above)
        elif child.tag in {"pci", "nic"}:
            yield Endpoint(above=above, element=child, source=source)


def pcie_link(a: Endpoint, b: Endpoint) -> LinkClass:
    """The class of the path through the tree. Functions of one card are as close as the ends of one switch."""
    return LinkClass(kind=_path(a, b))


def _path(a: Endpoint, b: Endpoint) -> LinkKind:
    if a.bus and b.bus and a.bus[:3] == b.bus[:3]:
        return LinkKind.PIX
    num_common = sum(one is other for one, other in zip(a.above, b.above, strict=False))
    num_switches = len(a.above) + len(b.above) - 2 * num_common + 1
    if num_common > 1:
        return LinkKind.PIX if num_switches == 1 else LinkKind.PXB
    if _switches_are_joined(a, b) or _switches_are_joined(b, a):
        return LinkKind.PXB
    return LinkKind.PHB if num_common else LinkKind.SYS


def _switches_are_joined(a: Endpoint, b: Endpoint) -> bool:
    """Whether a switch above `a` has a `pcilink` to one above `b`: a way that does not pass the host bridge."""
    targets = {link.attributes.get("target") for switch in a.above[1:] for link in switch.all("pcilink")}
    return any(switch.attributes.get("busid") in targets for switch in b.above[1:])
