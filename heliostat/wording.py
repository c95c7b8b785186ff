"""pydantic's validation errors in plain words, and at the place in the file that they are about."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import ErrorDetails

from heliostat.document import Keys
from heliostat.references import did_you_mean

_WORDS = {
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping of keys to values",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_type": "must be a whole number",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "model_type": "must be a mapping of keys to values",
    "path_type": "must be text",
    "string_too_short": "must not be empty",
    "string_type": "must be text",
    "too_long": "must have at most {max_length} values",
    "too_short": "must not be empty",
    "tuple_type": "must be a list",
}


def explain(error: ErrorDetails, patterns: Mapping[str, str], allowed: Iterable[str]) -> str:
    """One sentence for `error`; `patterns` puts regular expressions into words, `allowed` are the keys known there."""
    kind, context, key = error["type"], error.get("ctx", {}), error["loc"][-1]
    if kind == "missing":
        return "is missing" if isinstance(key, str) else f"must have {key + 1} values"
    if kind == "extra_forbidden":
        hint = did_you_mean(str(key), allowed)
        return "unknown key" + (hint or f"; known: {', '.join(allowed)}")
    if kind == "string_pattern_mismatch":
        words = patterns[context["pattern"]]
    elif kind == "value_error":
        words = str(context["error"])
    else:
        words = _WORDS[kind].format_map(context) if kind in _WORDS else error["msg"]
    hint = did_you_mean(str(error["input"]), re.findall(r"'([^']*)'", words)) if kind == "literal_error" else ""
    return f"{words}, got {shown(error['input'])}{hint}"


def place(error: ErrorDetails, data: object) -> Keys:
    """The path in `data` that `error` is about: its location without what is not in the data, such as union tags."""
    keys: list[str | int] = []
    for key in error["loc"]:
        inside: Any = data.get(key, ...) if isinstance(data, dict) else ...
        if isinstance(data, list) and isinstance(key, int) and key < len(data):
            inside = data[key]
        if inside is not ...:
            keys.append(key)
            data = inside
    missing = error["loc"][-1]
    return (*keys, missing) if error["type"] == "missing" and isinstance(missing, str) else tuple(keys)


def shown(value: object) -> str:
    """`value` as YAML writes it on one line, cut to 60 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
