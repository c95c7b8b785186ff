"""`ParallelPlan`: how a workload is split over a cluster, what that is predicted to cost, and why. Pure."""

from heliostat.cluster.spec import Origin
from heliostat.placement.search.menu import RECOMPUTE
from heliostat.placement.search.outcome import Chosen
from heliostat.placement.strategy import ReplicaShare, StageStrategy, Strategy


class ParallelPlan(Chosen):
    """The best strategy that was found, for whom, and why."""

    workload: str
    cluster_origin: Origin
    """What the plan was made for; with `emulated`, no figure in it says anything of the hardware it names."""
    reason: str
    """The plan and what binds it, in one sentence."""

    @property
    def global_batch(self) -> int:
        """Samples per step."""
        return self.strategy.global_batch

    @property
    def stages(self) -> tuple[StageStrategy, ...]:
        """The stages, the first first."""
        return self.strategy.stages

    @property
    def num_ranks(self) -> int:
        """Devices the plan uses."""
        return self.strategy.num_ranks

    def on_one_device(self) -> "ParallelPlan":
        """The same global batch on one device that holds the whole model; the prediction stays that of the plan.

        Its forward passes have no more samples, and it recomputes no less, than any stage of the plan.
        """
        micro_batch = min(max(one.micro_batch for one in stage.replicas) for stage in self.stages)
        share = ReplicaShare(
            device_kind=self.stages[0].replicas[0].device_kind, num_samples=self.global_batch, micro_batch=micro_batch
        )
        whole = StageStrategy(
            first_block=0,
            end_block=self.stages[-1].end_block,
            replicas=(share,),
            recompute=max((stage.recompute for stage in self.stages), key=RECOMPUTE.index),
        )
        strategy = Strategy(global_batch=self.global_batch, stages=(whole,), execution=self.strategy.execution)
        return self.model_copy(update={"strategy": strategy})

    def describe(self) -> str:
        """The split in one line."""
        schedule = f" ({self.strategy.schedule})" if len(self.stages) > 1 else ""
        return "; ".join(map(_in_words, self.stages)) + schedule


def _in_words(stage: StageStrategy) -> str:
    shares = ", ".join(
        f"{one.device_kind} ({one.num_samples} samples, {one.num_micro_batches} micro-batches)"
        for one in stage.replicas
    )
    settings = [
        f"{stage.tensor_parallel} devices each" if stage.tensor_parallel > 1 else "",
        f"ZeRO {stage.zero}" if stage.zero else "",
        f"{stage.recompute} recomputation" if stage.recompute != "none" else "",
    ]
    return f"blocks {stage.first_block}..{stage.end_block - 1} on " + ", ".join(filter(None, [shares, *settings]))
