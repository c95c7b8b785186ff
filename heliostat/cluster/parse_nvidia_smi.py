"""Reads what `nvidia-smi topo -m` prints.

The table is copied around a lot: tabs become spaces, escape codes stay behind, terminals wrap rows, excerpts are cut.
Cells are therefore told apart by their words and not by their columns, except where a value may be absent (the
affinities), and there only the tool's own tabs are believed. What is not there is listed as missing, never filled in.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from heliostat.cluster.matrix import Cell, fold, lacking
from heliostat.cluster.topology import Connection, LinkClass, LinkKind, Nic, NodeTopology, TopologyDevice
from heliostat.errors import UserError

# the underline around the header, with its escape character or, as in most pasted texts, without
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|\x1b\([A-Z]|\[[04]m")
_DEVICE = re.compile(r"GPU(\d+)")
_LABEL = re.compile(r"[A-Za-z][A-Za-z_.:-]*\d[\w.:-]*")
_CELL = re.compile(r"X|NV[1-9]\d*|PIX|PXB|PSB|PHB|NODE|SYS|SOC")
_AFFINITY = re.compile(r"CPU\s+Affinity|NUMA\s+Affinity|GPU\s+NUMA\s+ID")
_HEADING_WORDS = {"CPU", "NUMA", "GPU", "ID", "Affinity"}
_RANGES = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
_LEGEND = re.compile(r"\s*(NIC\d+):\s*(\S+)\s*")
# names of older drivers: PSB is an on-board switch (still one bridge), SOC was SYS before 2017
_OLD_NAMES = {"PSB": "PIX", "SOC": "SYS"}


@dataclass(frozen=True)
class _Line:
    number: int
    text: str

    @property
    def words(self) -> list[str]:
        return self.text.split()


@dataclass(frozen=True)
class _Table:
    """The text of the table, taken apart into rows but not yet understood."""

    source: str
    labels: tuple[str, ...]
    affinities: tuple[str, ...]
    rows: dict[str, _Line]
    nic_names: dict[str, str]

    def refuse(self, what: str, line: _Line, got: str | None = None) -> UserError:
        return _refuse(what, f"line {line.number} of {self.source}", got)


def _refuse(what: str, where: str, got: str | None = None) -> UserError:
    next_step = "take the text again from `nvidia-smi topo -m`, unedited, one node at a time"
    return UserError(what, where=where, got=got, next_step=next_step)


def parse_nvidia_smi(text: str, source: str = "nvidia-smi topo -m") -> NodeTopology:
    """The topology in the output of `nvidia-smi topo -m`; lines around the table do not matter.

    Args:
        text: the output, as printed or as pasted.
        source: what to call the text in errors and in the result.

    Raises:
        UserError: there is no table, a word in it is not known, or two of its cells contradict each other.
    """
    table = _take_apart(text, source)
    cells = dict(_cells(table))
    missing = lacking(table.labels, cells)
    named = {label: table.nic_names.get(label, label) for label in table.labels}
    devices, nics = [], []
    for label in table.labels:
        affinity, lost = _affinity(table, label)
        missing += lost
        if _DEVICE.fullmatch(label):
            devices.append(TopologyDevice(name=label, index=int(label[3:]), **affinity))
        else:
            nics.append(Nic(name=named[label], label=label, numa_affinity=affinity["numa_affinity"]))
    missing += _unnamed(table)
    links = (
        Connection(a=named[a], b=named[b], link=link) for (a, b), link in fold(table.labels, cells, source).items()
    )
    return NodeTopology(
        source=source, devices=tuple(devices), nics=tuple(nics), links=tuple(links), missing=tuple(missing)
    )


def _take_apart(text: str, source: str) -> _Table:
    lines = [_Line(number, _ESCAPES.sub("", line)) for number, line in enumerate(text.splitlines(), 1)]
    legend = {match[1]: match[2] for line in lines if (match := _LEGEND.fullmatch(line.text))}
    lines = [line for line in lines if line.words]
    start = next((place for place, line in enumerate(lines) if _is_header(line)), None)
    if start is None:
        raise _refuse("this text has no header row (GPU0 GPU1 ... CPU Affinity), so its columns are unknown", source)
    end = next((place for place, line in enumerate(lines) if place > start and "Legend" in line.text), len(lines))
    header, body = _header(lines[start:end], source)
    labels, affinities = _columns(header, source)
    table = _Table(source, labels, affinities, {}, legend)
    again = next(filter(_is_header, lines[end:]), None)
    if again or len(set(legend.values())) < len(legend):
        what = "a second table begins here" if again else "the NIC legend gives one name to two NICs"
        raise table.refuse(what, again or header)
    return replace(table, rows=_rows(body, table))


def _is_header(line: _Line) -> bool:
    """A device, then another column: a row would have a cell there."""
    return _DEVICE.fullmatch(line.words[0]) is not None and all(map(_is_heading, line.words[1:2]))


def _is_label(word: str) -> bool:
    return _LABEL.fullmatch(word) is not None and _CELL.fullmatch(word) is None


def _is_heading(word: str) -> bool:
    return word in _HEADING_WORDS or _is_label(word)


def _header(lines: Sequence[_Line], source: str) -> tuple[_Line, Sequence[_Line]]:
    """The header with the lines that a narrow terminal wrapped it into, and the lines after it."""
    header = lines[0]
    for place, line in enumerate(lines[1:], 1):
        if line.words[0] in header.words:
            return header, lines[place:]
        if not all(map(_is_heading, line.words)):
            raise _refuse(
                "this is neither a row nor a part of the header", f"line {line.number} of {source}", line.text
            )
        header = replace(header, text=f"{header.text} {line.text}")
    return header, ()


def _columns(header: _Line, source: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The labels of the devices and NICs, and the affinity columns after them."""
    first = _AFFINITY.search(header.text)
    split = first.start() if first else len(header.text)
    labels = header.text[:split].split()
    affinities = [" ".join(found.split()) for found in _AFFINITY.findall(header.text[split:])]
    strange = [*(label for label in labels if not _is_label(label)), *_AFFINITY.sub("", header.text[split:]).split()]
    twice = [name for name in (*labels, *affinities) if (*labels, *affinities).count(name) > 1]
    if strange or twice:
        what = f"the column '{strange[0]}' is not known" if strange else f"the column '{twice[0]}' is there twice"
        raise _refuse(what, f"line {header.number} of {source}")
    return tuple(labels), tuple(affinities)


def _rows(lines: Sequence[_Line], table: _Table) -> dict[str, _Line]:
    """The rows by label, wrapped lines joined. Text after the last row belongs to something else."""
    rows: dict[str, _Line] = {}
    label = ""
    for line in lines:
        if line.words[0] in table.labels:
            label = line.words[0]
            if label in rows:
                raise table.refuse(f"the row of {label} is there twice, first on line {rows[label].number}", line)
            rows[label] = line
        elif all(_CELL.fullmatch(word) or _is_affinity(word) for word in line.words):
            rows[label] = replace(rows[label], text=f"{rows[label].text} {line.text}")
        elif len(rows) == len(table.labels):
            break
        else:
            raise table.refuse(f"this line is no row of the table: it begins with {line.words[0]}", line)
    return rows


def _is_affinity(word: str) -> bool:
    return word == "N/A" or _RANGES.fullmatch(word.removesuffix(",")) is not None


def _cells(table: _Table) -> Iterator[tuple[tuple[str, str], Cell[LinkClass]]]:
    """Every cell off the diagonal. The X of the diagonal proves that no cell before it was lost."""
    for row, line in table.rows.items():
        for column, word in zip(table.labels, line.words[1:], strict=False):
            if not _CELL.fullmatch(word):
                raise table.refuse(f"row {row} under {column} is no class of link that nvidia-smi has", line, word)
            if (word == "X") != (row == column):
                raise table.refuse(f"row {row} under {column} is out of place: X stands where both are one", line, word)
            if row != column:
                yield (row, column), Cell(value=_link(word), line=line.number)


def _link(word: str) -> LinkClass:
    if word.startswith("NV"):
        return LinkClass(kind=LinkKind.NVLINK, num_links=int(word[2:]))
    return LinkClass(kind=LinkKind(_OLD_NAMES.get(word, word)))


def _affinity(table: _Table, label: str) -> tuple[dict[str, Any], list[str]]:
    """The affinities in the row of `label` as fields of a device, and in words those that are not there."""
    fields: dict[str, Any] = {"cpu_affinity": None, "numa_affinity": (), "gpu_numa_id": None}
    if label not in table.rows:
        return fields, []
    values = _affinity_words(table, label)
    if values is None:
        return fields, [f"which of the affinities of {label} is which: fewer values than columns, and no tabs to tell"]
    missing = []
    for column, word in zip(table.affinities, values, strict=True):
        told = word.removesuffix(",")
        if _DEVICE.fullmatch(label) and (not word or word != told):
            missing.append(f"the {column} of {label}" + (f", which is cut after '{word}'" if word else ""))
        elif word not in {"", "N/A"}:
            if not _RANGES.fullmatch(told):
                raise table.refuse(f"row {label} under {column} is no list of numbers", table.rows[label], word)
            fields |= _field(column, told)
    return fields, missing


def _field(column: str, ranges: str) -> dict[str, Any]:
    if column == "CPU Affinity":
        return {"cpu_affinity": ranges}
    bounds = [list(map(int, part.split("-"))) for part in ranges.split(",")]
    nodes = tuple(node for bound in bounds for node in range(bound[0], bound[-1] + 1))
    return {"numa_affinity": nodes} if column == "NUMA Affinity" else {"gpu_numa_id": nodes[0]}


def _affinity_words(table: _Table, label: str) -> list[str] | None:
    """The word of each affinity column, '' where it is blank; None where words and columns cannot be matched."""
    line, num_cells, num_columns = table.rows[label], len(table.labels), len(table.affinities)
    words = line.words[1 + num_cells :]
    if len(words) > num_columns:
        raise table.refuse(f"row {label} has more values than there are columns", line, " ".join(words))
    if len(words) in {0, num_columns}:
        return words or [""] * num_columns
    fields = [field.strip() for field in line.text.split("\t")]
    if fields[: 1 + num_cells] != line.words[: 1 + num_cells]:
        return None
    values = fields[1 + num_cells :]
    # the tool prints two tabs after the NUMA affinity, whose header is wider than a tab
    if len(values) > num_columns and not values[2]:
        del values[2]
    values += [""] * (num_columns - len(values))
    return values if len(values) == num_columns else None


def _unnamed(table: _Table) -> list[str]:
    """NICs that the table numbers but the legend does not name, and those the legend names but the table lacks."""
    numbered = [label for label in table.labels if re.fullmatch(r"NIC\d+", label)]
    unnamed = [label for label in numbered if label not in table.nic_names]
    unlisted = [f"the column of {label}, which the legend names" for label in table.nic_names if label not in numbered]
    return ([f"the names of {', '.join(unnamed)}: no NIC legend"] if unnamed else []) + unlisted
