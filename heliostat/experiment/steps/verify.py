"""Step `verify`: check the plan on its own workers, and train nothing."""

from heliostat.experiment.step import StepContext, StepResult
from heliostat.experiment.steps import train
from heliostat.train.launcher import verify
from heliostat.train.verify.verification import Verification

READS = train.READS


def run(context: StepContext) -> StepResult:
    """Check; what failed is in the result, and is no error."""
    cpus_per_rank = int(context.options["cluster.cpus_per_device"])
    found = verify(train.job_of(context), train.placing(context), cpus_per_rank=cpus_per_rank)
    return StepResult(
        outputs={"verification": found},
        metrics={f"failures_{check.name.replace(' ', '_')}": float(len(check.failures)) for check in found.checks},
    )


def verification_of(result: StepResult) -> Verification:
    """What was found, in a result of this step."""
    return Verification.model_validate(result.outputs["verification"])
