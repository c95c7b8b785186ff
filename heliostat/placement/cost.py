"""What a plan costs: step time and memory, each term with its formula.

Step time of a data-parallel plan, nothing overlapped:
    max over replicas (optimizer + num_micro_batches * micro_batch + num_samples * sample)   measured, `StepTiming`
    + gradient synchronisation, when there is more than one replica
The synchronisation is what the gang was measured to cost with this very workload (`gang_overhead_s`). Until it was, it
is an all-reduce as measured on a group of as many devices.

Memory of a rank: parameters + gradients + a communication bucket of the same size + optimizer state
    + saved activations of one micro-batch.
"""

from heliostat.cluster.spec import ClusterSpec
from heliostat.placement.plan import Prediction, Replica, StepTime
from heliostat.placement.workload import WorkloadProfile


def predict(workload: WorkloadProfile, cluster: ClusterSpec, replicas: tuple[Replica, ...]) -> Prediction:
    """Predict the step time and the memory of every rank for data-parallel `replicas` of the whole model."""
    compute_s = max(replica_compute_s(workload, replica) for replica in replicas)
    return Prediction(
        step=StepTime(compute_s=compute_s, sync_s=sync_s(workload, cluster, len(replicas))),
        memory_bytes=tuple(replica_memory_bytes(workload, replica, len(replicas)) for replica in replicas),
    )


def sync_s(workload: WorkloadProfile, cluster: ClusterSpec, num_replicas: int) -> float:
    """Seconds that synchronising the gradients adds to a step; zero for one replica."""
    if num_replicas == 1:
        return 0.0
    if workload.gang_overhead_s is not None:
        return workload.gang_overhead_s
    measured = cluster.measured and cluster.measured.curve("all_reduce", num_ranks=num_replicas)
    return measured.time_s(workload.gradient_bytes) if measured else 0.0


def replica_compute_s(workload: WorkloadProfile, replica: Replica) -> float:
    """Seconds of compute of one replica per step, from its kind's measured timing."""
    return workload.timings[replica.device_kind].compute_s(
        num_micro_batches=replica.num_micro_batches, num_samples=replica.num_samples
    )


def replica_memory_bytes(workload: WorkloadProfile, replica: Replica, num_replicas: int) -> int:
    """Bytes one rank needs: states of the whole model and the activations of one micro-batch."""
    bucket_bytes = workload.gradient_bytes if num_replicas > 1 else 0
    state_bytes = 2 * workload.gradient_bytes + workload.num_parameters * workload.optimizer_bytes_per_parameter
    return int(state_bytes + bucket_bytes + replica.micro_batch * workload.saved_bytes_per_sample)
