"""What the makers say of each device type: memory, peak rates, links. A measurement always goes before it.

The types are in `catalogue.yaml` beside this module, each with its source. A file or mapping of the same shape adds
types, or replaces single fields of those that are there.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from heliostat.document import Keys, dotted, read
from heliostat.errors import ConfigError, UserError
from heliostat.references import did_you_mean
from heliostat.values import Frozen

GIB = 1 << 30
Dtype = Literal["fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "int8"]
_BUILTIN = Path(__file__).with_name("catalogue.yaml")


class PeerLinks(Frozen):
    """All NVLinks or XGMI links of one device together."""

    kind: Literal["NVLink", "XGMI"]
    num_links: PositiveInt
    gb_per_s: PositiveFloat
    """10^9 bytes per second in ONE direction: half of the total in datasheets."""
    generation: PositiveInt | None = None

    @property
    def bytes_per_s(self) -> float:
        """Bandwidth in one direction, all links together."""
        return self.gb_per_s * 1e9


class Pcie(Frozen):
    """The host interface."""

    generation: PositiveInt
    lanes: PositiveInt


class MigProfile(Frozen):
    """A size into which a GPU can be cut. Its shares are those of the largest profile, which is the whole GPU."""

    name: str = Field(pattern=r"^\d+g\.\d+gb(\+\w+)?$")
    """`1g.10gb`, as `nvidia-smi mig -lgip` prints it."""
    compute_slices: PositiveInt
    memory_slices: PositiveInt
    max_instances: PositiveInt


class DeviceType(Frozen):
    """One type of device; a field is None or empty where no source is certain."""

    name: str
    aliases: tuple[str, ...] = ()
    """Product names as NVML and rocm-smi report them; a leading `NVIDIA` may be left out."""
    memory_gib: PositiveFloat | None = None
    memory_gb_per_s: PositiveFloat | None = None
    tflops: dict[Dtype, PositiveFloat] = Field(default_factory=dict)
    """Dense peak of a matrix product by input type, 10^12 operations per second."""
    peer_links: PeerLinks | None = None
    pcie: Pcie | None = None
    tdp_w: NonNegativeFloat | None = None
    mig: tuple[MigProfile, ...] = ()
    always_measured: bool = False
    """No table can tell what this type does: figures come from a measurement of the device itself."""
    source: str = Field(min_length=1)
    """Document and date that the figures are from."""
    note: str = ""

    @field_validator("mig", mode="before")
    @classmethod
    def _mig_rows(cls, value: object) -> object:
        """`{name: [compute slices, memory slices, most instances]}` as a list of profiles."""
        if not isinstance(value, Mapping):
            return value
        fields = ("compute_slices", "memory_slices", "max_instances")
        for name, row in value.items():
            if not isinstance(row, list) or len(row) != len(fields):
                raise ValueError(f"{name} must be [compute slices, memory slices, most instances]")
        return [{"name": name, **dict(zip(fields, row, strict=True))} for name, row in value.items()]

    @model_validator(mode="after")
    def _has_figures(self) -> Self:
        if not self.always_measured and (self.memory_gib is None or self.memory_gb_per_s is None or not self.tflops):
            raise ValueError("memory_gib, memory_gb_per_s and tflops must be given unless always_measured is true")
        return self

    @property
    def memory_bytes(self) -> int | None:
        """Nominal memory; None for a type that is always measured."""
        return None if self.memory_gib is None else int(self.memory_gib * GIB)

    @property
    def memory_bytes_per_s(self) -> float | None:
        """Memory bandwidth; None for a type that is always measured."""
        return None if self.memory_gb_per_s is None else self.memory_gb_per_s * 1e9

    def flops(self, dtype: Dtype) -> float | None:
        """Dense peak operations per second of a matrix product; None for a type the device lacks or no source tells."""
        return self.tflops[dtype] * 1e12 if dtype in self.tflops else None

    def mig_memory_bytes(self, profile: MigProfile) -> int:
        """Nominal memory of one instance: its share of the slices. NVML tells the exact figure, a little below it."""
        slices = max(one.memory_slices for one in self.mig)
        return (self.memory_bytes or 0) * profile.memory_slices // slices


class Catalogue(Frozen):
    """Device types by canonical name, in the order of the file."""

    types: dict[str, DeviceType]

    def find(self, name: str) -> DeviceType:
        """The type called `name`, its canonical name or a product name that a driver reports.

        Raises:
            UserError: the catalogue has no such type.
        """
        found = self._by_name.get(_normal(name))
        if found is None:
            known = [alias for one in self.types.values() for alias in (one.name, *one.aliases)]
            raise UserError(
                f"there is no device type '{name}'{did_you_mean(name, known)}",
                causes=["a device newer than this catalogue"],
                next_step="correct the name, or describe the type in YAML as heliostat/cluster/catalogue.yaml does",
            )
        return found

    @cached_property
    def _by_name(self) -> dict[str, DeviceType]:
        return {_normal(alias): one for one in self.types.values() for alias in (one.name, *one.aliases)}

    def extended(self, rows: Mapping[str, Any], where: Callable[[Keys], str] = lambda _: "") -> "Catalogue":
        """This catalogue with `rows` (name -> fields, as in catalogue.yaml) added.

        A row with the name of a type that is there replaces the fields it gives, and must give its own `source`.

        Args:
            rows: the types as plain data.
            where: the place where the value at some keys was written, for the messages: `cluster.yaml:3:5`.

        Raises:
            ConfigError: with every mistake in `rows`.
        """
        catalogue, mistakes = self.with_rows(rows)
        if mistakes:
            raise ConfigError(
                [": ".join(filter(None, (where(keys), dotted(keys), message))) for keys, message in mistakes],
                subject="the device types",
                next_step="compare with a type in heliostat/cluster/catalogue.yaml",
            )
        return catalogue

    def with_rows(self, rows: Mapping[str, Any]) -> tuple["Catalogue", list[tuple[Keys, str]]]:
        """As `extended`, with the mistakes as a list: the keys in `rows`, and what is wrong there."""
        types, mistakes = dict(self.types), list[tuple[Keys, str]]()
        for name, row in rows.items():
            before = self.types[name].model_dump(exclude={"source", "note"}) if name in self.types else {"name": name}
            try:
                types[name] = DeviceType.model_validate(
                    {**before, **row, "name": name} if isinstance(row, Mapping) else row
                )
            except ValidationError as error:
                mistakes += [((name, *keys), message) for keys, message in _messages(error)]
        mistakes += [((name,), message) for name, message in _shared_names(types)]
        return Catalogue(types=types), mistakes


@cache
def builtin() -> Catalogue:
    """The catalogue that comes with Heliostat."""
    return Catalogue(types={}).extended(read(_BUILTIN).data)


def load(path: Path) -> Catalogue:
    """The built-in catalogue with the types in the YAML file `path`.

    Raises:
        ConfigError: with every mistake in the file as `file:line:col: keys: message`.
    """
    document = read(path)
    if document.mistakes:
        raise ConfigError([str(mistake) for mistake in document.mistakes])
    return builtin().extended(document.data, lambda keys: str(document.origin(keys)))


def _normal(name: str) -> str:
    return " ".join(name.lower().split()).removeprefix("nvidia ")


def _shared_names(types: Mapping[str, DeviceType]) -> Iterator[tuple[str, str]]:
    owners: dict[str, str] = {}
    for one in types.values():
        for alias in dict.fromkeys(map(_normal, (one.name, *one.aliases))):
            if alias in owners:
                yield one.name, f"the name '{alias}' already means {owners[alias]}"
            owners.setdefault(alias, one.name)


def _messages(error: ValidationError) -> Iterator[tuple[Keys, str]]:
    for one in error.errors():
        keys, wrong = one["loc"], one["msg"].removeprefix("Value error, ")
        if one["type"] == "extra_forbidden":
            wrong = f"there is no such field{did_you_mean(str(keys[-1]), DeviceType.model_fields)}"
        elif one["type"] not in {"missing", "value_error"}:
            wrong = f"{wrong}, got {one['input']!r}"
        yield keys, wrong
