"""Cluster files: YAML or JSON in the form of `layout`, every mistake told with its place.

A machine's `topology` may name a file with what `nvidia-smi topo -m`, `rocm-smi --showtopo` or NCCL printed on it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from heliostat.cluster.layout import FabricRow, Layout, LevelRow, PoolRow, unfold_layout
from heliostat.cluster.machine_row import DeviceRow, MachineRow, TopologyRow
from heliostat.cluster.parse_nccl_xml import parse_nccl_xml
from heliostat.cluster.parse_nvidia_smi import parse_nvidia_smi
from heliostat.cluster.parse_rocm_smi import parse_rocm_smi
from heliostat.cluster.spec import ClusterSpec
from heliostat.cluster.topology import NodeTopology
from heliostat.document import Document, Keys, Mistake, read
from heliostat.errors import ConfigError, UserError
from heliostat.files import write_whole
from heliostat.values import Frozen
from heliostat.wording import explain, place

_ROWS: dict[tuple[str | int, int], type[Frozen]] = {
    ("machines", 3): MachineRow,
    ("machines", 5): DeviceRow,
    ("nodes", 3): PoolRow,
    ("fabric", 2): FabricRow,
    ("fabric", 4): LevelRow,
}
"""What is written at a key, by the first key above it and its depth."""
_NEXT_STEP = "docs/cluster.md describes the file"


def load(path: Path) -> ClusterSpec:
    """The cluster in the file `path`.

    Raises:
        ConfigError: with every mistake in it as `file:line:col: keys: message`.
    """
    document = read(path)
    mistakes = list(document.mistakes)
    data = _with_topologies(document, mistakes)
    try:
        layout = Layout.model_validate(data)
    except ValidationError as error:
        for one in error.errors():
            keys = place(one, data)
            message = explain(one, {}, _known_keys(keys))
            mistakes.append(Mistake(origin=document.origin(keys), keys=keys, message=message))
        raise _refused(mistakes) from None
    unfolding = unfold_layout(layout)
    mistakes += [
        Mistake(origin=document.origin(keys), keys=keys, message=message) for keys, message in unfolding.mistakes
    ]
    if mistakes:
        raise _refused(mistakes)
    try:
        return ClusterSpec(**unfolding.fields)
    except ValidationError as error:
        start = document.origin(())
        raise _refused(
            [Mistake(origin=start, keys=(), message=str(one["ctx"]["error"])) for one in error.errors()]
        ) from None


def save(cluster: ClusterSpec, path: Path) -> None:
    """Write `cluster` to `path`, whole or not at all: JSON if the name ends so, else YAML."""
    data = cluster.model_dump(mode="json")
    text = json.dumps(data, indent=2) if path.suffix == ".json" else to_yaml(data)
    write_whole(path, text)


def to_yaml(data: Any) -> str:
    """`data` as YAML for people: its order kept, short lists and mappings on one line."""
    return yaml.dump(data, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)


def read_topology(path: Path) -> NodeTopology:
    """The topology that a tool printed into the file `path`.

    Raises:
        UserError: it cannot be read, or none of the tools prints such a text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the topology: {error}", where=str(path)) from None
    if text.lstrip().startswith("<"):
        return parse_nccl_xml(text, path.name)
    if "ROCm" in text or "Link Type between" in text:
        return parse_rocm_smi(text, path.name)
    return parse_nvidia_smi(text, path.name)


def _with_topologies(document: Document, mistakes: list[Mistake]) -> dict[str, Any]:
    """The data of `document` with every topology file read."""
    data = dict(document.data)
    machines = data.get("machines")
    if not isinstance(machines, Mapping):
        return data
    data["machines"] = {
        name: _with_topology(("machines", name), row, document, mistakes) for name, row in machines.items()
    }
    return data


def _with_topology(keys: tuple[str, str], row: Any, document: Document, mistakes: list[Mistake]) -> Any:
    if not isinstance(row, Mapping) or not isinstance(row.get("topology"), str):
        return row
    origin = document.origin((*keys, "topology"))
    rest = {name: value for name, value in row.items() if name != "topology"}
    try:
        topology = read_topology(origin.directory / row["topology"])
    except UserError as error:
        message = "".join((error.what, f", got {error.got}" if error.got else "", f" ({error.where})"))
        mistakes.append(Mistake(origin=origin, keys=(*keys, "topology"), message=message))
        return rest
    return {**rest, "topology": TopologyRow.of(topology).model_dump()}


def _known_keys(keys: Keys) -> list[str]:
    """What may stand beside the last of `keys`."""
    row = _ROWS.get((keys[0], len(keys)) if len(keys) > 1 else ("", 1), Layout)
    return list(row.model_fields)


def _refused(mistakes: list[Mistake]) -> ConfigError:
    ordered = sorted(mistakes, key=lambda one: one.origin.sort_key)
    return ConfigError([str(one) for one in ordered], subject="the cluster", next_step=_NEXT_STEP)
