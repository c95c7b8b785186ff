"""Step `serve`: put the registered version behind HTTP."""

from collections.abc import Mapping
from typing import Any

from heliostat.experiment.step import StepContext, StepResult
from heliostat.experiment.steps import register
from heliostat.serve.deploy import deploy
from heliostat.serve.endpoint import Endpoint
from heliostat.serve.registry import ModelVersion

READS = ("name", "serve")
CPUS_PER_REPLICA = 0.0
"""A replica shares the cores instead of owning one; otherwise an endpoint left up would take a device from training."""


def run(context: StepContext) -> StepResult:
    """Deploy, and wait until it answers."""
    model = register.model_of(context.inputs["register"])
    endpoint = deploy_version(model, context.options, context.extra["tracking_uri"])
    return StepResult(outputs={"endpoint": endpoint})


def deploy_version(model: ModelVersion, options: Mapping[str, Any], tracking_uri: str) -> Endpoint:
    """Serve `model` as `name` and `serve` in `options` say."""
    settings = options["serve"]
    return deploy(
        f"{model.name}/{model.version}",
        tracking_uri=tracking_uri,
        app=options["name"],
        host=settings["host"],
        port=settings["port"],
        num_replicas=settings["replicas"],
        cpus_per_replica=CPUS_PER_REPLICA,
    )


def endpoint_of(result: StepResult) -> Endpoint:
    """The endpoint in a result of this step."""
    return Endpoint.model_validate(result.outputs["endpoint"])
