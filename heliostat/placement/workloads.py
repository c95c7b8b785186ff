"""Transformers as chains of blocks, from their hyperparameters alone: GPT, MPT, Llama, encoders like BERT.

The operations are those of the common implementations; `attention` and `fused` say which. Element counts of memory
operations are what each kernel reads and writes.
"""

from functools import lru_cache
from typing import Literal

from pydantic import PositiveInt

from heliostat.placement.blocks import Block, Op, SavedActivations, WorkloadProfile
from heliostat.values import Frozen

NORM_BACKWARD = 5.0
"""Elements per element: input and gradient in, gradient out, and both once more for the gradients of the scale."""


LOSS_PASSES = {"fused": (2.0, 2.0), "float": (7.0, 9.0), "parallel": (16.0, 9.0)}
"""Elements per logit that the loss reads and writes, forward and backward; a 32-bit number counts as two. Float: copy,
log-softmax, its backward pass, copy back. Parallel: copy, maximum, subtraction, exponential, sum, division (Megatron-LM
core/tensor_parallel/cross_entropy.py)."""

LOSS_BYTES = {"fused": (2.0, 2.0), "float": (6.0, 8.0), "parallel": (6.0, 12.0)}
"""Bytes per logit that are saved, and those that the backward pass needs beside them. Float: half-precision logits and
32-bit log-softmax, then its gradient and that of its input. Parallel: one more 32-bit copy."""


class Transformer(Frozen):
    """Hyperparameters of a decoder or encoder of equal layers."""

    name: str
    hidden: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    seq_len: PositiveInt
    vocabulary: PositiveInt
    feed_forward: PositiveInt | None = None
    """Inner width; 4 x hidden if None."""
    kv_heads: PositiveInt | None = None
    """Fewer than heads: grouped-query attention."""
    gated: bool = False
    """SwiGLU: three matrices instead of two."""
    bias: Literal["none", "fused", "separate"] = "separate"
    """Of the matrix products: none, added by the product's own kernel or the one after it, or by a pass of its own."""
    norm: Literal["layer", "rms"] = "layer"
    positions: Literal["learned", "none"] = "learned"
    tied: bool = True
    """The output layer shares the embedding's matrix."""
    dropout: bool = False
    causal: bool = True
    attention: Literal["eager", "flash"] = "flash"
    """Eager writes the scores to memory; flash does not (Dao et al. 2022)."""
    fused: bool = False
    """A compiler, or fused kernels, joins neighbouring memory operations."""
    loss: Literal["fused", "float", "parallel"] = "float"
    """One kernel on half-precision logits; PyTorch's on a 32-bit copy; Megatron-LM's vocabulary-parallel one."""
    selective: Literal["attention", "pointwise"] = "attention"
    """What selective recomputation redoes: the attention core (Korthikanti et al. 2022), or all but the attention and
    every second matrix product (torchtitan, `selective_ac_option = op`)."""

    @property
    def inner(self) -> int:
        """Width of the feed-forward part."""
        return self.feed_forward or 4 * self.hidden

    @property
    def kv_width(self) -> int:
        """Width of keys, and of values."""
        return self.hidden // self.heads * (self.kv_heads or self.heads)


@lru_cache(maxsize=4096)
def transformer(shape: Transformer) -> WorkloadProfile:
    """The chain: embedding, `layers` equal layers, head."""
    return WorkloadProfile(
        name=shape.name, seq_len=shape.seq_len, blocks=(_embedding(shape), _layer(shape), _head(shape))
    )


def _norm_parameters(shape: Transformer) -> int:
    return shape.hidden * (2 if shape.norm == "layer" else 1)


def _product(name: str, shape: Transformer, n: int, k: int, **fields: object) -> Op:
    """A matrix product with its bias: a pass that writes and one that reads it; backward sums the output's gradient."""
    outputs = float(shape.seq_len * n)
    return Op.model_validate(
        {
            "name": name,
            "kind": "matmul",
            "rows": shape.seq_len,
            "n": n,
            "k": k,
            "elements": 2.0 * outputs if shape.bias == "separate" else 0.0,
            "backward_elements": 0.0 if shape.bias == "none" else outputs,
            **fields,
        }
    )


def _memory(name: str, forward: float, backward: float, **fields: object) -> Op:
    return Op.model_validate(
        {"name": name, "kind": "memory", "elements": forward, "backward_elements": backward, **fields}
    )


def _embedding(shape: Transformer) -> Block:
    width = shape.seq_len * shape.hidden
    table = shape.vocabulary * shape.hidden
    positions = shape.seq_len * shape.hidden if shape.positions == "learned" else 0
    return Block(
        name="embedding",
        num_parameters=table + positions,
        split_parameters=table,
        ops=(_memory("embedding", 4.0 * width, 6.0 * width, launches=6),),
        saved=SavedActivations(replicated=width if shape.dropout else 0.0, split=0.0),
        boundary_elements=width,
        tensor_collectives=1,
        recomputable=False,
        largest_tensor_parallel=shape.vocabulary,
    )


def _layer(shape: Transformer) -> Block:
    s, h, inner, kv = shape.seq_len, shape.hidden, shape.inner, shape.kv_width
    width = s * h
    matrices = h * (h + 2 * kv) + h * h + (3 if shape.gated else 2) * h * inner
    split_biases = (h + 2 * kv + inner * (2 if shape.gated else 1)) if shape.bias != "none" else 0
    whole = 2 * _norm_parameters(shape) + (2 * h if shape.bias != "none" else 0)
    return Block(
        name="layer",
        count=shape.layers,
        num_parameters=matrices + split_biases + whole,
        split_parameters=matrices + split_biases,
        ops=(*_attention_ops(shape), *_feed_forward_ops(shape)),
        saved=_layer_saved(shape),
        boundary_elements=width,
        tensor_collectives=2,
        largest_tensor_parallel=shape.kv_heads or shape.heads,
    )


def _attention_ops(shape: Transformer) -> tuple[Op, ...]:
    s, h, kv, width = shape.seq_len, shape.hidden, shape.kv_width, shape.seq_len * shape.hidden
    pointwise = shape.selective == "pointwise"
    scale = 0.5 if shape.fused else 1.0
    rotary = shape.positions == "none"
    qkv = float(s * (h + 2 * kv))
    return (
        _memory("norm", 2.0 * width, NORM_BACKWARD * width, split="sequence", selective=pointwise),
        _product("qkv", shape, h + 2 * kv, h, split="column", launches=2, selective=pointwise),
        _memory(
            "rotary" if rotary else "layout",
            (4.0 if rotary else 2.0) * scale * qkv,
            (4.0 if rotary else 2.0) * scale * qkv,
            split="heads",
            launches=6 if rotary and not shape.fused else 3,
            selective=pointwise,
        ),
        *_core_ops(shape),
        _product("projection", shape, h, h, split="row"),
        _memory(
            "add",
            (3.5 if shape.dropout else 3.0) * width * scale,
            (2.5 if shape.dropout else 2.0) * width * scale,
            split="sequence",
            selective=pointwise,
        ),
    )


def _core_ops(shape: Transformer) -> tuple[Op, ...]:
    s, d = shape.seq_len, shape.hidden // shape.heads
    if shape.attention == "flash":
        return (
            Op(
                name="attention",
                kind="attention",
                rows=s,
                n=s,
                k=d,
                batch=shape.heads,
                split="heads",
                causal=shape.causal,
                has_weight=False,
                launches=2,
                selective=shape.selective == "attention",
            ),
        )
    scores = float(shape.heads * s * s)
    core = {"split": "heads", "selective": shape.selective == "attention"}
    product = {"kind": "matmul", "rows": s, "batch": shape.heads, "has_weight": False, **core}
    return (
        Op.model_validate({"name": "scores", "n": s, "k": d, "launches": 2, **product}),
        _memory("softmax", 2.0 * scores, 3.0 * scores, **core),
        *((_memory("dropout", 2.5 * scores, 2.5 * scores, launches=3, **core),) if shape.dropout else ()),
        Op.model_validate({"name": "context", "n": d, "k": s, "launches": 2, **product}),
        _memory("layout", 2.0 * s * shape.hidden, 2.0 * s * shape.hidden, split="heads"),
    )


def _feed_forward_ops(shape: Transformer) -> tuple[Op, ...]:
    s, h, inner, width = shape.seq_len, shape.hidden, shape.inner, shape.seq_len * shape.hidden
    pointwise = shape.selective == "pointwise"
    scale = 0.5 if shape.fused else 1.0
    up = 2 if shape.gated else 1
    return (
        _memory("norm", 2.0 * width, NORM_BACKWARD * width, split="sequence", selective=pointwise),
        _product("up", shape, up * inner, h, split="column", launches=up, selective=pointwise),
        _memory(
            "activation",
            (5.0 if shape.gated and not shape.fused else up + 1.0) * s * inner,
            (7.0 if shape.gated and not shape.fused else 2.0 * up + 1.0) * s * inner,
            split="heads",
            launches=up,
            selective=pointwise,
        ),
        _product("down", shape, h, inner, split="row"),
        _memory(
            "add",
            (3.5 if shape.dropout else 3.0) * width * scale,
            (2.5 if shape.dropout else 2.0) * width * scale,
            split="sequence",
            selective=pointwise,
        ),
    )


def _layer_saved(shape: Transformer) -> SavedActivations:
    s, h, kv, inner = shape.seq_len, shape.hidden, shape.kv_width, shape.inner
    width = 2.0 * s * h
    mask = s * h if shape.dropout else 0.0
    # inputs of both norms and of both column-split products, and the masks of both dropouts
    replicated = 4 * width + 2 * mask
    qkv_and_context = 2.0 * s * (h + 2 * kv) + width
    up = 2.0 * s * inner * (3 if shape.gated else 2)
    scores = shape.heads * s * s * (5.0 if shape.dropout else 4.0) if shape.attention == "eager" else 0.0
    # the input, and the outputs of the attention and of every second of q, k, v, projection, up, gate, down
    kept = 2 * width + 2.0 * s * (2 * h + inner + kv)
    return SavedActivations(
        replicated=replicated,
        split=qkv_and_context + up,
        core=scores,
        boundary=width,
        selective=kept if shape.selective == "pointwise" else None,
    )


def _head(shape: Transformer) -> Block:
    s, h, v = shape.seq_len, shape.hidden, shape.vocabulary
    logits = float(s * v)
    forward, backward = LOSS_PASSES[shape.loss]
    saved, work = LOSS_BYTES[shape.loss]
    return Block(
        name="head",
        num_parameters=_norm_parameters(shape) + (0 if shape.tied else h * v),
        split_parameters=0 if shape.tied else h * v,
        ops=(
            _memory("norm", 2.0 * s * h, NORM_BACKWARD * s * h, split="sequence"),
            Op(name="logits", kind="matmul", rows=s, n=v, k=h, split="column"),
            _memory(
                "loss",
                forward * logits,
                backward * logits,
                split="heads",
                launches=12 if shape.loss == "parallel" else 4,
            ),
        ),
        saved=SavedActivations(replicated=4.0 * s * h, split=saved * logits, work=work * logits),
        boundary_elements=s,
        recomputable=False,
        largest_tensor_parallel=v,
    )
