"""A look at a cluster: the spec that follows from what its nodes say, and the nodes that are lost. Pure."""

from collections.abc import Iterable, Mapping

from pydantic import Field, ValidationError

from heliostat.cluster.catalogue import Catalogue, DeviceType, builtin
from heliostat.cluster.emulated_node import EmulatedNode
from heliostat.cluster.fabric import Fabric
from heliostat.cluster.machine import Machine
from heliostat.cluster.machine_of import Found, machine_of
from heliostat.cluster.node_report import NodeReport, probe
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.cluster.sysfs import SysfsRecord
from heliostat.errors import UserError
from heliostat.values import Frozen


class LostNode(Frozen):
    """A node that was there and does not answer."""

    node_id: str
    name: str
    """Its name in the file it was started from, else its host."""
    why: str


class Survey(Frozen):
    """One look."""

    cluster: ClusterSpec
    """The nodes that answered, with all their devices, free or not."""
    lost: tuple[LostNode, ...] = ()
    reports: dict[str, NodeReport] = Field(default_factory=dict)
    """By node id."""
    remarks: tuple[str, ...] = ()
    """What could not be understood, in words: an unknown product, a topology that is not complete."""


class Member(Frozen):
    """A node that answered, as the cluster knows it."""

    node_id: str
    hostname: str
    labels: dict[str, str] = Field(default_factory=dict)
    """The user's."""
    resources: dict[str, float] | None = None
    """What Ray may hand out there; None without Ray, when everything counts."""
    report: NodeReport


def survey_here(cpus_per_device: int = 1, known: ClusterSpec | None = None) -> Survey:
    """Look at this machine alone, without Ray."""
    report = probe()
    return assemble(
        [Member(node_id=report.hostname, hostname=report.hostname, report=report)],
        cpus_per_device=cpus_per_device,
        known=known,
    )


def assemble(
    members: Iterable[Member],
    *,
    lost: Iterable[LostNode] = (),
    cpus_per_device: int = 1,
    known: ClusterSpec | None = None,
) -> Survey:
    """Put together what the nodes say.

    Args:
        members: the nodes that answered.
        lost: those that did not.
        cpus_per_device: what a device is on a node without GPUs.
        known: a description that tells what no node can: the fabric, own device types, earlier measurements.

    Raises:
        UserError: what they say contradicts itself.
    """
    members = tuple(members)
    finder = _Finder(known.catalogue if known else builtin(), cpus_per_device)
    nodes = tuple(node for member in members if (node := finder.node(member)) is not None)
    try:
        cluster = ClusterSpec(
            nodes=nodes,
            origin="emulated" if finder.emulated else "live",
            fabric=finder.fabric or (known.fabric if known else None),
            types={**(known.types if known else {}), **finder.types},
            measured=known.measured if known else None,
        )
    except ValidationError as error:
        raise UserError(
            "what the nodes say does not make one cluster",
            got="; ".join(one["msg"].removeprefix("Value error, ") for one in error.errors()),
            causes=("labels that put one rack into two zones", "two raylets that own the same GPU"),
            next_step="correct the labels or the GPUs that `ray start` is given on those nodes",
        ) from error
    reports = {member.node_id: member.report for member in members}
    return Survey(cluster=cluster, lost=tuple(lost), reports=reports, remarks=tuple(finder.remarks))


class _Finder:
    """Turns nodes into those of a spec, equal machines into one."""

    def __init__(self, catalogue: Catalogue, cpus_per_device: int) -> None:
        self._catalogue = catalogue
        self._cpus_per_device = cpus_per_device
        self._machines: dict[Machine, Machine] = {}
        self.fabric: Fabric | None = None
        self.emulated = False
        self.remarks: list[str] = []
        self.types: dict[str, DeviceType] = {}
        """Products that the catalogue lacks: a measurement alone can tell what they do."""

    def node(self, member: Member) -> Node | None:
        """The node, or None if it has no device to offer."""
        if member.report.emulates:
            return self._pretended(member, EmulatedNode.model_validate_json(member.report.emulates))
        if member.resources is not None and not (member.resources.get("CPU") or member.resources.get("GPU")):
            return None  # a head node that is to run nothing
        found = self._own(member)
        self.remarks += [f"{member.hostname}: {remark}" for remark in found.remarks]
        for name in {device.type for device in found.machine.devices} - self._catalogue.types.keys():
            self.types[name] = DeviceType(name=name, always_measured=True, source="the driver's name of it")
        if not found.machine.devices:
            return None
        return Node(
            node_id=member.node_id,
            machine=self._shared(found.machine),
            hostname=member.hostname,
            labels=member.labels,
            uuids=found.uuids,
        )

    def _own(self, member: Member) -> Found:
        """What the node has, as far as Ray was told to hand it out."""
        report, offered = member.report, member.resources
        if offered is not None and not offered.get("GPU"):
            report = report.model_copy(update={"gpus": None, "pci": SysfsRecord()})
        if offered is not None and report.gpus is None:
            cores = {"num_cpus": int(offered["CPU"]), "memory_bytes": int(offered.get("memory") or report.memory_bytes)}
            report = report.model_copy(update=cores)
        found = machine_of(report, self._catalogue, cpus_per_device=self._cpus_per_device)
        if offered is None or report.gpus is None:
            return found
        return _handed_out(found, int(offered["GPU"]), report.visible_devices)

    def _pretended(self, member: Member, described: EmulatedNode) -> Node:
        self.emulated = True
        self.fabric = described.fabric
        self.types.update(described.types)
        return Node(
            node_id=member.node_id,
            machine=self._shared(described.machine),
            hostname=described.node_id,
            labels=described.labels,
            uuids=described.uuids,
        )

    def _shared(self, machine: Machine) -> Machine:
        return self._machines.setdefault(machine, machine)


def _handed_out(found: Found, num_gpus: int, visible: str | None) -> Found:
    """What Ray has of `found`: what its raylet sees, and of that the first, as many as it was told to have."""
    uuids = found.uuids or ("",) * len(found.machine.devices)
    known = tuple(zip(found.machine.devices, uuids, strict=True))
    if visible is not None:
        names = tuple(name for name in visible.split(",") if name)
        known = tuple((device, uuid) for device, uuid in known if str(device.index) in names or uuid.startswith(names))
    gpus = sorted({device.physical for device, _ in known})[:num_gpus]
    kept = tuple((device, uuid) for device, uuid in known if device.physical in gpus)
    if len(kept) == len(found.machine.devices):
        return found
    remark = f"Ray hands out {len(kept)} of {len(found.machine.devices)} devices: {_numbers(d.index for d, _ in kept)}"
    return Found(
        machine=found.machine.part(device.index for device, _ in kept),
        uuids=tuple(uuid for _, uuid in kept),
        remarks=(*found.remarks, remark),
    )


def _numbers(indices: Iterable[int]) -> str:
    return ", ".join(map(str, indices)) or "none"


def user_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Those of a node's `labels` that are not put there by Ray or by us, for our own use."""
    return {key: value for key, value in labels.items() if not key.startswith(("ray.io/", "heliostat.io/"))}
