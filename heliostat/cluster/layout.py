"""The written form of a cluster, one for YAML, JSON and the record of a run: machines by name, then nodes in pools.

    machines:
      a100: {devices: 8 x A100-40GB-SXM, links: NV12, nics: 8 x 200 Gbit/s}
      v100: {devices: 8 x V100-32GB-SXM, topology: dgx1.txt}
    nodes:
      - {machine: a100, count: 2, labels: {rack: r0}}
      - {machine: v100, count: 4, labels: {rack: r1}}
    fabric:
      levels: [{name: rack, gbit_per_s: 400}, {name: cluster, gbit_per_s: 100, latency_us: 20}]

`unfold` makes the fields of a `ClusterSpec` of it, `fold` the reverse; a fold unfolds to an equal cluster. The rows of
a machine are in `machine_row`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, groupby
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from heliostat.cluster.catalogue import Catalogue, DeviceType, builtin
from heliostat.cluster.fabric import Fabric, FabricLevel
from heliostat.cluster.links import NETWORK_LATENCY_S
from heliostat.cluster.machine import Machine
from heliostat.cluster.machine_row import MachineRow
from heliostat.cluster.measured import Measured
from heliostat.cluster.rates import RateRow
from heliostat.document import Keys
from heliostat.references import did_you_mean
from heliostat.values import Frozen

if TYPE_CHECKING:
    from heliostat.cluster.spec import Node

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_LABEL_KEY = re.compile(rf"([a-z0-9.-]+/)?{_LABEL.pattern}")


class PoolRow(Frozen):
    """Nodes that differ in nothing but their names."""

    machine: str
    count: PositiveInt | None = None
    """Nodes of this pool, one unless said; named after the machine and numbered through the file."""
    ids: tuple[str, ...] | None = None
    """Their names instead."""
    labels: dict[str, str] = Field(default_factory=dict)
    hostnames: tuple[str, ...] | None = None
    uuids: tuple[tuple[str, ...], ...] | None = None
    """A row for each node, an entry for each device."""
    speeds: tuple[tuple[PositiveFloat, ...], ...] | None = None

    @field_validator("labels")
    @classmethod
    def _ray_takes_them(cls, labels: dict[str, str]) -> dict[str, str]:
        for key, value in labels.items():
            if not _LABEL_KEY.fullmatch(key) or (value and not _LABEL.fullmatch(value)):
                raise ValueError(
                    f"the label {key}: {value!r} would be refused by Ray: up to 63 letters, digits, '-', '_' and '.', "
                    "the first and last a letter or digit"
                )
        return labels

    @property
    def num_nodes(self) -> int:
        """How many nodes the row stands for."""
        return len(self.ids) if self.ids is not None else self.count or 1


class LevelRow(RateRow):
    """One level of the fabric."""

    name: str = Field(min_length=1)
    nodes: PositiveInt | None = None
    """How many nodes, one after another as they are listed, make one domain; labels tell where this is left out."""

    def level(self) -> FabricLevel:
        """The level that the row describes."""
        latency_s = NETWORK_LATENCY_S if self.latency is None else self.latency
        return FabricLevel(name=self.name, bytes_per_s=self.rate, latency_s=latency_s)


class FabricRow(Frozen):
    """The levels, innermost first."""

    levels: tuple[LevelRow, ...] = Field(min_length=1)
    rails: bool = False


class Layout(Frozen):
    """The whole document."""

    origin: Literal["live", "file", "emulated"] = "file"
    machines: dict[str, MachineRow]
    nodes: tuple[PoolRow, ...] = ()
    fabric: FabricRow | None = None
    types: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Device types beside the catalogue's, in the form of catalogue.yaml."""
    measured: Measured | None = None


@dataclass
class Unfolding:
    """The fields of a cluster, and every mistake found on the way with the keys of the place to correct."""

    fields: dict[str, Any] = field(default_factory=dict)
    mistakes: list[tuple[Keys, str]] = field(default_factory=list)


def unfold(data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the `ClusterSpec` that `data`, a `Layout`, describes.

    Raises:
        ValueError: with every mistake in it.
    """
    unfolding = unfold_layout(Layout.model_validate(data))
    if unfolding.mistakes:
        raise ValueError("; ".join(f"{'.'.join(map(str, keys))}: {message}" for keys, message in unfolding.mistakes))
    return unfolding.fields


def unfold_layout(layout: Layout) -> Unfolding:
    """The fields of a `ClusterSpec`, and what is wrong with them."""
    result = Unfolding()
    catalogue = _catalogue(layout, result)
    machines = {name: _machine(name, row, catalogue, result) for name, row in layout.machines.items()}
    nodes = list(_nodes(layout, machines, result))
    if layout.fabric is not None:
        _number_domains(layout.fabric, nodes, result)
        _demand_labels(layout.fabric, nodes, result)
    if not layout.nodes:
        result.mistakes.append((("nodes",), "there is no node"))
    _refuse_twins(nodes, result)
    levels = tuple(level.level() for level in layout.fabric.levels) if layout.fabric else ()
    result.fields = {
        "nodes": [node for _, node in nodes],
        "origin": layout.origin,
        "fabric": Fabric(levels=levels, rails=layout.fabric.rails) if layout.fabric else None,
        "types": {name: catalogue.types[name] for name in layout.types if name in catalogue.types},
        "measured": layout.measured,
    }
    return result


def fold(
    nodes: Sequence["Node"],
    *,
    origin: str,
    fabric: Fabric | None,
    types: Mapping[str, DeviceType],
    measured: Measured | None,
) -> dict[str, Any]:
    """A cluster as plain data, equal machines once, neighbours that differ in their names alone in one row."""
    names = machine_names(nodes)
    data: dict[str, Any] = {
        "origin": origin,
        "machines": {name: MachineRow.of(machine).written() for machine, name in names.items()},
        "nodes": [_pool(list(members), names) for _, members in groupby(nodes, key=lambda one: _likeness(one, names))],
    }
    if fabric is not None:
        rails = {"rails": True} if fabric.rails else {}
        data["fabric"] = {**rails, "levels": [level.model_dump(exclude_none=True) for level in fabric.levels]}
    if types:
        data["types"] = {name: _type_row(one) for name, one in types.items()}
    if measured is not None:
        data["measured"] = measured.model_dump(exclude_defaults=True)
    return data


def _catalogue(layout: Layout, result: Unfolding) -> Catalogue:
    if not layout.types:
        return builtin()
    catalogue, mistakes = builtin().with_rows(layout.types)
    result.mistakes += [(("types", *keys), message) for keys, message in mistakes]
    return catalogue


def _machine(name: str, row: MachineRow, catalogue: Catalogue, result: Unfolding) -> Machine | None:
    machine, mistakes = row.machine(name, catalogue)
    result.mistakes += [(("machines", name, *keys), message) for keys, message in mistakes]
    return machine


def _nodes(
    layout: Layout, machines: Mapping[str, Machine | None], result: Unfolding
) -> Iterator[tuple[Keys, dict[str, Any]]]:
    """Every node with the keys of its row."""
    numbers = {name: count() for name in machines}
    for place, pool in enumerate(layout.nodes):
        keys: Keys = ("nodes", place)
        if pool.machine not in machines:
            hint = did_you_mean(pool.machine, machines)
            result.mistakes.append(((*keys, "machine"), f"there is no machine '{pool.machine}'{hint}"))
            continue
        if pool.count is not None and pool.ids is not None and pool.count != len(pool.ids):
            result.mistakes.append(((*keys, "count"), f"count is {pool.count}, but {len(pool.ids)} ids are given"))
        machine = machines[pool.machine]
        columns = (("hostnames", pool.hostnames), ("uuids", pool.uuids), ("speeds", pool.speeds))
        wrong = [name for name, values in columns if values is not None and len(values) != pool.num_nodes]
        result.mistakes += [((*keys, name), f"needs one entry for each of {pool.num_nodes} nodes") for name in wrong]
        if machine is None or wrong:
            continue
        for number in range(pool.num_nodes):
            yield (
                keys,
                {
                    "node_id": pool.ids[number]
                    if pool.ids is not None
                    else f"{pool.machine}-{next(numbers[pool.machine])}",
                    "machine": machine,
                    "hostname": pool.hostnames[number] if pool.hostnames else "",
                    "labels": dict(pool.labels),
                    "uuids": pool.uuids[number] if pool.uuids else (),
                    "speeds": pool.speeds[number] if pool.speeds else (),
                },
            )


def _number_domains(fabric: FabricRow, nodes: Sequence[tuple[Keys, dict[str, Any]]], result: Unfolding) -> None:
    """Label the nodes of every level that counts them off."""
    for level in fabric.levels:
        for number, (keys, node) in enumerate(nodes):
            if level.nodes is None:
                break
            if level.name in node["labels"]:
                message = f"the label '{level.name}' is also the fabric level that counts nodes off: give one of them"
                result.mistakes.append(((*keys, "labels", level.name), message))
                break
            node["labels"][level.name] = f"{level.name}-{number // level.nodes}"


def _demand_labels(fabric: FabricRow, nodes: Sequence[tuple[Keys, dict[str, Any]]], result: Unfolding) -> None:
    """Where some nodes say in which domain of an inner level they are, all must."""
    told: set[Keys] = set()
    for level in fabric.levels[:-1]:
        for keys, node in nodes:
            if level.name not in node["labels"] and keys not in told:
                told.add(keys)
                message = f"no label '{level.name}': which {level.name} is {node['node_id']} in?"
                result.mistakes.append((keys, message))


def _refuse_twins(nodes: Sequence[tuple[Keys, dict[str, Any]]], result: Unfolding) -> None:
    owners: dict[tuple[str, str], str] = {}
    for keys, node in nodes:
        for what, name in [("node", node["node_id"]), *(("device uuid", uuid) for uuid in node["uuids"] if uuid)]:
            if (what, name) in owners:
                message = f"{what} '{name}' is there twice, first in {owners[what, name]}"
                result.mistakes.append((keys, message))
            owners.setdefault((what, name), f"{keys[0]}[{keys[1]}]")


def machine_names(nodes: Sequence["Node"]) -> dict[Machine, str]:
    """Every different machine and its name, numbered where two of them have one."""
    names: dict[Machine, str] = {}
    for node in nodes:
        if node.machine not in names:
            base, taken = node.machine.name, set(names.values())
            names[node.machine] = next(name for name in _numbered(base) if name not in taken)
    return names


def _numbered(base: str) -> Iterator[str]:
    yield base
    yield from (f"{base}-{number}" for number in count(2))


def _likeness(node: "Node", names: Mapping[Machine, str]) -> tuple[object, ...]:
    return (
        names[node.machine],
        tuple(sorted(node.labels.items())),
        bool(node.hostname),
        bool(node.uuids),
        bool(node.speeds),
    )


def _pool(members: Sequence["Node"], names: Mapping[Machine, str]) -> dict[str, Any]:
    first = members[0]
    row: dict[str, Any] = {"machine": names[first.machine], "ids": [node.node_id for node in members]}
    if first.labels:
        row["labels"] = dict(first.labels)
    if first.hostname:
        row["hostnames"] = [node.hostname for node in members]
    if first.uuids:
        row["uuids"] = [list(node.uuids) for node in members]
    if first.speeds:
        row["speeds"] = [list(node.speeds) for node in members]
    return row


def _type_row(one: DeviceType) -> dict[str, Any]:
    row = one.model_dump(exclude_defaults=True, exclude={"name", "mig"})
    if one.mig:
        row["mig"] = {p.name: [p.compute_slices, p.memory_slices, p.max_instances] for p in one.mig}
    return row
