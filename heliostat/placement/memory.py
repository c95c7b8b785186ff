"""Bytes a strategy needs on a device, at the peak of a step. Pure.

    states       parameters, gradients, optimizer states; divided by ZeRO and tensor parallelism
  + activations  saved bytes of each block x micro-batch x micro-batches in flight (from the schedule)
  + temporary    the most that the pass of one block, or the optimizer, needs beside them
  + reserve      context, and what the allocator cannot use for anything else

All is a sum over a stage's blocks or the largest of them, so what `block_pass` and `block_states` say of each block
suffices for any stage. Saved activations follow Korthikanti et al. 2022 (equations 1 to 6): s b h (10 + 24/t +
5as/(ht)) for 2-byte elements, s b h (34/t + 5as/(ht)) with sequence parallelism, without the last term with selective,
and 2 s b h with full recomputation. The buffers of ZeRO 2 and 3 are those of PyTorch's FSDP2
(torch/distributed/fsdp/_fully_shard).
"""

from collections.abc import Sequence
from typing import NamedTuple

from heliostat.placement.device_time import element_bytes
from heliostat.placement.strategy import Execution, Recompute, ReplicaShare, StageStrategy, Strategy
from heliostat.placement.workload import Block, Op, WorkloadProfile

FRAGMENTATION = 0.06
"""Of the activations and temporary buffers, lost between blocks of the caching allocator. With it the median error is
below 1 % on the 20 peaks of reserved memory that torchtitan publishes (benchmarks/llama3*.md, 2024-12 and 2025-06)."""
TRANSFERS = 2
"""Buffers of a pipeline stage beside its micro-batches in flight: an input and a gradient while they are received."""
STEP_BYTES = 4.0
"""Per parameter that the rank updates: the square roots that `torch.optim.AdamW(foreach=True)` makes of all at once."""


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


class BlockPass(NamedTuple):
    """Bytes of one micro-batch of one block, on one rank."""

    saved: float
    """Kept until its backward pass."""
    backward: float
    """Beside them in the backward pass."""
    loss: float
    """Beside them before it, while nothing is gathered yet: the loss and its gradient."""
    forward: float
    """Beside them in the forward pass. The holes that it leaves between what is saved are too small for the loss."""
    handed_on: float
    """The output: kept while the micro-batch is in flight in a pipeline."""
    carried: float
    """Kept once for all blocks of a stage."""


NOTHING = BlockPass(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
"""Of a block that is kept but not run."""


class BlockStates(NamedTuple):
    """Bytes of one block on one rank that do not depend on the micro-batch."""

    parameters: float
    gradients: float
    optimizer: float
    step: float
    """Beside these while the optimizer works."""
    gathered: float
    """Whole parameters and gradients while its backward pass goes on."""
    ahead: float
    """Whole parameters that are gathered while the next block's backward pass goes on."""
    behind: float
    """Whole gradients that are scattered while the previous block's backward pass goes on, less the parameters that are
    free by then. What the block saved is free too."""
    streamed: float
    """Output of all-gathers beside `ahead`: two at a time in the forward pass, kept for the stream they are made in."""


def block_saved_bytes(block: Block, stage: StageStrategy, micro_batch: int, execution: Execution) -> float:
    """Activations that one micro-batch of `block` keeps until its backward pass, on one rank."""
    return _saved_bytes(block, stage, stage.recompute if block.recomputable else "none", micro_batch, execution)


def _saved_bytes(
    block: Block, stage: StageStrategy, recompute: Recompute, micro_batch: int, execution: Execution
) -> float:
    saved, tensor = block.saved, stage.tensor_parallel
    whole = tensor if stage.sequence_parallel else 1
    samples = micro_batch / stage.context_parallel
    if recompute == "full":
        kept = saved.boundary / whole
    elif recompute == "selective" and saved.selective is not None:
        kept = saved.selective / tensor
    else:
        core = saved.core / tensor if recompute == "none" else 0.0
        kept = saved.replicated / whole + saved.split / tensor + core
        if stage.sequence_parallel and execution.keeps_gathered:
            kept += sum(2.0 * op.rows * op.k for op in block.ops if _takes_all(op)) * (1 - 1 / tensor)
    return (kept * element_bytes(execution.dtype) / 2 + saved.single / tensor) * samples


def block_pass(block: Block, stage: StageStrategy, micro_batch: int, execution: Execution) -> BlockPass:
    """What one micro-batch of `block` needs.

    The backward pass redoes what was not saved and makes the gradients of the output and of the widest product. With
    sequence parallelism the input is whole, two of its gradients are added before they are scattered, and a collective
    copies what it moves to lay it out along the sequence, if it is not cut up.
    """
    tensor, saved = stage.tensor_parallel, block.saved
    samples = micro_batch / stage.context_parallel
    scale = samples * element_bytes(execution.dtype) / 2
    full = 2.0 * block.made_elements * scale
    output = full / (tensor if stage.sequence_parallel else 1)
    carried = 2.0 * block.carried_elements * scale
    widest = max((_made_bytes(op, tensor) for op in block.ops), default=0.0) * scale
    ring = sum(_ring_bytes(op) for op in block.ops) * scale / tensor * (stage.context_parallel - 1)
    copies = 2 if stage.sequence_parallel and not execution.async_tensor else 0
    kept = block_saved_bytes(block, stage, micro_batch, execution)
    whole = _saved_bytes(block, stage, "none", micro_batch, execution)
    loss = saved.work / tensor * samples + output if saved.work else 0.0
    if not block.recomputable:
        return BlockPass(kept, output, loss, 0.0, output + carried, carried)
    return BlockPass(
        saved=kept,
        backward=whole - kept + output + widest + ring + ((1 + copies) * full if stage.sequence_parallel else 0.0),
        loss=loss,
        forward=output + copies * full + ring + (widest if whole > kept else 0.0),
        handed_on=output + carried,
        carried=carried,
    )


def block_states(block: Block, stage: StageStrategy, execution: Execution) -> BlockStates:
    """What `block` holds through the step, and what ZeRO 2 and 3 need for a while.

    FSDP2 holds in the backward pass of a layer its parameters and gradients, those of the layer before it as they are
    gathered, and the gradients of the one after it as they are scattered. Embedding and head have smaller neighbours.
    """
    held = block.rank_parameters(stage.tensor_parallel)
    ranks = len(stage.replicas) * stage.context_parallel
    own = held / ranks
    compute, reduced = held * element_bytes(execution.dtype), held * execution.gradient_bytes
    parameters = (own if stage.zero == 3 else held) * execution.parameter_bytes
    gradients = (own if stage.zero >= 2 else held) * execution.accumulate_bytes
    if stage.zero < 3 and execution.parameter_bytes == 4 and (stage.zero == 2 or compute < parameters):
        # what computes is a copy: gathered by ZeRO 2, otherwise cast to two bytes
        parameters = (own if stage.zero == 2 else held) * 4.0 + compute
    if stage.zero == 2 and not execution.sync_each_micro_batch:
        gradients += reduced
    updated = own if stage.zero >= 1 else held
    apart = stage.zero >= 2 and ranks > 1
    twice = compute if stage.zero == 3 else 0.0
    return BlockStates(
        parameters=parameters,
        gradients=gradients,
        optimizer=0.0 if stage.offload else updated * execution.state_bytes,
        step=0.0 if stage.offload else updated * STEP_BYTES,
        gathered=(compute + (twice if block.recomputable else max(twice, reduced))) if apart else 0.0,
        ahead=twice if apart and block.recomputable else 0.0,
        behind=(reduced - (compute if stage.zero == 2 else 0.0)) if apart else 0.0,
        streamed=(compute * (2 if stage.zero == 2 else 1)) if apart else 0.0,
    )


def tied_states(workload: WorkloadProfile, stage: StageStrategy, execution: Execution) -> BlockStates:
    """The copy of a tied embedding on the last stage, where the first one is another."""
    tied = workload.tied_parameters
    table = workload.blocks[0].model_copy(update={"num_parameters": tied, "split_parameters": tied})
    return block_states(table, stage, execution)


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
    counts = [count for _, count in blocks]
    recomputable = [block.recomputable for block, _ in blocks]
    passes = [block_pass(block, stage, replica.micro_batch, execution) for block, _ in blocks]
    states = [block_states(block, stage, execution) for block, _ in blocks]
    held = min(in_flight, replica.num_micro_batches)
    activations = held * (_sum(counts, [one.saved for one in passes]) + max(one.carried for one in passes))
    if stage is strategy.stages[-1] and strategy.schedule != "gpipe":
        # the last block's backward pass follows its forward pass at once
        activations -= passes[-1].saved * max(0.0, held - 1)
    transfers = (held * strategy.chunks + TRANSFERS) * passes[0].handed_on if len(strategy.stages) > 1 else 0.0
    if len(strategy.stages) > 1 and stage.end_block == workload.num_blocks and stage.first_block > 0:
        counts, recomputable, passes = [*counts, 1], [*recomputable, False], [*passes, NOTHING]
        states.append(tied_states(workload, stage, execution))
    temporary = _temporary(recomputable, passes, states) + transfers
    temporary = max(temporary, _sum(counts, [one.step for one in states]) - activations)
    unusable = max(one.streamed for one in states)
    unusable += min(max(one.loss for one in passes), max(one.forward for one in passes))
    return MemoryUse(
        parameters=_sum(counts, [one.parameters for one in states]),
        gradients=_sum(counts, [one.gradients for one in states]),
        optimizer=_sum(counts, [one.optimizer for one in states]),
        activations=activations,
        temporary=temporary,
        reserve=execution.context_bytes + FRAGMENTATION * (activations + temporary) + unusable,
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


def _temporary(recomputable: Sequence[bool], passes: Sequence[BlockPass], states: Sequence[BlockStates]) -> float:
    """The loss, or the backward pass of a block with what its neighbours gather and scatter.

    When another block's backward pass goes on, what the block with the loss saved is free.
    """
    ahead = max(one.ahead for one in states)
    freed = max(one.saved if one.loss else 0.0 for one in passes)
    behind = max(
        0.0,
        *(state.behind - (0.0 if one.loss else one.saved) for one, state in zip(passes, states, strict=True)),
    )
    most = max(one.loss for one in passes)
    for inner, one, state in zip(recomputable, passes, states, strict=True):
        beside = state.gathered + (state.ahead + behind if inner else ahead)
        most = max(most, one.backward + beside - (0.0 if one.loss else freed))
    return most


def _takes_all(op: Op) -> bool:
    """Whether every rank of a tensor-parallel group multiplies the operation's whole input."""
    return op.kind == "matmul" and op.split == "column"


def _made_bytes(op: Op, tensor: int) -> float:
    """Output of a product with a weight, per sample; what each rank has of a sum is a part of the block's output."""
    if op.kind != "matmul" or not op.has_weight or op.split == "row":
        return 0.0
    return 2.0 * op.rows * op.n / (tensor if op.split == "column" else 1)


def _ring_bytes(op: Op) -> float:
    """Keys and values per sample, which context-parallel ranks gather from each other."""
    return 2 * 2.0 * op.batch * op.n * op.k if op.kind == "attention" else 0.0


def _sum(counts: Sequence[int], values: Sequence[float]) -> float:
    return sum(count * value for count, value in zip(counts, values, strict=True))
