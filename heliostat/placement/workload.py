"""What is to be run: a model as a chain of blocks, each with its operations, collectives and saved activations. Pure.

Everything is per sample and linear in the micro-batch; what it costs on a device is `device_time`'s affair. Sizes are
in elements of the compute type, so that one profile serves half and full precision; a byte mask counts as half.
"""

from functools import cached_property
from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from heliostat.placement.timing import BlockTiming
from heliostat.values import Frozen

OpKind = Literal["matmul", "attention", "memory"]
Split = Literal["column", "row", "heads", "sequence", "none"]


class Op(Frozen):
    """One operation of a block's forward pass, and what its backward pass costs beside it."""

    name: str
    kind: OpKind
    rows: PositiveInt = 1
    """Of a matrix product, per sample: the micro-batch multiplies them. Of an attention, the queries per sample."""
    n: PositiveInt = 1
    """Columns of the product; of an attention, the keys."""
    k: PositiveInt = 1
    """Depth of the product; of an attention, the width of one head."""
    batch: PositiveInt = 1
    """Equal products per sample that do not grow with the micro-batch's rows: heads."""
    elements: NonNegativeFloat = 0.0
    """Read and written per sample by a memory operation."""
    backward_elements: NonNegativeFloat = 0.0
    """The same in the backward pass."""
    split: Split = "none"
    """What tensor parallelism divides: columns, depth, the heads, only with sequence parallelism, or nothing."""
    has_weight: bool = True
    """Of a matrix product: whether one side is a parameter, whose gradient the backward pass makes."""
    causal: bool = False
    """Of an attention: keys after the query are skipped."""
    launches: NonNegativeInt = 1
    """Kernels that the host starts, forward; backward starts twice as many of a product, as many of the others."""
    selective: bool = False
    """Redone by selective recomputation."""

    @property
    def forward_flops(self) -> float:
        """Multiply-adds counted twice, per sample."""
        if self.kind == "memory":
            return 0.0
        products = 2 if self.kind == "attention" else 1
        flops = products * 2.0 * self.batch * self.rows * self.n * self.k
        return flops / 2 if self.causal else flops


class SavedActivations(Frozen):
    """Bytes kept per sample between the forward and the backward pass of one block.

    As in Korthikanti et al. 2022, equations 1 to 6, for 2-byte elements: `replicated` is their 10 sbh, `split` their
    24 sbh / t, `core` their 5 as^2 b / t.
    """

    replicated: NonNegativeFloat
    """Divided by the tensor-parallel degree only with sequence parallelism."""
    split: NonNegativeFloat
    """Divided by the tensor-parallel degree."""
    core: NonNegativeFloat = 0.0
    """Divided likewise; gone with selective recomputation."""
    single: NonNegativeFloat = 0.0
    """Divided likewise; in 32 bits whatever the compute type."""
    boundary: NonNegativeFloat = 0.0
    """The block's input: all that full recomputation keeps."""
    work: NonNegativeFloat = 0.0
    """Needed beside them for a while, before any gradient of a parameter: a loss and its gradient; divided like
    `split`, and in 32 bits whatever the compute type."""
    selective: NonNegativeFloat | None = None
    """What selective recomputation keeps, where that is not `replicated + split`; divided like `split`."""


class Experts(Frozen):
    """A block's mixture of experts: each token goes to few of them (Shazeer et al. 2017; Lepikhin et al. 2020)."""

    num_experts: PositiveInt
    per_token: PositiveInt
    """Experts that each token goes to."""
    num_parameters: NonNegativeInt
    """Of all experts together: what expert parallelism divides."""
    exchanged_elements: NonNegativeFloat
    """Per sample: what tokens bring to their experts. Expert parallelism moves it in an all-to-all there and in one
    back, in the forward and in the backward pass."""
    capacity: PositiveFloat | None = None
    """Tokens that an expert has room for, as a multiple of its even share: the room is computed whether it is filled or
    not, and tokens beyond it are dropped. None: no token is, and no room is empty."""

    @property
    def idle_parameters(self) -> int:
        """Those that one token does not meet."""
        return self.num_parameters * (self.num_experts - self.per_token) // self.num_experts


class Block(Frozen):
    """A part of the chain; `count` equal ones follow one another."""

    name: str
    count: PositiveInt = 1
    num_parameters: NonNegativeInt
    split_parameters: NonNegativeInt = 0
    """Those of them that tensor parallelism divides."""
    ops: tuple[Op, ...]
    saved: SavedActivations
    boundary_elements: NonNegativeInt
    """Of the output per sample: what the next stage receives."""
    carried_elements: NonNegativeInt = 0
    """Of those the ones that come from a block before and are only handed on, as an encoder's output is by a decoder's
    layers. A stage keeps them once for all its blocks, outside of `saved`; no collective moves them."""
    tensor_collectives: NonNegativeInt = 0
    """All-reduces of `made_elements` over the tensor-parallel group, forward; backward has as many."""
    opens_stage: bool = True
    """Whether a stage may begin with any of the `count`; not where later blocks use what earlier ones made past this
    one's input, so that a cut before it would lose it. The first block of the chain always may."""
    recomputable: bool = True
    """Whether recomputation covers it; programs leave the embedding and the head alone."""
    largest_tensor_parallel: PositiveInt = 1
    """The heads, for instance: more ranks than that cannot share the block."""
    experts: Experts | None = None
    timings: tuple[BlockTiming, ...] = ()
    """What it was measured to take; goes before what its operations say."""

    @cached_property
    def forward_flops(self) -> float:
        """Of one of the `count` blocks, per sample."""
        return sum(op.forward_flops for op in self.ops)

    def rank_parameters(self, tensor: int) -> float:
        """Parameters of one such block that one rank of a tensor-parallel group of `tensor` holds."""
        return self.num_parameters - self.split_parameters * (1 - 1 / tensor)

    @property
    def made_elements(self) -> int:
        """Of the output per sample: what the block itself computes."""
        return self.boundary_elements - self.carried_elements

    @property
    def active_parameters(self) -> int:
        """Those that one token meets."""
        return self.num_parameters - (self.experts.idle_parameters if self.experts else 0)


class WorkloadProfile(Frozen):
    """A model as a chain of blocks."""

    name: str
    seq_len: PositiveInt = 1
    """Tokens per sample; 1 for a model without sequences."""
    blocks: tuple[Block, ...] = Field(min_length=1)
    tied_parameters: NonNegativeInt = 0
    """Of the first block, which the last one uses too: where they are on different stages, both keep them."""
    gang_overhead_s: NonNegativeFloat | None = None
    """Measured: what a step of data-parallel replicas of the whole model takes longer than the slowest one's by itself.
    It holds the all-reduce and what its threads take from the compute. None where it was not."""

    @cached_property
    def num_parameters(self) -> int:
        """Parameters over all blocks."""
        return sum(block.num_parameters * block.count for block in self.blocks)

    @cached_property
    def active_parameters(self) -> int:
        """Those that one token meets: fewer than all where there are experts."""
        return sum(block.active_parameters * block.count for block in self.blocks)

    @cached_property
    def forward_flops(self) -> float:
        """Of one sample."""
        return sum(block.forward_flops * block.count for block in self.blocks)

    @cached_property
    def num_blocks(self) -> int:
        """Blocks with their repetitions: the places where a pipeline may cut are between them."""
        return sum(block.count for block in self.blocks)

    @cached_property
    def cuts(self) -> tuple[int, ...]:
        """The blocks, but for block 0, with which a stage may begin; counted with repetitions."""
        opens = [block.opens_stage for block in self.blocks for _ in range(block.count)]
        return tuple(place for place, may in enumerate(opens) if may and place)

    def part(self, first: int, end: int) -> tuple[tuple[Block, int], ...]:
        """The blocks `first` to `end` exclusive, counted with repetitions: each kind and how many of it."""
        found, place = [], 0
        for block in self.blocks:
            many = min(end, place + block.count) - max(first, place)
            if many > 0:
                found.append((block, many))
            place += block.count
        return tuple(found)
