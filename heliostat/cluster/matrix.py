"""A square table read off a text, row by row, and folded into one value for each pair of its labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Generic, TypeVar

from heliostat.errors import UserError

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Cell(Generic[Value]):
    """What one cell says, and the line of the text it stands on."""

    value: Value
    line: int


Cells = Mapping[tuple[str, str], Cell[Value]]
"""Cells by row label and column label, those off the diagonal that the text has."""


def fold(labels: Sequence[str], cells: Cells[Value], source: str) -> dict[tuple[str, str], Value]:
    """The value of each pair of labels that at least one of its two cells tells.

    Raises:
        UserError: the two cells of a pair differ.
    """
    values: dict[tuple[str, str], Value] = {}
    for a, b in combinations(labels, 2):
        there, back = cells.get((a, b)), cells.get((b, a))
        if there is not None and back is not None and there.value != back.value:
            raise UserError(
                f"the table is not symmetric: row {a} under {b} says {there.value} (line {there.line}), "
                f"row {b} under {a} says {back.value} (line {back.line})",
                where=source,
                causes=["a cell was lost or edited when the text was copied"],
                next_step="take the text again from the tool, unedited",
            )
        told = there or back
        if told is not None:
            values[a, b] = told.value
    return values


def lacking(labels: Sequence[str], cells: Cells[Value]) -> list[str]:
    """In words, which rows and cells are not there, and which links are therefore told by neither side."""
    absent = {row: [col for col in labels if col != row and (row, col) not in cells] for row in labels}
    whole = [row for row, columns in absent.items() if columns and len(columns) == len(labels) - 1]
    words = [f"the row of {row}" for row in whole]
    words += [f"row {row} under {', '.join(cols)}" for row, cols in absent.items() if cols and row not in whole]
    pairs = [f"{a} - {b}" for a, b in combinations(labels, 2) if b in absent[a] and a in absent[b]]
    return [*words, f"the links {', '.join(pairs)}"] if pairs else words
