"""Kernels as accelerators have them, in place of how the meta device spells them out.

There attention is two products and a softmax, dropout four kernels with a mask of floats, and the root-mean-square norm
eight kernels in 32 bits. Accelerators have one kernel for each (Dao et al. 2022; `aten::native_dropout` with a mask of
bytes; `aten::_fused_rms_norm`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from heliostat.train.profiling.products import Product
from heliostat.train.profiling.record import Call, Recorder
from heliostat.train.profiling.watch import no_gradients, replaced

_attend = functional.scaled_dot_product_attention


@contextmanager
def accelerator_kernels(recorder: Recorder) -> Iterator[None]:
    """`torch.nn.functional` with one kernel each for attention, dropout and the root-mean-square norm."""
    own = {
        "scaled_dot_product_attention": partial(_attention, recorder),
        "dropout": _dropout,
        "rms_norm": partial(_rms_norm, recorder),
    }
    with replaced([(functional, name, stand_in) for name, stand_in in own.items()]):
        yield


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: A002, ARG001, FBT001, FBT002
    return torch.native_dropout(input, p, train=True)[0] if training and p else input


def _attention(
    recorder: Recorder,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,  # noqa: FBT001, FBT002
    **options: Any,
) -> Tensor:
    run = partial(_attend, dropout_p=dropout_p, is_causal=is_causal, **options)
    result: Tensor = _Attention.apply(recorder, run, query, key, value, attn_mask)  # type: ignore[no-untyped-call]
    return result


class _Attention(torch.autograd.Function):
    """Attention that keeps what a flash kernel keeps: its inputs, its result and a 32-bit number per query and head."""

    @staticmethod
    def forward(
        ctx: Any,
        recorder: Recorder,
        run: partial[Tensor],
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        with recorder.paused():
            result = run(query, key, value, attn_mask=mask)
            if result.dim() == 4:
                # the kernel writes a token's heads side by side, so that joining them copies nothing
                result = result.transpose(1, 2).contiguous().transpose(1, 2)
            sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        product = Product(
            rows=int(query.shape[-2]),
            n=int(key.shape[-2]),
            k=int(query.shape[-1] + value.shape[-1]) // 2,
            batch=int(query.shape[:-2].numel()),
            has_weight=False,
            is_attention=True,
            causal=bool(run.keywords["is_causal"]),
        )
        recorder.stand_for((query, key, value), (result, sums), Call("attention", product=product))
        ctx.save_for_backward(query, key, value, result, sums)
        ctx.recorder, ctx.inputs = recorder, (query, key, value, mask)
        return result

    @staticmethod
    def backward(ctx: Any, *_: Any) -> tuple[Tensor | None, ...]:
        return (None, None, *no_gradients(ctx))


def _rms_norm(
    recorder: Recorder,
    input: Tensor,  # noqa: A002
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: Any = None,
) -> Tensor:
    result: Tensor = _RmsNorm.apply(recorder, tuple(normalized_shape), eps, input, weight)  # type: ignore[no-untyped-call]
    return result


class _RmsNorm(torch.autograd.Function):
    """The norm that keeps its input and a 32-bit number per token."""

    @staticmethod
    def forward(
        ctx: Any, recorder: Recorder, shape: tuple[int, ...], eps: float | None, tokens: Tensor, weight: Tensor | None
    ) -> Tensor:
        with recorder.paused():
            result = torch.rms_norm(tokens, shape, weight, eps)
            scales = tokens.new_empty(tokens.shape[: -len(shape)], dtype=torch.float32)
        width = recorder.elements(tokens)
        call = Call("rms_norm", torch.ops.aten._fused_rms_norm.default, constants=(None, shape))  # noqa: SLF001
        call.weights = (weight,) if isinstance(weight, nn.Parameter) else ()
        call.elements, call.backward_elements = 2 * width + recorder.elements(scales), 3 * width
        recorder.stand_for((tokens,), (result, scales), call)
        ctx.save_for_backward(tokens, scales)
        ctx.recorder, ctx.inputs = recorder, (None, None, tokens, weight)
        return result

    @staticmethod
    def backward(ctx: Any, *_: Any) -> tuple[Tensor | None, ...]:
        return (None, *no_gradients(ctx))
