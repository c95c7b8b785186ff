"""Activations made again in the backward pass instead of kept (Chen et al. 2016)."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

# What selective recomputation keeps its tensors in.
from torch.utils.checkpoint import (
    CheckpointPolicy,
    _VersionWrapper,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from heliostat.placement.strategy import Recompute

_aten = torch.ops.aten
CORE = frozenset({
    _aten.bmm.default, _aten.baddbmm.default, _aten._softmax.default, _aten._safe_softmax.default,  # noqa: SLF001
    _aten.native_dropout.default, _aten.masked_fill.Scalar, _aten.where.self, _aten.where.ScalarOther,
})  # fmt: skip
"""Operations of an attention that is not fused: large results that cost little (Korthikanti et al. 2022, section 5).
Fused attention keeps none of them."""
EMPTY = frozenset({_aten.empty.memory_format, _aten.empty_like.default})
"""Tensors that an operation in place is about to fill."""


def recomputed(
    forward: Callable[..., Any],
    recompute: Recompute,
    *,
    in_two: bool = False,
    buffers: Callable[[], Iterable[Tensor]] = tuple,
) -> Callable[..., Any]:
    """`forward` with its activations made again: all of them, or with `selective` those of the attention's core.

    Args:
        forward: of a module.
        recompute: what is made again.
        in_two: whether there are two backward passes, for the gradients of inputs and of parameters. Activations are
            made again in both.
        buffers: of the module; making activations again leaves them alone.
    """

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        if recompute == "full":
            return nullcontext(), _Again(nullcontext(), buffers())
        first, again = create_selective_checkpoint_contexts(_policy)  # type: ignore[no-untyped-call]
        return first, _Again(_Kept(again) if in_two else again, buffers())

    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)

    return run


def _policy(_: Any, operation: Any, *__: Any, **___: Any) -> CheckpointPolicy:
    """Whatever draws random numbers is made again too, or what follows would draw others; so is what dropout fills."""
    again = operation in CORE or operation in EMPTY or torch.Tag.nondeterministic_seeded in operation.tags
    changes = operation._schema.is_mutable  # noqa: SLF001
    return CheckpointPolicy.PREFER_RECOMPUTE if again or changes else CheckpointPolicy.MUST_SAVE


class _Again(AbstractContextManager[Any]):
    """A pass that makes activations again, and the buffers afterwards what they were."""

    def __init__(self, mode: AbstractContextManager[Any], buffers: Iterable[Tensor]) -> None:
        self._mode, self._buffers = mode, tuple(buffers)
        self._values: list[Tensor] = []

    def __enter__(self) -> Any:
        self._values = [one.detach().clone() for one in self._buffers]
        return self._mode.__enter__()

    def __exit__(self, *error: object) -> Any:
        done = self._mode.__exit__(*error)  # type: ignore[arg-type]
        for one, value in zip(self._buffers, self._values, strict=True):
            one.data.copy_(value)  # unseen by autograd, which has saved them
        return done


class _Kept(AbstractContextManager[Any]):
    """Lets recomputation find what was saved once more; torch hands each tensor out but once."""

    def __init__(self, mode: Any) -> None:
        self._mode = mode
        self._saved: dict[Any, dict[int, Any]] = {}

    def __enter__(self) -> Any:
        self._saved = {key: tree_map_only(_VersionWrapper, _renewed, one) for key, one in self._mode.storage.items()}
        return self._mode.__enter__()

    def __exit__(self, *error: object) -> Any:
        self._mode.storage.update(self._saved)
        return self._mode.__exit__(*error)


def _renewed(one: _VersionWrapper) -> _VersionWrapper:
    """The same values in a tensor that no graph knows."""
    return _VersionWrapper(one.val.data if isinstance(one.val, Tensor) else one.val)
