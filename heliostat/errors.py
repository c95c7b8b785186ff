"""Every error Heliostat raises on purpose.

    HeliostatError                 exit code 1: something failed
    |- UserError (ValueError)      exit code 2: something to change before trying again
    |  |- ConfigError              the experiment file: all its mistakes at once
    |  |- ReferenceNotFound        `package.module:attr` or `./file.py:attr` does not resolve
    |  |- DataError                the data: a missing column, an empty split, a wrong type
    |  |- StoreError               the store on disk: not writable, in use by another run, damaged
    |  |- ServiceError             something Heliostat talks to: MLflow, a port, a Ray cluster
    |  |- PlanError                no legal plan for this workload on these devices
    |  `- PlacementError           the devices a plan needs cannot be had
    `- RunFailure                  a step that started and did not finish
       |- TrainingFailure          a worker died for good, a loss that is not a number
       |- CheckpointError          nothing committed can be read
       `- ServingFailure           a deployment that did not come up, an answer that is wrong

Every message has the same shape: what happened, where, what was got, the likely causes, and the next command to try.
All of them survive pickling, because Ray carries them between processes.
"""

from collections.abc import Sequence


class HeliostatError(Exception):
    """The root: `what` happened, `where`, what was `got`, likely `causes`, and the `next_step` to try."""

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        got: str | None = None,
        causes: Sequence[str] = (),
        next_step: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.got = got
        self.causes = tuple(causes)
        self.next_step = next_step

    def __str__(self) -> str:
        lines = [self.what]
        lines += [f"  where: {self.where}"] if self.where else []
        lines += [f"  got: {self.got}"] if self.got else []
        lines += [f"  likely cause: {cause}" for cause in self.causes]
        lines += [f"  next: {self.next_step}"] if self.next_step else []
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), dict(vars(self)))


def _rebuild(cls: type[HeliostatError], fields: dict[str, object]) -> HeliostatError:
    error = cls.__new__(cls, fields["what"])
    error.args = (fields["what"],)
    vars(error).update(fields)
    return error


class UserError(HeliostatError, ValueError):
    """Something the user can change: exit code 2 and no traceback."""

    exit_code = 2


class ConfigError(UserError):
    """A file with mistakes; `mistakes` holds every one as `file:line:col: path: message`."""

    def __init__(
        self, mistakes: Sequence[str], *, subject: str = "the experiment", next_step: str | None = None
    ) -> None:
        self.mistakes = tuple(mistakes)
        count = len(self.mistakes)
        title = f"{count} mistake{'s' if count != 1 else ''} in {subject}"
        super().__init__("\n".join([title, *(f"  {mistake}" for mistake in self.mistakes)]), next_step=next_step)


class ReferenceNotFound(UserError):
    """A name in the experiment that does not lead to a Python object."""


class DataError(UserError):
    """Data that is not what was declared."""


class StoreError(UserError):
    """The store on disk cannot be used."""


class ServiceError(UserError):
    """A service does not answer, or its port is taken."""


class PlanError(UserError):
    """No legal plan exists for this workload on these devices."""


class PlacementError(UserError):
    """The devices that a plan needs cannot be had."""


class RunFailure(HeliostatError):
    """A step that started and did not finish."""


class TrainingFailure(RunFailure):
    """Training stopped and cannot go on by itself."""


class CheckpointError(RunFailure):
    """No committed checkpoint can be read."""


class ServingFailure(RunFailure):
    """A deployment did not come up, or answers wrongly."""
