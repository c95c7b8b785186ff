"""A pipeline: steps in order, each run only when something that its result depends on has changed.

The scheduler knows neither Ray nor MLflow. It asks `submit` to start a step, and only for a step that must run, so a
pipeline in which nothing changed starts nothing.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Protocol

from heliostat.errors import HeliostatError, StoreError, UserError
from heliostat.experiment.environment import environment_lock
from heliostat.experiment.events import (
    Event,
    ProgressReader,
    StepFailed,
    StepFinished,
    StepProgress,
    StepSkipped,
    StepStarted,
)
from heliostat.experiment.key import StepKey, changes, step_key
from heliostat.experiment.records import Record, Store, now
from heliostat.experiment.step import Step, StepContext, StepResult

__all__ = [
    "GRACE_S",
    "Event",
    "RunningStep",
    "StepFailed",
    "StepFinished",
    "StepOutcome",
    "StepProgress",
    "StepSkipped",
    "StepStarted",
    "run_pipeline",
]

POLL_S = 0.05
"""How often running steps are looked at."""

GRACE_S = 10.0
"""How long a cancelled step may take to clean up before it is killed."""


class RunningStep(Protocol):
    """A step on its way, as `submit` returns it."""

    def done(self) -> bool:
        """Whether it has ended, well or not."""

    def result(self) -> StepResult:
        """What it returned, once it is done.

        Raises:
            HeliostatError: what it raised.
        """

    def cancel(self, *, force: bool) -> None:
        """Interrupt it, or kill it with `force`."""


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """How a step came to its result: it ran for the record's reasons, or was skipped and the record is older."""

    step: str
    skipped: bool
    record: Record

    @property
    def result(self) -> StepResult:
        """What the step hands on."""
        return self.record.result


def run_pipeline(
    steps: Sequence[Step],
    *,
    store: Store,
    experiment: str,
    submit: Callable[[Step, StepContext], RunningStep],
    on_event: Callable[[Event], None],
) -> list[StepOutcome]:
    """Bring every step up to date and return how, in the order of `steps`.

    Steps that do not depend on each other run at the same time. When one fails, the others that do not need it still
    run, then its error is raised. An interrupt, or any other error here, stops what is running and goes on upwards.

    Raises:
        UserError: the steps do not form a pipeline, or their code cannot be fingerprinted.
        HeliostatError: what a step raised.
    """
    sorter = _sorter(steps)
    run = _Run(store=store, experiment=experiment, submit=submit, on_event=on_event)
    try:
        run.go({step.name: step for step in steps}, sorter)
    except BaseException:
        run.cancel()
        raise
    if run.failures:
        raise run.failures[0]
    return [run.outcomes[step.name] for step in steps]


def _sorter(steps: Iterable[Step]) -> TopologicalSorter[str]:
    graph = {step.name: step.after for step in steps}
    for name, after in graph.items():
        if unknown := [other for other in after if other not in graph]:
            raise UserError(
                f"step '{name}' comes after '{unknown[0]}', which is no step", got=f"steps: {', '.join(graph)}"
            )
    sorter = TopologicalSorter(graph)
    try:
        sorter.prepare()
    except CycleError as error:
        raise UserError("steps wait for each other", got=" <- ".join(error.args[1])) from None
    return sorter


@dataclass(frozen=True, kw_only=True)
class _Started:
    step: Step
    key: StepKey
    reasons: tuple[str, ...]
    handle: RunningStep
    progress: ProgressReader
    since_s: float = field(default_factory=time.monotonic)


class _Run:
    def __init__(
        self,
        *,
        store: Store,
        experiment: str,
        submit: Callable[[Step, StepContext], RunningStep],
        on_event: Callable[[Event], None],
    ) -> None:
        self.outcomes: dict[str, StepOutcome] = {}
        self.failures: list[HeliostatError] = []
        self._store = store
        self._experiment = experiment
        self._submit = submit
        self._on_event = on_event
        self._running: dict[str, _Started] = {}
        self._environment = environment_lock()

    def go(self, steps: dict[str, Step], sorter: TopologicalSorter[str]) -> None:
        """Until all is done, or what is left waits for a step that failed."""
        reported: set[str] = set()
        while True:
            for name in sorter.get_ready():
                self._begin(steps[name])
            for started in list(self._running.values()):
                self._attend(started)
            news = self.outcomes.keys() - reported
            sorter.done(*news)
            reported |= news
            if not news and not self._running:
                return
            if not news:
                time.sleep(POLL_S)

    def cancel(self) -> None:
        """Stop what is running: ask first, then kill."""
        handles = [started.handle for started in self._running.values()]
        try:
            for handle in handles:
                handle.cancel(force=False)
            deadline_s = time.monotonic() + GRACE_S
            while time.monotonic() < deadline_s and not all(handle.done() for handle in handles):
                time.sleep(POLL_S)
        finally:
            for handle in handles:
                if not handle.done():
                    handle.cancel(force=True)

    def _begin(self, step: Step) -> None:
        inputs = {name: self.outcomes[name].result for name in step.after}
        key = step_key(step, inputs, self._environment)
        record, reasons = self._look_up(step, key)
        if record:
            self._store.touch(record)
            self.outcomes[step.name] = StepOutcome(step=step.name, skipped=True, record=record)
            self._on_event(StepSkipped(step=step.name, record=record))
        else:
            self._start(step, key, inputs, tuple(reasons))

    def _look_up(self, step: Step, key: StepKey) -> tuple[Record | None, list[str]]:
        """The record that makes a run of `step` unnecessary, or the reasons why there must be one."""
        warnings = []
        try:
            record = self._store.find(self._experiment, step.name, key.digest)
        except StoreError as error:
            record, warnings = None, [f"record damaged, ignored: {error.where}: {error.got}"]
        if record:
            missing = step.still_there(record.result)
            return (None, [f"artifact gone: {missing}"]) if missing else (record, [])
        latest = self._store.latest(self._experiment, step.name)
        if latest is None:
            return None, warnings or ["first run"]
        ran = [name for name, outcome in self.outcomes.items() if not outcome.skipped]
        return None, warnings + changes(latest.key, key, origins=step.origins, ran=ran)

    def _start(self, step: Step, key: StepKey, inputs: dict[str, StepResult], reasons: tuple[str, ...]) -> None:
        workdir = self._store.workdir(step.name, key.digest)
        events = workdir / "progress.jsonl"
        context = StepContext(step=step.name, options=key.options, inputs=inputs, workdir=workdir, events=events)
        progress = ProgressReader(step.name, events)
        self._on_event(StepStarted(step=step.name, reasons=reasons))
        handle = self._submit(step, context)
        self._running[step.name] = _Started(step=step, key=key, reasons=reasons, handle=handle, progress=progress)

    def _attend(self, started: _Started) -> None:
        done = started.handle.done()
        for event in started.progress.read():
            self._on_event(event)
        if done:
            del self._running[started.step.name]
            self._finish(started)

    def _finish(self, started: _Started) -> None:
        name = started.step.name
        try:
            result = started.handle.result()
        except HeliostatError as error:
            self.failures.append(error)
            self._on_event(StepFailed(step=name, error=error))
            return
        record = Record(
            experiment=self._experiment,
            step=name,
            key=started.key,
            result=result,
            reasons=started.reasons,
            created=now(),
            wall_s=time.monotonic() - started.since_s,
        )
        self._store.save(record)
        self.outcomes[name] = StepOutcome(step=name, skipped=False, record=record)
        self._on_event(StepFinished(step=name, record=record))
