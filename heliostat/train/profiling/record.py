"""What one forward and one backward pass does, kernel by kernel: a recorder below autograd.

Every dispatched operation becomes a `Call` of the segment that runs. A segment is one part of the chain, or the glue
between two parts. A backward kernel belongs to the forward call whose autograd node runs it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from heliostat.train.profiling.parts import Part
from heliostat.train.profiling.products import Product, product_of

_aten = torch.ops.aten
_FREE = {_aten.empty.memory_format, _aten.empty_like.default, _aten.empty_strided.default, _aten.new_empty.default}
"""Calls that touch no memory."""
_LOOKUPS = {_aten.embedding.default, _aten.index.Tensor, _aten.index_select.default, _aten.gather.default}
"""Calls that read as much of their first tensor as they return."""
_PICKS = {_aten.nll_loss_forward.default: 1, _aten.nll_loss_backward.default: 2}
"""Calls that read one element per row of a table, and where the rows' indices stand among their tensors."""
_COPIES = {_aten._to_copy.default, _aten.clone.default}  # noqa: SLF001
_BACKWARD_PRODUCTS = {
    _aten.mm.default,
    _aten.bmm.default,
    _aten._grouped_mm.default,  # noqa: SLF001
    _aten.convolution_backward.default,
}
"""What the backward pass of a product takes follows from its forward pass."""


class View(NamedTuple):
    """Where a tensor lies in its memory."""

    storage: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(eq=False)
class Call:
    """One kernel of the forward pass, with what its backward pass does."""

    name: str
    overload: Any = None
    """The aten operation; None for attention."""
    product: Product | None = None
    inputs: tuple[View, ...] = ()
    """Tensors that depend on the batch and have gradients."""
    weights: tuple[nn.Parameter, ...] = ()
    weight_views: tuple[View, ...] = ()
    """How the call sees each of them."""
    outputs: tuple[View, ...] = ()
    constants: tuple[Any, ...] = ()
    """Arguments that are no tensors, in their places; None where a tensor was."""
    is_view: bool = False
    elements: float = 0.0
    """Read and written by a memory operation."""
    backward_elements: float = 0.0
    work_elements: float = 0.0
    """Gradients that one backward kernel has at once."""


class Saved(NamedTuple):
    """Memory kept for the backward pass."""

    storage: int
    elements: float
    is_single: bool
    """In 32 bits, where the compute type has fewer."""


@dataclass(eq=False)
class Segment:
    """What ran in one part, or between two."""

    part: Part | None
    """None for glue."""
    calls: list[Call] = field(default_factory=list)
    saved: list[Saved] = field(default_factory=list)
    original: int | None = None
    """The segment that ran in full, where this one is a copy of it."""
    inputs: tuple[int, ...] = ()
    """Memory of the tensors that the part was called with, in their order."""

    @property
    def is_idle(self) -> bool:
        """A part that does nothing, such as dropout of nothing."""
        has_parameters = self.part is not None and any(True for _ in self.part.module.parameters())
        return self.original is None and not has_parameters and all(call.is_view for call in self.calls)


@dataclass(eq=False)
class Source:
    """One piece of memory."""

    memory: torch.UntypedStorage
    """Kept, so that no other memory gets its address."""
    item_bytes: int
    segment: int
    """That wrote it."""
    from_batch: bool
    """Whether it depends on the batch."""
    uses: dict[int, set[View]] = field(default_factory=dict)
    """By later segments, of what the gradient flows through."""

    @property
    def num_elements(self) -> float:
        """Elements that fit into it, of the type that its readers see."""
        return self.memory.nbytes() / self.item_bytes


class Recorder(TorchDispatchMode):
    """Records what runs inside of `forward_pass` and `backward_pass`."""

    def __init__(self, model: nn.Module, batch: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.segments = [Segment(None)]
        self.sources = {identity(tensor): _source_of(tensor, from_batch=True) for tensor in batch}
        self.closed: list[Source] = []
        """Sources whose memory was written again."""
        self._parameters = {identity(one): one for one in model.parameters()}
        self._weight_shapes = {tuple(one.shape) for one in model.parameters() if one.dim() > 1}
        self.item_bytes = _compute_bytes(model)
        """Of one element of the compute type."""
        self._is_paused = False
        self._is_backward = False
        self._by_number: dict[int, Call] = {}
        """By the sequence number of the autograd node that the call made."""
        self._saved: set[int] = set()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing in here is recorded."""
        before, self._is_paused = self._is_paused, True
        try:
            yield
        finally:
            self._is_paused = before

    def forward_pass(self, run: Callable[[], Tensor]) -> Tensor:
        """Record `run`, with what it saves for the backward pass."""
        with self, saved_tensors_hooks(self._save, lambda tensor: tensor):
            return run()

    def backward_pass(self, loss: Tensor) -> None:
        """Record the backward pass of `loss`."""
        self._is_backward = True
        with self:
            loss.backward()  # type: ignore[no-untyped-call]

    def enter(self, part: Part) -> Segment:
        """`part` begins."""
        self.segments.append(Segment(part))
        return self.segments[-1]

    def leave(self) -> None:
        """The running part ends, and glue begins."""
        self.segments.append(Segment(None))

    def stand_for(self, inputs: Iterable[Tensor], outputs: Iterable[Tensor], call: Call | None = None) -> None:
        """What was made from what while paused, and the call that it stands for."""
        taken, made = list(inputs), list(outputs)
        self._use(taken)
        from_batch = any(self._source(tensor).from_batch for tensor in taken)
        self._made(made, from_batch=from_batch)
        if call is not None and from_batch:
            call.inputs = self._active(taken)
            call.outputs = tuple(view_of(tensor) for tensor in made)
            self._by_number[_running_node()] = call
            self.segments[-1].calls.append(call)

    def elements(self, tensor: Tensor) -> float:
        """Elements of the compute type that `tensor` holds; what is no float counts as if that type had 2 bytes."""
        return _distinct(tensor) * tensor.element_size() / self._unit(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run `func`, and record it."""
        result = func(*args, **(kwargs or {}))
        if not self._is_paused:
            inputs = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
            outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            if self._is_backward:
                self._record_backward(func, inputs, outputs)
            else:
                self._record(func, (*args, *(kwargs or {}).values()), inputs, outputs)
        return result

    def _record(self, func: Any, args: tuple[Any, ...], inputs: list[Tensor], outputs: list[Tensor]) -> None:
        call = Call(func.overloadpacket.__name__, func)
        self._by_number.setdefault(_running_node(), call)
        taken = {identity(tensor) for tensor in inputs}
        call.is_view = not func._schema.is_mutable and any(identity(tensor) in taken for tensor in outputs)  # noqa: SLF001
        from_batch = any(self._source(tensor).from_batch for tensor in inputs)
        call.inputs = self._active(inputs)
        held = [(one, tensor) for tensor in inputs if (one := self._parameters.get(identity(tensor))) is not None]
        call.weights, call.weight_views = tuple(one for one, _ in held), tuple(view_of(tensor) for _, tensor in held)
        if not call.is_view:
            self._use(inputs)
            self._made(outputs, from_batch=from_batch)
            if func in _COPIES and call.weights:
                self._parameters[identity(outputs[0])] = call.weights[0]
        if not from_batch or func in _FREE:
            return
        call.outputs = tuple(view_of(tensor) for tensor in outputs)
        call.constants = tuple(None if isinstance(one, Tensor) else one for one in args)
        if not call.is_view:
            call.product = product_of(func, args, outputs, lambda tensor: identity(tensor) in self._parameters)
            call.elements = 0.0 if call.product else self._moved(func, inputs, outputs)
        self.segments[-1].calls.append(call)

    def _record_backward(self, func: Any, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        node = torch._C._current_autograd_node()  # noqa: SLF001
        call = self._by_number.get(node._sequence_nr()) if node is not None else None  # noqa: SLF001
        taken = {identity(tensor) for tensor in inputs}
        if call is None or func in _FREE or func in _BACKWARD_PRODUCTS:
            return
        if not func._schema.is_mutable and any(identity(tensor) in taken for tensor in outputs):  # noqa: SLF001
            return
        if func is _aten.embedding_dense_backward.default:
            # each row of the gradient is added to one of the table's
            call.backward_elements += 3 * self.elements(inputs[0])
            return
        if func is _aten.add.Tensor and tuple(outputs[0].shape) in self._weight_shapes:
            return  # the gradients of a shared weight: they do not grow with the batch
        fresh = [tensor for tensor in inputs if identity(tensor) not in self.sources]
        call.backward_elements += self._moved(func, inputs, outputs)
        call.work_elements = max(call.work_elements, sum(map(self.elements, (*fresh, *outputs))))

    def _unit(self, tensor: Tensor) -> int:
        return self.item_bytes if tensor.is_floating_point() else 2

    def _active(self, tensors: Iterable[Tensor]) -> tuple[View, ...]:
        return tuple(view_of(one) for one in tensors if one.requires_grad and self._source(one).from_batch)

    def _source(self, tensor: Tensor) -> Source:
        """What is known of the tensor's memory; what nothing here wrote is a constant."""
        return self.sources.setdefault(identity(tensor), _source_of(tensor, from_batch=False))

    def _use(self, tensors: Iterable[Tensor]) -> None:
        running = len(self.segments) - 1
        for tensor in tensors:
            source = self._source(tensor)
            if source.from_batch and tensor.requires_grad and source.segment != running:
                source.uses.setdefault(running, set()).add(view_of(tensor))

    def _made(self, outputs: Iterable[Tensor], *, from_batch: bool) -> None:
        for tensor in outputs:
            before = self.sources.get(identity(tensor))
            if before is not None:
                self.closed.append(before)
            self.sources[identity(tensor)] = _source_of(
                tensor,
                segment=len(self.segments) - 1,
                from_batch=from_batch or (before is not None and before.from_batch),
            )

    def _moved(self, func: Any, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> float:
        """Elements that a memory operation reads and writes."""
        written = sum(map(self.elements, outputs))
        if func in _LOOKUPS:
            return 2 * written + sum(map(self.elements, inputs[1:]))
        if func in _PICKS:
            return written + self.elements(inputs[_PICKS[func]])
        return written + sum(map(self.elements, inputs))

    def _save(self, tensor: Tensor) -> Tensor:
        storage = identity(tensor)
        if self._source(tensor).from_batch and storage not in self._parameters and storage not in self._saved:
            self._saved.add(storage)
            elements = tensor.untyped_storage().nbytes() / self._unit(tensor)
            is_single = tensor.is_floating_point() and tensor.element_size() > self.item_bytes
            self.segments[-1].saved.append(Saved(storage, elements, is_single))
        return tensor


def _running_node() -> int:
    """The number of the autograd node that the running forward call made."""
    following: int = torch._C._autograd._get_sequence_nr()  # noqa: SLF001
    return following - 1


def identity(tensor: Tensor) -> int:
    """Tensors that share memory have the same identity, on the meta device too, where addresses are all zero."""
    found: int = tensor.untyped_storage()._cdata  # noqa: SLF001
    return found


def _source_of(tensor: Tensor, *, segment: int = -1, from_batch: bool) -> Source:
    return Source(tensor.untyped_storage(), tensor.element_size(), segment, from_batch)


def view_of(tensor: Tensor) -> View:
    """Where `tensor` lies."""
    return View(identity(tensor), int(tensor.storage_offset()), tuple(tensor.shape), tuple(tensor.stride()))


def _distinct(tensor: Tensor) -> int:
    """Elements that lie in different places: an expanded dimension is one."""
    return prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)


def _compute_bytes(model: nn.Module) -> int:
    """Of one element of the type that most parameters have."""
    sizes = Counter[int]()
    for parameter in model.parameters():
        sizes[parameter.element_size()] += parameter.numel()
    return sizes.most_common(1)[0][0] if sizes else 4
