"""What a rank computes on, and how ranks talk: GPUs through NCCL, host memory through gloo."""

import torch

from heliostat.errors import PlacementError
from heliostat.placement.parallel_plan import ParallelPlan


def is_on_gpus(plan: ParallelPlan) -> bool:
    """Whether the ranks have GPUs; those of an emulated cluster are cores, whatever their kind says."""
    kinds = {replica.device_kind for stage in plan.stages for replica in stage.replicas}
    return plan.cluster_origin != "emulated" and not any(kind.startswith("cpu") for kind in kinds)


def backend_of(plan: ParallelPlan) -> str:
    """The backend of the process group. With GPUs also gloo, for what is in host memory."""
    return "cpu:gloo,cuda:nccl" if is_on_gpus(plan) else "gloo"


def take(plan: ParallelPlan, local_rank: int) -> None:
    """Make the GPU with this number on this node the rank's own; nothing where the plan is not on GPUs.

    Raises:
        PlacementError: there is no such GPU.
    """
    if not is_on_gpus(plan):
        return
    if local_rank >= torch.cuda.device_count():
        raise PlacementError(
            f"there is no GPU for rank {local_rank} of this node",
            got=f"{torch.cuda.device_count()} GPUs",
            causes=("more processes were started on the node than it has GPUs", "CUDA does not see the GPUs"),
            next_step="start one process for each GPU",
        )
    torch.cuda.set_device(local_rank)


def own_device(plan: ParallelPlan) -> torch.device:
    """The device of this rank: the current one of CUDA, which `take` or Ray Train has set, or the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if is_on_gpus(plan) else torch.device("cpu")
