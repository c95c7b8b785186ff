"""Which steps run, for which reasons, in which order, and what becomes of failures. The steps run in threads."""

import importlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from heliostat.errors import DataError, StoreError, UserError
from heliostat.experiment import pipeline
from heliostat.experiment.pipeline import (
    Event,
    StepFailed,
    StepFinished,
    StepOutcome,
    StepProgress,
    StepSkipped,
    StepStarted,
    run_pipeline,
)
from heliostat.experiment.records import Store
from heliostat.experiment.step import Step, StepContext, StepResult

FLOW = '''
"""Three steps: data, then train, then report."""
from pathlib import Path

from flow_helpers import normalize
from heliostat.experiment.step import Artifact, StepContext, StepResult


def data(context: StepContext) -> StepResult:
    return StepResult(outputs={"rows": [normalize(row) for row in context.options["rows"]]})


def train(context: StepContext) -> StepResult:
    context.progress(1, 2, "half")
    loss = context.options["lr"] * sum(context.inputs["data"].outputs["rows"])
    weights = context.workdir / "weights"
    weights.write_text(str(loss))
    context.progress(2, 2, "whole")
    artifact = Artifact(kind="weights", uri=str(weights), digest="1")
    return StepResult(outputs={"loss": loss}, artifacts=(artifact,), metrics={"loss": loss})


def report(context: StepContext) -> StepResult:
    return StepResult(outputs={"text": f"loss {context.inputs['train'].outputs['loss']}"})


def missing(result: StepResult) -> str | None:
    return None if Path(result.artifacts[0].uri).exists() else f"no {result.artifacts[0].uri}"
'''

HELPERS = '''
def normalize(row):
    """Doc."""
    return row + OFFSET  # a comment

OFFSET = 1
'''


class InThread:
    """A step that runs in a thread: all that the scheduler asks of one."""

    def __init__(self, future: "Future[StepResult]") -> None:
        self._future = future

    def done(self) -> bool:
        return self._future.done()

    def result(self) -> StepResult:
        return self._future.result()

    def cancel(self, *, force: bool) -> None:
        assert not force, "a thread cannot be killed"
        self._future.cancel()


class Runner:
    """Runs pipelines on one store and remembers the events."""

    def __init__(self, folder: Path, threads: ThreadPoolExecutor) -> None:
        self.store = Store.open(folder / "store")
        self.folder = folder
        self.events: list[Event] = []
        self._threads = threads

    def submit(self, step: Step, context: StepContext) -> InThread:
        return InThread(self._threads.submit(step.run, context))

    def run(self, steps: list[Step], experiment: str = "flights") -> list[StepOutcome]:
        self.events = []
        return run_pipeline(
            steps, store=self.store, experiment=experiment, submit=self.submit, on_event=self.events.append
        )

    def reasons(self, steps: list[Step], experiment: str = "flights") -> dict[str, tuple[str, ...]]:
        """Step -> why it ran, for those that did."""
        outcomes = self.run(steps, experiment)
        return {outcome.step: outcome.record.reasons for outcome in outcomes if not outcome.skipped}


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with ThreadPoolExecutor() as threads:
        yield Runner(tmp_path, threads)


class Flow:
    """The user's files and the steps they make, loaded anew each time as a new process would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "flow.py").write_text(FLOW)
        (folder / "flow_helpers.py").write_text(HELPERS)

    def edit(self, file: str, old: str, new: str) -> None:
        text = (self.folder / file).read_text()
        assert old in text
        (self.folder / file).write_text(text.replace(old, new))

    def steps(
        self, *, lr: float = 0.5, origin: str = "flow.yaml:3:9", facts: Mapping[str, str] | None = None
    ) -> list[Step]:
        for name in ("flow", "flow_helpers"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        flow: Any = importlib.import_module("flow")
        return [
            Step(name="data", run=flow.data, options={"rows": [1, 2]}),
            Step(
                name="train",
                run=flow.train,
                options={"lr": lr},
                origins={"lr": origin},
                after=("data",),
                facts=facts or {},
                still_there=flow.missing,
            ),
            Step(name="report", run=flow.report, after=("train",)),
        ]


@pytest.fixture
def flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flow]:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield Flow(tmp_path)
    for name in ("flow", "flow_helpers"):
        sys.modules.pop(name, None)


def test_everything_runs_once_and_then_nothing(runner: Runner, flow: Flow) -> None:
    assert runner.reasons(flow.steps()) == dict.fromkeys(("data", "train", "report"), ("first run",))
    again = runner.run(flow.steps())
    assert [(outcome.step, outcome.skipped) for outcome in again] == [("data", True), ("train", True), ("report", True)]
    assert again[2].result.outputs == {"text": "loss 2.5"}
    assert all(isinstance(event, StepSkipped) for event in runner.events)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("flow_helpers.py", "# a comment", "# another"),
        ("flow_helpers.py", '    """Doc."""\n', ""),
        ("flow_helpers.py", "OFFSET = 1", "\n\nOFFSET = (1)"),
        ("flow_helpers.py", "OFFSET = 1", "OFFSET = 1\ndef unrelated():\n    return 1"),
    ],
)
def test_edits_that_run_nothing(runner: Runner, flow: Flow, file: str, old: str, new: str) -> None:
    runner.run(flow.steps())
    flow.edit(file, old, new)
    assert runner.reasons(flow.steps()) == {}


def test_a_helper_edit_runs_what_reaches_it_and_what_depends_on_the_result(runner: Runner, flow: Flow) -> None:
    runner.run(flow.steps())
    flow.edit("flow_helpers.py", "row + OFFSET", "row + OFFSET + 1")
    assert runner.reasons(flow.steps()) == {
        "data": ("code: `normalize()` in flow_helpers.py:2 changed",),
        "train": ("input: data changed (data ran again)",),
        "report": ("input: train changed (train ran again)",),
    }


def test_an_edit_that_changes_no_result_goes_no_further(runner: Runner, flow: Flow) -> None:
    runner.run(flow.steps())
    flow.edit("flow_helpers.py", "row + OFFSET", "OFFSET + row")
    assert runner.reasons(flow.steps()) == {"data": ("code: `normalize()` in flow_helpers.py:2 changed",)}


def test_an_option_runs_its_step_and_going_back_finds_the_old_record(runner: Runner, flow: Flow) -> None:
    runner.run(flow.steps())
    assert runner.reasons(flow.steps(lr=0.25, origin="--set lr")) == {
        "train": ("config: lr 0.5 -> 0.25 (--set lr)",),
        "report": ("input: train changed (train ran again)",),
    }
    back = runner.run(flow.steps())
    assert all(outcome.skipped for outcome in back)
    assert back[1].result.outputs == {"loss": 2.5}
    # compared with what was used last, not with what was made last
    assert runner.reasons(flow.steps(lr=1.0))["train"] == ("config: lr 0.5 -> 1.0 (flow.yaml:3:9)",)


def test_all_reasons_are_given(runner: Runner, flow: Flow) -> None:
    runner.run(flow.steps(facts={"cluster": "2 cpu"}))
    flow.edit("flow_helpers.py", "OFFSET = 1", "OFFSET = 2")
    flow.edit("flow.py", '"half"', '"one half"')
    assert runner.reasons(flow.steps(lr=1.0, facts={"cluster": "4 cpu"}))["train"] == (
        "code: `train()` in flow.py:13 changed",
        "config: lr 0.5 -> 1.0 (flow.yaml:3:9)",
        "input: data changed (data ran again)",
        "facts: cluster 2 cpu -> 4 cpu",
    )


def test_a_deleted_artifact_is_made_again(runner: Runner, flow: Flow) -> None:
    weights = Path(runner.run(flow.steps())[1].result.artifacts[0].uri)
    weights.unlink()
    assert runner.reasons(flow.steps()) == {"train": (f"artifact gone: no {weights}",)}
    assert weights.exists()


def test_a_damaged_record_is_ignored_with_a_warning(runner: Runner, flow: Flow) -> None:
    runner.run(flow.steps())
    [path] = (runner.store.root / "records/flights/train").iterdir()
    path.write_text(path.read_text()[:100])
    [reason] = runner.reasons(flow.steps())["train"]
    assert reason.startswith(f"record damaged, ignored: {path}: ")
    assert runner.reasons(flow.steps()) == {}


def test_experiments_do_not_share_records(runner: Runner, flow: Flow) -> None:
    runner.run(flow.steps(), experiment="one")
    assert runner.reasons(flow.steps(), experiment="two")["data"] == ("first run",)


def test_events_come_in_order(runner: Runner, flow: Flow) -> None:
    runner.run(flow.steps())
    trained = [event for event in runner.events if event.step == "train"]
    assert trained[:3] == [
        StepStarted(step="train", reasons=("first run",)),
        StepProgress(step="train", done=1, total=2, text="half"),
        StepProgress(step="train", done=2, total=2, text="whole"),
    ]
    assert isinstance(trained[3], StepFinished)
    assert trained[3].record.result.metrics == {"loss": 2.5}


def test_progress_of_an_earlier_attempt_is_not_shown_again(runner: Runner, flow: Flow) -> None:
    weights = Path(runner.run(flow.steps())[1].result.artifacts[0].uri)
    events = weights.parent / "progress.jsonl"
    events.write_text(events.read_text() + '{"done": 1, "tot')
    weights.unlink()
    runner.run(flow.steps())
    assert [event.text for event in runner.events if isinstance(event, StepProgress)] == ["half", "whole"]


def module_step(name: str, run: Callable[[StepContext], StepResult], *after: str) -> Step:
    """A step whose function lives in this test; what is fingerprinted is beside the point."""
    run.__module__, run.__qualname__ = "heliostat.experiment.step", "nothing_missing"
    return Step(name=name, run=run, after=after)


def test_independent_steps_run_at_the_same_time(runner: Runner) -> None:
    both_are_here = threading.Barrier(2, timeout=10)

    def meet(context: StepContext) -> StepResult:
        both_are_here.wait()
        return StepResult()

    outcomes = runner.run([module_step("a", meet), module_step("b", meet)])
    assert [outcome.step for outcome in outcomes] == ["a", "b"]


def test_a_failure_stops_what_depends_on_it_and_nothing_else(runner: Runner) -> None:
    ran = []

    def fail(context: StepContext) -> StepResult:
        raise DataError("no rows")

    def work(context: StepContext) -> StepResult:
        ran.append(context.step)
        return StepResult()

    steps = [
        module_step("bad", fail),
        module_step("good", work),
        module_step("after good", work, "good"),
        module_step("after bad", work, "bad", "good"),
    ]
    with pytest.raises(DataError, match="no rows"):
        runner.run(steps)
    assert ran == ["good", "after good"]
    assert [event.step for event in runner.events if isinstance(event, StepFailed)] == ["bad"]
    steps[0] = module_step("bad", work)
    assert set(runner.reasons(steps)) == {"bad", "after bad"}


def test_steps_come_in_any_order(runner: Runner, flow: Flow) -> None:
    outcomes = runner.run(flow.steps()[::-1])
    assert [outcome.step for outcome in outcomes] == ["report", "train", "data"]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ({"a": ("b",), "b": ("a",)}, "wait for each other"),
        ({"a": ("a",)}, "wait for each other"),
        ({"a": ("data",)}, "'a' comes after 'data', which is no step"),
    ],
)
def test_steps_that_form_no_pipeline(runner: Runner, steps: dict[str, tuple[str, ...]], message: str) -> None:
    def work(context: StepContext) -> StepResult:
        return StepResult()

    with pytest.raises(UserError, match=message):
        runner.run([module_step(name, work, *after) for name, after in steps.items()])


class Endless:
    """A step that ends only when it is killed."""

    def __init__(self) -> None:
        self.cancels: list[bool] = []

    def done(self) -> bool:
        return True in self.cancels

    def result(self) -> StepResult:
        raise AssertionError("nobody waits for a cancelled step")

    def cancel(self, *, force: bool) -> None:
        self.cancels.append(force)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), StoreError("the disk is full")])
def test_whatever_goes_wrong_stops_what_runs(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(pipeline, "GRACE_S", 0.1)
    endless = Endless()

    def work(context: StepContext) -> StepResult:
        return StepResult()

    def submit(step: Step, context: StepContext) -> Endless:
        return endless

    def interrupt(event: Event) -> None:
        if event == StepStarted(step="b", reasons=("first run",)):
            raise error

    steps = [module_step("a", work), module_step("b", work)]
    with pytest.raises(type(error)):
        run_pipeline(steps, store=runner.store, experiment="e", submit=submit, on_event=interrupt)
    assert endless.cancels == [False, True]
