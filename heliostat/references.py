"""Names of the user's own Python objects: `package.module:attr`, or `./file.py:attr`.

A file is imported under the dotted name it has below its import root (the first directory upwards without an
`__init__.py`), never as an anonymous module: what it defines then pickles by reference, and workers that have the same
root on their path find it again. The price is that two files may not claim one module name in one process.
"""

import importlib
import pkgutil
import sys
import sysconfig
import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from heliostat.errors import ReferenceNotFound

_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """` (did you mean 'x'?)` with the option closest to `name`, or nothing when none is close."""
    similar = get_close_matches(name, list(options), n=1)
    return f" (did you mean '{similar[0]}'?)" if similar else ""


def absolute(reference: str, base: Path) -> str:
    """`reference` with its file, if it names one, made absolute from the directory `base`; dotted names unchanged."""
    target, colon, attribute = reference.rpartition(":")
    return f"{(base / target).resolve()}{colon}{attribute}" if target.endswith(".py") else reference


def locate(reference: str) -> Path | None:
    """The file that `reference` names, or None for a dotted name.

    Raises:
        ReferenceNotFound: the file does not exist.
    """
    target, _ = _split(reference)
    if not target.endswith(".py"):
        return None
    path = Path(target)
    if not path.is_file():
        hint = did_you_mean(path.name, (sibling.name for sibling in path.parent.glob("*.py")))
        raise ReferenceNotFound(
            f"there is no file {path}{hint}",
            got=reference,
            next_step="correct the path; a relative one starts at the file that mentions it",
        )
    return path


def import_root(path: Path) -> tuple[Path, str]:
    """The directory that goes on `sys.path` for the Python file `path`, and the dotted name it is imported by."""
    path = path.resolve()
    names = [] if path.stem == "__init__" else [path.stem]
    root = path.parent
    while (root / "__init__.py").is_file():
        names.insert(0, root.name)
        root = root.parent
    return root, ".".join(names)


def code_paths(references: Iterable[str]) -> list[str]:
    """The directories that must be on `sys.path` to import every file named in `references`, each once, in order.

    Raises:
        ReferenceNotFound: a file does not exist.
    """
    files = [path for path in map(locate, references) if path is not None]
    return list(dict.fromkeys(str(import_root(path)[0]) for path in files))


def resolve(reference: str) -> object:
    """The object that `reference` names; imports its module, and puts a file's import root on `sys.path`.

    Raises:
        ReferenceNotFound: the file, the module or the attribute does not exist, or importing it raises.
    """
    _, attribute = _split(reference)
    module = _module(reference)
    if not hasattr(module, attribute):
        hint = did_you_mean(attribute, (name for name in vars(module) if not name.startswith("__")))
        raise ReferenceNotFound(
            f"{module.__name__} has no '{attribute}'{hint}",
            where=getattr(module, "__file__", None),
            got=reference,
            next_step="name something that the file defines at its top level",
        )
    found: object = getattr(module, attribute)
    return found


def _split(reference: str) -> tuple[str, str]:
    target, _, attribute = reference.rpartition(":")
    if not target or not attribute:
        raise ReferenceNotFound(
            f"'{reference}' does not name a Python object",
            got=reference,
            next_step="write 'package.module:name' or './file.py:name'",
        )
    return target, attribute


def _module(reference: str) -> ModuleType:
    path = locate(reference)
    if path is None:
        return _import(_split(reference)[0], reference)
    root, name = import_root(path)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    # a finder that listed the directory moments ago may not have seen a file written since
    importlib.invalidate_caches()
    module = _import(name, reference)
    owner = getattr(module, "__file__", None)
    if owner is None or Path(owner).resolve() != path.resolve():
        raise ReferenceNotFound(
            f"the module name '{name}' belongs to another file",
            where=owner or "a built-in module",
            got=reference,
            causes=[
                "two files of one name outside any package",
                "a file named like a module of Python or of a library",
            ],
            next_step=f"rename {path.name}, or put it in a package (a directory with an __init__.py)",
        )
    return module


def _import(name: str, reference: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    # a script without a `__main__` guard may well end in sys.exit()
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise _no_module(name, error.name or name, reference) from None
        raise ReferenceNotFound(
            f"importing {name} raises {type(error).__name__}: {error}",
            where=_blame(error),
            got=reference,
            next_step="make the file importable by itself; heavy work belongs inside functions",
        ) from error


def _no_module(name: str, missing: str, reference: str) -> ReferenceNotFound:
    parent, _, child = missing.rpartition(".")
    search = getattr(sys.modules.get(parent), "__path__", ()) if parent else None
    siblings = [f"{parent}.{found.name}".lstrip(".") for found in pkgutil.iter_modules(search)]
    return ReferenceNotFound(
        f"there is no module '{missing}'{did_you_mean(missing, siblings)}",
        got=reference,
        causes=[] if parent else [f"the package that holds '{child}' is not installed in this environment"],
        next_step=f"correct the name, or name the file itself: ./path/to/{name.rpartition('.')[2]}.py:name",
    )


def _blame(error: BaseException) -> str:
    """`file:line` of the last frame in code that is not a library's, the place the user can change."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__)[1:] if not frame.filename.startswith("<")]
    own = [frame for frame in frames if not frame.filename.startswith(_LIBRARIES)]
    frame = (own or frames)[-1]
    return f"{frame.filename}:{frame.lineno}"
