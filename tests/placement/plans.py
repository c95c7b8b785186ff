"""Plans as tests want them."""

from collections.abc import Sequence

from heliostat.placement.parallel_plan import ParallelPlan
from heliostat.placement.prediction import Prediction
from heliostat.placement.strategy import ReplicaShare, StageStrategy, Strategy


def data_parallel(shares: Sequence[tuple[str, int, int]], *, workload: str = "Toy") -> ParallelPlan:
    """Replicas of the whole model: each with its device kind, samples and micro-batch."""
    replicas = tuple(ReplicaShare(device_kind=kind, num_samples=n, micro_batch=m) for kind, n, m in shares)
    stage = StageStrategy(first_block=0, end_block=1, replicas=replicas)
    return ParallelPlan(
        workload=workload,
        cluster_origin="live",
        strategy=Strategy(global_batch=sum(n for _, n, _ in shares), stages=(stage,)),
        prediction=Prediction(step_time_s=0, low_s=0, high_s=0, memory_bytes=(0,) * len(replicas), stages=()),
        reason="as the test wants it",
    )
