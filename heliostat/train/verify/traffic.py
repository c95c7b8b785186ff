"""What a rank sends, receives and reduces while something runs, seen where torch hands it to a process group."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

Kind = Literal["send", "receive", "sum", "gather", "scatter", "tensor", "account"]
"""Messages between two ranks; of gradients a sum, of shards an all-gather or a reduce-scatter; a collective inside a
replica; and a step's own account: its loss, its count and its gradients' norm."""

_BY_OPERATION: dict[str, Kind] = {
    "c10d::send": "send",
    "c10d::recv_": "receive",
    "c10d::allreduce_": "sum",
    "c10d::_allgather_base_": "gather",
    "c10d::_reduce_scatter_base_": "scatter",
    "_c10d_functional::all_reduce": "tensor",
    "_c10d_functional::all_gather_into_tensor": "tensor",
    "_c10d_functional::reduce_scatter_tensor": "tensor",
}
_GATHERED_PART = "_c10d_functional::all_gather_into_tensor"
"""Makes its output, which the others are given."""
_ACCOUNT_ELEMENTS = 2
"""The most numbers in one message of a step's account, all of them in 64 bits."""


class Message(NamedTuple):
    """One call."""

    kind: Kind
    num_elements: int
    """Of the whole tensor: of a gather what comes out, of a scatter what goes in."""
    peer: int | None = None
    """The other rank, of a message between two."""


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context manager; `messages` is what this rank started within it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.messages: list[Message] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Note the call and make it."""
        del types
        kind = _BY_OPERATION.get(func._schema.name)  # noqa: SLF001
        if kind is not None:
            message = _message(kind, args)
            if func._schema.name == _GATHERED_PART:  # noqa: SLF001
                message = message._replace(num_elements=message.num_elements * args[1])
            self.messages.append(message)
        return func(*args, **(kwargs or {}))


def _message(kind: Kind, args: Sequence[Any]) -> Message:
    tensors = [leaf for leaf in pytree.tree_leaves(args) if isinstance(leaf, Tensor)]
    largest = max(tensors, key=lambda one: one.numel())
    if kind in ("send", "receive"):
        return Message(kind, largest.numel(), dist.get_global_rank(dist.ProcessGroup.unbox(args[1]), args[2]))
    if kind == "sum" and largest.dtype == torch.float64 and largest.numel() <= _ACCOUNT_ELEMENTS:
        return Message("account", largest.numel())
    return Message(kind, largest.numel())
