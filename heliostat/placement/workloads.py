"""Transformers as chains of blocks, from their hyperparameters alone: GPT, MPT, Llama, Mixtral, encoders like BERT."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from heliostat.placement import layers
from heliostat.placement.experts import Routing, expert_layer
from heliostat.placement.layers import LayerShape
from heliostat.placement.workload import Block, SavedActivations, WorkloadProfile


class Transformer(LayerShape):
    """A decoder or an encoder of equal layers."""

    seq_len: PositiveInt
    vocabulary: PositiveInt
    positions: Literal["learned", "none"] = "learned"
    tied: bool = True
    """The output layer shares the embedding's matrix."""
    causal: bool = True
    norm_first: bool = True
    """Each norm before its part of the layer and one before the output; else after it, and one after the embedding."""
    token_types: NonNegativeInt = 0
    """Rows of a second embedding, of the token's sentence."""
    head: Literal["linear", "transform"] = "linear"
    """The output layer alone, or as BERT's: a product, an activation and a norm before it, and biases."""
    experts: PositiveInt | None = None
    """Feed-forward parts per layer, of which each token takes `experts_per_token`."""
    experts_per_token: PositiveInt = 2
    capacity: PositiveFloat | None = None
    """Room of each expert, as a multiple of its even share; None: no token is dropped, and no room is empty."""

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Fields that do not fit to others, and why."""
        yield from super().contradictions()
        if self.experts and self.experts_per_token > self.experts:
            yield "experts_per_token", f"is {self.experts_per_token}, but there are {self.experts} experts"
        if self.capacity and not self.experts:
            yield "capacity", "is that of experts, and there are none"
        if self.experts and self.bias != "none":
            yield "bias", "must be none with experts"


@lru_cache(maxsize=4096)
def transformer(shape: Transformer) -> WorkloadProfile:
    """The chain: embedding, `layers` equal layers, head."""
    return WorkloadProfile(
        name=shape.name,
        seq_len=shape.seq_len,
        blocks=(_embedding(shape), _layer(shape), _head(shape)),
        tied_parameters=shape.vocabulary * shape.hidden if shape.tied else 0,
    )


def _embedding(shape: Transformer) -> Block:
    tokens, h = shape.seq_len, shape.hidden
    table = shape.vocabulary * h
    rows = shape.token_types + (tokens if shape.positions == "learned" else 0)
    norms = () if shape.norm_first else (layers.norm(shape, tokens),)
    return Block(
        name="embedding",
        num_parameters=table + rows * h + len(norms) * shape.norm_parameters,
        split_parameters=table,
        ops=(layers.embedding(tokens, h), *norms),
        saved=SavedActivations(
            replicated=(tokens * h if shape.dropout else 0.0) + 2.0 * tokens * h * len(norms), split=0.0
        ),
        boundary_elements=tokens * h,
        tensor_collectives=1,
        recomputable=False,
        largest_tensor_parallel=shape.vocabulary,
    )


def _layer(shape: Transformer) -> Block:
    tokens = shape.seq_len
    attention = layers.attention(shape, tokens, causal=shape.causal, rotary=shape.positions == "none")
    experts = None
    if shape.experts is None:
        feed_forward = layers.feed_forward(shape, tokens)
    else:
        routing = Routing(shape.experts, shape.experts_per_token, shape.capacity)
        feed_forward, experts = expert_layer(shape, tokens, routing)
    split = attention.split_parameters + feed_forward.split_parameters
    return Block(
        name="layer",
        count=shape.layers,
        num_parameters=split + attention.whole_parameters + feed_forward.whole_parameters,
        split_parameters=split,
        ops=(*attention.ops, *feed_forward.ops),
        saved=layers.saved(shape, tokens, attention, feed_forward),
        boundary_elements=tokens * shape.hidden,
        tensor_collectives=2,
        largest_tensor_parallel=shape.kv_heads or shape.heads,
        experts=experts,
    )


def _head(shape: Transformer) -> Block:
    tokens, h, v = shape.seq_len, shape.hidden, shape.vocabulary
    table = 0 if shape.tied else h * v
    transform = shape.head == "transform"
    own = h * h + h + shape.norm_parameters if transform else shape.norm_parameters if shape.norm_first else 0
    kept = layers.loss_saved(shape, tokens, float(tokens * v))
    before = (layers.norm(shape, tokens),) if transform or shape.norm_first else ()
    if transform:
        width = float(tokens * h)
        dense = layers.product("transform", shape, tokens, h, h)
        before = (dense, layers.memory("activation", 2.0 * width, 3.0 * width), *before)
        kept = kept.model_copy(update={"replicated": kept.replicated + 4.0 * width})
    bias = v if transform else 0
    return Block(
        name="head",
        num_parameters=table + own + bias,
        split_parameters=table + bias,
        ops=(*before, *layers.loss_ops(shape, tokens, v)),
        saved=kept,
        boundary_elements=0,
        recomputable=False,
        largest_tensor_parallel=v,
    )
