"""What is refused before anything is searched: pins that contradict one another, the model or the cluster. Pure."""

from collections.abc import Iterator

from heliostat.cluster.spec import ClusterSpec
from heliostat.errors import PlanError
from heliostat.placement.constraints import Constraints, Pins
from heliostat.placement.search.menu import DEGREES, goes_with
from heliostat.placement.search.named_blocks import contradictions
from heliostat.placement.workload import Op, WorkloadProfile


def check(workload: WorkloadProfile, cluster: ClusterSpec, wanted: Constraints) -> None:
    """Refuse what no search can answer.

    Raises:
        PlanError: with all contradictions at once.
    """
    found = [
        *_of_the_cluster(cluster, wanted),
        *_of_the_model(workload, wanted),
        *_of_the_schedule(wanted.pins),
        *contradictions(workload, cluster, wanted.pins),
    ]
    if found:
        raise PlanError(
            "the pinned parts of the plan contradict: " + "; ".join(found)
            if len(found) > 1
            else f"the plan cannot be made as it is pinned: {found[0]}",
            next_step="leave one of them to the planner",
        )


def _of_the_cluster(cluster: ClusterSpec, wanted: Constraints) -> Iterator[str]:
    pins = wanted.pins
    there = {device.kind for node in cluster.nodes for device in node.devices}
    if not there:
        yield "the cluster has no devices"
        return
    kinds = set(pins.kinds) if pins.kinds is not None else there
    unknown = sorted(kinds - there)
    if unknown or not kinds:
        yield f"kinds {', '.join(unknown) or '(none)'} are not in the cluster, which has {', '.join(sorted(there))}"
        return
    largest = max(sum(device.kind == kind for device in node.devices) for node in cluster.nodes for kind in kinds)
    if pins.tensor_parallel is not None and pins.tensor_parallel > largest:
        yield f"tensor_parallel {pins.tensor_parallel} needs so many devices of a kind in a node, the most is {largest}"
    total = sum(device.kind in kinds for node in cluster.nodes for device in node.devices)
    least = (pins.num_stages or 1) * (pins.data_parallel or 1) * (pins.tensor_parallel or 1)
    if least > total:
        asked = {
            "num_stages": pins.num_stages,
            "data_parallel": pins.data_parallel,
            "tensor_parallel": pins.tensor_parallel,
        }
        product = " x ".join(f"{name} {value}" for name, value in asked.items() if value is not None)
        yield f"{product} needs {least} devices, there are {total}"
    if pins.data_parallel is not None and pins.data_parallel > wanted.global_batch:
        yield f"data_parallel {pins.data_parallel} for a global batch of {wanted.global_batch} samples"
    if wanted.objective == "cheapest":
        unpriced = sorted(kind for kind in kinds if not {kind, kind.split("@")[0]} & wanted.price_per_hour.keys())
        if unpriced:
            yield f"price_per_hour lacks {', '.join(unpriced)}"


def _of_the_model(workload: WorkloadProfile, wanted: Constraints) -> Iterator[str]:
    pins = wanted.pins
    if pins.num_stages is not None and pins.num_stages > workload.num_blocks:
        yield f"{pins.num_stages} stages for {workload.num_blocks} blocks"
    elif pins.num_stages is not None and pins.num_stages > len(workload.cuts) + 1:
        yield f"{pins.num_stages} stages, but the model can be cut at {_many(len(workload.cuts), 'place')} alone"
    for cut in pins.cuts or ():
        if cut < workload.num_blocks and cut not in workload.cuts:
            yield f"a stage is to begin at block {cut}, where the model cannot be cut"
    tensor = pins.tensor_parallel
    if tensor is not None and tensor not in DEGREES:
        yield f"tensor_parallel {tensor} is not a power of two up to {DEGREES[-1]}"
    narrow = [block for block in workload.blocks if tensor is not None and block.largest_tensor_parallel < tensor]
    if narrow:
        yield f"tensor_parallel {tensor}, but block {narrow[0].name} allows {narrow[0].largest_tensor_parallel}"
    if pins.micro_batch is not None and pins.micro_batch > wanted.global_batch:
        yield f"micro_batch {pins.micro_batch} of a global batch of {wanted.global_batch}"
    idle = [block.name for block in workload.blocks if not block.timings and not any(map(_takes_time, block.ops))]
    if idle:
        yield f"block {idle[0]} has no operations that take time, so nothing tells what it takes"


def _many(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'s' if count != 1 else ''}"


def _takes_time(op: Op) -> bool:
    return op.forward_flops + op.elements + op.backward_elements > 0


def _of_the_schedule(pins: Pins) -> Iterator[str]:
    if pins.schedule == "none" and (pins.num_stages or 1) > 1:
        yield f"schedule none is that of one stage, not of {pins.num_stages}"
    if pins.num_stages == 1 and pins.schedule not in {None, "none"}:
        yield f"schedule {pins.schedule} needs several stages"
    if pins.schedule is not None and pins.zero is not None and not goes_with(pins.schedule, pins.zero):
        yield f"schedule {pins.schedule} goes with ZeRO 0 and 1 alone, not with {pins.zero}"
    if pins.chunks is not None and pins.schedule != "interleaved":
        yield "chunks are parts of the interleaved schedule: pin that too"
    if pins.chunks == 1:
        yield "an interleaved schedule has two chunks at least"
