"""Workload files: a model and what is asked of its plan, in YAML, every mistake told with its place.

    model: {family: gpt, hidden: 5120, layers: 40, heads: 40, seq_len: 2048, vocab: 50257}
    global_batch: 512
    precision: fp16
    cluster: ../clusters/a100-v100.yaml
    pins: {zero: 1}

A size with a name is `model: gpt-13b`, one with changes `model: {size: gpt-13b, seq_len: 4096}`; what a model has is
said by the shape of its family, in `families`. Beside the model stand the fields of `constraints.Constraints`;
`execution` holds what the program does that will run the plan.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import Field, ValidationError

from heliostat.cluster.catalogue import Dtype
from heliostat.document import Document, Keys, Mistake, read
from heliostat.errors import ConfigError
from heliostat.placement.constraints import Constraints, Pins
from heliostat.placement.families import FILE_NAMES, MAKERS, Maker, ModelRow, NamedModel
from heliostat.placement.layers import Contradiction
from heliostat.placement.sizes import FAMILIES, SIZES, Family
from heliostat.placement.strategy import Execution
from heliostat.placement.workload import WorkloadProfile
from heliostat.values import Frozen
from heliostat.wording import explain, place

_NEXT_STEP = "configs/plans/gpt-13b.yaml is an example"


class WorkloadRow(Frozen):
    """What the file says beside the fields of `Constraints`."""

    name: str | None = Field(default=None, min_length=1)
    model: Any
    precision: Dtype = "bf16"
    cluster: str | None = None
    """A cluster file, relative to this one."""
    timings: str | None = None
    """A CSV file with measured block times, relative to this one."""


class Job(NamedTuple):
    """What is to be trained, and what is asked of the plan."""

    workload: WorkloadProfile
    wanted: Constraints
    cluster: Path | None
    """The cluster file that the workload file names."""
    timings: Path | None
    """The file with measured block times that it names."""


def load(path: Path, overrides: Sequence[str] = ()) -> Job:
    """The workload in the file `path`, with `overrides` (`a.b=c`, YAML values) on top.

    Raises:
        ConfigError: with every mistake in it as `file:line:col: keys: message`.
    """
    document = read(path, overrides)
    reader = _Reader(document)
    own = {key: value for key, value in document.data.items() if key in WorkloadRow.model_fields}
    row = reader.read(WorkloadRow, own, ())
    workload = reader.model(own, row.name if row else None)
    asked = {key: value for key, value in document.data.items() if key not in own}
    wanted = reader.wanted(asked, row.precision if row else "bf16")
    cluster, timings = (reader.file(own, key) for key in ("cluster", "timings"))
    if reader.mistakes:
        ordered = sorted(reader.mistakes, key=lambda one: one.origin.sort_key)
        raise ConfigError([str(one) for one in ordered], subject="the workload", next_step=_NEXT_STEP)
    assert workload is not None
    assert wanted is not None
    return Job(workload, wanted, cluster, timings)


_ROWS: Mapping[str, type[Frozen]] = {"execution": Execution, "pins": Pins}
"""What is written below a key."""
_Row = TypeVar("_Row", bound=Frozen)


class _Reader:
    """Reads the parts of one document and gathers what is wrong with them."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.mistakes = list(document.mistakes)

    def read(self, row: type[_Row], data: Any, above: Keys) -> _Row | None:
        """`data`, written at the keys `above`, as a `row`; None where it is not one."""
        try:
            return row.model_validate(data)
        except ValidationError as error:
            for one in error.errors():
                if not one["loc"]:
                    self._add(above, str(one["ctx"]["error"]))
                    continue
                known = _ROWS.get(str(one["loc"][0]), row) if len(one["loc"]) > 1 else row
                allowed = [*(WorkloadRow.model_fields if known is Constraints else ()), *known.model_fields]
                self._add((*above, *place(one, data)), explain(one, {}, allowed))
            return None

    def model(self, data: Mapping[str, Any], name: str | None) -> WorkloadProfile | None:
        """The model under `model`."""
        written = data.get("model")
        if "model" not in data:
            return None
        if not isinstance(written, Mapping | str):
            self._add(("model",), f"must be the name of a size or a mapping of hyperparameters, got {written!r}")
            return None
        row = self.read(ModelRow, {"size": written} if isinstance(written, str) else written, ("model",))
        if row is None or (family := self._family(row)) is None:
            return None
        return self._made(MAKERS[family], self._fields(row, family), name or row.size or family)

    def wanted(self, data: Mapping[str, Any], precision: Dtype) -> Constraints | None:
        """What is asked for, with the type that computes in `execution`."""
        execution = data.get("execution", {})
        if isinstance(execution, Mapping):
            if "dtype" in execution:
                self._add(("execution", "dtype"), "is said by `precision`")
            execution = {**execution, "dtype": precision}
        return self.read(Constraints, {**data, "execution": execution}, ())

    def file(self, data: Mapping[str, Any], key: str) -> Path | None:
        """The file that is named under `key`."""
        name = data.get(key)
        if not isinstance(name, str):
            return None
        path = self.document.origin((key,)).directory / name
        if path.is_file():
            return path
        self._add((key,), f"there is no file {path}")
        return None

    def _family(self, row: NamedModel) -> Family | None:
        sized: Family | None = SIZES[row.size]["family"] if row.size is not None else None
        family = sized or row.family
        if family is None:
            self._add(("model",), f"needs a `family` ({', '.join(FAMILIES)}) or a `size`")
            return None
        if row.family not in {None, family}:
            self._add(("model", "family"), f"is '{row.family}', but {row.size} is of the family '{family}'")
            return None
        known = MAKERS[family].fields
        strange = [key for key in _said(row) if key not in known]
        for key in strange:
            self._add(("model", key), f"is nothing that a model of the family '{family}' has")
        return None if strange else family

    def _fields(self, row: NamedModel, family: Family) -> dict[str, Any]:
        """The fields said, over those of the size, over those of the family."""
        sized = SIZES[row.size] if row.size is not None else {}
        return {**FAMILIES[family], **{key: value for key, value in sized.items() if key != "family"}, **_said(row)}

    def _made(self, maker: Maker, fields: Mapping[str, Any], name: str) -> WorkloadProfile | None:
        absent = [key for key, field in maker.fields.items() if field.is_required() and key not in fields]
        for key in absent:
            self._add(("model", key), "is missing")
        if absent:
            return None
        files = {FILE_NAMES.get(key, key): key for key in maker.shape.model_fields}
        try:
            shape = maker.shape.model_validate({"name": name, **{files[key]: value for key, value in fields.items()}})
        except ValidationError as error:
            for one in error.errors():
                contradiction: Contradiction = one["ctx"]["error"]
                for key, message in contradiction.found:
                    self._add(("model", key), message)
            return None
        return maker.workload(shape)

    def _add(self, keys: Keys, message: str) -> None:
        self.mistakes.append(Mistake(origin=self.document.origin(keys), keys=keys, message=message))


def _said(row: NamedModel) -> dict[str, Any]:
    return row.model_dump(exclude_none=True, exclude={"size", "family"})
