"""A run's last step as Ray metrics: what Prometheus and Ray's dashboard show while it goes on.

Whoever watches the telemetry sets them, never a rank.
"""

from ray.util.metrics import Gauge

from heliostat.train.telemetry import StepRecord


class Gauges:
    """The gauges of one job; `job` is the tag that tells it from others."""

    def __init__(self, job: str) -> None:
        self._tags = {"job": job}
        self._loss = _gauge("loss", "Mean loss over the global batch.")
        self._norm = _gauge("gradient_norm", "Norm of all gradients together, before clipping.")
        self._rate = _gauge("elements_per_second", "Rows or tokens, as the loss counts them, over all ranks.")
        self._seconds = _gauge("step_seconds", "Of rank 0's step, by what they went to.", "part")
        self._memory = _gauge("memory_bytes", "What training added to rank 0's memory, at its peak.")

    def show(self, record: StepRecord) -> None:
        """Make the gauges say what this step was."""
        self._loss.set(record.loss, self._tags)
        self._norm.set(record.gradient_norm, self._tags)
        self._rate.set(record.elements_per_s, self._tags)
        for part, seconds in record.parts.items():
            self._seconds.set(seconds, {**self._tags, "part": part})
        if record.memory_bytes is not None:
            self._memory.set(record.memory_bytes, self._tags)


def _gauge(name: str, description: str, *tags: str) -> Gauge:
    return Gauge(f"heliostat_train_{name}", description, ("job", *tags))
