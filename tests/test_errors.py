"""Errors cross process boundaries, carry an exit code, and always have the same shape."""

import pickle
from collections.abc import Iterator

import pytest

from heliostat import errors
from heliostat.errors import ConfigError, DataError, HeliostatError, RunFailure, TrainingFailure, UserError


def family(cls: type[HeliostatError]) -> Iterator[type[HeliostatError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from family(child)


CLASSES = [cls for cls in family(HeliostatError) if cls.__module__.startswith("heliostat.")]


def example(cls: type[HeliostatError]) -> HeliostatError:
    if issubclass(cls, ConfigError):
        return cls(["a.yaml:1:2: seed: must be a whole number", "a.yaml:3:1: nme: unknown key"], next_step="look")
    return cls("it broke", where="node 3", got="-1", causes=["heat", "age"], next_step="look")


@pytest.mark.parametrize("cls", CLASSES)
def test_survives_pickling_whole(cls: type[HeliostatError]) -> None:
    error = example(cls)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert (str(copy), copy.args, vars(copy)) == (str(error), error.args, vars(error))


@pytest.mark.parametrize("cls", CLASSES)
def test_exit_code_tells_whose_turn_it_is(cls: type[HeliostatError]) -> None:
    assert cls.exit_code == (2 if issubclass(cls, UserError) else 1)
    assert issubclass(cls, ValueError) == issubclass(cls, UserError)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    drawn: dict[str, str | None] = {}
    branch: list[tuple[int, str]] = []
    for line in errors.__doc__.splitlines()[1:]:
        words = line.replace("|", " ").replace("`-", "  ").replace("- ", "  ").split()
        if not words or not hasattr(errors, words[0]):
            continue
        depth = line.index(words[0])
        branch = [(above, name) for above, name in branch if above < depth]
        drawn[words[0]] = branch[-1][1] if branch else None
        branch.append((depth, words[0]))
    actual = {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES if cls is not HeliostatError}
    assert drawn == {"HeliostatError": None, **actual}


def test_a_message_says_what_where_got_why_and_what_next() -> None:
    assert str(example(DataError)).splitlines() == [
        "it broke",
        "  where: node 3",
        "  got: -1",
        "  likely cause: heat",
        "  likely cause: age",
        "  next: look",
    ]
    assert str(TrainingFailure("it broke")) == "it broke"
    assert issubclass(TrainingFailure, RunFailure)


@pytest.mark.parametrize(("count", "title"), [(1, "1 mistake in the experiment"), (3, "3 mistakes in the experiment")])
def test_a_config_error_lists_every_mistake(count: int, title: str) -> None:
    error = ConfigError([f"a.yaml:{line}:1: wrong" for line in range(count)])
    assert str(error).splitlines() == [title, *(f"  a.yaml:{line}:1: wrong" for line in range(count))]
