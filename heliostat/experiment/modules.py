"""Where a module is and whose it is: the user's (and ours, when installed editable), a distribution's, or Python's.

Nothing is imported, not even the parents of a submodule as `importlib.util.find_spec` would.
"""

import importlib
import importlib.metadata
import pkgutil
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec, PathFinder
from pathlib import Path
from typing import Literal

Origin = Literal["own", "distribution", "standard", "missing"]

_STANDARD = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))
_LIBRARIES = frozenset({"site-packages", "dist-packages"})


@dataclass(frozen=True, kw_only=True)
class Found:
    """Where a module is. `path` is None for a package without `__init__`; `search` is None for what is no package."""

    name: str
    origin: Origin
    path: Path | None = None
    search: tuple[str, ...] | None = None


class Finder:
    """Finds modules as Python would with `roots` ahead of `sys.path`."""

    def __init__(self, roots: Sequence[str] = ()) -> None:
        # a directory listed moments ago may have got a file since
        importlib.invalidate_caches()
        self._path = [*roots, *sys.path]
        self._found: dict[str, Found] = {}

    def find(self, name: str) -> Found:
        """Where the module `name` is. Parts of a distribution are not told apart."""
        if name not in self._found:
            self._found[name] = self._look(name)
        return self._found[name]

    def _look(self, name: str) -> Found:
        parent = name.rpartition(".")[0]
        if not parent:
            return _standard(name) or _on_path(name, self._path) or _otherwise(name)
        above = self.find(parent)
        if above.origin != "own":
            return Found(name=name, origin=above.origin)
        return _on_path(name, above.search or ()) or Found(name=name, origin="missing")


def is_own(path: Path) -> bool:
    """Whether a source file is neither Python's nor in a directory of installed distributions."""
    return _LIBRARIES.isdisjoint(path.parts) and not any(path.is_relative_to(folder) for folder in _STANDARD)


@cache
def distributions() -> Mapping[str, Sequence[str]]:
    """Top-level import name -> the distributions that provide it."""
    return importlib.metadata.packages_distributions()


def _standard(name: str) -> Found | None:
    spec = BuiltinImporter.find_spec(name) or FrozenImporter.find_spec(name)
    return Found(name=name, origin="standard") if spec else None


def _on_path(name: str, path: Iterable[str]) -> Found | None:
    """What `PathFinder` does, which however needs the parents of a package without `__init__` to be imported."""
    portions: list[str] = []
    for entry in path:
        importer = pkgutil.get_importer(entry)
        spec = importer.find_spec(name) if importer else None
        if spec and spec.loader:
            return _found(name, spec)
        portions += (spec.submodule_search_locations or []) if spec else []
    return Found(name=name, origin=_origin(name, portions), search=tuple(portions)) if portions else None


def _otherwise(name: str) -> Found:
    """What finders other than Python's own say; editable installations may have one."""
    for finder in sys.meta_path:
        if finder not in (BuiltinImporter, FrozenImporter, PathFinder):
            spec = finder.find_spec(name, None)
            if spec:
                return _found(name, spec)
    return Found(name=name, origin="missing")


def _found(name: str, spec: ModuleSpec) -> Found:
    path = Path(spec.origin) if spec.has_location and spec.origin else None
    search = None if spec.submodule_search_locations is None else tuple(spec.submodule_search_locations)
    return Found(name=name, origin=_origin(name, [str(path)] if path else search or ()), path=path, search=search)


def _origin(name: str, locations: Iterable[str]) -> Origin:
    """Whose the files are; one that lies among the distributions but belongs to none counts as the user's."""
    paths = [Path(location) for location in locations]
    if any(is_own(path) for path in paths):
        return "own"
    if not any(_LIBRARIES.intersection(path.parts) for path in paths):
        return "standard"
    return "distribution" if name.partition(".")[0] in distributions() else "own"
