"""Steps as real Ray tasks: results, errors as themselves, death, interrupts."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from heliostat.errors import DataError, RunFailure
from heliostat.experiment.pipeline import GRACE_S, Event, RunningStep, StepProgress, StepStarted, run_pipeline
from heliostat.experiment.ray_steps import submit_to_ray
from heliostat.experiment.records import Store
from heliostat.experiment.step import Step, StepContext
from heliostat.references import resolve

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

STEPS = """
import os
import sys
import time

import ray

from heliostat.errors import DataError
from heliostat.experiment.step import StepContext, StepResult


def double(context: StepContext) -> StepResult:
    before = context.inputs["start"].outputs["value"] if context.inputs else context.options["value"]
    return StepResult(outputs={"value": 2 * before, "node": ray.get_runtime_context().get_node_id()})


def bad_data(context: StepContext) -> StepResult:
    raise DataError("no rows", where="split 'test'", causes=["the dates are wrong"])


def bad_code(context: StepContext) -> StepResult:
    return StepResult(outputs={"value": 1 // 0})


def leave(context: StepContext) -> StepResult:
    sys.exit("enough")


def die(context: StepContext) -> StepResult:
    os._exit(1)


def bad_data_in_a_task(context: StepContext) -> StepResult:
    return ray.get(ray.remote(num_cpus=0)(bad_data).remote(context))


def work_long(context: StepContext) -> StepResult:
    context.progress(0, 1, "at work")
    try:
        for _ in range(600):
            time.sleep(0.1)
    finally:
        (context.workdir / "cleaned up").touch()
    return StepResult()
"""


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The user's module, imported here as `references.resolve` does and by workers through PYTHONPATH."""
    path = tmp_path_factory.mktemp("user") / "remote_steps.py"
    path.write_text(STEPS)
    before = list(sys.path)
    resolve(f"{path}:double")
    yield sys.modules["remote_steps"]
    sys.path[:] = before
    del sys.modules["remote_steps"]


Submit = Callable[[Step, StepContext], RunningStep]


@pytest.fixture
def submit(steps: ModuleType) -> Submit:
    folder = str(Path(str(steps.__file__)).parent)
    return lambda step, context: submit_to_ray(step, context, runtime_env={"env_vars": {"PYTHONPATH": folder}})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def ignore(event: Event) -> None:
    pass


def test_a_chain(store: Store, steps: ModuleType, submit: Submit) -> None:
    chain = [
        Step(name="start", run=steps.double, options={"value": 5}),
        Step(name="end", run=steps.double, after=("start",)),
    ]
    outcomes = run_pipeline(chain, store=store, experiment="e", submit=submit, on_event=ignore)
    assert [outcome.result.outputs["value"] for outcome in outcomes] == [10, 20]
    import ray

    assert outcomes[0].result.outputs["node"] == ray.get_runtime_context().get_node_id()


def failure(store: Store, submit: Submit, run: Callable[..., object]) -> BaseException:
    step = Step(name="bad", run=run, options={"value": 1})  # type: ignore[arg-type]
    with pytest.raises((DataError, RunFailure)) as caught:
        run_pipeline([step], store=store, experiment="e", submit=submit, on_event=ignore)
    return caught.value


@pytest.mark.parametrize("name", ["bad_data", "bad_data_in_a_task"])
def test_our_errors_come_back_as_themselves(store: Store, steps: ModuleType, submit: Submit, name: str) -> None:
    error = failure(store, submit, getattr(steps, name))
    assert type(error) is DataError
    assert error.what == "no rows"
    assert "raise DataError" in "".join(error.__notes__)


@pytest.mark.parametrize(
    ("name", "got"),
    [("bad_code", "ZeroDivisionError: integer division or modulo by zero"), ("leave", "SystemExit: enough")],
)
def test_other_errors_say_where_they_were_raised(
    store: Store, steps: ModuleType, submit: Submit, name: str, got: str
) -> None:
    error = failure(store, submit, getattr(steps, name))
    assert isinstance(error, RunFailure)
    line = getattr(steps, name).__code__.co_firstlineno + 1
    assert error.where == f"{steps.__file__}:{line} in {name}"
    assert error.got == got


def test_a_step_whose_process_dies(store: Store, steps: ModuleType, submit: Submit) -> None:
    error = failure(store, submit, steps.die)
    assert "the process of step 'bad' died" in str(error)


def test_an_interrupt_stops_the_step_and_goes_on_upwards(store: Store, steps: ModuleType, submit: Submit) -> None:
    events: list[Event] = []

    def interrupt(event: Event) -> None:
        events.append(event)
        if isinstance(event, StepProgress):
            os.kill(os.getpid(), signal.SIGINT)

    step = Step(name="long", run=steps.work_long)
    since_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_pipeline([step], store=store, experiment="e", submit=submit, on_event=interrupt)
    assert time.monotonic() - since_s < GRACE_S
    assert [type(event) for event in events] == [StepStarted, StepProgress]
    assert len(list(store.root.glob("work/long/*/cleaned up"))) == 1
    assert store.latest("e", "long") is None
