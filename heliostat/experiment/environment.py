"""The environment lock: the versions that Heliostat stands on, and nothing else that happens to be installed."""

import importlib.metadata
import platform
from collections.abc import Iterator, Mapping
from functools import cache, cached_property

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from heliostat.values import Frozen, digest

_ROOT = "heliostat"


class EnvironmentLock(Frozen):
    """Python, the kind of machine, and every distribution that Heliostat's own requirements lead to."""

    python: str
    machine: str
    distributions: dict[str, str]
    """Canonical name -> version."""

    @cached_property
    def digest(self) -> str:
        """Equal for environments in which the same code does the same."""
        return digest(self)


@cache
def environment_lock() -> EnvironmentLock:
    """The environment of this process. Packages that Heliostat does not require do not count."""
    versions = {name: release(name) for name in sorted(_closure()) if name != _ROOT}
    return EnvironmentLock(python=platform.python_version(), machine=platform.machine(), distributions=versions)


def differences(before: EnvironmentLock, after: EnvironmentLock) -> list[str]:
    """What changed from `before` to `after`, like `torch 2.12.0 -> 2.13.0`; empty if the digests are equal."""
    return version_differences(_all_versions(before), _all_versions(after))


def version_differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """One text for every name whose version is not the same, or that only one side has."""
    common = [name for name in after if name in before]
    changed = [f"{name} {before[name]} -> {after[name]}" for name in common if before[name] != after[name]]
    added = [f"{name} {after[name]} is new" for name in after if name not in before]
    gone = [f"{name} {before[name]} is gone" for name in before if name not in after]
    return [*changed, *added, *gone]


@cache
def release(name: str) -> str:
    """The version of the distribution `name`, "not installed" if there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _all_versions(lock: EnvironmentLock) -> dict[str, str]:
    return {"python": lock.python, "machine": lock.machine, **lock.distributions}


def _closure() -> set[str]:
    """Canonical names of all distributions required from the root on, with the extras that are asked for on the way."""
    seen: set[tuple[str, str]] = set()
    waiting = [(_ROOT, "")]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) not in seen:
            seen.add((name, extra))
            waiting += _required(name, extra)
    return {name for name, _ in seen}


def _required(name: str, extra: str) -> Iterator[tuple[str, str]]:
    """What `name` requires when installed with `extra` ("" for none), as (name, extra) again."""
    try:
        lines = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return
    for requirement in map(Requirement, lines):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            for wanted in ("", *requirement.extras):
                yield canonicalize_name(requirement.name), wanted
