import pytest

from heliostat.train.gauges import Gauges
from heliostat.train.telemetry import StepRecord

RECORD = StepRecord(
    step=1, loss=0.5, gradient_norm=1.0, num_elements=8, passes_s=0.5, wait_s=0.25, sync_s=0.25, update_s=0.25,
    memory_bytes=100, time=0.0,
)  # fmt: skip


@pytest.mark.parametrize("memory_bytes", [100, None])
def test_ray_takes_every_value_with_its_tags(memory_bytes: int | None) -> None:
    """Ray refuses a tag that a gauge was not made with."""
    Gauges("a job").show(RECORD.model_copy(update={"memory_bytes": memory_bytes}))
