"""What the layers of all transformer families have in common, and their operations. Pure.

The operations are those of the common implementations; `attention` and `fused` say which. Element counts of memory
operations are what each kernel reads and writes.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple, Self

from pydantic import PositiveInt, model_validator

from heliostat.placement.workload import Op, SavedActivations
from heliostat.values import Frozen

NORM_BACKWARD = 5.0
"""Elements per element: input and gradient in, gradient out, and both once more for the gradients of the scale."""

LOSS_PASSES = {"fused": (2.0, 2.0), "float": (7.0, 9.0), "parallel": (16.0, 9.0)}
"""Elements per logit that the loss reads and writes, forward and backward; a 32-bit number counts as two. Float: copy,
log-softmax, its backward pass, copy back. Parallel: copy, maximum, subtraction, exponential, sum, division (Megatron-LM
core/tensor_parallel/cross_entropy.py)."""

LOSS_BYTES = {"fused": (2.0, 0.0, 2.0), "float": (2.0, 4.0, 8.0), "parallel": (2.0, 4.0, 12.0)}
"""Bytes per logit that are saved in half precision, in 32 bits, and that the backward pass needs beside them. Float:
logits and log-softmax, then its gradient and that of its input. Parallel: one more 32-bit copy."""

Loss = Literal["fused", "float", "parallel"]


class Contradiction(ValueError):
    """Hyperparameters that do not fit together: each with what is wrong with it."""

    def __init__(self, *found: tuple[str, str]) -> None:
        super().__init__("; ".join(f"{field} {message}" for field, message in found))
        self.found = found


class LayerShape(Frozen):
    """Hyperparameters of equal layers; `layers` counts those of a decoder alone, or of an encoder."""

    name: str
    hidden: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    feed_forward: PositiveInt | None = None
    """Inner width; 4 x hidden if None."""
    head_width: PositiveInt | None = None
    """hidden / heads if None."""
    kv_heads: PositiveInt | None = None
    """Fewer than heads: grouped-query attention."""
    gated: bool = False
    """SwiGLU: three matrices instead of two."""
    bias: Literal["none", "fused", "separate"] = "separate"
    """Of the matrix products: none, added by the product's own kernel or the one after it, or by a pass of its own."""
    norm: Literal["layer", "rms"] = "layer"
    dropout: bool = False
    attention: Literal["eager", "flash"] = "flash"
    """Eager writes the scores to memory; flash does not (Dao et al. 2022)."""
    fused: bool = False
    """A compiler, or fused kernels, joins neighbouring memory operations."""
    loss: Loss = "float"
    """One kernel on half-precision logits; PyTorch's on a 32-bit copy; Megatron-LM's vocabulary-parallel one."""
    selective: Literal["attention", "pointwise"] = "attention"
    """What selective recomputation redoes: the attention core (Korthikanti et al. 2022), or all but the attention and
    every second matrix product (torchtitan, `selective_ac_option = op`)."""

    @property
    def inner(self) -> int:
        """Width of the feed-forward part."""
        return self.feed_forward or 4 * self.hidden

    @property
    def one_head(self) -> int:
        """Width of one head."""
        return self.head_width or self.hidden // self.heads

    @property
    def query_width(self) -> int:
        """Width of all queries together."""
        return self.heads * self.one_head

    @property
    def kv_width(self) -> int:
        """Width of keys, and of values."""
        return self.one_head * (self.kv_heads or self.heads)

    @property
    def norm_parameters(self) -> int:
        """Of one norm."""
        return self.hidden * (2 if self.norm == "layer" else 1)

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Fields that do not fit to others, and why."""
        if self.head_width is None and self.hidden % self.heads:
            yield "heads", f"must divide hidden: {self.hidden} / {self.heads} is not a whole number"
        if self.kv_heads and self.heads % self.kv_heads:
            yield "kv_heads", f"must divide heads: {self.heads} / {self.kv_heads} is not a whole number"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        found = tuple(self.contradictions())
        if found:
            raise Contradiction(*found)
        return self


class Part(NamedTuple):
    """Part of a layer: its operations, parameters, and bytes saved per sample."""

    ops: tuple[Op, ...]
    split_parameters: int
    whole_parameters: int
    """Every rank of a tensor-parallel group has these."""
    replicated: float
    split: float
    core: float = 0.0


def memory(name: str, forward: float, backward: float, **fields: object) -> Op:
    """A memory operation that reads and writes `forward` and `backward` elements."""
    return Op.model_validate(
        {"name": name, "kind": "memory", "elements": forward, "backward_elements": backward, **fields}
    )


def product(name: str, shape: LayerShape, rows: int, n: int, k: int, **fields: object) -> Op:
    """A matrix product with its bias: a pass that writes and one that reads it; backward sums the output's gradient."""
    outputs = float(rows * n)
    return Op.model_validate(
        {
            "name": name,
            "kind": "matmul",
            "rows": rows,
            "n": n,
            "k": k,
            "elements": 2.0 * outputs if shape.bias == "separate" else 0.0,
            "backward_elements": 0.0 if shape.bias == "none" else outputs,
            **fields,
        }
    )


def norm(shape: LayerShape, tokens: int, *, selective: bool = False) -> Op:
    """A norm of `tokens` tokens."""
    width = tokens * shape.hidden
    return memory("norm", 2.0 * width, NORM_BACKWARD * width, split="sequence", selective=selective)


def add(shape: LayerShape, tokens: int) -> Op:
    """The residual, with dropout before it."""
    width = tokens * shape.hidden * (0.5 if shape.fused else 1.0)
    return memory(
        "add",
        (3.5 if shape.dropout else 3.0) * width,
        (2.5 if shape.dropout else 2.0) * width,
        split="sequence",
        selective=shape.selective == "pointwise",
    )


def attention(
    shape: LayerShape, tokens: int, *, causal: bool, rotary: bool = False, biased_scores: bool = False
) -> Part:
    """Attention of `tokens` tokens to each other, with its norm and residual."""
    pointwise = shape.selective == "pointwise"
    h, q, kv = shape.hidden, shape.query_width, shape.kv_width
    passes = (4.0 if rotary else 2.0) * (0.5 if shape.fused else 1.0) * tokens * (q + 2 * kv)
    biased = shape.bias != "none"
    return Part(
        ops=(
            norm(shape, tokens, selective=pointwise),
            product("qkv", shape, tokens, q + 2 * kv, h, split="column", launches=2, selective=pointwise),
            memory(
                "rotary" if rotary else "layout",
                passes,
                passes,
                split="heads",
                launches=6 if rotary and not shape.fused else 3,
                selective=pointwise,
            ),
            *_core(shape, tokens, tokens, causal=causal, biased_scores=biased_scores),
            product("projection", shape, tokens, h, q, split="row"),
            add(shape, tokens),
        ),
        split_parameters=h * (q + 2 * kv) + q * h + ((q + 2 * kv) if biased else 0),
        whole_parameters=shape.norm_parameters + (h if biased else 0),
        replicated=_around(shape, tokens),
        split=2.0 * tokens * (q + 2 * kv) + 2.0 * tokens * q,
        core=_scores_bytes(shape, tokens, tokens),
    )


def cross_attention(shape: LayerShape, tokens: int, keys: int) -> Part:
    """Attention of `tokens` tokens to `keys` of another sequence, which is kept elsewhere."""
    pointwise = shape.selective == "pointwise"
    h, q, kv = shape.hidden, shape.query_width, shape.kv_width
    passes = 2.0 * (0.5 if shape.fused else 1.0) * (tokens * q + 2 * keys * kv)
    biased = shape.bias != "none"
    return Part(
        ops=(
            norm(shape, tokens, selective=pointwise),
            product("q", shape, tokens, q, h, split="column", selective=pointwise),
            product("kv", shape, keys, 2 * kv, h, split="column", selective=pointwise),
            memory("layout", passes, passes, split="heads", launches=3, selective=pointwise),
            *_core(shape, tokens, keys, causal=False),
            product("projection", shape, tokens, h, q, split="row"),
            add(shape, tokens),
        ),
        split_parameters=h * (q + 2 * kv) + q * h + ((q + 2 * kv) if biased else 0),
        whole_parameters=shape.norm_parameters + (h if biased else 0),
        replicated=_around(shape, tokens),
        split=2.0 * (tokens * q + 2 * keys * kv) + 2.0 * tokens * q,
        core=_scores_bytes(shape, tokens, keys),
    )


def feed_forward(shape: LayerShape, tokens: int) -> Part:
    """The two or three matrices, with their norm and residual."""
    h, inner, up = shape.hidden, shape.inner, 2 if shape.gated else 1
    pointwise = shape.selective == "pointwise"
    biased = shape.bias != "none"
    return Part(
        ops=(
            norm(shape, tokens, selective=pointwise),
            product("up", shape, tokens, up * inner, h, split="column", launches=up, selective=pointwise),
            activation(shape, tokens),
            product("down", shape, tokens, h, inner, split="row"),
            add(shape, tokens),
        ),
        split_parameters=(up + 1) * h * inner + (up * inner if biased else 0),
        whole_parameters=shape.norm_parameters + (h if biased else 0),
        replicated=_around(shape, tokens),
        split=activation_bytes(shape, tokens),
    )


def activation_bytes(shape: LayerShape, tokens: int) -> float:
    """What is kept between the matrices: inputs and outputs of the activation, and of the gate's product."""
    up, eager_gate = 2 if shape.gated else 1, shape.gated and not shape.fused
    return 2.0 * tokens * shape.inner * (up + (2 if eager_gate else 1))


def activation(shape: LayerShape, tokens: int) -> Op:
    """Between the matrices; gated: that of one half times the other."""
    up, eager_gate = 2 if shape.gated else 1, shape.gated and not shape.fused
    return memory(
        "activation",
        (5.0 if eager_gate else up + 1.0) * tokens * shape.inner,
        (7.0 if eager_gate else 2.0 * up + 1.0) * tokens * shape.inner,
        split="heads",
        launches=up,
        selective=shape.selective == "pointwise",
    )


def embedding(tokens: int, hidden: int) -> Op:
    """Looking up tokens and adding positions."""
    width = tokens * hidden
    return memory("embedding", 4.0 * width, 6.0 * width, launches=6)


def loss_ops(shape: LayerShape, rows: int, outputs: int) -> tuple[Op, Op]:
    """The last product and the loss on its `rows` x `outputs` logits."""
    logits = float(rows * outputs)
    forward, backward = LOSS_PASSES[shape.loss]
    return (
        Op(name="logits", kind="matmul", rows=rows, n=outputs, k=shape.hidden, split="column"),
        memory(
            "loss", forward * logits, backward * logits, split="heads", launches=12 if shape.loss == "parallel" else 4
        ),
    )


def saved(shape: LayerShape, tokens: int, *parts: Part) -> SavedActivations:
    """What a layer of these parts keeps; its input has `tokens` tokens."""
    width = 2.0 * tokens * shape.hidden
    # the input, and the outputs of the attention and of every second of q, k, v, projection, up, gate, down
    kept = 2 * width + 2.0 * tokens * (shape.query_width + shape.hidden + shape.inner + shape.kv_width)
    return SavedActivations(
        replicated=sum(part.replicated for part in parts),
        split=sum(part.split for part in parts),
        core=sum(part.core for part in parts),
        boundary=width,
        selective=kept if shape.selective == "pointwise" else None,
    )


def loss_saved(shape: LayerShape, tokens: int, logits: float) -> SavedActivations:
    """What a head keeps: the inputs of norm and product, and the loss."""
    half, single, work = LOSS_BYTES[shape.loss]
    width = 2.0 * tokens * shape.hidden
    return SavedActivations(
        replicated=2 * width, split=half * logits, single=single * logits, work=work * logits, boundary=width
    )


def _around(shape: LayerShape, tokens: int) -> float:
    """Inputs of the norm and of the column-split product, and the dropout's mask."""
    return (5.0 if shape.dropout else 4.0) * tokens * shape.hidden


def _scores_bytes(shape: LayerShape, tokens: int, keys: int) -> float:
    return shape.heads * tokens * keys * (5.0 if shape.dropout else 4.0) if shape.attention == "eager" else 0.0


def _core(shape: LayerShape, tokens: int, keys: int, *, causal: bool, biased_scores: bool = False) -> tuple[Op, ...]:
    d, redone = shape.one_head, shape.selective == "attention"
    if shape.attention == "flash":
        return (
            Op(
                name="attention",
                kind="attention",
                rows=tokens,
                n=keys,
                k=d,
                batch=shape.heads,
                split="heads",
                causal=causal,
                has_weight=False,
                launches=2,
                selective=redone,
            ),
        )
    scores = float(shape.heads * tokens * keys)
    core = {"split": "heads", "selective": redone}
    both = {"kind": "matmul", "rows": tokens, "batch": shape.heads, "has_weight": False, "launches": 2, **core}
    joined = 2.0 * tokens * shape.query_width
    return (
        Op.model_validate({"name": "scores", "n": keys, "k": d, **both}),
        *((memory("position bias", 2.0 * scores, scores, **core),) if biased_scores else ()),
        memory("softmax", 2.0 * scores, 3.0 * scores, **core),
        *((memory("dropout", 2.5 * scores, 2.5 * scores, launches=3, **core),) if shape.dropout else ()),
        Op.model_validate({"name": "context", "n": d, "k": keys, **both}),
        memory("layout", joined, joined, split="heads"),
    )
