"""A plan while it is being searched: small and hashable. `strategy_of` writes it out. Pure."""

from typing import NamedTuple

from heliostat.placement.ground import Shape
from heliostat.placement.schedule import Schedule
from heliostat.placement.search.costs import Option
from heliostat.placement.search.shares import Part
from heliostat.placement.strategy import Execution, ReplicaShare, StageStrategy, Strategy


class DraftStage(NamedTuple):
    """One stage."""

    first_block: int
    end_block: int
    shape: Shape
    option: Option
    parts: tuple[Part, ...]


class Draft(NamedTuple):
    """A whole plan."""

    stages: tuple[DraftStage, ...]
    schedule: Schedule
    chunks: int
    round_size: int
    """Samples that go through the pipeline together; 0 where one stage's replicas have rounds of their own."""

    @property
    def num_rounds(self) -> int:
        """Forward passes of the busiest replica."""
        return max(-(-part.num_samples // part.micro_batch) for stage in self.stages for part in stage.parts)

    def price(self, prices: tuple[float, ...]) -> float:
        """`prices` by kind, summed over the devices."""
        return sum(price_of(stage.shape, prices) for stage in self.stages)


def price_of(shape: Shape, prices: tuple[float, ...]) -> float:
    """`prices` by kind, summed over the devices of one stage."""
    return sum(count * shape.tensor * price for count, price in zip(shape.counts, prices, strict=True) if count)


def strategy_of(draft: Draft, kinds: tuple[str, ...], global_batch: int, execution: Execution) -> Strategy:
    """`draft` as a strategy; not validated, as drafts are made whole."""
    return Strategy.model_construct(
        global_batch=global_batch,
        stages=tuple(_stage(stage, kinds) for stage in draft.stages),
        schedule=draft.schedule,
        chunks=draft.chunks,
        execution=execution,
    )


def _stage(stage: DraftStage, kinds: tuple[str, ...]) -> StageStrategy:
    return StageStrategy.model_construct(
        first_block=stage.first_block,
        end_block=stage.end_block,
        replicas=tuple(
            share
            for part in sorted(stage.parts, key=lambda part: (part.kind, -part.num_samples))
            for share in (
                ReplicaShare.model_construct(
                    device_kind=kinds[part.kind], num_samples=part.num_samples, micro_batch=part.micro_batch
                ),
            )
            * part.num_replicas
        ),
        tensor_parallel=stage.shape.tensor,
        context_parallel=1,
        **stage.option._asdict(),
    )
