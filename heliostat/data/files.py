"""Files that belong to a dataset version, such as the tokenizer its rows were made with.

They lie below the table under their digest, so that versions share what is the same in them, and are held to it when
they are read.
"""

import hashlib
import re
from collections.abc import Mapping

from heliostat.data.layout import filesystem_of
from heliostat.errors import DataError, StoreError
from heliostat.values import Frozen

_FOLDER = "_files"
"""Below a table; Delta takes names with an underscore for none of its own."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class StoredFile(Frozen):
    """One file."""

    path: str
    """Below the table, or below what it was copied to."""
    sha256: str
    size_bytes: int


def check_names(names: Mapping[str, bytes]) -> None:
    """Refuse what is no plain file name.

    Raises:
        DataError: a name that is not one.
    """
    for name in names:
        if not _NAME.fullmatch(name):
            raise DataError("a file of the dataset needs a plain name, such as tokenizer.json", got=repr(name))


def write_files(contents: Mapping[str, bytes], uri: str) -> dict[str, StoredFile]:
    """Write files below `uri`; the same content lands in the same place.

    Raises:
        StoreError: one cannot be written.
    """
    filesystem, root = filesystem_of(uri)
    written = {}
    for name, content in contents.items():
        sha256 = hashlib.sha256(content).hexdigest()
        file = StoredFile(path=f"{_FOLDER}/{sha256}/{name}", sha256=sha256, size_bytes=len(content))
        target = f"{root}/{file.path}"
        try:
            filesystem.create_dir(target.rsplit("/", 1)[0], recursive=True)
            with filesystem.open_output_stream(target) as stream:
                stream.write(content)
        except OSError as error:
            raise StoreError("a file of the dataset cannot be written", where=target, got=str(error)) from error
        written[name] = file
    return written


def read_file(file: StoredFile, uri: str) -> bytes:
    """The content of a file below `uri`.

    Raises:
        DataError: it is gone, or not what was written.
    """
    filesystem, root = filesystem_of(uri)
    where = f"{root}/{file.path}"
    try:
        with filesystem.open_input_stream(where) as stream:
            content: bytes = stream.readall()
    except OSError as error:
        raise DataError("a file of the dataset cannot be read", where=where, got=str(error)) from error
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise DataError(
            "a file of the dataset is not what was written",
            where=where,
            got=f"{len(content)} bytes; {file.size_bytes} with SHA-256 {file.sha256} were written",
            next_step="run the experiment again: its data step makes the version anew",
        )
    return content
