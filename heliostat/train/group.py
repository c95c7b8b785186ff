"""The ranks of one run, as the executor sees them. A run of one rank needs no process group and pays for none."""

from collections.abc import Iterable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


def rank() -> int:
    """This process among the ranks, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many ranks there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def start_sum(tensor: Tensor) -> Iterable[dist.Work]:
    """Begin to sum `tensor` over the ranks, in place. The sum is there when what is returned has been waited for."""
    if size() == 1:
        return ()
    work = dist.all_reduce(tensor, op=dist.ReduceOp.SUM, async_op=True)
    assert work is not None
    return (work,)


def gather(value: T) -> list[T]:
    """The `value` of every rank, in rank order, on every rank."""
    if size() == 1:
        return [value]
    values: list[Any] = [None] * size()
    dist.all_gather_object(values, value)
    return values


def from_first(value: T) -> T:
    """The `value` of rank 0, on every rank."""
    if size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


@torch.no_grad()
def copy_from_first(module: nn.Module) -> None:
    """Give every rank the parameters and buffers of rank 0."""
    if size() == 1:
        return
    for tensor in (*module.parameters(), *module.buffers()):
        dist.broadcast(tensor, src=0)
