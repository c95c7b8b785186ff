"""Vision transformers as chains of blocks, from their hyperparameters alone: ViT (Dosovitskiy et al. 2021)."""

from collections.abc import Iterator
from functools import lru_cache

from pydantic import PositiveInt

from heliostat.placement import layers
from heliostat.placement.layers import LayerShape
from heliostat.placement.workload import Block, SavedActivations, WorkloadProfile


class VisionTransformer(LayerShape):
    """An encoder of image patches and a class token, from which an image's class is told."""

    image: PositiveInt = 224
    """Height and width in pixels."""
    patch: PositiveInt = 16
    """The same of one patch."""
    channels: PositiveInt = 3
    classes: PositiveInt = 1000

    @property
    def num_patches(self) -> int:
        """Of one image."""
        return (self.image // self.patch) ** 2

    @property
    def tokens(self) -> int:
        """Patches and the class token."""
        return self.num_patches + 1

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Fields that do not fit to others, and why."""
        yield from super().contradictions()
        if self.image % self.patch:
            yield "patch", f"must divide image: {self.image} / {self.patch} is not a whole number"


@lru_cache(maxsize=4096)
def vision_transformer(shape: VisionTransformer) -> WorkloadProfile:
    """The chain: patch embedding, `layers` equal layers, classification head."""
    return WorkloadProfile(
        name=shape.name, seq_len=shape.tokens, blocks=(_embedding(shape), _layer(shape), _head(shape))
    )


def _embedding(shape: VisionTransformer) -> Block:
    """Every rank of a tensor-parallel group computes it whole."""
    h, pixels = shape.hidden, shape.channels * shape.patch**2
    width = shape.tokens * h
    return Block(
        name="embedding",
        num_parameters=pixels * h + h + h + shape.tokens * h,
        ops=(
            layers.product("patches", shape, shape.num_patches, h, pixels),
            # the class token beside the patches, and the positions added
            layers.memory("positions", 4.0 * width, width, launches=2),
        ),
        saved=SavedActivations(
            replicated=2.0 * shape.num_patches * pixels + (width if shape.dropout else 0.0), split=0.0
        ),
        boundary_elements=width,
        recomputable=False,
        largest_tensor_parallel=shape.heads,
    )


def _layer(shape: VisionTransformer) -> Block:
    parts = (layers.attention(shape, shape.tokens, causal=False), layers.feed_forward(shape, shape.tokens))
    split = sum(part.split_parameters for part in parts)
    return Block(
        name="layer",
        count=shape.layers,
        num_parameters=split + sum(part.whole_parameters for part in parts),
        split_parameters=split,
        ops=tuple(op for part in parts for op in part.ops),
        saved=layers.saved(shape, shape.tokens, *parts),
        boundary_elements=shape.tokens * shape.hidden,
        tensor_collectives=2,
        largest_tensor_parallel=shape.kv_heads or shape.heads,
    )


def _head(shape: VisionTransformer) -> Block:
    """A norm of all tokens, and the class token's product."""
    h, classes = shape.hidden, shape.classes
    return Block(
        name="head",
        num_parameters=shape.norm_parameters + h * classes + classes,
        split_parameters=h * classes + classes,
        ops=(layers.norm(shape, shape.tokens), *layers.loss_ops(shape, 1, classes)),
        saved=layers.loss_saved(shape, shape.tokens, float(classes)),
        boundary_elements=0,
        recomputable=False,
        largest_tensor_parallel=classes,
    )
