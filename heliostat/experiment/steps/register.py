"""Step `register`: the best model of the main run and the sweep becomes a registered version with its provenance."""

from heliostat.errors import HeliostatError
from heliostat.experiment.candidates import Candidate, best
from heliostat.experiment.environment import environment_lock
from heliostat.experiment.fingerprint import fingerprint
from heliostat.experiment.step import Artifact, StepContext, StepResult
from heliostat.experiment.steps import data, plan, train, tune
from heliostat.serve.package import build_package
from heliostat.serve.registry import ModelVersion, Provenance, fetched, register, resolve
from heliostat.values import digest

READS = ("register", "data.prepare", "data.features", "train.task", "train.params", "tune.metric", "tune.mode")


def run(context: StepContext) -> StepResult:
    """Choose, package, register, move the alias."""
    options, uri = context.options, context.extra["tracking_uri"]
    version = data.version_of(context.inputs["data"])
    chosen = best(candidates(context), options["tune.metric"], options["tune.mode"])
    features = options["data.features"]
    named = (options["train.task"], features, options["data.prepare"])
    code = fingerprint([reference for reference in named if reference is not None])
    package = build_package(
        context.workdir / "package",
        task=options["train.task"],
        params=chosen.params,
        features=features,
        data=version,
        weights=chosen.checkpoint,
        modules=code.modules,
    )
    model = register(
        uri,
        package,
        name=options["register"]["model"],
        alias=options["register"]["alias"],
        run_id=chosen.run_id,
        provenance=Provenance(
            data_version=version.id,
            plan=chosen.plan,
            plan_digest=digest(chosen.plan),
            code=code.digest,
            environment=environment_lock().digest,
        ),
        metrics=chosen.metrics,
    )
    return StepResult(
        outputs={"model": model, "chosen": chosen},
        artifacts=(Artifact(kind="model", uri=f"models:/{model.name}/{model.version}", digest=digest(model.source)),),
        metrics=chosen.metrics,
    )


def candidates(context: StepContext) -> list[Candidate]:
    """The main run's best checkpoint, and the sweep's best trial if there was a sweep."""
    report = train.report_of(context.inputs["train"])
    main = Candidate(
        source="train",
        params=context.options["train.params"],
        metrics=report.metrics,
        checkpoint=report.checkpoint,
        plan=plan.plan_of(context.inputs["plan"]).describe(),
        run_id=context.inputs["train"].outputs["run_id"],
    )
    if "tune" not in context.inputs:
        return [main]
    return [main, tune.best_candidate(context.inputs["tune"], context.options["train.params"])]


def model_of(result: StepResult) -> ModelVersion:
    """The registered version in a result of this step."""
    return ModelVersion.model_validate(result.outputs["model"])


def chosen_of(result: StepResult) -> Candidate:
    """The candidate that was registered, in a result of this step."""
    return Candidate.model_validate(result.outputs["chosen"])


def missing(registry_uri: str, result: StepResult) -> str | None:
    """What is missing of the registered version; None when the registry at `registry_uri` still has all of it."""
    model = model_of(result)
    try:
        found = resolve(registry_uri, f"{model.name}/{model.version}")
        with fetched(registry_uri, found):
            return None
    except (HeliostatError, OSError) as error:
        return f"model {model.id}: {error}"
