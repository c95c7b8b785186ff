"""`ParallelPlan`: how a workload is split over a cluster, what that is predicted to cost, and why. Pure."""

from heliostat.cluster.spec import Origin
from heliostat.placement.search.outcome import Chosen
from heliostat.placement.strategy import ReplicaShare, StageStrategy


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

    def on(self, replicas: tuple[ReplicaShare, ...]) -> "ParallelPlan":
        """The same data-parallel plan on other replicas; the prediction stays that of the plan."""
        assert len(self.stages) == 1, "a pipeline's stages have replicas of their own"
        stage = self.stages[0].model_copy(update={"replicas": replicas})
        return self.model_copy(update={"strategy": self.strategy.model_copy(update={"stages": (stage,)})})

    def describe(self) -> str:
        """The split in one line."""
        return "; ".join(
            f"blocks {stage.first_block}..{stage.end_block - 1} on "
            + ", ".join(
                f"{one.device_kind} ({one.num_samples} samples, {one.num_micro_batches} micro-batches)"
                for one in stage.replicas
            )
            for stage in self.stages
        )
