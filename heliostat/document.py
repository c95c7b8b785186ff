"""YAML with memory: plain data, and for every value the place where it was written.

Scalars follow the core schema of YAML 1.2, as editors do: `1e-3` is a number; `no` and `2013-01-01` are text. Keys are
always text. `extends: base.yaml` (or a list of files, relative to the file that says it) starts from other files:
mappings merge, everything else is replaced, the later file wins and the extending file wins over all. An override
`a.b=c` replaces the value at a path.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from heliostat.errors import ConfigError

Keys = tuple[str | int, ...]
"""A path into the data: mapping keys and list indices."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a value was written: the place of its key, or of the item in a list. Lines and columns count from 1."""

    source: str
    """The file as it was named, or `--set a.b`, which has no line."""
    line: int = 0
    col: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.col}" if self.line else self.source

    @property
    def sort_key(self) -> tuple[bool, str, int, int]:
        """Files in the order of their lines, overrides after them."""
        return not self.line, self.source, self.line, self.col

    @property
    def directory(self) -> Path:
        """Where relative paths in the value start: beside the file, or the current directory for an override."""
        return Path(self.source).parent if self.line else Path()


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One thing to correct. Text: `file:line:col: path: message`."""

    origin: Origin
    keys: Keys
    message: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (str(self.origin), dotted(self.keys), self.message)))


@dataclass(frozen=True, kw_only=True)
class Document:
    """Plain data, the origin of every value in it, and the mistakes that did not keep it from being read."""

    data: dict[str, Any]
    origins: dict[Keys, Origin]
    mistakes: tuple[Mistake, ...]

    def origin(self, keys: Keys) -> Origin:
        """The origin of the value at `keys`, or of the nearest value around it that was written."""
        while keys not in self.origins:
            keys = keys[:-1]
        return self.origins[keys]


def dotted(keys: Keys) -> str:
    """`keys` as people write them: `train.params.width`."""
    return ".".join(map(str, keys))


def read(path: Path, overrides: Sequence[str] = ()) -> Document:
    """The document in `path`, with what it extends below it and `overrides` (`a.b=c`, YAML values) on top.

    Raises:
        ConfigError: a file cannot be read or parsed, with every mistake found up to there.
    """
    if not path.is_file():
        similar = get_close_matches(path.name, [sibling.name for sibling in path.parent.glob("*.y*ml")], n=1)
        hint = f"did you mean {path.parent / similar[0]}?" if similar else f"relative paths start at {Path.cwd()}"
        raise ConfigError([f"{path}: there is no such file"], next_step=hint)
    reader = _Reader()
    tree = reader.file(path, ())
    for override in overrides:
        tree = reader.override(tree, override)
    if reader.unreadable:
        raise ConfigError([str(mistake) for mistake in reader.mistakes])
    return Document(data=_plain(tree), origins=dict(_origins(tree, ())), mistakes=tuple(reader.mistakes))


@dataclass(frozen=True)
class _Tree:
    """A value with its origin; mappings and lists hold trees."""

    origin: Origin
    value: Any


def _plain(tree: _Tree) -> Any:
    if isinstance(tree.value, dict):
        return {key: _plain(item) for key, item in tree.value.items()}
    if isinstance(tree.value, list):
        return [_plain(item) for item in tree.value]
    return tree.value


def _origins(tree: _Tree, keys: Keys) -> Iterator[tuple[Keys, Origin]]:
    yield keys, tree.origin
    items: Iterable[tuple[str | int, _Tree]] = ()
    if isinstance(tree.value, dict | list):
        items = tree.value.items() if isinstance(tree.value, dict) else enumerate(tree.value)
    for key, item in items:
        yield from _origins(item, (*keys, key))


def _merge(base: _Tree, top: _Tree) -> _Tree:
    if not (isinstance(base.value, dict) and isinstance(top.value, dict)):
        return top
    merged = {key: _merge(base.value[key], item) if key in base.value else item for key, item in top.value.items()}
    return replace(top, value={**base.value, **merged})


class _Loader(yaml.SafeLoader):
    """The parser, with the scalars of YAML 1.2 instead of those of YAML 1.1."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"null|Null|NULL|~|", [*"nN~", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", [*"-+0123456789"]),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", [*"-+.0123456789"]),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", [*"-+."]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)

_SCALARS: dict[str, Callable[[str], object]] = {
    "null": lambda _: None,
    "bool": lambda text: text.lower() == "true",
    "int": lambda text: int(text, 0 if text.startswith(("0o", "0x")) else 10),
    "float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
    "str": str,
}


@dataclass
class _Reader:
    """Reads files and overrides into trees, and gathers mistakes on the way instead of stopping at the first."""

    mistakes: list[Mistake] = field(default_factory=list)
    unreadable: bool = False

    def file(self, path: Path, chain: tuple[Path, ...]) -> _Tree:
        """The tree of `path` over the trees it extends; `chain` holds the files on the way here."""
        start = Origin(source=str(path), line=1, col=1)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            return self._give_up(start, f"cannot be read: {error}")
        tree = self._parse(text, start, lambda mark: Origin(source=str(path), line=mark.line + 1, col=mark.column + 1))
        if tree.value is None:
            tree = replace(tree, value={})
        if not isinstance(tree.value, dict):
            return self._give_up(start, "must be a mapping of keys to values")
        extends = tree.value.pop("extends", None)
        return tree if extends is None else _merge(self._bases(extends, path, (*chain, path.resolve())), tree)

    def override(self, tree: _Tree, override: str) -> _Tree:
        """`tree` with the value that `override` (`a.b=c`) sets."""
        path, equals, text = override.partition("=")
        origin = Origin(source=f"--set {path}")
        if not (path and equals):
            self._mistake(origin, (), "must be KEY=VALUE")
            return tree
        return self._assign(tree, path, self._parse(text, origin, lambda _: origin))

    def _assign(self, tree: _Tree, path: str, value: _Tree, above: Keys = ()) -> _Tree:
        entries = {} if tree.value is None else tree.value
        if not isinstance(entries, dict):
            self._mistake(value.origin, above, "is not a mapping, so nothing can be set inside it")
            return tree
        # keys may hold dots themselves (`tune.space.train.lr`), so a key that is there is tried before a new one
        known = [key for key in entries if path == key or path.startswith(f"{key}.")]
        key = max(known, key=len, default=path.partition(".")[0])
        rest = path[len(key) + 1 :]
        inner = entries.get(key, replace(value, value=None))
        return replace(tree, value={**entries, key: self._assign(inner, rest, value, (*above, key)) if rest else value})

    def _bases(self, extends: _Tree, path: Path, chain: tuple[Path, ...]) -> _Tree:
        merged = _Tree(extends.origin, {})
        for name in extends.value if isinstance(extends.value, list) else [extends]:
            if not isinstance(name.value, str):
                self._mistake(name.origin, ("extends",), "must be the path of a file, or a list of them")
                continue
            base = path.parent / name.value
            if base.resolve() in chain:
                circle = " -> ".join([file.name for file in (*chain, base)])
                self._give_up(name.origin, f"extends: goes round in a circle: {circle}")
            elif not base.is_file():
                self._give_up(name.origin, f"extends: there is no file {base}")
            else:
                merged = _merge(merged, self.file(base, chain))
        return merged

    def _parse(self, text: str, start: Origin, at: Callable[[yaml.Mark], Origin]) -> _Tree:
        """The tree of one YAML text that begins at `start`; `at` gives the origin of a place in it."""
        try:
            node = yaml.compose(text, Loader=_Loader)
            return _Tree(start, None) if node is None else replace(self._tree(node, at, ()), origin=start)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            told = " ".join(filter(None, (error.context, error.problem)))
            return self._give_up(at(mark) if mark else start, f"is not YAML: {told}")
        except yaml.YAMLError as error:
            return self._give_up(start, f"is not YAML: {' '.join(str(error).split())}")
        except RecursionError:
            return self._give_up(start, "has no end: an alias (*name) that contains itself")

    def _tree(self, node: yaml.Node, at: Callable[[yaml.Mark], Origin], keys: Keys) -> _Tree:
        origin = at(node.start_mark)
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return _Tree(origin, self._entries(node, at, keys))
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return _Tree(origin, [self._tree(item, at, (*keys, index)) for index, item in enumerate(node.value)])
        if isinstance(node, yaml.ScalarNode) and kind in _SCALARS:
            with suppress(ValueError):
                return _Tree(origin, _SCALARS[kind](node.value))
        self._mistake(origin, keys, f"cannot be read as '{kind}'")
        return _Tree(origin, None)

    def _entries(self, node: yaml.MappingNode, at: Callable[[yaml.Mark], Origin], keys: Keys) -> dict[str, _Tree]:
        entries: dict[str, _Tree] = {}
        for key_node, value_node in node.value:
            origin, key = at(key_node.start_mark), key_node.value
            if not isinstance(key, str) or key == "<<":
                self._mistake(origin, keys, "keys must be text, without YAML's `<<`: use `extends` to share values")
            elif key in entries:
                self._mistake(origin, (*keys, key), f"is written twice; the first is at {entries[key].origin}")
            else:
                entries[key] = replace(self._tree(value_node, at, (*keys, key)), origin=origin)
        return entries

    def _mistake(self, origin: Origin, keys: Keys, message: str) -> None:
        self.mistakes.append(Mistake(origin=origin, keys=keys, message=message))

    def _give_up(self, origin: Origin, message: str) -> _Tree:
        self._mistake(origin, (), message)
        self.unreadable = True
        return _Tree(origin, {})
