"""How a division of a product's columns runs through the memory of the operations after it.

It is told by strides: a product's columns lie at strides 1 to n, and an axis of a later view lies along them as far as
its strides do. Attention leaves only the heads of them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch

from heliostat.train.profiling.record import Call, View

_aten = torch.ops.aten
Span = tuple[int, int]
"""Strides from, to exclusive; of an axis in units of its own stride."""

_ALONG_AXIS = {_aten._softmax.default, _aten._safe_softmax.default, _aten._log_softmax.default}  # noqa: SLF001
_REDUCTIONS = {_aten.mean.dim, _aten.sum.dim_IntList, _aten.amax.default}
_NORMS = {_aten.native_layer_norm.default, _aten._fused_rms_norm.default}  # noqa: SLF001
_ROW_WISE = {_aten.native_dropout.default, _aten._to_copy.default, *_NORMS}  # noqa: SLF001
_LIKE_POINTWISE = {_aten.cat.default}


class Layout:
    """Where the division may run through the memory of one region."""

    def __init__(self) -> None:
        self.limit = 1 << 30
        self._spans: dict[int, tuple[Span, ...]] = {}

    def starts(self, product: Call) -> None:
        """The columns of `product`."""
        view = product.outputs[0]
        axis = _feature_axis(product, view)
        stride = view.strides[axis]
        self._spans[view.storage] = ((stride, stride * view.shape[axis]),)

    def ends(self, product: Call) -> bool:
        """Whether the depth of `product` is divided."""
        view = product.inputs[0]
        return self._keeps(self._of(view, _feature_axis(product, view)))

    def passes(self, call: Call) -> bool:
        """Whether `call` works on the parts alone."""
        known = [view for view in call.inputs if view.storage in self._spans]
        if not known:
            return not call.outputs
        if call.product is not None:
            axis = -3 if call.product.is_attention else 0
            common = _common(self._of(view, axis) for view in call.inputs)
            self._write(call.outputs, lambda view: {axis % len(view.shape): common} if len(view.shape) > 2 else {})
            return self._keeps(common)
        if not (is_row_wise(call) or call.overload in _LIKE_POINTWISE | _ALONG_AXIS | _REDUCTIONS):
            return False
        return self._passes_pointwise(call, known)

    def _passes_pointwise(self, call: Call, known: Sequence[View]) -> bool:
        dims = max(len(view.shape) for view in known)
        mixed = _mixed_axes(call, dims)
        spans = {}
        for axis in range(dims):
            # axes are counted from the last one, as broadcasting does
            there = [view for view in known if axis < len(view.shape)]
            common = _common(self._of(view, len(view.shape) - 1 - axis) for view in there)
            if common and axis not in mixed:
                spans[axis] = common
        keeps_axes = len(call.outputs[0].shape) == dims
        self._write(
            call.outputs,
            lambda view: {
                len(view.shape) - 1 - (axis if keeps_axes else axis - sum(one < axis for one in mixed)): common
                for axis, common in spans.items()
            },
        )
        return bool(spans)

    def _write(self, outputs: Iterable[View], axes: Callable[[View], Mapping[int, tuple[Span, ...]]]) -> None:
        for view in outputs:
            spans = [
                (start * view.strides[axis], end * view.strides[axis])
                for axis, found in axes(view).items()
                if 0 <= axis < len(view.shape) and view.shape[axis] > 1
                for start, end in found
            ]
            self._spans[view.storage] = tuple(spans)

    def _of(self, view: View, axis: int) -> tuple[Span, ...]:
        """Where the division may run along one axis of `view`."""
        stride, size = view.strides[axis], view.shape[axis]
        if not stride or size == 1:
            return ()
        cut = ((max(start, stride), min(end, stride * size)) for start, end in self._spans.get(view.storage, ()))
        return tuple((start // stride, end // stride) for start, end in cut if start < end)

    def _keeps(self, spans: Sequence[Span]) -> bool:
        """Whether any is left; the widest says how many ranks can share it."""
        self.limit = min(self.limit, max((end // start for start, end in spans), default=1))
        return bool(spans)


def _feature_axis(product: Call, view: View) -> int:
    if product.overload is _aten.convolution.default:
        return 1
    assert product.product is not None
    return len(view.shape) - (2 if product.product.weight_first else 1)


def _common(spans: Iterable[tuple[Span, ...]]) -> tuple[Span, ...]:
    """What all have in common."""
    found: tuple[Span, ...] | None = None
    for one in spans:
        if found is None:
            found = one
            continue
        pairs = ((max(a, c), min(b, d)) for a, b in found for c, d in one)
        found = tuple(sorted({(start, end) for start, end in pairs if start < end}))
    return found or ()


def _mixed_axes(call: Call, dims: int) -> set[int]:
    """Axes, counted from the last, along which `call` needs all of its input."""
    if call.overload in _NORMS:
        return set(range(len(call.constants[1])))
    if call.overload in _ALONG_AXIS or call.overload in _REDUCTIONS:
        named = call.constants[1] if len(call.constants) > 1 else None
        axes = range(dims) if named is None else named if isinstance(named, Sequence) else [named]
        return {dims - 1 - axis % dims for axis in axes}
    return set()


def is_row_wise(call: Call) -> bool:
    """Whether a memory operation works on every token alone."""
    if call.overload is None:
        return False
    if call.overload in _REDUCTIONS:
        return _mixed_axes(call, len(call.inputs[0].shape) if call.inputs else 1) == {0}
    return call.is_view or call.overload in _ROW_WISE or torch.Tag.pointwise in call.overload.tags
