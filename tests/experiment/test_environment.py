"""What the environment lock covers."""

import importlib.metadata
import platform

import pytest

from heliostat.experiment.environment import (
    EnvironmentLock,
    differences,
    environment_lock,
    release,
    version_differences,
)


def test_covers_what_heliostat_requires_with_the_extras_it_asks_for() -> None:
    lock = environment_lock()
    assert lock.python == platform.python_version()
    # ray[serve] asks for uvicorn, mlflow for alembic: neither is named by us
    assert {"ray", "torch", "pydantic", "numpy", "uvicorn", "alembic"} <= lock.distributions.keys()
    assert lock.distributions["torch"] == importlib.metadata.version("torch")


def test_an_unrelated_package_does_not_count() -> None:
    assert {"pytest", "hypothesis", "mypy", "heliostat"}.isdisjoint(environment_lock().distributions)


def test_is_the_same_each_time_and_survives_json() -> None:
    lock = environment_lock()
    assert lock == environment_lock()
    assert EnvironmentLock.model_validate_json(lock.model_dump_json()).digest == lock.digest


@pytest.mark.parametrize(
    ("update", "text"),
    [
        ({"python": "3.12.0"}, "python 3.11.0 -> 3.12.0"),
        ({"machine": "arm64"}, "machine x86_64 -> arm64"),
        ({"distributions": {"torch": "2.13.0", "rich": "15.0"}}, "torch 2.12.0 -> 2.13.0"),
        ({"distributions": {"torch": "2.12.0"}}, "rich 15.0 is gone"),
        ({"distributions": {"torch": "2.12.0", "rich": "15.0", "new": "1"}}, "new 1 is new"),
    ],
)
def test_differences_are_named_and_change_the_digest(update: dict[str, object], text: str) -> None:
    before = EnvironmentLock(python="3.11.0", machine="x86_64", distributions={"torch": "2.12.0", "rich": "15.0"})
    after = before.model_copy(update=update)
    assert differences(before, after) == [text]
    assert EnvironmentLock.model_validate(after.model_dump()).digest != before.digest


def test_equal_versions_do_not_differ() -> None:
    assert version_differences({"a": "1", "b": "2"}, {"b": "2", "a": "1"}) == []


def test_a_distribution_that_is_not_there() -> None:
    assert release("no-such-distribution") == "not installed"
