"""What the search thinks fits is what `rank_memory` says."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliostat.placement.constraints import Pins
from heliostat.placement.ground import Ground, Shape
from heliostat.placement.memory import rank_memory
from heliostat.placement.search.chain import Chain
from heliostat.placement.search.costs import Costs
from heliostat.placement.search.menu import options_of, suits
from heliostat.placement.strategy import Execution, ReplicaShare, StageStrategy, Strategy
from tests.placement.search.cases import A100, Box, cluster, gpt

OPTIONS = options_of(Pins())
WORKLOAD = gpt(4, 2048, tied=True)


def needed_bytes(fields: dict[str, Any], micro_batch: int, width: int, in_flight: int, *, alone: bool) -> float:
    share = ReplicaShare(device_kind=A100, num_samples=16 * micro_batch, micro_batch=micro_batch)
    stage = StageStrategy(replicas=(share,) * width, **fields)
    other = stage.model_copy()
    stages = (stage,) if alone else (stage, other)
    strategy = Strategy.model_construct(
        global_batch=16 * micro_batch * width, stages=stages, schedule="none" if alone else "1f1b", chunks=1,
        execution=Execution(),
    )  # fmt: skip
    return rank_memory(WORKLOAD, strategy, stage, share, in_flight).total


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.sampled_from(OPTIONS), st.sampled_from([1, 2, 4]), st.integers(1, 4), st.integers(1, 6), st.integers(1, 5),
    st.tuples(st.integers(0, 5), st.integers(1, 6)),
)  # fmt: skip
def test_just_enough_memory_is_enough(
    option: Any, tensor: int, width: int, micro_batch: int, in_flight: int, part: tuple[int, int]
) -> None:
    first, end = part[0], min(6, part[0] + part[1])
    shape = Shape((width,), tensor)
    if not suits(option, shape, Pins()):
        return
    chain = Chain(WORKLOAD)
    room = Costs(chain, Ground(cluster((Box(A100, 4),))), Execution()).room(tensor, (option,), width, chain)
    row = chain.part_of[first, end]
    fields = {"first_block": first, "end_block": end, "tensor_parallel": tensor, **option._asdict()}
    alone = needed_bytes(fields, micro_batch, width, 1, alone=True)
    assert room.holds_one(micro_batch, alone * (1 + 1e-9))[row, 0]
    assert not room.holds_one(micro_batch, alone * (1 - 1e-6))[row, 0]
    among = needed_bytes(fields, micro_batch, width, in_flight, alone=False)
    enough = room.in_flight(micro_batch, among * (1 + 1e-9))[row, 0]
    assert enough >= in_flight * (1 - 1e-6)
    less = room.in_flight(micro_batch, among * (1 - 1e-3))[row, 0]
    assert less < enough


def test_parts_with_equal_blocks_are_one() -> None:
    chain = Chain(gpt(40, 512))
    assert len(chain.counts) < 200
    assert chain.part_of[3, 7] == chain.part_of[20, 24]
    assert chain.part_of[0, 4] != chain.part_of[1, 5]
    assert np.all(chain.counts[chain.part_of[0, chain.num_blocks]] == chain.before[-1])


def test_the_first_and_the_last_block_of_a_part() -> None:
    chain = Chain(gpt(3, 512))
    part = chain.part_of[1, chain.num_blocks]
    assert (chain.first_sorts[part], chain.last_sorts[part]) == (chain.sort_of[1], chain.sort_of[-1])
    values = np.arange(float(len(chain.blocks)))[:, None]
    assert chain.largest(values)[part, 0] == max(chain.sort_of[1:])
    assert chain.whole.counts.tolist() == [[float(block.count) for block in chain.blocks]]
    assert chain.lengths[part] == pytest.approx(chain.num_blocks - 1)
