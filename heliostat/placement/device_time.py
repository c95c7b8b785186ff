"""From operations to seconds on one device. Pure.

Matrix product: rows x n is cut into tiles, the tiles run in waves over the multiprocessors, and a tile of depth k costs
as much as k + `matmul_depth`; the fastest tile shape and split of the depth is taken, as a library's heuristic would.
Operands whose rows are no multiples of 16 bytes are slower to load. Not faster than reading the operands and writing
the result (roofline, Williams et al. 2009).
Attention: its operations at a rate of its own. Memory operation: bytes over bandwidth.
"""

from functools import lru_cache
from math import gcd
from typing import NamedTuple

from heliostat.cluster.catalogue import Dtype
from heliostat.placement.efficiency import DeviceSpeed
from heliostat.placement.workload import Block, Op

TILES = ((256, 128, 1.0), (128, 128, 0.95), (128, 64, 0.8), (64, 64, 0.6))
"""Rows, columns, and rate relative to the largest: smaller tiles read more per operation."""
DEPTH_SPLITS = (1, 2, 4, 8)
ALIGNED_BYTES = 16
"""What one load instruction takes: NVIDIA, Matrix Multiplication Background, "Tensor Core requirements": rows in
multiples of 16 bytes are most efficient, smaller powers of two less so."""
ALIGNMENT_POWER = 0.6
"""The rate of a product whose rows are multiples of only b bytes is (b / 16) ** 0.6 of the aligned one: 0.29 for an odd
number of 2-byte elements, as a vocabulary of 50,257 has; divided by 2 it is aligned, by 4 and 8 less so. The output
layer of vTrain's single-node runs takes 4.0, 1.0, 0.6 and 0.5 ms per sample on 1, 2, 4 and 8 devices (hidden 1024)."""
BACKWARD_ATTENTION = 2.5
"""Flash attention's backward pass: five products where forward has two (Dao 2023)."""


class Degrees(NamedTuple):
    """How many ranks share one block, and the micro-batch they work on."""

    micro_batch: int
    tensor: int = 1
    sequence_parallel: bool = False
    context: int = 1


class OpTime(NamedTuple):
    """Device seconds and kernels of one operation."""

    forward_s: float
    backward_s: float
    forward_launches: int
    backward_launches: int


def op_time(op: Op, degrees: Degrees, speed: DeviceSpeed, dtype: Dtype) -> OpTime:
    """Device seconds of `op` on one rank."""
    backward_launches = (2 if op.kind == "matmul" else 1) * op.launches
    if op.kind == "memory":
        shared = op.split in {"heads", "column", "row"} or (op.split == "sequence" and degrees.sequence_parallel)
        part = degrees.micro_batch / degrees.context / (degrees.tensor if shared else 1)
        rate = speed.memory_rate / element_bytes(dtype)
        return OpTime(op.elements * part / rate, op.backward_elements * part / rate, op.launches, backward_launches)
    if op.kind == "attention":
        rate = speed.peak("bf16" if dtype == "fp8" else dtype) * speed.efficiency.attention * speed.relative
        forward_s = op.forward_flops * degrees.micro_batch / degrees.context / degrees.tensor / rate
        return OpTime(forward_s, BACKWARD_ATTENTION * forward_s, op.launches, backward_launches)
    forward_s, backward_s = _products(op, degrees, speed, dtype)
    if op.elements or op.backward_elements:
        part = degrees.micro_batch / degrees.context / (degrees.tensor if op.split == "column" else 1)
        rate = speed.memory_rate / element_bytes(dtype)
        forward_s, backward_s = forward_s + op.elements * part / rate, backward_s + op.backward_elements * part / rate
    return OpTime(forward_s, backward_s, op.launches, backward_launches)


def element_bytes(dtype: Dtype) -> int:
    """Bytes of an activation: FP8 products still read and write 2-byte activations elsewhere."""
    return 4 if dtype in {"fp32", "tf32"} else 2


def _products(op: Op, degrees: Degrees, speed: DeviceSpeed, dtype: Dtype) -> tuple[float, float]:
    tensor = degrees.tensor
    n = max(1, op.n // tensor) if op.split == "column" else op.n
    k = max(1, op.k // tensor) if op.split == "row" else op.k
    rows = op.rows // degrees.context
    if op.has_weight:
        rows, batch = rows * degrees.micro_batch, op.batch
    else:
        batch = max(1, op.batch // tensor) * degrees.micro_batch
        dtype = "bf16" if dtype == "fp8" else dtype
    rate = alignment(n, k, element_bytes(dtype))
    forward = product_time_s(rows, n, k, batch, speed, dtype, rate)
    backward = product_time_s(rows, k, n, batch, speed, dtype, rate)
    backward += product_time_s(n, k, rows, batch, speed, dtype, rate)
    return forward, backward


@lru_cache(maxsize=200_000)
def _tiling(rows: int, n: int, k: int, batch: int, multiprocessors: int) -> tuple[tuple[float, float], ...]:
    """For each way to cut: work of the busiest multiprocessor without depth costs, and per unit of depth cost."""
    found = []
    for tall, wide, rate in TILES:
        tiles = -(-rows // tall) * -(-n // wide) * batch
        wave = tall * wide * 2.0 / rate
        for split in DEPTH_SPLITS:
            if split > 1 and k < 128 * split:
                break
            area = -(-tiles * split // multiprocessors) * wave
            found.append((area * k / split, area))
    return tuple(found)


def product_time_s(rows: int, n: int, k: int, batch: int, speed: DeviceSpeed, dtype: Dtype, rate: float = 1.0) -> float:
    """Seconds of `batch` products rows x k by k x n, whose operands load at `rate` relative to aligned ones."""
    per_multiprocessor = speed.peak(dtype) * speed.efficiency.matmul / speed.multiprocessors
    # equal products of many heads run side by side on one multiprocessor and hide each other's filling and draining
    depth = speed.efficiency.matmul_depth if batch == 1 else 0.0
    work = min(area_k + area * depth for area_k, area in _tiling(rows, n, k, batch, speed.multiprocessors))
    moved = batch * (rows * n + rows * k + n * k) * element_bytes(dtype)
    return max(work / per_multiprocessor / speed.relative / rate, moved / speed.memory_rate)


def alignment(n: int, k: int, num_bytes: int) -> float:
    """Rate of a product whose operands have rows of `n` or `k` elements of `num_bytes`, relative to aligned rows."""
    width = gcd(n, k, ALIGNED_BYTES) * num_bytes
    return float(min(1.0, (width / ALIGNED_BYTES) ** ALIGNMENT_POWER))


class BlockTime(NamedTuple):
    """One block and one micro-batch on one rank, without collectives: device seconds and kernels started."""

    forward_s: float
    backward_s: float
    selective_s: float
    """Forward again of what selective recomputation redoes."""
    forward_launches: int
    backward_launches: int
    selective_launches: int
    is_measured: bool = False
    """With the host's work and the collectives inside the replica."""


def estimate(block: Block, degrees: Degrees, speed: DeviceSpeed, dtype: Dtype) -> BlockTime:
    """The sum over the block's operations."""
    times = [(op, op_time(op, degrees, speed, dtype)) for op in block.ops]
    redone = [one for op, one in times if op.selective]
    return BlockTime(
        sum(one.forward_s for _, one in times),
        sum(one.backward_s for _, one in times),
        sum(one.forward_s for one in redone),
        sum(one.forward_launches for _, one in times),
        sum(one.backward_launches for _, one in times),
        sum(one.forward_launches for one in redone),
    )
