"""What a search is asked for: the goal, the parts that are fixed, and how long it may take. Pure values."""

from collections.abc import Mapping
from typing import Literal, Self

import numpy as np
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from heliostat.placement.schedule import Schedule
from heliostat.placement.search.chain import Floats
from heliostat.placement.strategy import Execution, Recompute, Zero
from heliostat.values import Frozen

Objective = Literal["fastest", "cheapest", "fewest"]
TOO_SLOW = 1e9
"""Added to the worth of a plan that misses the target of `fewest`."""


class PartPin(Frozen):
    """What is not for the search to choose in the stages that hold any of some blocks."""

    first_block: NonNegativeInt
    end_block: PositiveInt
    """The first block after them; counted with repetitions."""
    least_tensor: PositiveInt = 1
    """Tensor-parallel degree, at least."""
    most_tensor: PositiveInt | None = None
    """At most; None is as far as the blocks can be divided."""
    kind: str | None = None
    """The device kind, `A100-40GB-SXM` for instance; one that ends in `@` and a speed means the devices of that speed
    alone."""
    source: str = "`parts`"
    """Who asks for it, for messages."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.end_block <= self.first_block:
            raise ValueError(f"blocks {self.first_block} to {self.end_block} are none")
        if self.most_tensor is not None and self.most_tensor < self.least_tensor:
            raise ValueError(f"tensor-parallel degrees from {self.least_tensor} to {self.most_tensor} are none")
        return self

    @property
    def degrees(self) -> str:
        """The tensor-parallel degrees, in words."""
        if self.most_tensor is None:
            return f"{self.least_tensor} or more"
        return str(self.least_tensor) if self.least_tensor == self.most_tensor else f"{self.most_tensor} or less"

    def takes_kind(self, kind: str) -> bool:
        """Whether devices of `kind` may hold the blocks."""
        return self.kind is None or self.kind in {kind, kind.split("@", maxsplit=1)[0]}

    def takes_tensor(self, tensor: int) -> bool:
        """Whether `tensor` ranks may share the blocks."""
        return self.least_tensor <= tensor and (self.most_tensor is None or tensor <= self.most_tensor)


class Pins(Frozen):
    """Parts of the plan that are not for the search to choose; None leaves it the choice."""

    kinds: tuple[str, ...] | None = None
    """The device kinds that may be used."""
    num_stages: PositiveInt | None = None
    schedule: Schedule | None = None
    """Of plans with several stages; `none` asks for one stage."""
    chunks: PositiveInt | None = None
    """Of the interleaved schedule."""
    micro_batch: PositiveInt | None = None
    """Samples per forward pass of the busiest replica of every stage."""
    data_parallel: PositiveInt | None = None
    """Replicas of every stage."""
    tensor_parallel: PositiveInt | None = None
    sequence_parallel: bool | None = None
    """Of stages with tensor parallelism."""
    zero: Zero | None = None
    """Of stages with several replicas."""
    recompute: Recompute | None = None
    offload: bool | None = None
    equal_widths: bool = False
    """All stages have the same replicas."""
    use_all: bool = False
    """No device may be left over."""
    cuts: tuple[PositiveInt, ...] | None = None
    """The blocks at which stages begin, all of them but block 0; counted with repetitions."""
    parts: tuple[PartPin, ...] = ()
    """Of the stages that hold some blocks."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.cuts is not None and list(self.cuts) != sorted(set(self.cuts)):
            raise ValueError(f"`cuts` must rise, got {', '.join(map(str, self.cuts))}")
        return self

    @property
    def names_blocks(self) -> bool:
        """Whether anything is pinned for some blocks and not for others."""
        return self.cuts is not None or bool(self.parts)


class Constraints(Frozen):
    """One question to the planner."""

    global_batch: PositiveInt
    """Samples per step."""
    objective: Objective = "fastest"
    price_per_hour: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """Of one device, by kind; for `cheapest`."""
    target_s: PositiveFloat | None = None
    """Seconds per step that `fewest` must keep."""
    execution: Execution = Execution()
    pins: Pins = Pins()
    budget_s: PositiveFloat = 600.0
    """Seconds after which the best so far is returned. A search that ends before it does not depend on the machine."""
    num_runners_up: PositiveInt = 5

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.objective == "cheapest" and not self.price_per_hour:
            raise ValueError("the cheapest plan needs `price_per_hour` by device kind")
        if self.objective == "fewest" and self.target_s is None:
            raise ValueError("the plan with the fewest devices needs `target_s`, the seconds a step may take")
        return self

    def in_short(self) -> Self:
        """The same question with schedule `none` and `cuts` put as what they mean for the number of stages."""
        pins = self.pins
        if pins.schedule == "none":
            pins = pins.model_copy(update={"schedule": None, "num_stages": 1})
        if pins.cuts is not None:
            pins = pins.model_copy(update={"num_stages": len(pins.cuts) + 1})
        return self.model_copy(update={"pins": pins})

    def prices(self, kinds: tuple[str, ...]) -> tuple[float, ...]:
        """What one more device of each kind adds to what step time is multiplied with, or to the number of devices."""
        if self.objective == "cheapest":
            return tuple(_price(self.price_per_hour, kind) for kind in kinds)
        return tuple(1.0 if self.objective == "fewest" else 0.0 for _ in kinds)

    def worth(self, step_s: float, price: float) -> float:
        """What is made small. It grows with both, so that bounds of both bound it.

        Args:
            step_s: seconds per step.
            price: `prices` summed over the devices of the plan.
        """
        return float(self.worths(np.array(step_s), np.array(price)))

    def is_late(self, step_s: float) -> bool:
        """Whether a plan of so many seconds misses the target of `fewest`."""
        return self.objective == "fewest" and self.target_s is not None and step_s > self.target_s

    def worths(self, step_s: Floats, price: Floats) -> Floats:
        """`worth` of many plans at once."""
        if self.objective == "cheapest":
            return step_s * price / 3600.0
        if self.objective == "fewest":
            assert self.target_s is not None
            late = np.where(step_s > self.target_s, TOO_SLOW, 0.0)
            return late + price + (1.0 - self.target_s / (step_s + self.target_s))
        return step_s


def _price(prices: Mapping[str, float], kind: str) -> float:
    return prices.get(kind, prices.get(kind.split("@", maxsplit=1)[0], float("inf")))
