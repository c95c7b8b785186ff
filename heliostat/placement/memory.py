"""Bytes a strategy needs on a device, at the peak of a step. Pure.

    states      parameters, gradients, optimizer states; divided by ZeRO and tensor parallelism
  + activations saved bytes of each block x micro-batch x micro-batches in flight (from the schedule)
  + temporary   unsharded parameters and gradients of ZeRO-3, the widest block's work space, the loss
  + reserve     context, library work spaces, fragmentation

Saved activations follow Korthikanti et al. 2022 (equations 1 to 6): s b h (10 + 24/t + 5as/(ht)) for 2-byte elements,
s b h (34/t + 5as/(ht)) with sequence parallelism, without the last term with selective, and 2 s b h with full
recomputation.
"""

from collections.abc import Sequence
from typing import NamedTuple

from heliostat.placement.blocks import Block, WorkloadProfile
from heliostat.placement.device_time import element_bytes
from heliostat.placement.stage_time import rank_parameters
from heliostat.placement.strategy import Execution, ReplicaShare, StageStrategy, Strategy

CONTEXT_BYTES = 1.0 * (1 << 30)
"""CUDA context, NCCL buffers and cuBLAS work spaces: 0.5 to 1.5 GiB on A100 and H100."""
FRAGMENTATION = 0.03
"""Of the activations and temporary buffers, lost between blocks of the caching allocator."""


class MemoryUse(NamedTuple):
    """Bytes of one rank."""

    parameters: float
    gradients: float
    optimizer: float
    activations: float
    temporary: float
    reserve: float

    @property
    def total(self) -> float:
        """Their sum."""
        return sum(self)


def block_saved_bytes(block: Block, stage: StageStrategy, micro_batch: int, execution: Execution) -> float:
    """Activations that one micro-batch of `block` keeps until its backward pass, on one rank."""
    saved, tensor = block.saved, stage.tensor_parallel
    whole = tensor if stage.sequence_parallel else 1
    recompute = stage.recompute if block.recomputable else "none"
    if recompute == "full":
        kept = saved.boundary / whole
    elif recompute == "selective" and saved.selective is not None:
        kept = saved.selective / tensor
    else:
        core = saved.core / tensor if recompute == "none" else 0.0
        kept = saved.replicated / whole + saved.split / tensor + core
    return kept * micro_batch / stage.context_parallel * element_bytes(execution.dtype) / 2


def rank_memory(
    workload: WorkloadProfile, strategy: Strategy, stage: StageStrategy, replica: ReplicaShare, in_flight: float
) -> MemoryUse:
    """What one rank of `replica` needs.

    Args:
        workload: the model.
        strategy: the whole plan.
        stage: the replica's stage.
        replica: which one.
        in_flight: micro-batches of the whole stage whose activations are held at once.
    """
    execution = strategy.execution
    blocks = workload.part(stage.first_block, stage.end_block)
    held = sum(count * rank_parameters(block, stage.tensor_parallel) for block, count in blocks)
    ranks = len(stage.replicas) * stage.context_parallel
    sharded = held / ranks
    parameters = (sharded if stage.zero == 3 else held) * execution.parameter_bytes
    if stage.zero == 2 and execution.parameter_bytes == 4:
        parameters = sharded * 4.0 + held * 2.0
    gradients = (sharded if stage.zero >= 2 else held) * execution.accumulate_bytes
    if stage.zero == 2 and not execution.sync_each_micro_batch:
        gradients += held * execution.gradient_bytes
    states = (sharded if stage.zero >= 1 else held) * execution.state_bytes
    micro = replica.micro_batch
    saved = sum(count * block_saved_bytes(block, stage, micro, execution) for block, count in blocks)
    activations = saved * min(in_flight, replica.num_micro_batches)
    last, _ = blocks[-1]
    if stage is strategy.stages[-1] and strategy.schedule != "gpipe":
        # the last block's backward pass follows its forward pass at once
        activations -= block_saved_bytes(last, stage, micro, execution) * (
            min(in_flight, replica.num_micro_batches) - 1
        )
    temporary = max(_work_bytes(block, stage, micro, execution) for block, _ in blocks)
    temporary += _gathered_bytes(stage, blocks)
    if len(strategy.stages) > 1:
        temporary += _transfer_bytes(blocks[0][0], stage, replica)
    return MemoryUse(
        parameters=parameters,
        gradients=gradients,
        optimizer=0.0 if stage.offload else states,
        activations=activations,
        temporary=temporary,
        reserve=CONTEXT_BYTES + FRAGMENTATION * (activations + temporary),
    )


def replica_memory(
    workload: WorkloadProfile, strategy: Strategy, in_flight: Sequence[int]
) -> list[tuple[MemoryUse, ...]]:
    """For each stage and replica what one of its ranks needs; a replica's ranks are alike.

    Args:
        workload: the model.
        strategy: how it is split.
        in_flight: for each stage the micro-batches (of one chunk each) that its schedule holds.
    """
    found = []
    for stage, count in zip(strategy.stages, in_flight, strict=True):
        uses: dict[ReplicaShare, MemoryUse] = {}
        for replica in stage.replicas:
            if replica not in uses:
                uses[replica] = rank_memory(workload, strategy, stage, replica, count / strategy.chunks)
        found.append(tuple(uses[replica] for replica in stage.replicas))
    return found


def _work_bytes(block: Block, stage: StageStrategy, micro_batch: int, execution: Execution) -> float:
    """What recomputing a block needs at once: all that it would have saved, with the gradient of its widest part."""
    without = stage.model_copy(update={"recompute": "none"})
    whole = block_saved_bytes(block, without, micro_batch, execution)
    kept = block_saved_bytes(block, stage, micro_batch, execution)
    gathered = block.saved.boundary if stage.sequence_parallel else 0.0
    beside = block.saved.work / stage.tensor_parallel + 2 * gathered + block.saved.boundary
    return whole - kept + beside * micro_batch / stage.context_parallel


def _transfer_bytes(block: Block, stage: StageStrategy, replica: ReplicaShare) -> float:
    """Buffers for what each micro-batch receives from either side (torch.distributed.pipelining keeps one each)."""
    received = block.saved.boundary * replica.micro_batch / stage.context_parallel
    return 2 * replica.num_micro_batches * received / (stage.tensor_parallel if stage.sequence_parallel else 1)


def _gathered_bytes(stage: StageStrategy, blocks: Sequence[tuple[Block, int]]) -> float:
    """Two blocks' parameters and one block's gradients, whole, while ZeRO-3 computes."""
    if stage.zero < 3 or len(stage.replicas) * stage.context_parallel == 1:
        return 0.0
    widest = max(rank_parameters(block, stage.tensor_parallel) for block, _ in blocks)
    return widest * (2 * 2.0 + 4.0)
