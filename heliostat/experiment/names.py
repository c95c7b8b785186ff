"""Where a dotted name leads, through imports, re-exports and submodules."""

from dataclasses import dataclass
from pathlib import Path

from heliostat.experiment.modules import Finder, Found
from heliostat.experiment.syntax import EFFECTS, Chain, Source, Uses, parse

_OF_EVERY_MODULE = frozenset({"__doc__", "__file__", "__loader__", "__name__", "__package__", "__path__", "__spec__"})


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a name leads to: something at the top of a module, or all of it (no `name`); and the attributes left."""

    found: Found
    name: str | None = None
    rest: Chain = ()


class Names:
    """Looks names up across the modules that `finder` finds.

    One name may lead to several things, because nothing here knows which branch of a module runs: all of them count.
    """

    def __init__(self, finder: Finder) -> None:
        self.find = finder.find
        self._sources: dict[str, Source] = {}

    def source(self, found: Found) -> Source:
        """The source of a module of the user's or our own.

        Raises:
            UserError: it is not Python.
        """
        if found.name not in self._sources:
            text = found.path.read_bytes() if found.path else b""
            path = found.path or Path(*found.name.split("."), "__init__.py")
            self._sources[found.name] = parse(found.name, path, text, is_package=found.search is not None)
        return self._sources[found.name]

    def in_statement(self, source: Source, uses: Uses, chain: Chain) -> list[Target]:
        """What `chain` leads to in a statement of `source` that itself makes the imports in `uses`.

        Nothing for local variables and builtins.
        """
        local = [alias for alias in uses.aliases if alias.name == chain[0]]
        targets = [target for alias in local for target in self.in_module(alias.module, alias.attributes + chain[1:])]
        return targets + self.bound(self.find(source.name), chain)

    def in_module(self, module: str, chain: Chain, seen: frozenset[tuple[str, Chain]] = frozenset()) -> list[Target]:
        """What the attributes `chain` of `module` lead to; the whole module if that cannot be said."""
        found = self.find(module)
        if (module, chain) in seen:
            return []
        if found.origin != "own" or not chain:
            return [Target(found=found, rest=chain)]
        return self.bound(found, chain, seen | {(module, chain)}) or [Target(found=found)]

    def bound(self, found: Found, chain: Chain, seen: frozenset[tuple[str, Chain]] = frozenset()) -> list[Target]:
        """What `chain` leads to by the bindings of the module `found`, or nothing."""
        source, head, rest = self.source(found), chain[0], chain[1:]
        targets = [Target(found=found, name=head, rest=rest)] if head in source.statements else []
        for alias in source.top.aliases:
            if alias.name == head:
                targets += self.in_module(alias.module, alias.attributes + rest, seen)
            elif alias.name == "*" and (alias.module, chain) not in seen and self.find(alias.module).origin == "own":
                targets += self.bound(self.find(alias.module), chain, seen | {(alias.module, chain)})
        submodule = f"{found.name}.{head}"
        if self.find(submodule).origin != "missing":
            targets += self.in_module(submodule, rest, seen)
        return targets or self._otherwise(found, source, head)

    def _otherwise(self, found: Found, source: Source, head: str) -> list[Target]:
        if head in source.bound_by_effects or head in _OF_EVERY_MODULE:
            return [Target(found=found, name=EFFECTS)]
        return [Target(found=found, name="__getattr__")] if "__getattr__" in source.statements else []
