"""What a raylet of an emulation pretends to be, and how much slower than the fastest device its devices are. Pure.

The description is a file named by an environment variable of the raylet, which all its workers inherit: discovery reads
the node from it, training the slow-downs.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from heliostat.cluster.catalogue import Catalogue, DeviceType, Dtype
from heliostat.cluster.fabric import Fabric
from heliostat.cluster.machine import Device, Machine
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.errors import UserError
from heliostat.references import did_you_mean
from heliostat.values import Frozen

NODE_LABEL = "heliostat.io/node"
"""Label of an emulated node's raylet: its name in the spec."""
EMULATED_LABEL = "heliostat.io/emulated"
"""`true` on every raylet that pretends to be a node."""
VARIABLE = "HELIOSTAT_EMULATED_NODE"
"""Environment variable of an emulated node's processes: the path of its description."""
COMPARED_IN: tuple[Dtype, ...] = ("bf16", "fp16", "fp32")
"""Types of device are compared by their peaks in the first of these that all of them have."""

Slowdown = Annotated[float, Field(ge=1.0, allow_inf_nan=False)]


class EmulatedNode(Frozen):
    """One node of an emulated cluster."""

    node_id: str
    """Its name in the spec; Ray gives the raylet an id of its own."""
    machine: Machine
    uuids: tuple[str, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)
    hostname: str = ""
    slowdowns: tuple[Slowdown, ...]
    """Of each device: how many times as long it takes as the fastest type of the cluster."""
    fabric: Fabric | None = None
    """Of the whole cluster, as `types`: what a real node could not tell."""
    types: dict[str, DeviceType] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if len(self.slowdowns) != len(self.machine.devices):
            raise ValueError(f"{len(self.slowdowns)} slowdowns for {len(self.machine.devices)} devices")
        return self

    @classmethod
    def of(cls, node: Node, cluster: ClusterSpec, slowdowns: Mapping[str, float]) -> Self:
        """The description of `node` of `cluster`, with what `slowdowns_of` says."""
        return cls(
            node_id=node.node_id,
            machine=node.machine,
            uuids=node.uuids,
            labels=node.labels,
            hostname=node.hostname,
            slowdowns=tuple(slowdowns[device.kind] for device in node.devices),
            fabric=cluster.fabric,
            types=cluster.types,
        )

    @classmethod
    def here(cls) -> Self | None:
        """What the node of this process pretends to be; None where it is what it is.

        Raises:
            UserError: the description cannot be read.
        """
        path = os.environ.get(VARIABLE)
        if not path:
            return None
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except (OSError, ValidationError) as error:
            raise UserError(
                "the description of this emulated node cannot be read",
                where=path,
                got=str(error).splitlines()[0],
                causes=(f"{VARIABLE} is set by hand", "the emulation was stopped"),
            ) from error

    def slowdown(self, visible_devices: str) -> float:
        """The slow-down of a worker.

        Args:
            visible_devices: its CUDA_VISIBLE_DEVICES, whose first entry is the index of its device. Where that names
                none, as on a node of CPU devices, the first device of the node counts.

        Raises:
            UserError: the node has no such device.
        """
        first = visible_devices.partition(",")[0].strip()
        by_index = {
            str(device.index): factor for device, factor in zip(self.machine.devices, self.slowdowns, strict=True)
        }
        if first and first not in by_index:
            raise UserError(
                f"the emulated node {self.node_id} has no device {first}",
                where="CUDA_VISIBLE_DEVICES",
                got=visible_devices,
                next_step=f"choose among: {', '.join(by_index)}",
            )
        return by_index[first] if first else next(iter(self.slowdowns), 1.0)


def slowdowns_of(cluster: ClusterSpec, given: Mapping[str, float] | None = None) -> dict[str, float]:
    """How many times as long each kind of device takes as the fastest type of the cluster.

    Types are compared by the dense peak of the catalogue in the first dtype of `COMPARED_IN` that all of them have; a
    MIG instance has its share of the compute slices, and a measured speed below 1.0 counts. A `cpu` is 1.0: it runs the
    real work at its own pace.

    Args:
        cluster: the devices.
        given: device type -> factor, in place of what the catalogue says.

    Returns:
        Factors by `Device.kind`.

    Raises:
        UserError: a factor below 1.0 or for a type that is not there; or the catalogue has no dtype in common for types
            that `given` leaves out.
    """
    kinds = {device.kind: device for node in cluster.nodes for device in node.devices}
    types = {device.type for device in kinds.values()}
    given = given or {}
    _check(given, types)
    gpus = types - {"cpu"}
    by_peak = {} if gpus <= given.keys() else _by_peak(gpus, cluster.catalogue)
    by_type = {"cpu": 1.0, **by_peak, **given}
    return {
        kind: max(1.0, by_type[device.type] * _num_instances(device, cluster.catalogue) / device.speed)
        for kind, device in kinds.items()
    }


def _check(given: Mapping[str, float], types: set[str]) -> None:
    for name, factor in given.items():
        if name not in types:
            raise UserError(f"the cluster has no device of type '{name}'{did_you_mean(name, sorted(types))}")
        if not 1.0 <= factor < float("inf"):
            raise UserError(f"the slow-down of {name} must be a number from 1.0 on", got=str(factor))


def _by_peak(types: set[str], catalogue: Catalogue) -> dict[str, float]:
    if len(types) == 1:
        return dict.fromkeys(types, 1.0)
    rows = {name: catalogue.find(name) for name in types}
    for dtype in COMPARED_IN:
        peaks = {name: flops for name, row in rows.items() if (flops := row.flops(dtype)) is not None}
        if len(peaks) == len(types):
            return {name: max(peaks.values()) / peak for name, peak in peaks.items()}
    raise UserError(
        f"the catalogue cannot compare {', '.join(sorted(types))}: none of {', '.join(COMPARED_IN)} is known of all",
        next_step="give a slow-down for each of these types",
    )


def _num_instances(device: Device, catalogue: Catalogue) -> float:
    """How many of `device` make a whole GPU, by compute slices; 1 for a whole one."""
    if device.mig is None:
        return 1.0
    slices = {profile.name: profile.compute_slices for profile in catalogue.find(device.type).mig}
    return max(slices.values()) / slices[device.mig]
