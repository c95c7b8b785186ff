"""What code a step runs: every first-party symbol it can reach, and the versions of the distributions it meets.

The engines we looked at hash a node's own body, so an edited helper gives a stale result. Here the walk goes on from a
reference through every function, class and constant that it names, in the user's files and in Heliostat's own. It is
static and errs on the side of reaching too much:

- An import reaches what importing runs: the other top-level statements of the module, and what is decorated or assigned
  by a call that may register something. Using a name reaches what the name stands for.
- A class is one symbol. A module that is passed around as a value counts with all that it holds.
- What cannot be followed is an error: a module imported under a name that is known only at run time.

Comments, docstrings and layout do not count; decorators, defaults and annotations do.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from packaging.utils import canonicalize_name

from heliostat.errors import ReferenceNotFound, UserError
from heliostat.experiment.environment import release, version_differences
from heliostat.experiment.modules import Finder, Found, distributions
from heliostat.experiment.names import Names, Target
from heliostat.experiment.syntax import EFFECTS, Source, Uses
from heliostat.references import code_paths, did_you_mean, import_root, locate
from heliostat.values import Frozen, digest

_OURSELVES = "heliostat"
_LOADS_REFERENCES = "heliostat.references"
"""The one module that may import under any name: what it loads is fingerprinted as a reference of its own."""


class Symbol(Frozen):
    """One function, class, constant, or all other top-level statements of a module (`<module>`)."""

    module: str
    name: str
    kind: Literal["function", "class", "constant", "effects"]
    file: str
    line: int
    digest: str

    def __str__(self) -> str:
        place = f"{_short(self.file, self.module)}:{self.line}"
        if self.kind == "effects":
            return f"the top level of {place}"
        return f"`{self.name}{'()' if self.kind == 'function' else ''}` in {place}"


class CodeFingerprint(Frozen):
    """All code that some references reach."""

    symbols: dict[str, Symbol]
    """`module:name` -> symbol."""
    distributions: dict[str, str]
    """Name -> version."""
    modules: dict[str, Path]
    """The user's modules that are imported on the way -> their files. What counts of them is among the symbols."""

    @cached_property
    def digest(self) -> str:
        """Changes when the code does; where a symbol stands, and the directory of its file, do not count."""
        symbols = {key: symbol.digest for key, symbol in self.symbols.items()}
        return digest({"symbols": symbols, "distributions": self.distributions})

    @property
    def files(self) -> list[str]:
        """The source files with at least one symbol, sorted."""
        return sorted({symbol.file for symbol in self.symbols.values()})


def fingerprint(references: Sequence[str]) -> CodeFingerprint:
    """The code reached from `references`, each `package.module:attr` or `/abs/file.py:attr`.

    Raises:
        ReferenceNotFound: a reference names nothing.
        UserError: code that cannot be parsed, or that imports what only a run could tell.
    """
    walk = _Walk(Names(Finder(code_paths(references))))
    for reference in references:
        walk.enter(reference)
    walk.run()
    symbols, versions = (dict(sorted(found.items())) for found in (walk.symbols, walk.versions))
    return CodeFingerprint(symbols=symbols, distributions=versions, modules=walk.modules())


def differences(before: CodeFingerprint, after: CodeFingerprint) -> list[str]:
    """What changed from `before` to `after`, one line of text each; empty exactly when the digests are equal."""
    old, new = before.symbols, after.symbols
    changed = [f"{new[key]} changed" for key in new if key in old and new[key].digest != old[key].digest]
    added = [f"{new[key]} is new" for key in new if key not in old]
    gone = [f"{old[key]} is gone" for key in old if key not in new]
    return [*changed, *added, *gone, *version_differences(before.distributions, after.distributions)]


class _Walk:
    """Collects symbols and versions; what was reached waits until it is followed."""

    def __init__(self, names: Names) -> None:
        self.symbols: dict[str, Symbol] = {}
        self.versions: dict[str, str] = {}
        self._names = names
        self._imported: dict[str, Found] = {}
        self._waiting: list[tuple[Source, str]] = []
        self._whole: set[str] = set()
        self._by_inheritance = False

    def enter(self, reference: str) -> None:
        path = locate(reference)
        target, _, attribute = reference.rpartition(":")
        found = self._names.find(import_root(path)[1] if path else target)
        if found.origin == "own":
            targets = self._names.bound(found, tuple(attribute.split(".")))
        else:
            targets = [] if found.origin == "missing" else [Target(found=found)]
        if not targets:
            known = self._names.source(found).statements if found.origin == "own" else {}
            raise ReferenceNotFound(
                f"nothing defines {attribute!r}{did_you_mean(attribute, known)}",
                where=str(found.path or target),
                got=reference,
                next_step="correct the name in the experiment file",
            )
        self._reach(targets)

    def run(self) -> None:
        while self._waiting:
            source, name = self._waiting.pop()
            self._follow(source, source.uses(name))
            if not self._waiting and self._by_inheritance:
                self._reach_classes()

    def modules(self) -> dict[str, Path]:
        own = (found for name, found in sorted(self._imported.items()) if name.partition(".")[0] != _OURSELVES)
        return {found.name: found.path for found in own if found.origin == "own" and found.path}

    def _follow(self, source: Source, uses: Uses) -> None:
        if uses.unknown_loads and source.name != _LOADS_REFERENCES:
            raise UserError(
                "this imports a module whose name is known only when it runs, so nothing can tell when that changes",
                where=f"{source.path}:{uses.unknown_loads[0]}",
                next_step="import it by its name, inside an `if` where there is a choice",
            )
        self._follow_imports(uses)
        self._reach(target for module in uses.loads for target in self._names.in_module(module, ()))
        self._reach(target for chain in uses.chains for target in self._names.in_statement(source, uses, chain))
        if uses.own_namespace:
            self._reach(self._names.in_module(source.name, ()))
        self._by_inheritance |= uses.by_inheritance

    def _follow_imports(self, uses: Uses) -> None:
        for module in uses.imports:
            self._import(module)
        for alias in uses.aliases:
            submodule = ".".join([alias.module, *alias.attributes])
            if self._names.find(submodule).origin != "missing":
                self._import(submodule)

    def _import(self, module: str) -> None:
        """Reach what runs when `module` is imported: its parents come first."""
        parent = module.rpartition(".")[0]
        if module in self._imported:
            return
        if parent:
            self._import(parent)
        self._imported[module] = found = self._names.find(module)
        if found.origin == "own":
            self._run_top(self._names.source(found))
        else:
            self._note(found)

    def _run_top(self, source: Source) -> None:
        self._follow_imports(source.top)
        for name in source.statements:
            if name == EFFECTS or self._acts_at_import(source, name):
                self._add(source, name)
        for alias in source.top.aliases:
            star = self._names.find(alias.module)
            if alias.name == "*" and star.origin == "own":
                for name in self._names.source(star).statements:
                    self._add(self._names.source(star), name)

    def _acts_at_import(self, source: Source, name: str) -> bool:
        """Whether binding `name` may do more than that: a decorator that registers, a call of first-party code."""
        decorating, calling = (
            [target for chain in chains for target in self._names.in_statement(source, Uses(), chain)]
            for chains in (source.decorators(name), source.calls(name))
        )
        return any(target.found.origin != "standard" for target in decorating) or any(map(self._may_act, calling))

    def _may_act(self, target: Target) -> bool:
        """Constructing an object is taken for harmless; calling anything else of the user's is not."""
        if target.found.origin != "own":
            return False
        is_class = target.name is not None and self._names.source(target.found).kind(target.name) == "class"
        return not is_class or bool(target.rest)

    def _reach(self, targets: Iterable[Target]) -> None:
        for target in targets:
            self._import(target.found.name)
            if target.found.origin == "own":
                source = self._names.source(target.found)
                if target.name is None:
                    self._reach_whole(source)
                else:
                    self._add(source, target.name)

    def _reach_whole(self, source: Source) -> None:
        if source.name in self._whole:
            return
        self._whole.add(source.name)
        for name in source.statements:
            self._add(source, name)
        for alias in source.top.aliases:
            self._reach(self._names.in_module(alias.module, alias.attributes))

    def _reach_classes(self) -> None:
        own = [self._names.source(found) for found in self._imported.values() if found.origin == "own"]
        for source in own:
            for name in source.statements:
                if source.kind(name) == "class":
                    self._add(source, name)

    def _add(self, source: Source, name: str) -> None:
        key = f"{source.name}:{name}"
        if key not in self.symbols and name in source.statements:
            self.symbols[key] = Symbol(
                module=source.name,
                name=name,
                kind=source.kind(name),
                file=str(source.path),
                line=source.line(name),
                digest=source.digest(name),
            )
            self._waiting.append((source, name))

    def _note(self, found: Found) -> None:
        top = found.name.partition(".")[0]
        if found.origin == "missing":
            self.versions[found.name] = "not installed"
        elif found.origin == "distribution":
            self.versions |= {canonicalize_name(name): release(name) for name in distributions()[top]}


def _short(file: str, module: str) -> str:
    """The end of a path that its module's name stands for: `features.py`, `heliostat/data/asof.py`."""
    path = Path(file)
    depth = len(module.split(".")) + (path.stem == "__init__")
    return "/".join(path.parts[-depth:])
