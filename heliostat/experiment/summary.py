"""What came of a run, for a person and for a script."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from heliostat.experiment.config import Experiment
from heliostat.experiment.display import shortened
from heliostat.experiment.pipeline import StepOutcome
from heliostat.experiment.services import Session
from heliostat.experiment.step import StepResult
from heliostat.experiment.steps import data, plan, register, smoke, train, tune, verify
from heliostat.placement.parallel_plan import ParallelPlan
from heliostat.train.job import TrainReport
from heliostat.train.verify.verification import Verification
from heliostat.tune.sweep import SweepReport
from heliostat.values import plain


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The outcomes of all steps, and what is up."""

    experiment: Experiment
    outcomes: Sequence[StepOutcome]
    session: Session

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON: every step with its reasons, times, metrics and outputs."""
        steps = {
            outcome.step: {
                "skipped": outcome.skipped,
                "reasons": list(outcome.record.reasons),
                "wall_s": outcome.record.wall_s,
                "metrics": outcome.result.metrics,
                "outputs": outcome.result.outputs,
            }
            for outcome in self.outcomes
        }
        return {"experiment": self.experiment.config.name, "steps": steps, "session": plain(self.session)}

    def show(self) -> None:
        """Print it as tables."""
        console = Console(highlight=False)
        results = {outcome.step: outcome.result for outcome in self.outcomes}
        console.print(self._steps())
        verification = self.verification
        if verification is not None:
            console.print(_verification_table(verification))
        if "tune" in results:
            console.print(_trial_table(tune.report_of(results["tune"])))
        if "smoke" in results:
            console.print(_test_table(smoke.test_metrics_of(results["smoke"])))
        for name, text in self._facts().items():
            console.print(f"[bold]{name:<13}[/bold]", end="")
            console.print(text, markup=False, soft_wrap=True)
        console.print(self.session.describe(), markup=False, soft_wrap=True)

    @property
    def verification(self) -> Verification | None:
        """What the checks of the plan came to; None if none was made."""
        results = {outcome.step: outcome.result for outcome in self.outcomes}
        if "verify" in results:
            return verify.verification_of(results["verify"])
        return train.verification_of(results["train"]) if "train" in results else None

    @property
    def passed(self) -> bool:
        """Whether nothing that was checked has failed."""
        return self.verification is None or self.verification.passed

    def _steps(self) -> Table:
        table = Table("step", "how", "seconds", "why", title="Steps")
        for outcome in self.outcomes:
            how = "skipped" if outcome.skipped else "ran"
            why = f"unchanged since {outcome.record.created}" if outcome.skipped else shortened(outcome.record.reasons)
            table.add_row(outcome.step, how, f"{outcome.record.wall_s:.1f}", why)
        return table

    def _facts(self) -> dict[str, str]:
        results = {outcome.step: outcome.result for outcome in self.outcomes}
        version, chosen = data.version_of(results["data"]), plan.plan_of(results["plan"])
        rows = ", ".join(f"{split} {count:,}" for split, count in version.num_rows.items())
        dropped = ", ".join(f"{reason} {count:,}" for reason, count in version.dropped.items()) or "none"
        emulated = {"cluster": "EMULATED: no figure below is of the hardware that the plan names"}
        return {
            **(emulated if chosen.cluster_origin == "emulated" else {}),
            "data version": f"{version.id} ({rows}; rows left out: {dropped})",
            "plan": chosen.reason,
            **(_training(chosen, results["train"]) if "train" in results else {}),
            **(_model(results["register"]) if "register" in results else {}),
        }


def _training(chosen: ParallelPlan, result: StepResult) -> dict[str, str]:
    report = train.report_of(result)
    predicted_s, measured_s = chosen.prediction.step_time_s, report.step_time_s
    return {
        "placement": train.placement_of(result).describe(),
        "step time": f"predicted {1e3 * predicted_s:.1f} ms, measured {1e3 * measured_s:.1f} ms "
        f"(error {predicted_s / measured_s - 1:+.0%})",
        **_stages(chosen, report),
        "its parts": _parts(chosen, report),
        "throughput": f"{report.elements_per_s:,.0f} elements of the loss a second" + _used(result),
        "memory": f"predicted {_mib(max(chosen.prediction.memory_bytes))}, "
        f"measured {_mib(max(report.peak_memory_bytes))} a rank",
        **({"trace": f"{report.trace}: open its files at https://ui.perfetto.dev"} if report.trace else {}),
    }


def _model(result: StepResult) -> dict[str, str]:
    model = register.model_of(result)
    return {"model": f"{model.id} ({', '.join(model.aliases)}), from {register.chosen_of(result).source}"}


def _stages(chosen: ParallelPlan, report: TrainReport) -> dict[str, str]:
    if len(chosen.stages) == 1:
        return {}
    work = train.work_by_stage(chosen, report)
    text = "; ".join(
        f"stage {number}: predicted {1e3 * one.predicted:.1f} ms, measured {1e3 * one.measured:.1f} ms"
        for number, one in enumerate(work)
    )
    return {"at work": text}


def _parts(chosen: ParallelPlan, report: TrainReport) -> str:
    """Of the busiest rank of every stage."""
    found = []
    for number, parts in enumerate(train.parts_by_stage(chosen, report)):
        stage = f"stage {number}: " if len(chosen.stages) > 1 else ""
        named = (f"{part} {1e3 * one.predicted:.1f} / {1e3 * one.measured:.1f}" for part, one in parts.items())
        found.append(stage + ", ".join(named))
    return "predicted / measured ms: " + "; ".join(found)


def _used(result: StepResult) -> str:
    used = result.metrics.get(train.UTILISATION)
    return "" if used is None else f", {used:.1%} of the devices' peak"


def _mib(num_bytes: float) -> str:
    return f"{num_bytes / 2**20:.0f} MiB"


def _verification_table(found: Verification) -> Table:
    title = f"Checks before the first step ({found.seconds:.1f} s)"
    table = Table("check", "compared", "numbers", "result", title=title)
    for check in found.checks:
        wrong = "; ".join(term.describe() for term in check.failures[:3])
        style = "red" if check.failures else None
        agreed = "agree" if check.terms else "nothing to compare"
        table.add_row(check.name, check.compared, str(len(check.terms)), wrong or agreed, style=style)
    return table


def _test_table(metrics: dict[str, dict[str, float]]) -> Table:
    names = sorted({name for values in metrics.values() for name in values})
    table = Table("model", *names, title="Test split")
    for model, values in metrics.items():
        table.add_row(model, *(f"{values[name]:.4f}" for name in names))
    return table


def _trial_table(report: SweepReport) -> Table:
    paths = sorted(report.trials[0].params)
    table = Table(
        "trial",
        *(path.rpartition(".")[2] for path in paths),
        "epochs",
        "state",
        f"best {report.metric}",
        title="Trials",
    )
    for trial in report.trials:
        values = [epoch[report.metric] for epoch in trial.epochs]
        best = f"{max(values) if report.mode == 'max' else min(values):.4f}" if values else "-"
        row = [_short(trial.params[path]) for path in paths]
        style = "bold" if trial == report.best else None
        table.add_row(str(trial.index), *row, str(len(values)), trial.state, best, style=style)
    return table


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
