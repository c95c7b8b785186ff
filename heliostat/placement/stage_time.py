"""One stage's micro-batch in seconds: devices, host, and the collectives inside a replica. Pure.

    forward  = longer(device operations + tensor-parallel collectives, host)
    backward = longer(the same of the backward pass + what is recomputed, host)
    longer(a, b) = (a ** 3 + b ** 3) ** (1 / 3)

An eager program's host starts kernels one by one, and devices that finish sooner wait for it. If it ran ahead without
limit, a block took what is longer; if it never did, the sum over its kernels of what is longer. `longer` lies between.
Where a program overlaps tensor-parallel collectives (Megatron-LM: `--no-async-tensor-model-parallel-allreduce` switches
it off), those of the backward pass show as far as they take longer than the parameters' gradients.
ZeRO-3 gathers each block's parameters before its forward and backward pass and scatters its gradients after; with
prefetch only what takes longer than the computation shows, and the computation is slowed by the share of the
multiprocessors and of the bandwidth that the collectives take.
"""

from collections.abc import Mapping
from math import log2
from typing import NamedTuple

from heliostat.cluster.catalogue import Dtype
from heliostat.placement.block_time import block_time
from heliostat.placement.collective_time import GroupLinks, collective_s
from heliostat.placement.device_time import BlockTime, Degrees, element_bytes
from heliostat.placement.efficiency import DeviceSpeed, SharedCosts
from heliostat.placement.strategy import Execution, Recompute, StageStrategy
from heliostat.placement.workload import Block, WorkloadProfile

ACCUMULATION_BYTES = 6.0
"""Per parameter and micro-batch: the gradient so far read, the new one read, their sum written, 2 bytes each."""
HIDING = 3.0
"""Exponent of `longer`: between 1, the sum, and infinity, the maximum. Of 2, 3 and 4 the one that fits the layers of
vTrain's single-node runs whose host and devices take about as long, without harm to larger models."""
COMPILED_LAUNCHES = 0.2
"""Host time of a compiled program relative to an eager one: guards and one call per graph or fused kernel."""


class StageLinks(NamedTuple):
    """The groups a rank of a stage communicates in."""

    tensor: GroupLinks = GroupLinks()
    context: GroupLinks = GroupLinks()
    data: GroupLinks = GroupLinks()
    to_next: GroupLinks = GroupLinks()
    tied: GroupLinks = GroupLinks()
    """First and last stage, which keep a copy each of a tied embedding."""


class PassTime(NamedTuple):
    """Seconds of one micro-batch on one replica."""

    forward_s: float
    backward_s: float
    weight_s: float
    """The part of `backward_s` that a zero-bubble schedule can put off."""
    compute_s: float
    """Device operations alone, both passes."""
    recompute_s: float
    tensor_s: float
    """Tensor- and context-parallel collectives that show."""
    gather_s: float
    """ZeRO-3's collectives that show."""
    host_s: float
    """What the host takes longer than the devices."""


BlockKey = tuple[object, ...]


def block_key(
    block: Block, stage: StageStrategy, micro_batch: int, speed: DeviceSpeed, execution: Execution
) -> BlockKey:
    """Equal where equal blocks run in the same way on the same type of device, however often they are repeated."""
    return (
        block.name,
        block.ops,
        block.num_parameters,
        micro_batch,
        stage.tensor_parallel,
        stage.sequence_parallel,
        stage.context_parallel,
        stage.recompute,
        stage.zero >= 2,
        speed.name,
        execution,
    )


class StageTimer:
    """Times stages; remembers what a block takes, as equal stages are asked for over and over."""

    def __init__(self, shared: SharedCosts, corrections: Mapping[BlockKey, float] | None = None) -> None:
        self.shared = shared
        self._corrections = corrections or {}
        self._blocks: dict[tuple[object, ...], BlockTime] = {}
        self._keep: list[object] = []

    def block(self, block: Block, degrees: Degrees, speed: DeviceSpeed, dtype: Dtype) -> BlockTime:
        """What one block takes, without collectives."""
        key = (id(block), degrees, id(speed), dtype)
        found = self._blocks.get(key)
        if found is None:
            found = self._blocks[key] = block_time(block, degrees, speed, dtype)
            self._keep += [block, speed]
        return found

    def pass_time(
        self,
        blocks: tuple[tuple[Block, int], ...],
        stage: StageStrategy,
        micro_batch: int,
        speed: DeviceSpeed,
        links: StageLinks,
        execution: Execution,
    ) -> PassTime:
        """One micro-batch of `blocks`, each with how many of it there are."""
        degrees = Degrees(micro_batch, stage.tensor_parallel, stage.sequence_parallel, stage.context_parallel)
        launch = self.shared.forward_launch_s * (COMPILED_LAUNCHES if execution.compiled else 1.0)
        launch_back = self.shared.backward_launch_s * (COMPILED_LAUNCHES if execution.compiled else 1.0)
        total = [0.0] * 8
        for block, count in blocks:
            one = self.block(block, degrees, speed, "bf16" if execution.row_scaling else execution.dtype)
            tensor_s, calls = (
                (0.0, 0) if one.is_measured else self._tensor_s(block, stage, micro_batch, links, execution)
            )
            redo_s, redo_tensor_s, redo_launches, redo_calls = _redone(
                stage.recompute if block.recomputable else "none", one, tensor_s, calls
            )
            compute_f, compute_b = one.forward_s, one.backward_s + redo_s
            held = 0.0 if one.is_measured else block.rank_parameters(stage.tensor_parallel)
            accumulate_s = ACCUMULATION_BYTES * held / speed.memory_rate
            compute_b += accumulate_s
            gather_f, gather_b = self._sharded_s(block, stage, links, execution)
            hidden_s = min(tensor_s, one.backward_s / 2) if execution.overlap_tensor else 0.0
            shown_s = 2 * tensor_s - hidden_s + redo_tensor_s
            device_f = self._overlapped(compute_f + tensor_s, gather_f, prefetch=execution.prefetch)
            device_b = self._overlapped(compute_b + shown_s - tensor_s, gather_b, prefetch=execution.prefetch)
            host_f = one.forward_launches * launch + calls * self.shared.collective_launch_s
            host_b = (
                one.backward_launches * launch_back
                + redo_launches * launch
                + (calls + redo_calls) * self.shared.collective_launch_s
            )
            slow_f, slow_b = longer(device_f, host_f), longer(device_b, host_b)
            if self._corrections:
                learned = self._corrections.get(block_key(block, stage, micro_batch, speed, execution), 1.0)
                slow_f, slow_b = learned * slow_f, learned * slow_b
            parts = (
                slow_f,
                slow_b,
                one.backward_s / 2,
                one.forward_s + one.backward_s + accumulate_s,
                redo_s,
                shown_s,
                device_f + device_b - compute_f - compute_b - shown_s,
                slow_f - device_f + slow_b - device_b,
            )
            total = [have + count * part for have, part in zip(total, parts, strict=True)]
        return PassTime(*total)

    def _tensor_s(
        self, block: Block, stage: StageStrategy, micro_batch: int, links: StageLinks, execution: Execution
    ) -> tuple[float, int]:
        """Seconds and calls of the collectives inside a replica in one forward pass."""
        seconds, calls = 0.0, 0
        size = block.made_elements * micro_batch * element_bytes(execution.dtype) / stage.context_parallel
        if stage.tensor_parallel > 1 and block.tensor_collectives:
            calls += block.tensor_collectives
            if stage.sequence_parallel:
                once = collective_s("all_gather", size, links.tensor) + collective_s(
                    "reduce_scatter", size, links.tensor
                )
                once += self.shared.skew_s * log2(stage.tensor_parallel)
            else:
                once = collective_s("all_reduce", size, links.tensor)
            once += self.shared.skew_s * log2(stage.tensor_parallel)
            seconds += (
                block.tensor_collectives * once * ((1 - self.shared.async_hidden) if execution.async_tensor else 1.0)
            )
        return seconds, calls

    def _overlapped(self, compute_s: float, gather_s: float, *, prefetch: bool) -> float:
        if not prefetch:
            return compute_s + gather_s
        return max(compute_s, gather_s) + self.shared.interference * min(gather_s, compute_s)

    def _sharded_s(
        self, block: Block, stage: StageStrategy, links: StageLinks, execution: Execution
    ) -> tuple[float, float]:
        if links.data.size == 1 or not syncs_inside(stage, execution):
            return 0.0, 0.0
        held = block.rank_parameters(stage.tensor_parallel)
        gather_s = collective_s("all_gather", held * element_bytes(execution.dtype), links.data)
        scatter_s = collective_s("reduce_scatter", held * execution.gradient_bytes, links.data)
        return gather_s, scatter_s + (gather_s if stage.zero == 3 else 0.0)


def longer(device_s: float, host_s: float) -> float:
    """Seconds of a pass whose kernels take `device_s` and are started in `host_s`; not less than either."""
    most = max(device_s, host_s)
    return most * (1.0 + (min(device_s, host_s) / most) ** HIDING) ** (1.0 / HIDING) if most > 0 else 0.0


def syncs_inside(stage: StageStrategy, execution: Execution) -> bool:
    """Whether gradients are synchronised inside every micro-batch's passes."""
    return stage.zero == 3 or (stage.zero == 2 and execution.sync_each_micro_batch)


def stage_parameters(workload: WorkloadProfile, stage: StageStrategy) -> float:
    """Parameters that one rank of the stage holds before any sharding over replicas, a tied copy among them."""
    is_copy = stage.first_block > 0 and stage.end_block == workload.num_blocks
    return (workload.tied_parameters / stage.tensor_parallel if is_copy else 0.0) + sum(
        count * block.rank_parameters(stage.tensor_parallel)
        for block, count in workload.part(stage.first_block, stage.end_block)
    )


def _redone(recompute: Recompute, one: BlockTime, tensor_s: float, calls: int) -> tuple[float, float, int, int]:
    if recompute == "full":
        return one.forward_s, tensor_s, one.forward_launches, calls
    if recompute == "selective":
        return one.selective_s, 0.0, one.selective_launches, 0
    return 0.0, 0.0, 0, 0
