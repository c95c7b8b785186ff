"""A measured step of replicas tells what synchronisation costs, whatever they share."""

import pytest

from heliostat.placement.prediction import predict
from heliostat.placement.strategy import ReplicaShare, StageStrategy, Strategy, Zero
from tests.placement.test_planner import EXECUTION, cluster, timing, workload

OVERHEAD_S = 0.05
"""More than the collectives take by their curves."""


def sync_s(zero: Zero, *, num_stages: int = 1) -> float:
    (block,) = workload(timing("cpu", 1e-3)).blocks
    model = workload(timing("cpu", 1e-3), overhead_s=OVERHEAD_S).model_copy(
        update={"blocks": (block.model_copy(update={"count": 4}),)}
    )
    share = ReplicaShare(device_kind="cpu", num_samples=8, micro_batch=8)
    size = 4 // num_stages
    stages = tuple(
        StageStrategy(first_block=at * size, end_block=(at + 1) * size, replicas=(share,) * 2, zero=zero)
        for at in range(num_stages)
    )
    schedule = "1f1b" if num_stages > 1 else "none"
    strategy = Strategy(global_batch=16, stages=stages, schedule=schedule, execution=EXECUTION)
    return predict(model, cluster(1.0, 1.0, 1.0, 1.0), strategy).stages[0].seconds["sync"]


def test_replicas_that_share_nothing_take_what_was_measured() -> None:
    assert sync_s(0) == OVERHEAD_S
    assert sync_s(0, num_stages=2) == pytest.approx(OVERHEAD_S / 2)


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_zero_synchronises_no_less(zero: Zero) -> None:
    assert sync_s(zero) >= OVERHEAD_S
    assert sync_s(zero, num_stages=2) >= OVERHEAD_S / 2
