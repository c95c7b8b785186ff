"""Plans to show: GPT-13B on the example cluster, cut in several ways."""

from pathlib import Path
from typing import Any

from heliostat.cluster import spec_file
from heliostat.cluster.spec import ClusterSpec
from heliostat.placement import workload_file
from heliostat.placement.constraints import Constraints
from heliostat.placement.plan_file import PlanFile
from heliostat.placement.prediction import predict
from heliostat.placement.search.outcome import Found
from heliostat.placement.strategy import ReplicaShare, StageStrategy, Strategy

CONFIGS = Path(__file__).parents[3] / "configs"
WORKLOAD = CONFIGS / "plans" / "gpt-13b.yaml"
JOB = workload_file.load(WORKLOAD)
CLUSTER = spec_file.load(CONFIGS / "clusters" / "a100-v100.yaml")
A100, V100 = "A100-40GB-SXM", "V100-32GB-SXM"


def stage(first: int, end: int, kind: str, replicas: int = 2, tensor: int = 4, **fields: Any) -> StageStrategy:
    share = ReplicaShare(device_kind=kind, num_samples=64 // replicas, micro_batch=fields.pop("micro_batch", 2))
    return StageStrategy(
        first_block=first, end_block=end, replicas=(share,) * replicas, tensor_parallel=tensor, **fields
    )


def strategy(cuts: tuple[int, ...] = (16, 31, 37, 42), schedule: str = "1f1b", **fields: Any) -> Strategy:
    kinds = (A100, A100, V100, V100)
    chunks = fields.pop("chunks", 1)
    stages = [
        stage(first, end, kind, **fields).model_dump()
        for first, end, kind in zip((0, *cuts[:-1]), cuts, kinds, strict=True)
    ]
    return Strategy.model_validate(
        {
            "global_batch": 64,
            "stages": stages,
            "schedule": schedule,
            "chunks": chunks,
            "execution": JOB.wanted.execution,
        }
    )


def uneven() -> Strategy:
    """One stage, whose replicas have devices and shares of two kinds."""
    shares = [ReplicaShare(device_kind=kind, num_samples=many, micro_batch=1) for kind, many in ((A100, 3), (V100, 1))]
    whole = StageStrategy(
        first_block=0, end_block=42, replicas=(shares[0],) * 16 + (shares[1],) * 16, zero=3, recompute="full"
    )
    return Strategy(global_batch=64, stages=(whole,), execution=JOB.wanted.execution)


def plan(split: Strategy | None = None, cluster: ClusterSpec = CLUSTER, **fields: Any) -> PlanFile:
    chosen, other = split or strategy(), strategy((12, 22, 32, 42))
    lost = Found(strategy=other, prediction=predict(JOB.workload, CLUSTER, other), worth=9.0)
    usual: dict[str, Any] = {
        "wanted": Constraints(global_batch=64, execution=JOB.wanted.execution),
        "runners_up": (lost,),
        "refused": {"a device has not enough memory": 12},
        "num_candidates": 345,
    }
    return PlanFile(
        strategy=chosen,
        prediction=predict(JOB.workload, cluster, chosen),
        cluster=cluster,
        workload=JOB.workload,
        **(usual | fields),
    )
