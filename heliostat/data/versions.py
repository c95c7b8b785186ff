"""Dataset versions: one Delta table per dataset, one commit per version.

Blocks are written as Parquet files first; one atomic commit then names all files of the version and carries its
manifest. A crash before the commit leaves the previous version as it was, and some files that nobody names. Every
version stays readable: nothing is deleted when a new one is committed.

Rows are loaded in the order of a hash of their inputs and label. That order is the same however blocks were cut and
scheduled, it stays when only features change, and it is as good as shuffled.

(`Dataset.write_delta` of Ray 2.60 commits in the same way, but attaches no metadata to the commit.)
"""

import json
import time
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, create_table_with_add_actions
from pyarrow import dataset
from pydantic import Field

from heliostat.data.columns import Columns
from heliostat.data.content import AsPrepared, Content, WithFeatures
from heliostat.data.encoder import Encoder
from heliostat.data.features import FeatureSet
from heliostat.data.files import StoredFile, read_file, write_files
from heliostat.data.layout import ROW, SPLIT, Part, column_of, filesystem_of, stored_as, table_schema
from heliostat.data.statistics import ColumnStatistics, merge
from heliostat.errors import DataError, StoreError
from heliostat.references import did_you_mean
from heliostat.values import Frozen

if TYPE_CHECKING:
    from heliostat.data.prepare import Prepared

_MANIFEST = "heliostat"
"""Key of the manifest in the metadata of the commit."""
_KEEP_LOG = {"delta.enableExpiredLogCleanup": "false"}
"""The manifests are in the log, so the log is kept; by default Delta forgets commits after 30 days."""
_MAKE_AGAIN = "run the experiment again: its data step makes the version anew"


class Manifest(Frozen):
    """What a dataset version holds, and how to encode it; rides in the commit."""

    name: str
    label: str | None
    """The column to predict; None where there are no features, and the task knows what it learns from the columns."""
    num_rows: dict[str, int]
    """Split -> rows."""
    dropped: dict[str, int]
    """Reason -> rows that the preparation left out."""
    column_types: dict[str, str]
    """Column -> Arrow type as stored: inputs, label and features, or what was prepared."""
    statistics: dict[str, ColumnStatistics]
    """Features and label, over the train split."""
    encoder: Encoder
    """Of the features; it has nothing to encode where there are none."""
    files: dict[str, StoredFile] = Field(default_factory=dict)
    """What belongs to the rows, by name: a tokenizer, for one."""


class DatasetVersion(Manifest):
    """One committed state of a dataset: what it holds, and where it is."""

    uri: str
    """The Delta table: an absolute path or a URI."""
    version: int
    """Version of the Delta table."""

    @property
    def id(self) -> str:
        """The name a person uses: `flight-delay@7`."""
        return f"{self.name}@{self.version}"

    def file(self, name: str) -> bytes:
        """The content of a file that belongs to this version.

        Raises:
            DataError: there is none of this name, or it is gone or not what was committed.
        """
        if name not in self.files:
            raise DataError(
                f"{self.id} has no file {name!r}{did_you_mean(name, self.files)}",
                got=f"files {', '.join(self.files) or 'none'}",
                next_step="let the preparation return it in Prepared.files",
            )
        return read_file(self.files[name], self.uri)

    def with_files_at(self, uri: str) -> Self:
        """The same version where its files lie below `uri`, as in a model's package, and its rows cannot be had."""
        return self.model_copy(update={"uri": uri})


def commit(
    prepared: "Prepared", *, uri: str, name: str, label: str | None = None, features: FeatureSet | None = None
) -> DatasetVersion:
    """Compute the features of the prepared rows, fit the encoder on the train split, and commit all as one version.

    Without `features` and `label` the prepared columns are committed as they are.

    Raises:
        DataError: an empty split, a column that is missing or not as declared, a missing label, names that collide.
        StoreError: the table cannot be written, or somebody else committed to it meanwhile.
    """
    from heliostat.data.parts import write_parts  # Ray, which those who only read a version do without

    content = _content(label, features)
    location = uri if "://" in uri else str(Path(uri).absolute())
    parts: list[Part] = []
    for split, rows in prepared.splits.items():
        parts += write_parts(rows, split, uri=location, content=content)
    _check_alike(parts)
    statistics = reduce(merge, [part.statistics for part in parts if part.split == "train"])
    schema = table_schema(parts[0].stored)
    manifest = Manifest(
        name=name,
        label=label,
        num_rows={split: sum(part.num_rows for part in parts if part.split == split) for split in prepared.splits},
        dropped=dict(prepared.dropped),
        column_types={field.name: str(field.type) for field in schema if field.name != ROW},
        statistics=statistics,
        encoder=Encoder.fit(
            statistics,
            numeric=features.numeric if features else (),
            categorical=features.categorical if features else (),
        ),
        files=write_files(prepared.files, location),
    )
    return open_version(location, _publish(location, parts, schema, manifest))


def open_version(uri: str, version: int) -> DatasetVersion:
    """The version as it was committed, from the manifest in its commit.

    Raises:
        DataError: there is no such table or version, or something else than Heliostat committed it.
    """
    try:
        # history() of a table opened at an old version numbers its entries wrongly (deltalake 1.6.6): open the newest.
        history = DeltaTable(uri).history()
    except DeltaError as error:
        raise DataError("there is no dataset", where=uri, got=str(error), next_step=_MAKE_AGAIN) from error
    entry = next((entry for entry in history if entry["version"] == version), None)
    if entry is None or _MANIFEST not in entry:
        raise DataError(
            f"there is no dataset version {version}",
            where=uri,
            got=f"versions {', '.join(str(entry['version']) for entry in history if _MANIFEST in entry)}",
            next_step=_MAKE_AGAIN,
        )
    return DatasetVersion.model_validate({**json.loads(entry[_MANIFEST]), "uri": uri, "version": version})


def missing(version: DatasetVersion) -> str | None:
    """Why the version cannot be read any more, or None when all of it is there."""
    try:
        if open_version(version.uri, version.version) != version:
            return f"{version.uri} holds another dataset as version {version.version}"
        files = _files(version) | {file.path: file.size_bytes for file in version.files.values()}
    except (DataError, DeltaError) as error:
        return str(error)
    filesystem, root = filesystem_of(version.uri)
    found = filesystem.get_file_info([f"{root}/{path}" for path in files])
    gone = [info.path for info, size in zip(found, files.values(), strict=True) if info.size != size]
    return f"{len(gone)} of {len(files)} files are gone or cut short, first {gone[0]}" if gone else None


def exists(version: DatasetVersion) -> bool:
    """Whether the version is readable and all its files are there in their full size."""
    return missing(version) is None


def load_columns(version: DatasetVersion, split: str, names: Sequence[str]) -> Columns:
    """These columns of one split, its rows in the order that is the same on every load.

    Raises:
        DataError: no such split or column, or the files are gone.
    """
    for kind, known, wanted in (("split", version.num_rows, [split]), ("column", version.column_types, names)):
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise DataError(f"{version.id} has no {kind} {unknown[0]!r}{did_you_mean(unknown[0], known)}")
    filesystem, root = filesystem_of(version.uri)
    try:
        paths = [f"{root}/{path}" for path in _files(version, split)]
        table = dataset.dataset(paths, filesystem=filesystem).to_table(columns=[*names, ROW])
    except (DeltaError, OSError) as error:
        raise DataError(
            f"{version.id} cannot be read", where=version.uri, got=str(error), next_step=_MAKE_AGAIN
        ) from error
    table = table.take(np.argsort(table[ROW].to_numpy(), kind="stable"))
    return {name: _column(table[name], name) for name in names}


def _content(label: str | None, features: FeatureSet | None) -> Content:
    assert (features is None) == (label is None), "features and label come together"
    if features is None or label is None:
        return AsPrepared()
    return WithFeatures(features=features, label=label)


def _check_alike(parts: Sequence[Part]) -> None:
    """All files of a table have the same columns; with features they cannot differ."""
    for part in parts:
        if part.stored != parts[0].stored:
            raise DataError(
                f"the prepared rows of {part.split} have other columns than those of {parts[0].split}",
                got=f"{part.stored} and {parts[0].stored}",
                next_step="let the preparation return the same columns everywhere",
            )


def _publish(uri: str, parts: Sequence[Part], schema: pa.Schema, manifest: Manifest) -> int:
    """The one commit: from here on the version exists. Returns its number."""
    properties = CommitProperties({_MANIFEST: manifest.model_dump_json()}, max_commit_retries=0)
    columns = Schema.from_arrow(schema.append(pa.field(SPLIT, pa.string())))
    actions = [_add_action(part) for part in parts]
    try:
        if not DeltaTable.is_deltatable(uri):
            create_table_with_add_actions(
                uri,
                columns,
                actions,
                partition_by=[SPLIT],
                configuration=_KEEP_LOG,
                commit_properties=properties,
            )
            return 0
        table = DeltaTable(uri)
        table.create_write_transaction(
            actions, "overwrite", columns, partition_by=[SPLIT], commit_properties=properties
        )
        return int(table.version()) + 1
    except (CommitFailedError, DeltaError, OSError) as error:
        raise StoreError(
            "the dataset version cannot be committed",
            where=uri,
            got=str(error),
            causes=["another run committed to the same dataset meanwhile", "the store is not writable"],
        ) from error


def _add_action(part: Part) -> AddAction:
    return AddAction(
        path=part.path,
        size=part.size_bytes,
        partition_values={SPLIT: part.split},
        modification_time=time.time_ns() // 1_000_000,
        data_change=True,
        stats=json.dumps({"numRecords": part.num_rows}),
    )


def _files(version: DatasetVersion, split: str | None = None) -> dict[str, int]:
    """Path below the table -> bytes, of the files the version names."""
    actions = pa.table(DeltaTable(version.uri, version=version.version).get_add_actions(flatten=True)).to_pylist()
    return {action["path"]: action["size_bytes"] for action in actions if split in (None, action[f"partition.{SPLIT}"])}


def _column(values: pa.ChunkedArray, name: str) -> Any:
    how = stored_as(values.type)
    assert how is not None, f"{name} was stored as {values.type}"
    return column_of(values, name, how)
