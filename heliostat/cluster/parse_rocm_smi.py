"""Reads what `rocm-smi --showtopo` prints, or a part of it (`--showtopotype`, `--showtopohops`, `--showtopoweight`).

The type of a link is XGMI or PCIE and no more: which bridges a PCIE path crosses, and how many XGMI links are bonded,
the tool does not say. Sections other than the topology's are passed over.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from heliostat.cluster.matrix import Cell, fold, lacking
from heliostat.cluster.topology import Connection, LinkClass, LinkKind, NodeTopology, TopologyDevice
from heliostat.errors import UserError

_TYPES, _HOPS, _WEIGHTS = "Link Type between two GPUs", "Hops between two GPUs", "Weight between two GPUs"
_WORDS = {_TYPES: re.compile("XGMI|PCIE"), _HOPS: re.compile(r"\d+"), _WEIGHTS: re.compile(r"\d+")}
# what the tool prints where the driver does not answer it
_NOT_TOLD = {"XXXX", "N/A"}
_TITLE = re.compile(r"\s*=+\s*(.*?)\s*=+\s*")
_DEVICE = re.compile(r"GPU(\d+)")
_NUMA = re.compile(r"\s*GPU\s*\[?(\d+)\]?\s*:\s*\(Topology\)\s*Numa Affinity:\s*(-?\d+)\s*")


@dataclass(frozen=True, kw_only=True)
class _Table:
    """One section's square table: the labels of its header, and the words that say something, by row and column."""

    labels: Sequence[str]
    cells: dict[tuple[str, str], Cell[str]]


def parse_rocm_smi(text: str, source: str = "rocm-smi --showtopo") -> NodeTopology:
    """The topology in the output of `rocm-smi --showtopo` or `--showtopotype`.

    Args:
        text: the output, as printed or as pasted.
        source: what to call the text in errors and in the result.

    Raises:
        UserError: there is no table, a word in it is not known, or two of its cells contradict each other.
    """
    tables = dict(_tables(text, source))
    if not tables:
        raise _refuse(f"this text has none of rocm-smi's tables, such as '{_TYPES}'", source)
    labels = next(iter(tables.values())).labels
    missing = [] if _TYPES in tables else [f"the table '{_TYPES}', so no link is known"]
    for title, table in tables.items():
        if table.labels != labels:
            raise _refuse(f"'{title}' lists other devices than the table before it", source, " ".join(table.labels))
        missing += [f"{words} in '{title}'" for words in lacking(labels, table.cells)]
    values = {title: fold(labels, table.cells, f"'{title}' in {source}") for title, table in tables.items()}
    return NodeTopology(
        source=source, devices=_devices(labels, text), links=tuple(_links(values)), missing=tuple(missing)
    )


def _devices(labels: Sequence[str], text: str) -> tuple[TopologyDevice, ...]:
    numa = {int(match[1]): int(match[2]) for line in text.splitlines() if (match := _NUMA.fullmatch(line))}
    nodes = {label: numa.get(int(label[3:]), -1) for label in labels}
    return tuple(
        TopologyDevice(name=label, index=int(label[3:]), numa_affinity=(node,) if node >= 0 else ())
        for label, node in nodes.items()
    )


def _links(values: dict[str, dict[tuple[str, str], str]]) -> Iterator[Connection]:
    hops, weights = values.get(_HOPS, {}), values.get(_WEIGHTS, {})
    for pair, kind in values.get(_TYPES, {}).items():
        link = LinkClass(
            kind=LinkKind(kind),
            hops=int(hops[pair]) if pair in hops else None,
            weight=int(weights[pair]) if pair in weights else None,
        )
        yield Connection(a=pair[0], b=pair[1], link=link)


def _tables(text: str, source: str) -> Iterator[tuple[str, _Table]]:
    """The topology tables by title."""
    title, lines = "", list[tuple[int, list[str]]]()
    for number, line in enumerate([*text.splitlines(), "= ="], 1):
        heading = _TITLE.fullmatch(line)
        if heading is None:
            lines += [(number, line.split())] if line.strip() else []
            continue
        if title in _WORDS and lines:
            yield title, _table(title, lines, source)
        title, lines = heading[1], []


def _table(title: str, lines: list[tuple[int, list[str]]], source: str) -> _Table:
    (first, labels), rows = lines[0], lines[1:]
    if not all(map(_DEVICE.fullmatch, labels)) or len(set(labels)) != len(labels):
        raise _refuse(
            f"'{title}' must begin with a header GPU0 GPU1 ...", f"line {first} of {source}", " ".join(labels)
        )
    cells: dict[tuple[str, str], Cell[str]] = {}
    for line, (row, *words) in rows:
        where = f"line {line} of {source}"
        if row not in labels or (row, row) in cells or len(words) > len(labels):
            raise _refuse(f"this is no row of '{title}', or one that is there already", where, " ".join([row, *words]))
        for column, word in zip(labels, words, strict=False):
            known = word == "0" if row == column else word in _NOT_TOLD or _WORDS[title].fullmatch(word)
            if not known:
                raise _refuse(f"row {row} under {column} of '{title}' cannot be read", where, word)
            cells[row, column] = Cell(value=word, line=line)
    told = {pair: cell for pair, cell in cells.items() if pair[0] != pair[1] and cell.value not in _NOT_TOLD}
    return _Table(labels=labels, cells=told)


def _refuse(what: str, where: str, got: str | None = None) -> UserError:
    return UserError(what, where=where, got=got, next_step="take the text again from `rocm-smi --showtopo`, unedited")
