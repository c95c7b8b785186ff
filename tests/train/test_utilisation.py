import pytest

from heliostat.cluster.catalogue import builtin
from heliostat.placement.parallel_plan import ParallelPlan
from heliostat.placement.strategy import Execution
from heliostat.placement.workload import Block, Op, SavedActivations, WorkloadProfile
from heliostat.train.utilisation import peak_flops, step_flops, utilisation
from tests.placement.plans import data_parallel

PRODUCT = Op(name="product", kind="matmul", rows=10, n=20, k=30)
WORKLOAD = WorkloadProfile(
    name="products",
    blocks=(
        Block(
            name="product", count=2, num_parameters=600, ops=(PRODUCT,), boundary_elements=200,
            saved=SavedActivations(replicated=0, split=0),
        ),
    ),
)  # fmt: skip


def plan_on(kind: str, dtype: str = "bf16") -> ParallelPlan:
    plan = data_parallel([(kind, 4, 2), (kind, 4, 2)])
    strategy = plan.strategy.model_copy(update={"execution": Execution.model_validate({"dtype": dtype})})
    return plan.model_copy(update={"strategy": strategy})


def test_a_step_is_three_forward_passes() -> None:
    assert step_flops(WORKLOAD, plan_on("cpu")) == 3 * 8 * 2 * (2 * 10 * 20 * 30)


def test_the_peak_is_that_of_all_devices_in_the_type_that_computes() -> None:
    peak = builtin().find("H100-80GB-SXM").flops("bf16")
    assert peak is not None
    plan = plan_on("H100-80GB-SXM@0.9")
    assert peak_flops(plan, builtin()) == 2 * peak
    assert utilisation(WORKLOAD, plan, builtin(), 0.5) == pytest.approx(step_flops(WORKLOAD, plan) / (peak * 2 * 0.5))


@pytest.mark.parametrize("kind", ["cpu", "cpu@0.5", "a device of tomorrow"])
def test_no_peak_is_made_up(kind: str) -> None:
    assert utilisation(WORKLOAD, plan_on(kind), builtin(), 0.5) is None


def test_an_emulated_device_is_not_what_it_is_called() -> None:
    plan = plan_on("H100-80GB-SXM").model_copy(update={"cluster_origin": "emulated"})
    assert utilisation(WORKLOAD, plan, builtin(), 0.5) is None
