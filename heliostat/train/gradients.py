"""Gradients summed over ranks while the backward pass still runs.

Not DistributedDataParallel: it averages over ranks, which is wrong for uneven shares until a hook undoes it; it wraps
the model, so a task could no longer call the model's own methods; and it needs a process group even for one rank. What
is left of it without those is short. Gradients live in flat buckets, in the order in which the backward pass fills
them; in the last micro-batch of a step a bucket is sent as soon as its last gradient is there.

A parameter that the loss does not reach has a gradient of zero, on every rank alike. Ranks may differ in which
parameters they reach.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

BUCKET_BYTES = 25 << 20
"""The default of DistributedDataParallel: large enough for bandwidth, small enough to overlap."""


@dataclass
class _Bucket:
    flat: Tensor
    num_parameters: int
    num_missing: int = 0
    works: list[dist.Work] = field(default_factory=list)


class GradientSum:
    """The gradients of `parameters`; owns their `.grad`, so nothing else may set it to None.

    Args:
        parameters: in the order in which the forward pass uses them.
        ranks: the process group over which the gradients are summed; None for this rank alone.
        scale: by which each rank multiplies its gradients before.
        overlaps: whether a bucket is sent while the backward pass runs. Ranks that are in several groups must start
            what they send in one order, so all but one of the groups send at the end.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        ranks: dist.ProcessGroup | None,
        *,
        scale: float = 1.0,
        overlaps: bool = True,
    ) -> None:
        self._ranks, self._scale = ranks, scale
        self._overlaps = overlaps and scale == 1.0
        trainable = [parameter for parameter in parameters if parameter.requires_grad]
        self._buckets = [self._bucket(members) for members in _split(trainable[::-1])]
        self._num_sent = len(self._buckets)

    def zero(self) -> None:
        """Forget the last step."""
        self._num_sent = 0
        for bucket in self._buckets:
            bucket.flat.zero_()
            bucket.num_missing = -1

    def send_when_ready(self) -> None:
        """The next backward pass is the last one of this step: send each bucket when it is complete."""
        if self._overlaps:
            for bucket in self._buckets:
                bucket.num_missing = bucket.num_parameters

    def finish(self) -> None:
        """Send what the backward pass did not complete, and wait until every bucket holds the sum over the ranks."""
        while self._num_sent < len(self._buckets):
            self._send_next()
        for bucket in self._buckets:
            for work in bucket.works:
                work.wait()
            bucket.works.clear()

    def multiply(self, factor: float) -> None:
        """Multiply all gradients."""
        for bucket in self._buckets:
            bucket.flat.mul_(factor)

    def square(self) -> float:
        """The sum of the squares of all gradients; not finite if one of them is not."""
        return float(sum(torch.linalg.vector_norm(bucket.flat).item() ** 2 for bucket in self._buckets))

    def _bucket(self, parameters: Sequence[nn.Parameter]) -> _Bucket:
        first = parameters[0]
        flat = torch.zeros(sum(p.numel() for p in parameters), dtype=first.dtype, device=first.device)
        bucket = _Bucket(flat, len(parameters))
        gradients = torch.split(flat, [parameter.numel() for parameter in parameters])
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.view_as(parameter)
            if self._ranks is not None and self._overlaps:
                parameter.register_post_accumulate_grad_hook(partial(self._arrived, bucket))  # type: ignore[no-untyped-call]
        return bucket

    def _arrived(self, bucket: _Bucket, _: Tensor) -> None:
        bucket.num_missing -= 1
        # Buckets leave in one fixed order, because the ranks must start the same collectives in the same order.
        while self._num_sent < len(self._buckets) and self._buckets[self._num_sent].num_missing == 0:
            self._send_next()

    def _send_next(self) -> None:
        bucket = self._buckets[self._num_sent]
        if self._scale != 1.0:
            bucket.flat.mul_(self._scale)
        if self._ranks is not None:
            work = dist.all_reduce(bucket.flat, group=self._ranks, async_op=True)
            assert work is not None
            bucket.works.append(work)
        self._num_sent += 1


def _split(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Consecutive parameters of one type, up to `BUCKET_BYTES` together."""
    groups: list[list[nn.Parameter]] = []
    num_bytes = 0
    for parameter in parameters:
        same = groups and groups[-1][0].dtype == parameter.dtype and groups[-1][0].device == parameter.device
        if not same or num_bytes + parameter.nbytes > BUCKET_BYTES:
            groups.append([])
            num_bytes = 0
        groups[-1].append(parameter)
        num_bytes += parameter.nbytes
    return groups
