"""How long collectives take among the ranks of a process group, by size of message: gloo on CPUs, NCCL on GPUs.

Ranks start together and the slowest one's time counts.
"""

from collections.abc import Sequence
from itertools import product
from typing import get_args

import torch
import torch.distributed as dist
from scipy.optimize import isotonic_regression

from heliostat.cluster.links import Link
from heliostat.cluster.measured import Curve, GroupShape, Operation, Sample
from heliostat.train.effort import Effort
from heliostat.train.fitting import fit_line
from heliostat.train.turns import Clock, Timing, Work, time_in_turns

_ELEMENT = torch.float32
FASTEST_BYTE_S = 1e-12
"""Where the slope drowns in noise the link counts as 1 TB/s."""


def operations(num_ranks: int) -> tuple[Operation, ...]:
    """What can be measured in a group of `num_ranks`: `send_recv` is between two."""
    known: tuple[Operation, ...] = get_args(Operation)
    return known if num_ranks == 2 else tuple(one for one in known if one != "send_recv")


def measure_curves(
    wanted: Sequence[Operation],
    shape: GroupShape,
    *,
    device: torch.device,
    effort: Effort,
    group: dist.ProcessGroup | None = None,
) -> tuple[Curve, ...]:
    """Time collectives among the ranks of `group`. Every rank calls this and gets the same curves, one an operation.

    Args:
        wanted: among `operations(shape.num_ranks)`; they take turns.
        shape: of `group`; it becomes the curves'.
        device: of this rank.
        effort: time, and sizes of the messages, which are rounded up to what the ranks can share evenly.
        group: all ranks by default.

    """
    num_ranks = dist.get_world_size(group)
    assert shape.num_ranks == num_ranks
    assert set(wanted) <= set(operations(num_ranks))
    sizes = sorted({_shared_evenly(num_bytes, num_ranks) for num_bytes in effort.message_bytes})
    messages = _Messages(sizes[-1], device, group)
    works = {(operation, size): messages.work(operation, size) for operation, size in product(wanted, sizes)}
    clock = _GroupClock(device, group)
    timings = time_in_turns(works, clock, min_rounds=effort.min_rounds, budget_s=effort.collectives_s)
    return tuple(_curve(operation, shape, {size: timings[operation, size] for size in sizes}) for operation in wanted)


class _GroupClock(Clock):
    """Times the ranks of a group together."""

    def __init__(self, device: torch.device, group: dist.ProcessGroup | None) -> None:
        super().__init__(device)
        self._group = group
        self._token = torch.zeros(1, device=device)

    def meet(self) -> None:
        dist.all_reduce(self._token, group=self._group)
        self._wait()

    def slowest(self, values: Sequence[float]) -> list[float]:
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX, group=self._group)
        return [float(value) for value in shared.tolist()]


class _Messages:
    """Memory that the collectives of one rank work on, and the collectives as work."""

    def __init__(self, most_bytes: int, device: torch.device, group: dist.ProcessGroup | None) -> None:
        # written to: the pages of `torch.zeros` would all be one page
        self._ours, self._theirs = (
            torch.empty(most_bytes // _ELEMENT.itemsize, dtype=_ELEMENT, device=device).zero_() for _ in range(2)
        )
        self._group = group
        self._rank = dist.get_rank(group)
        self._num_ranks = dist.get_world_size(group)

    def work(self, operation: Operation, num_bytes: int) -> Work:
        """One call of `operation`; of `send_recv` there and back."""
        group = self._group
        num_elements = num_bytes // _ELEMENT.itemsize
        ours, theirs = self._ours[:num_elements], self._theirs[:num_elements]
        part = theirs[: num_elements // self._num_ranks]
        works: dict[Operation, Work] = {
            "all_reduce": lambda: dist.all_reduce(ours, group=group),
            "all_gather": lambda: dist.all_gather_into_tensor(ours, part, group=group),
            "reduce_scatter": lambda: dist.reduce_scatter_tensor(part, ours, group=group),
            "all_to_all": lambda: dist.all_to_all_single(theirs, ours, group=group),
            "send_recv": lambda: self._there_and_back(ours),
        }
        return works[operation]

    def _there_and_back(self, message: torch.Tensor) -> None:
        if self._rank == 0:
            dist.send(message, group=self._group, group_dst=1)
            dist.recv(message, group=self._group, group_src=1)
        else:
            dist.recv(message, group=self._group, group_src=0)
            dist.send(message, group=self._group, group_dst=0)


def _curve(operation: Operation, shape: GroupShape, timings: dict[int, Timing]) -> Curve:
    """The curve through the medians, where neighbours that say a larger message is faster share their mean."""
    ways = 2 if operation == "send_recv" else 1
    seconds = isotonic_regression([timing.seconds / ways for timing in timings.values()]).x
    samples = tuple(
        Sample(num_bytes=size, seconds=float(time_s), spread=timing.spread)
        for (size, timing), time_s in zip(timings.items(), seconds, strict=True)
    )
    latency_s, byte_s = fit_line(list(timings), [one.seconds for one in samples])
    line = Link(latency_s=latency_s, bytes_per_s=1 / max(byte_s, FASTEST_BYTE_S))
    return Curve(operation=operation, group=shape, samples=samples, line=line)


def _shared_evenly(num_bytes: int, num_ranks: int) -> int:
    unit = _ELEMENT.itemsize * num_ranks
    return -(-num_bytes // unit) * unit
