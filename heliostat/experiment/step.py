"""What a pipeline is made of: steps, what they are handed, and what they leave behind."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from heliostat.values import Frozen, digest, plain


class Artifact(Frozen):
    """Something a step left outside its record: a table, a checkpoint, a model version."""

    kind: str
    uri: str
    digest: str


class StepResult(Frozen):
    """What a step hands to the steps after it."""

    outputs: Annotated[dict[str, Any], BeforeValidator(plain)] = Field(default_factory=dict)
    """JSON; values of ours become JSON here, so that a fresh result and one read back are the same."""
    artifacts: tuple[Artifact, ...] = ()
    metrics: dict[str, float] = Field(default_factory=dict)

    @property
    def digest(self) -> str:
        """What the steps after this one depend on: not the metrics, which may be times."""
        return digest({"outputs": self.outputs, "artifacts": self.artifacts})


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """All that a step may read: its own slice of the config, the results of the steps before it, and two paths."""

    step: str
    options: Mapping[str, Any]
    inputs: Mapping[str, StepResult]
    workdir: Path
    """The step's own directory. It is the same for the same key, so a step that was stopped may go on where it was."""
    events: Path
    """Where `progress` goes."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Services, filled in by whoever submits the step; no part of the key."""

    def progress(self, done: float, total: float, text: str = "") -> None:
        """Say that `done` of `total` is done."""
        line = json.dumps({"done": done, "total": total, "text": text})
        with self.events.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def nothing_missing(result: StepResult) -> str | None:  # noqa: ARG001
    """The `still_there` of a step without artifacts."""
    return None


@dataclass(frozen=True, kw_only=True)
class Step:
    """One node of a pipeline."""

    name: str
    run: Callable[[StepContext], StepResult]
    """A module-level function."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The slice of the config that the step reads. It is handed nothing else of it."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """Dotted path in the options -> where the value was written."""
    after: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    """The user's code that the step reaches."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What else the result depends on, such as the shape of the cluster."""
    still_there: Callable[[StepResult], str | None] = nothing_missing
    """None while all artifacts of a result exist and match, else what is missing."""
