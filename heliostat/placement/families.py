"""The families of models that are made from hyperparameters, and what can be written of one in a file. Pure."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import create_model, field_validator
from pydantic.fields import FieldInfo

from heliostat.placement.encoder_decoder import EncoderDecoder, encoder_decoder
from heliostat.placement.layers import LayerShape
from heliostat.placement.sizes import SIZES, Family
from heliostat.placement.vision import VisionTransformer, vision_transformer
from heliostat.placement.workload import WorkloadProfile
from heliostat.placement.workloads import Transformer, transformer
from heliostat.references import did_you_mean
from heliostat.values import Frozen

FILE_NAMES = {"vocabulary": "vocab"}
"""Fields of a shape that have another name in a file."""


class Maker(NamedTuple):
    """The shape of a family, and what makes a workload of it."""

    shape: type[LayerShape]
    workload: Callable[[Any], WorkloadProfile]

    @property
    def fields(self) -> dict[str, FieldInfo]:
        """Of the shape, by the names that they have in a file."""
        fields = self.shape.model_fields
        return {FILE_NAMES.get(name, name): fields[name] for name in fields if name != "name"}


_DECODER = Maker(Transformer, transformer)
MAKERS: Mapping[Family, Maker] = {
    "gpt": _DECODER,
    "llama": _DECODER,
    "bert": _DECODER,
    "mpt": _DECODER,
    "mixtral": _DECODER,
    "t5": Maker(EncoderDecoder, encoder_decoder),
    "vit": Maker(VisionTransformer, vision_transformer),
}


class NamedModel(Frozen):
    """Where a model's fields come from if they are not written: from `size`, then from the family."""

    size: str | None = None
    family: Family | None = None

    @field_validator("size")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        if value is not None and value not in SIZES:
            raise ValueError(f"is none of the sizes {', '.join(SIZES)}{did_you_mean(value, SIZES)}")
        return value


def _optional(field: FieldInfo) -> Any:
    """The field's type, or None where it is not written."""
    kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    return (kind | None, None)


ModelRow: type[NamedModel] = create_model(
    "ModelRow",
    __base__=NamedModel,
    **{name: _optional(field) for maker in MAKERS.values() for name, field in maker.fields.items()},
)
"""A model as it is written: any field of any family."""
