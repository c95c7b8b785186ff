"""What the sections of an experiment file are made of: kinds of text and number."""

import re
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from heliostat.values import Frozen

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_ALIAS = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
_ADDRESS = r"^(local|auto|[^\s:/]+:[0-9]{1,5})$"
_URI = r"^[a-z][a-z0-9+.-]*://\S+$"
REFERENCE_PATTERN = r"^([A-Za-z_]\w*(\.[A-Za-z_]\w*)*|[^:]*\.py):[A-Za-z_]\w*$"
PATTERNS = {
    _NAME: "must be at most 64 letters, digits, '.', '_' and '-', and begin with a letter or a digit",
    _ALIAS: "must be at most 64 letters, digits, '_' and '-', and begin with a letter or a digit",
    _ADDRESS: "must be 'local', 'auto' or 'host:port'",
    _URI: "must be a URI, such as 'http://tracking.example:5000'",
    REFERENCE_PATTERN: "must be 'package.module:name' or './file.py:name'",
}
"""What each regular expression says, in words."""


class Section(Frozen):
    """A part of the experiment file. No value is converted: `"4"` is not a number and `true` is not 1."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, use_attribute_docstrings=True, serialize_by_alias=True)


def _not_reserved(alias: str) -> str:
    if re.fullmatch(r"latest|v\d+", alias, re.IGNORECASE):
        raise ValueError("is a name that the model registry keeps for itself")
    return alias


Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(pattern=_NAME)]
"""Fit for directories, experiments and registered models."""
Alias = Annotated[str, Field(pattern=_ALIAS), AfterValidator(_not_reserved)]
"""MLflow refuses dots, `latest` and version numbers."""
Address = Annotated[str, Field(pattern=_ADDRESS)]
Uri = Annotated[str, Field(pattern=_URI)]
Reference = Annotated[str, Field(pattern=REFERENCE_PATTERN)]
LearningRate = Annotated[float, Field(gt=0)]
WeightDecay = Annotated[float, Field(ge=0)]
