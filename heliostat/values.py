"""Values that cross a boundary: one frozen base class, and one way to hash them.

A hash decides whether work is skipped, so a value that has no canonical form is refused rather than hashed loosely.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A value: immutable, built by keyword, unknown fields refused, JSON in both directions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """This value with some fields changed, unvalidated; what was cached of the old one is forgotten."""
        copied = super().model_copy(update=update, deep=deep)
        for name in vars(copied).keys() - type(self).model_fields.keys():
            del vars(copied)[name]
        return copied


def plain(value: object) -> Any:
    """`value` as JSON types alone.

    Raises:
        TypeError: the value has no canonical form (a function, an object, a set of mixed types).
    """
    if isinstance(value, BaseModel):
        return plain(value.model_dump())
    if isinstance(value, Mapping):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"cannot put a {type(value).__name__} into a canonical form: {value!r}")


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"keys must be strings, got {key!r}")
    return key


def canonical_json(value: object) -> str:
    """`value` as JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=True)


def digest(value: object) -> str:
    """The first 16 hex digits of the SHA-256 of `value` in canonical form."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]
