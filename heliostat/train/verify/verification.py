"""What the checks before the first step compared, and what came of it. Pure values: no torch."""

from pathlib import Path

from pydantic import NonNegativeFloat

from heliostat.errors import PlanError
from heliostat.files import write_whole
from heliostat.values import Frozen

FILE = "verification.json"
"""In the directory of a job."""


class Term(Frozen):
    """One number that was expected, and what it is."""

    what: str
    expected: float
    got: float
    unit: str = ""
    tolerance: NonNegativeFloat = 0.0
    """Relative to what was expected."""
    at_most: bool = False
    """Whether less than expected is no failure."""

    @property
    def passed(self) -> bool:
        """Whether the two agree; a number that is none agrees with nothing."""
        more = self.got - self.expected
        return (more if self.at_most else abs(more)) <= self.tolerance * abs(self.expected)

    def describe(self) -> str:
        """Both numbers."""
        unit = f" {self.unit}" if self.unit else ""
        most = "at most " if self.at_most else ""
        return f"{self.what}: expected {most}{_number(self.expected)}{unit}, got {_number(self.got)}{unit}"


class Check(Frozen):
    """One thing that was looked at."""

    name: str
    compared: str
    """What with what."""
    terms: tuple[Term, ...]
    causes: tuple[str, ...] = ()
    """Of a failure."""
    next_step: str = ""
    """After a failure."""

    @property
    def failures(self) -> tuple[Term, ...]:
        """The terms that do not agree."""
        return tuple(term for term in self.terms if not term.passed)

    def error(self) -> PlanError:
        """What to say of the failures."""
        shown = [term.describe() for term in self.failures[:3]]
        more = len(self.failures) - len(shown)
        return PlanError(
            f"the plan was not verified: {self.name}",
            where=self.compared,
            got="; ".join([*shown, *([f"and {more} more"] if more else [])]),
            causes=self.causes,
            next_step=self.next_step or None,
        )


class Verification(Frozen):
    """All checks of a job."""

    checks: tuple[Check, ...]
    seconds: NonNegativeFloat

    @property
    def passed(self) -> bool:
        """Whether training may begin."""
        return not any(check.failures for check in self.checks)

    def require(self) -> None:
        """Refuse to train after a failure.

        Raises:
            PlanError: of the first check that failed.
        """
        for check in self.checks:
            if check.failures:
                raise check.error()

    def write(self, directory: Path) -> None:
        """Keep it in the directory of its job."""
        directory.mkdir(parents=True, exist_ok=True)
        write_whole(directory / FILE, self.model_dump_json(indent=1))

    @classmethod
    def read(cls, directory: Path) -> "Verification | None":
        """What was written there; None if nothing was checked."""
        file = directory / FILE
        return cls.model_validate_json(file.read_bytes()) if file.exists() else None


def _number(value: float) -> str:
    return f"{value:,.0f}" if value.is_integer() else f"{value:.8g}"
