"""Why a step need not run again, or must: the key of everything that its result depends on."""

from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from typing import Any

from heliostat.experiment import environment, fingerprint
from heliostat.experiment.environment import EnvironmentLock
from heliostat.experiment.fingerprint import CodeFingerprint
from heliostat.experiment.step import Step, StepResult
from heliostat.values import Frozen, canonical_json, digest, plain

_LONGEST_VALUE = 60


class StepKey(Frozen):
    """Everything that the result of a step depends on."""

    code: CodeFingerprint
    options: dict[str, Any]
    inputs: dict[str, str]
    """Step before -> digest of its result."""
    facts: dict[str, str]
    environment: EnvironmentLock

    @cached_property
    def digest(self) -> str:
        """The name of the step's record."""
        return digest(
            {
                "code": self.code.digest,
                "options": self.options,
                "inputs": self.inputs,
                "facts": self.facts,
                "environment": self.environment.digest,
            }
        )


def step_key(step: Step, inputs: Mapping[str, StepResult], lock: EnvironmentLock) -> StepKey:
    """The key of `step` after `inputs`, from the code as it is on disk now.

    Raises:
        UserError: code that cannot be fingerprinted.
        TypeError: an option that is not JSON.
    """
    code = fingerprint.fingerprint([f"{step.run.__module__}:{step.run.__qualname__}", *step.references])
    results = {name: result.digest for name, result in inputs.items()}
    return StepKey(code=code, options=plain(step.options), inputs=results, facts=dict(step.facts), environment=lock)


def changes(before: StepKey, after: StepKey, *, origins: Mapping[str, str], ran: Collection[str]) -> list[str]:
    """Why `after` is not `before`, one text per difference; `ran` are the steps that ran this time.

    Empty exactly when the digests are equal.
    """
    surroundings = environment.differences(before.environment, after.environment)
    code = fingerprint.differences(before.code, after.code)
    return [
        *(f"code: {text}" for text in code if text not in surroundings),
        *(f"config: {text}" for text in _differences(before.options, after.options, origins)),
        *(f"input: {text}" for text in _input_changes(before.inputs, after.inputs, ran)),
        *(f"environment: {text}" for text in surroundings),
        *(f"facts: {text}" for text in _differences(before.facts, after.facts, {})),
    ]


def _input_changes(before: Mapping[str, str], after: Mapping[str, str], ran: Collection[str]) -> Iterator[str]:
    for name in sorted({*before, *after}):
        if name not in after:
            yield f"{name} is gone"
        elif name not in before:
            yield f"{name} is new"
        elif before[name] != after[name]:
            yield f"{name} changed ({name} ran again)" if name in ran else f"{name} changed (an earlier result of it)"


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], origins: Mapping[str, str]) -> Iterator[str]:
    """What differs in nested options, by dotted path, with where the new value was written."""
    old, new = dict(_leaves(before)), dict(_leaves(after))
    for keys in sorted({*old, *new}):
        path = ".".join(keys)
        origin = f" ({origins[path]})" if path in origins else ""
        if keys not in new:
            yield f"{path} {_short(old[keys])} is gone"
        elif keys not in old:
            yield f"{path} {_short(new[keys])} is new{origin}"
        elif canonical_json(old[keys]) != canonical_json(new[keys]):
            yield f"{path} {_short(old[keys])} -> {_short(new[keys])}{origin}"


def _leaves(options: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in options.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name), value


def _short(value: object) -> str:
    text = value if isinstance(value, str) else canonical_json(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
