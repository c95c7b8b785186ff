"""Encoder-decoders as chains of blocks, from their hyperparameters alone: T5 (Raffel et al. 2020).

The chain is embedding, encoder layers, decoder embedding, decoder layers, head. From the decoder's embedding on every
boundary carries the encoder's output beside the decoder's own tokens.
"""

from functools import lru_cache

from pydantic import NonNegativeInt, PositiveInt

from heliostat.placement import layers
from heliostat.placement.layers import LayerShape
from heliostat.placement.workload import Block, SavedActivations, WorkloadProfile


class EncoderDecoder(LayerShape):
    """`layers` layers of an encoder, and a decoder that attends to its output."""

    seq_len: PositiveInt
    """Tokens that the encoder reads."""
    target_len: PositiveInt
    """Tokens that the decoder writes."""
    vocabulary: PositiveInt
    decoder_layers: PositiveInt | None = None
    """As many as `layers` if None."""
    position_buckets: NonNegativeInt = 32
    """Of relative positions, each with a number per head that is added to the scores; one table per stack."""
    tied: bool = True
    """The output layer shares the matrix of both embeddings."""


@lru_cache(maxsize=4096)
def encoder_decoder(shape: EncoderDecoder) -> WorkloadProfile:
    """The chain."""
    return WorkloadProfile(
        name=shape.name,
        seq_len=shape.seq_len,
        blocks=(_embedding(shape), _encoder(shape), _decoder_embedding(shape), _decoder(shape), _head(shape)),
        tied_parameters=shape.vocabulary * shape.hidden if shape.tied else 0,
    )


def _embedding(shape: EncoderDecoder) -> Block:
    width, table = shape.seq_len * shape.hidden, shape.vocabulary * shape.hidden
    return Block(
        name="embedding",
        num_parameters=table + shape.position_buckets * shape.heads,
        split_parameters=table,
        ops=(layers.embedding(shape.seq_len, shape.hidden),),
        saved=SavedActivations(replicated=width if shape.dropout else 0.0, split=0.0),
        boundary_elements=width,
        tensor_collectives=1,
        recomputable=False,
        largest_tensor_parallel=shape.vocabulary,
    )


def _encoder(shape: EncoderDecoder) -> Block:
    tokens = shape.seq_len
    attention = layers.attention(shape, tokens, causal=False, biased_scores=shape.position_buckets > 0)
    return _layer("encoder layer", shape, tokens, (attention, layers.feed_forward(shape, tokens)), shape.layers)


def _decoder(shape: EncoderDecoder) -> Block:
    tokens = shape.target_len
    parts = (
        layers.attention(shape, tokens, causal=True, biased_scores=shape.position_buckets > 0),
        layers.cross_attention(shape, tokens, shape.seq_len),
        layers.feed_forward(shape, tokens),
    )
    carried = shape.seq_len * shape.hidden
    return _layer("decoder layer", shape, tokens, parts, shape.decoder_layers or shape.layers, carried=carried)


def _layer(
    name: str, shape: EncoderDecoder, tokens: int, parts: tuple[layers.Part, ...], count: int, *, carried: int = 0
) -> Block:
    split = sum(part.split_parameters for part in parts)
    return Block(
        name=name,
        count=count,
        num_parameters=split + sum(part.whole_parameters for part in parts),
        split_parameters=split,
        ops=tuple(op for part in parts for op in part.ops),
        saved=layers.saved(shape, tokens, *parts),
        boundary_elements=carried + tokens * shape.hidden,
        carried_elements=carried,
        tensor_collectives=len(parts),
        largest_tensor_parallel=shape.kv_heads or shape.heads,
    )


def _decoder_embedding(shape: EncoderDecoder) -> Block:
    """The encoder's last norm, and the decoder's tokens from the same table: both together are handed on."""
    source, target = shape.seq_len * shape.hidden, shape.target_len * shape.hidden
    return Block(
        name="decoder embedding",
        num_parameters=shape.norm_parameters + shape.position_buckets * shape.heads,
        ops=(layers.norm(shape, shape.seq_len), layers.embedding(shape.target_len, shape.hidden)),
        saved=SavedActivations(
            replicated=2.0 * source + (source + target if shape.dropout else 0.0), split=0.0, boundary=2.0 * source
        ),
        boundary_elements=source + target,
        tensor_collectives=1,
        recomputable=False,
        largest_tensor_parallel=shape.vocabulary,
    )


def _head(shape: EncoderDecoder) -> Block:
    tokens, v = shape.target_len, shape.vocabulary
    table = 0 if shape.tied else shape.hidden * v
    kept = layers.loss_saved(shape, tokens, float(tokens * v))
    mask = float(tokens * shape.hidden) if shape.dropout else 0.0
    return Block(
        name="head",
        num_parameters=shape.norm_parameters + table,
        split_parameters=table,
        ops=(layers.norm(shape, tokens), *layers.loss_ops(shape, tokens, v)),
        saved=kept.model_copy(update={"replicated": kept.replicated + mask}),
        boundary_elements=0,
        recomputable=False,
        largest_tensor_parallel=v,
    )
