"""Runs a step as a Ray task, next to the store, and brings its errors back as themselves."""

import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from heliostat.errors import HeliostatError, RunFailure
from heliostat.experiment.modules import is_own
from heliostat.experiment.step import Step, StepContext, StepResult


class RayStep:
    """A step that runs as a Ray task (a `RunningStep`)."""

    def __init__(self, step: str, ref: "ray.ObjectRef") -> None:
        self._step = step
        self._ref = ref

    def done(self) -> bool:
        """Whether the task has ended."""
        ready, _ = ray.wait([self._ref], timeout=0)
        return bool(ready)

    def result(self) -> StepResult:
        """What the step returned.

        Raises:
            HeliostatError: what it raised; RunFailure if its process died.
        """
        try:
            outcome: StepResult | HeliostatError = ray.get(self._ref)
        except RayError as error:
            raise RunFailure(
                f"the process of step '{self._step}' died",
                got=f"{type(error).__name__}: {error}".partition("\n")[0],
                causes=["it was killed, by hand or for want of memory", "the node it ran on is gone"],
                next_step="run again: finished steps are kept",
            ) from error
        if isinstance(outcome, HeliostatError):
            raise outcome
        return outcome

    def cancel(self, *, force: bool) -> None:
        """Interrupt the task and what it started, or kill its process with `force`."""
        ray.cancel(self._ref, force=force, recursive=True)


def submit_to_ray(step: Step, context: StepContext, *, runtime_env: dict[str, Any] | None = None) -> RayStep:
    """Start `step` on the connected cluster.

    The task runs on the caller's node, where the store is, and takes no CPU there: the work is done by what it starts.
    """
    options = {
        "name": f"step {step.name}",
        "num_cpus": 0,
        "max_retries": 0,
        "runtime_env": runtime_env,
        "label_selector": {"ray.io/node-id": ray.get_runtime_context().get_node_id()},
    }
    return RayStep(step.name, ray.remote(_call).options(**options).remote(step.run, context))


def _call(run: Callable[[StepContext], StepResult], context: StepContext) -> StepResult | HeliostatError:
    try:
        return run(context)
    except (Exception, SystemExit) as error:  # noqa: BLE001, whatever it raises is how the step failed
        failure = next(_ours(error), None) or _failure(context.step, error)
        failure.add_note(traceback.format_exc())
        return failure


def _ours(error: BaseException | None) -> Iterator[HeliostatError]:
    """Our own error inside the ones that Ray and others wrapped around it."""
    while error is not None:
        if isinstance(error, HeliostatError) and not isinstance(error, RayError):
            yield error
        error = getattr(error, "cause", None) or error.__cause__


def _failure(step: str, error: BaseException) -> RunFailure:
    frames = traceback.extract_tb(error.__traceback__)
    last = ([frame for frame in frames if is_own(Path(frame.filename))] or frames)[-1]
    return RunFailure(
        f"step '{step}' failed",
        where=f"{last.filename}:{last.lineno} in {last.name}",
        got=f"{type(error).__name__}: {error}",
        next_step="--debug shows the traceback",
    )
