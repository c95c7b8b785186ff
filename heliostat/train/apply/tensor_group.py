"""The ranks that share a replica's tensors, and the collectives among them that gradients flow through.

A tensor that is whole is equal on all ranks, and so is its gradient. Of a tensor in parts every rank has its own, and
that part of the gradient. These functions lead from one to the other (Shoeybi et al. 2019, Korthikanti et al. 2022).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional_collectives
from torch import Tensor
from torch.autograd import Function

from heliostat.train.apply.tensor_bounds import Bounds, Place, even, spans, widths


class _Copied(NamedTuple):
    """What was last made of a tensor, so that products that read the same one share it."""

    source: Tensor
    state: tuple[int, bool]
    """Its version, and whether gradients were on."""
    result: Tensor


class TensorGroup:
    """One rank's view of the ranks that share a replica."""

    def __init__(self, group: dist.ProcessGroup, rank: int, size: int, *, sequence_parallel: bool = False) -> None:
        """The group.

        Args:
            group: all ranks of the replica and the stage, and no others.
            rank: this rank's place in it.
            size: how many they are.
            sequence_parallel: between the divided products tensors (b, t, ...) are divided along t.
        """
        self.group, self.rank, self.size = group, rank, size
        self.sequence_parallel = sequence_parallel
        self._copied: _Copied | None = None
        self._seq_len = 1

    def copy(self, tensor: Tensor) -> Tensor:
        """A whole tensor that computations on parts read: its gradients are summed."""
        if not (tensor.requires_grad and torch.is_grad_enabled()):
            return tensor
        return self._once(tensor, lambda: _Copy.apply(tensor, self))  # type: ignore[no-untyped-call]

    def reduce(self, tensor: Tensor) -> Tensor:
        """The sum of what the ranks have, whole."""
        result: Tensor = _Reduce.apply(tensor, self)  # type: ignore[no-untyped-call]
        return result

    def reduce_scatter(self, tensor: Tensor, axis: int, bounds: Bounds) -> Tensor:
        """This rank's part of the sum of what the ranks have."""
        result: Tensor = _ReduceScatter.apply(tensor, axis, bounds, self)  # type: ignore[no-untyped-call]
        return result

    def gather(self, part: Tensor, axis: int, bounds: Bounds) -> Tensor:
        """The whole of which every rank has a part."""
        result: Tensor = _Gather.apply(part, axis, bounds, self, False)  # type: ignore[no-untyped-call] # noqa: FBT003
        return result

    def gather_copy(self, part: Tensor, axis: int, bounds: Bounds) -> Tensor:
        """The whole of which every rank has a part, for computations on parts: `copy` of `gather`."""
        return self._once(part, lambda: _Gather.apply(part, axis, bounds, self, True))  # type: ignore[no-untyped-call] # noqa: FBT003

    def part(self, whole: Tensor, axis: int, bounds: Bounds) -> Tensor:
        """This rank's part of a whole tensor. The gradient is that of the part, so `whole` is to be a `copy`."""
        found = [whole.narrow(axis, begin, end - begin) for begin, end in spans(bounds, self.rank)]
        return found[0] if len(found) == 1 else torch.cat(found, axis)

    def along_sequence(self, shape: tuple[int, ...]) -> Place | None:
        """Where sequence parallelism divides tokens of `shape`, (b, t, ...) or (b t, ...); None if it does not.

        That rows are tokens of some sequences is told by the last tensor that had an axis of them.
        """
        if not self.sequence_parallel or len(shape) not in (2, 3):
            return None
        if len(shape) == 3:
            self._seq_len = shape[1]
        repeats, rest = (1, 0) if len(shape) == 3 else divmod(shape[0], self._seq_len)
        if rest or self._seq_len < self.size:
            return None
        return Place(len(shape) - 2, even((self._seq_len,), self._seq_len, self.size) * repeats)

    def forget(self) -> None:
        """Let go of what products shared."""
        self._copied = None

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks; no gradient."""
        return _done(functional_collectives.all_reduce(tensor.detach().contiguous(), "sum", self.group))

    def largest(self, tensor: Tensor) -> Tensor:
        """The largest over the ranks; no gradient."""
        return _done(functional_collectives.all_reduce(tensor.detach().contiguous(), "max", self.group))

    def joined(self, part: Tensor, axis: int, bounds: Bounds) -> Tensor:
        """All ranks' parts in their places; no gradient."""
        sizes = widths(bounds)
        mine = part.detach().movedim(axis, 0)
        if len(set(sizes)) > 1:
            room = mine.new_zeros((max(sizes), *mine.shape[1:]))
            room[: len(mine)] = mine
            mine = room
        received = _done(functional_collectives.all_gather_single(mine.contiguous(), 0, self.group))
        parts = received.view(self.size, *mine.shape)
        return torch.cat([parts[rank, begin:end] for rank, begin, end in _in_order(bounds)]).movedim(0, axis)

    def scattered(self, tensor: Tensor, axis: int, bounds: Bounds) -> Tensor:
        """This rank's part of the sum over the ranks; no gradient."""
        sizes = widths(bounds)
        if len(set(sizes)) > 1:
            return self.part(self.summed(tensor), axis, bounds).contiguous()
        rows = tensor.detach().movedim(axis, 0)
        if len(bounds) > 1:
            rows = torch.cat([rows[begin:end] for rank in range(self.size) for begin, end in spans(bounds, rank)])
        result = _done(functional_collectives.reduce_scatter_single(rows.contiguous(), "sum", 0, self.group))
        return result.movedim(0, axis)

    @contextmanager
    def own_random(self, device: torch.device) -> Iterator[None]:
        """Random numbers that differ between the ranks; afterwards their common sequence goes on.

        The seed comes from that sequence, so a recomputation that restores it gets the same numbers.
        """
        seed = int(torch.randint(1 << 62, ()).item())
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed + self.rank)
            yield

    def _once(self, source: Tensor, make: Any) -> Tensor:
        version = 0 if source.is_inference() else source._version  # noqa: SLF001
        state = (version, torch.is_grad_enabled())
        if self._copied is None or self._copied.source is not source or self._copied.state != state:
            self._copied = _Copied(source, state, make())
        return self._copied.result


def _done(started: Tensor) -> Tensor:
    """What a collective gives. Recomputation sees it as an operation like others, and may keep its result."""
    result: Tensor = functional_collectives.wait_tensor(started)  # type: ignore[no-untyped-call]
    return result


def _in_order(bounds: Bounds) -> Sequence[tuple[int, int, int]]:
    """Rank, and from where to where in its part, of every piece of the whole in their order."""
    places = [0] * len(widths(bounds))
    found = []
    for group in bounds:
        for rank, (begin, end) in enumerate(pairwise(group)):
            found.append((rank, places[rank], places[rank] + end - begin))
            places[rank] += end - begin
    return found


class _Copy(Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: TensorGroup) -> Tensor:
        ctx.group = group
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.group.summed(gradient), None


class _Reduce(Function):
    @staticmethod
    def forward(_: Any, tensor: Tensor, group: TensorGroup) -> Tensor:
        return group.summed(tensor)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _ReduceScatter(Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, axis: int, bounds: Bounds, group: TensorGroup) -> Tensor:
        ctx.axis, ctx.bounds, ctx.group = axis, bounds, group
        return group.scattered(tensor, axis, bounds)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.group.joined(gradient, ctx.axis, ctx.bounds), None, None, None


class _Gather(Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, axis: int, bounds: Bounds, group: TensorGroup, is_copy: bool) -> Tensor:  # noqa: FBT001
        ctx.axis, ctx.bounds, ctx.group, ctx.is_copy = axis, bounds, group, is_copy
        return group.joined(part, axis, bounds)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        take = ctx.group.scattered if ctx.is_copy else ctx.group.part
        return take(gradient, ctx.axis, ctx.bounds), None, None, None, None
