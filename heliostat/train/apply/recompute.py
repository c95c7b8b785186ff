"""Activations made again in the backward pass instead of kept (Chen et al. 2016)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from heliostat.placement.strategy import Recompute

_aten = torch.ops.aten
CORE = frozenset({
    _aten.bmm.default, _aten.baddbmm.default, _aten._softmax.default, _aten._safe_softmax.default,  # noqa: SLF001
    _aten.native_dropout.default, _aten.masked_fill.Scalar, _aten.where.self, _aten.where.ScalarOther,
})  # fmt: skip
"""Operations of an attention that is not fused: large results that cost little (Korthikanti et al. 2022, section 5).
Fused attention keeps none of them."""


def recomputed(forward: Callable[..., Any], recompute: Recompute) -> Callable[..., Any]:
    """`forward` with its activations made again: all of them, or with `selective` those of the attention's core."""
    selectively = partial(create_selective_checkpoint_contexts, _policy)

    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        if recompute == "full":
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, context_fn=selectively, **kwargs)

    return run


def _policy(_: Any, operation: Any, *__: Any, **___: Any) -> CheckpointPolicy:
    return CheckpointPolicy.PREFER_RECOMPUTE if operation in CORE else CheckpointPolicy.MUST_SAVE
