"""`heliostat run`: check what can be checked at once, bring every step up to date, stop or leave the services.

The steps bring torch, Ray and MLflow with them; they are imported after the checks, so that a mistake is told at once.
"""

import platform
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from heliostat.cluster import spec_file
from heliostat.cluster.emulate import as_emulated
from heliostat.cluster.ports import holder_of
from heliostat.errors import ServiceError
from heliostat.experiment import tracking_store
from heliostat.experiment.config import Experiment, load_experiment
from heliostat.experiment.display import Display
from heliostat.experiment.events import Event, StepFinished
from heliostat.experiment.fingerprint import fingerprint
from heliostat.experiment.pipeline import RunningStep, StepOutcome, run_pipeline
from heliostat.experiment.records import Store
from heliostat.experiment.sections import ExperimentConfig
from heliostat.experiment.services import Services, local_cpus
from heliostat.experiment.step import Step, StepContext
from heliostat.experiment.tracking import Tracker
from heliostat.references import code_paths

if TYPE_CHECKING:
    from heliostat.experiment.main_job import Goal
    from heliostat.experiment.summary import Summary


def run_experiment(
    path: Path,
    overrides: Sequence[str],
    *,
    keep: bool,
    quiet: bool,
    report: Callable[["Summary"], None],
    goal: "Goal" = "serve",
) -> None:
    """Run the experiment in the file `path`.

    Args:
        path: the experiment file.
        overrides: `a.b=c` on top of it.
        keep: leave Ray, MLflow and the endpoint up.
        quiet: print nothing on the way.
        report: told what came of it, while everything is still up.
        goal: how far to go.

    Raises:
        UserError: something to change first.
        RunFailure: a step failed.

    """
    experiment = load_experiment(path, overrides)
    config = experiment.config
    store = Store.open(config.store)
    with store.lock(f"heliostat run {path}"), Display(quiet=quiet) as display:
        named = (config.data.prepare, config.data.features, config.train.task)
        references = [reference for reference in named if reference is not None]
        fingerprint(references)  # says what is wrong with them, without importing anything
        services = Services(config, store.root, code_paths(references))
        _check(config, services, goal)
        with _stopping(services, display, keep=keep):
            report(_Run(experiment, store, services, display, goal).go(keep=keep))


class _Run:
    """One run of one experiment; opens its MLflow run when the first step must run."""

    def __init__(
        self, experiment: Experiment, store: Store, services: Services, display: Display, goal: "Goal"
    ) -> None:
        self._experiment = experiment
        self._store = store
        self._services = services
        self._display = display
        self._goal = goal
        self._tracker: Tracker | None = None
        self._run_id = ""

    def go(self, *, keep: bool) -> "Summary":
        """Bring every step up to date; with `keep`, have everything up in the end."""
        status: Literal["FINISHED", "FAILED", "KILLED"] = "FAILED"
        try:
            outcomes = self._run_steps()
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            if self._tracker is not None and self._run_id:
                self._tracker.close_family(self._run_id, status)
        if keep:
            self._have_endpoint_up(outcomes)
        self._services.wait_for_pages()
        from heliostat.experiment.summary import Summary

        return Summary(experiment=self._experiment, outcomes=outcomes, session=self._services.session)

    def _run_steps(self) -> list[StepOutcome]:
        from heliostat.experiment.main_job import main_job

        config = self._experiment.config
        registry_uri = config.tracking.uri or tracking_store.initialise(self._store.root)
        steps = main_job(
            self._experiment,
            cluster_facts=_cluster_facts(config, self._services),
            registry_uri=registry_uri,
            goal=self._goal,
        )
        return run_pipeline(
            steps, store=self._store, experiment=config.name, submit=self._submit, on_event=self._on_event
        )

    def _on_event(self, event: Event) -> None:
        self._display.show(event)
        if isinstance(event, StepFinished) and event.step == "serve":
            from heliostat.experiment.steps import serve

            self._services.note_endpoint(serve.endpoint_of(event.record.result))

    def _have_endpoint_up(self, outcomes: Sequence[StepOutcome]) -> None:
        """Deploy again what an earlier run served, if it is not up any more."""
        from heliostat.experiment.steps import register, serve

        results = {outcome.step: outcome.result for outcome in outcomes}
        tracking_uri = self._services.ensure()
        endpoint = serve.endpoint_of(results["serve"])
        if not endpoint.is_up():
            self._display.note("the endpoint is not up any more: deploying it again")
            options = {"name": self._experiment.config.name, "serve": self._experiment.config.serve.model_dump()}
            endpoint = serve.deploy_version(register.model_of(results["register"]), options, tracking_uri)
        self._services.note_endpoint(endpoint)

    def _submit(self, step: Step, context: StepContext) -> RunningStep:
        from heliostat.experiment.ray_steps import submit_to_ray
        from heliostat.experiment.recording import recorded

        tracking_uri = self._ensure_services()
        extra = {
            "tracking_uri": tracking_uri,
            "parent_run": self._run_id,
            "store": str(self._store.root),
            "tags": self._tags(),
        }
        return submit_to_ray(replace(step, run=partial(recorded, step.run)), replace(context, extra=extra))

    def _tags(self) -> dict[str, str]:
        """What every MLflow run of this run must say."""
        return {"heliostat.cluster": self._services.origin}

    def _ensure_services(self) -> str:
        """Have Ray, MLflow and this run's own MLflow run; give MLflow's address."""
        if self._tracker is None:
            self._display.note("starting Ray and MLflow" if self._services.session.empty else "Ray and MLflow are up")
            config = self._experiment.config
            self._tracker = Tracker(self._services.ensure())
            values = config.model_dump(mode="json", by_alias=True)
            self._run_id = self._tracker.open_run(config.name, config.name, config=values, tags=self._tags())
        return self._tracker.uri


def _check(config: ExperimentConfig, services: Services, goal: "Goal") -> None:
    """Fail now on what would fail after minutes of work: MLflow's address, the endpoint's port."""
    if config.tracking.uri is not None:
        tracking_store.check_tracking(config.tracking.uri)
    endpoint_is_ours = services.session.endpoint is not None
    needs_port = goal == "serve" and not endpoint_is_ours
    holder = holder_of(config.serve.port, config.serve.host) if needs_port else None
    if holder is not None:
        raise ServiceError(
            f"port {config.serve.port} is taken, the model could not be served there",
            where="serve.port",
            got=f"held by {holder}",
            causes=("an endpoint of another store was left up with --keep",),
            next_step="heliostat down in the other directory, or --set serve.port=8001",
        )


def _cluster_facts(config: ExperimentConfig, services: Services) -> Mapping[str, str]:
    """What a plan depends on: known without Ray for what starts here, asked of the cluster otherwise."""
    cpus = config.cluster.cpus_per_device
    if config.cluster.emulate is not None:
        return {"cluster": as_emulated(spec_file.load(Path(config.cluster.emulate))).shape()}
    if config.cluster.address == "local" and not services.emulated:
        host = f"{platform.machine()} {platform.node()}"
        return {"cluster": f"local, {local_cpus() // cpus} devices of {cpus} cores, {host}"}
    from heliostat.cluster.discovery import discover

    services.ensure_ray()
    return {"cluster": discover(cpus).shape()}


@contextmanager
def _stopping(services: Services, display: Display, *, keep: bool) -> Iterator[None]:
    """Stop the services in the end, unless they are to be kept; an interrupt stops them in any case."""
    interruptible = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except BaseException as error:
        _stop(services, display, keep=keep and not isinstance(error, KeyboardInterrupt))
        raise
    else:
        _stop(services, display, keep=keep)
    finally:
        signal.signal(signal.SIGTERM, interruptible)


def _stop(services: Services, display: Display, *, keep: bool) -> None:
    if keep:
        services.leave()
        return
    patient = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it up
    try:
        if not services.session.empty:
            left = "; the emulation stays up" if services.leaves_emulation else ""
            display.note(f"stopping what this run started{left}")
        services.close()
    finally:
        signal.signal(signal.SIGINT, patient)
