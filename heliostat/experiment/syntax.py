"""Python source as data: what the top level of a module binds, and which names each of its statements uses."""

import ast
import hashlib
import symtable
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import decode_source
from pathlib import Path
from typing import Literal

from heliostat.errors import UserError

Chain = tuple[str, ...]
"""A dotted name as it is written: `np.linalg.norm` is ("np", "linalg", "norm")."""

EFFECTS = "<module>"
"""Stands for all top-level statements that are neither definitions, assignments to names nor imports."""

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_IMPORTERS = frozenset({"import_module", "__import__", "exec_module", "run_module", "run_path"})
_OWN_NAMESPACE = frozenset({"globals", "eval", "exec"})
_BY_INHERITANCE = frozenset({"__subclasses__", "__init_subclass__", "metaclass"})


@dataclass(frozen=True, kw_only=True)
class Alias:
    """What an import binds `name` to: a module (no attributes) or something in it. A `name` of "*" stands for all."""

    name: str
    module: str
    attributes: Chain = ()


@dataclass(kw_only=True)
class Uses:
    """What some statements refer to."""

    chains: set[Chain] = field(default_factory=set)
    aliases: list[Alias] = field(default_factory=list)
    imports: list[str] = field(default_factory=list)
    """Modules that are imported on the way."""
    loads: list[str] = field(default_factory=list)
    """Modules named by a literal in `import_module("...")`, of which anything may be used."""
    unknown_loads: list[int] = field(default_factory=list)
    """Lines that import a module whose name is not a literal."""
    own_namespace: bool = False
    """They may reach any name of their own module: `globals()`, `eval`."""
    by_inheritance: bool = False
    """They may reach classes by what these inherit: `__subclasses__`, `__init_subclass__`, a metaclass."""


class Source:
    """One module, parsed: its statements by the name that they bind."""

    def __init__(self, name: str, path: Path, *, is_package: bool) -> None:
        self.name = name
        self.path = path
        self.package = name if is_package else name.rpartition(".")[0]
        self.statements: dict[str, list[ast.stmt]] = {}
        """Name -> what defines or assigns it, and EFFECTS -> the rest."""
        self.bound_by_effects: set[str] = set()
        self.top = Uses()
        """What importing the module imports, and the names that this binds."""
        self._scopes: dict[tuple[str, int], frozenset[str]] = {}
        self._uses: dict[str, Uses] = {}
        self._digests: dict[str, str] = {}

    def read(self, text: bytes) -> None:
        """Take in the text of the module.

        Raises:
            UserError: the text is not Python.
        """
        try:
            decoded = decode_source(text)
            tree = ast.parse(decoded, str(self.path))
            table = symtable.symtable(decoded, str(self.path), "exec")
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", 1)
            raise UserError("this file is not Python", where=f"{self.path}:{line}", got=str(error)) from None
        for scope in table.get_children():
            self._scopes[scope.get_name(), scope.get_lineno()] = _module_names(scope)
        _drop_texts(tree)
        for statement in tree.body:
            self._sort(statement)

    def _sort(self, statement: ast.stmt) -> None:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                self._bind(name, statement)
            case ast.Import() | ast.ImportFrom():
                self._add_import(self.top, statement)
            case ast.Assign() | ast.AnnAssign() | ast.AugAssign() if _binds_names_only(statement):
                for name in _bound(statement):
                    self._bind(name, statement)
            case ast.If(test=test, orelse=orelse) if _is_false_at_import(test):
                for other in orelse:
                    self._sort(other)
            case ast.Pass():
                pass
            case _:
                self._bind(EFFECTS, statement)
                self.bound_by_effects |= _bound(statement)
                self._add_imports(self.top, statement)

    def _bind(self, name: str, statement: ast.stmt) -> None:
        self.statements.setdefault(name, []).append(statement)

    def uses(self, name: str) -> Uses:
        """What the statements of `name` refer to."""
        if name not in self._uses:
            self._uses[name] = uses = Uses()
            for statement in self.statements[name]:
                self._collect(uses, statement)
        return self._uses[name]

    def digest(self, name: str) -> str:
        """A digest of the statements of `name` that comments, docstrings, layout and position do not change."""
        if name not in self._digests:
            text = "\n".join(ast.dump(statement) for statement in self.statements[name])
            self._digests[name] = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self._digests[name]

    def kind(self, name: str) -> Literal["function", "class", "constant", "effects"]:
        """What `name` is after the last of its statements."""
        if name == EFFECTS:
            return "effects"
        last = self.statements[name][-1]
        return "class" if isinstance(last, ast.ClassDef) else "function" if isinstance(last, _FUNCTIONS) else "constant"

    def line(self, name: str) -> int:
        """The line where `name` begins."""
        return self.statements[name][0].lineno

    def decorators(self, name: str) -> set[Chain]:
        """The names in the decorators of `name`."""
        return set(_chains(part for statement in self.statements[name] for part in _decorators(statement)))

    def calls(self, name: str) -> set[Chain]:
        """What the statements of `name` call or decorate with when they run at import, class bodies included."""
        return {
            chain for statement in self.statements[name] for part in _callees(statement) for chain in _chains([part])
        }

    def _collect(self, uses: Uses, statement: ast.stmt) -> None:
        first_alias = len(uses.aliases)
        self._add_imports(uses, statement)
        self._add_dynamics(uses, statement)
        scope = self._scopes.get((getattr(statement, "name", ""), statement.lineno))
        body = [] if scope is None else getattr(statement, "body", [])
        header = [part for part in ast.iter_child_nodes(statement) if part not in body]
        uses.chains.update(_chains([*header, *_annotations(statement)]))
        visible = (scope or frozenset()) | {alias.name for alias in uses.aliases[first_alias:]}
        uses.chains.update(chain for chain in _chains(body) if chain[0] in visible)
        uses.own_namespace |= any(chain[0] in _OWN_NAMESPACE for chain in uses.chains)

    def _add_imports(self, uses: Uses, statement: ast.stmt) -> None:
        for node in ast.walk(statement):
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._add_import(uses, node)

    def _add_import(self, uses: Uses, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.Import):
            for item in node.names:
                module = item.name if item.asname else item.name.partition(".")[0]
                uses.aliases.append(Alias(name=item.asname or module, module=module))
                uses.imports.append(item.name)
            return
        module = self._absolute(node.level, node.module or "", node.lineno)
        uses.imports.append(module)
        for item in node.names:
            attributes = () if item.name == "*" else (item.name,)
            uses.aliases.append(Alias(name=item.asname or item.name, module=module, attributes=attributes))

    def _add_dynamics(self, uses: Uses, statement: ast.stmt) -> None:
        nodes = list(ast.walk(statement))
        mentioned = {name for node in nodes for name in _names(node)}
        uses.by_inheritance |= not mentioned.isdisjoint(_BY_INHERITANCE)
        if mentioned.isdisjoint(_IMPORTERS):
            return
        literal = set()
        for node in nodes:
            match node:
                case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]) if _is_importer(function):
                    literal.add(function)
                    level = len(name) - len(name.lstrip("."))
                    uses.loads.append(self._absolute(level, name[level:], node.lineno))
                case ast.Attribute() | ast.Name() if _is_importer(node) and node not in literal:
                    uses.unknown_loads.append(node.lineno)

    def _absolute(self, level: int, name: str, line: int) -> str:
        if not level:
            return name
        package = self.package.split(".")
        if level > len(package) or not self.package:
            raise UserError("this relative import leads out of its package", where=f"{self.path}:{line}")
        return ".".join([*package[: len(package) - level + 1], *([name] if name else [])])


@lru_cache(maxsize=4096)
def parse(name: str, path: Path, text: bytes, *, is_package: bool) -> Source:
    """The module `name` whose file `path` holds `text`; a compiled module is one opaque effect.

    Raises:
        UserError: the text is not Python.
    """
    source = Source(name, path, is_package=is_package)
    if path.suffix == ".py":
        source.read(text)
    else:
        binary = ast.Expr(ast.Constant(hashlib.sha256(text).hexdigest()), lineno=1)
        source.statements[EFFECTS] = [binary]
    return source


def _module_names(scope: symtable.SymbolTable) -> frozenset[str]:
    """The names that a function or class, and all that is nested in it, looks up in the module."""
    is_class = scope.get_type() == "class"
    names = {
        symbol.get_name()
        for symbol in scope.get_symbols()
        # a class body may read the module's name before it binds its own
        if symbol.is_global() or (is_class and symbol.is_referenced())
    }
    return frozenset(names.union(*map(_module_names, scope.get_children())))


def _drop_texts(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            body[:] = [part for part in body if not _is_text(part)]


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_false_at_import(test: ast.expr) -> bool:
    return ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__ == '__main__'"}


def _names(node: ast.AST) -> Iterator[str]:
    """The names that a node itself mentions: a variable, an attribute, a function it defines, a keyword it passes."""
    for name in ("id", "attr", "name", "arg"):
        if isinstance(value := getattr(node, name, None), str):
            yield value


def _is_importer(function: ast.expr) -> bool:
    return not _IMPORTERS.isdisjoint(_names(function))


def _binds_names_only(statement: ast.Assign | ast.AnnAssign | ast.AugAssign) -> bool:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return all(
        isinstance(node, ast.Name | ast.Tuple | ast.List | ast.Starred | ast.expr_context)
        for target in targets
        for node in ast.walk(target)
    )


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a statement binds, and perhaps a few that only functions inside it do."""
    nodes = list(ast.walk(statement))
    names = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return names | {node.name for node in nodes if isinstance(node, (*_FUNCTIONS, ast.ClassDef))}


def _chains(parts: Iterable[ast.AST]) -> Iterator[Chain]:
    stack = list(parts)
    while stack:
        node, attributes = stack.pop(), []
        while isinstance(node, ast.Attribute):
            attributes.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name):
            yield (node.id, *reversed(attributes))
        else:
            stack.extend(ast.iter_child_nodes(node))


def _annotations(statement: ast.stmt) -> Iterator[ast.expr]:
    """All annotations, also those in quotes, which name things of the module although no scope says so."""
    for node in ast.walk(statement):
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if annotation is not None:
                yield annotation
                yield from filter(None, map(_quoted, ast.walk(annotation)))


def _quoted(node: ast.AST) -> ast.expr | None:
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        return None
    try:
        return ast.parse(node.value, mode="eval").body
    except SyntaxError:
        return None


def _decorators(node: ast.AST) -> list[ast.expr]:
    return node.decorator_list if isinstance(node, (*_FUNCTIONS, ast.ClassDef)) else []


def _callees(statement: ast.stmt) -> Iterator[ast.expr]:
    """What is called when the statement runs, leaving out what waits inside functions."""
    stack: list[ast.AST] = [statement]
    while stack:
        node = stack.pop()
        yield from _decorators(node)
        if isinstance(node, ast.Call):
            yield node.func
        if isinstance(node, _FUNCTIONS):
            stack += [*node.decorator_list, node.args]
        elif not isinstance(node, ast.Lambda):
            stack += ast.iter_child_nodes(node)
