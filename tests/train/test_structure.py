"""The blocks of a model by name, and where tensor parallelism divides their parameters."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from heliostat.placement.encoder_decoder import EncoderDecoder
from heliostat.placement.vision import VisionTransformer
from heliostat.placement.workloads import Transformer
from heliostat.train.profile import profile_module
from heliostat.train.profiling.divisions import ParameterCut
from heliostat.train.profiling.structure import BlockParts, structure_of
from tests.train import models
from tests.train.apply import tensor_models
from tests.train.test_profile_module import tiny

IDS = torch.zeros(2, 32, dtype=torch.long)


def on_meta(make: Any) -> nn.Module:
    with torch.device("meta"):
        made: nn.Module = make()
    return made


def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    logits = model(*(tensor for name, tensor in batch.items() if name != "labels"))
    return functional.cross_entropy(logits.flatten(0, -2), batch["labels"].flatten(), reduction="sum")


def decoder(family: str, **fields: Any) -> nn.Module:
    return on_meta(lambda: models.Decoder(Transformer.model_validate(tiny(family, **fields))))


def cuts_of(style: str, **options: Any) -> tuple[BlockParts, ...]:
    model = on_meta(lambda: tensor_models.Decoder(style, **options))
    return structure_of(model, tensor_models.tokens(0), tensor_models.next_token_loss)


def test_blocks_modules_and_parameters() -> None:
    first, one, other, last = cuts_of("separate", tied=True)
    assert [block.name for block in (first, one, other, last)] == ["words+places", "layers.0", "layers.1", "norm+head"]
    assert [block.modules for block in (first, other)] == [("words", "places"), ("layers.1",)]
    assert first.parameters == {"words.weight", "places.weight"}
    assert last.parameters == {"norm.weight", "norm.bias", "words.weight"}
    assert "layers.1.attention.o.bias" in other.parameters
    assert [block.recomputable for block in (first, one, other, last)] == [False, True, True, False]


def test_columns_of_one_product_divide_by_what_becomes_of_them() -> None:
    def qkv(style: str, path: str = "layers.1.attention.qkv.weight") -> ParameterCut:
        return cuts_of(style)[2].cuts[path]

    assert qkv("joined") == qkv("by kind") == ParameterCut("column", 0, (32, 32, 32), 4)
    assert qkv("by head") == ParameterCut("column", 0, (96,), 4)
    assert qkv("joined grouped") == ParameterCut("column", 0, (32, 16, 16), 2)
    assert qkv("joined grouped", "layers.1.feed_forward.up.weight") == ParameterCut("column", 0, (48, 48), 48)
    own = qkv("torch", "layers.1.attention.attention.in_proj_weight")
    assert own == ParameterCut("column", 0, (32, 32, 32), 4)


def test_rows_biases_tables_and_heads() -> None:
    first, one, other, last = cuts_of("grouped")
    assert first.cuts == {"words.weight": ParameterCut("row", 0, (51,), 51)}
    assert last.cuts == {"head.weight": ParameterCut("column", 0, (51,), 51)}
    assert one.cuts["layers.0.attention.k.bias"] == ParameterCut("column", 0, (16,), 2)
    assert one.cuts["layers.0.attention.o.weight"] == ParameterCut("row", 1, (32,), 2)
    assert one.cuts["layers.0.feed_forward.gate.weight"] == ParameterCut("column", 0, (48,), 48)
    assert not {"layers.0.attention.o.bias", "layers.0.attention.q_norm.weight"} & one.cuts.keys()
    # the second layer was not run: it has the first one's cuts
    assert other.cuts == {path.replace("layers.0", "layers.1"): cut for path, cut in one.cuts.items()}


def test_with_values_all_layers_are_run_and_give_the_same() -> None:
    model = tensor_models.Decoder("joined")
    assert structure_of(model, tensor_models.tokens(0), tensor_models.next_token_loss) == cuts_of("joined")


@pytest.mark.parametrize(
    ("model", "batch"),
    [
        (decoder("gpt"), {"ids": IDS, "labels": IDS}),
        (decoder("gpt", dropout=True, attention="eager"), {"ids": IDS, "labels": IDS}),
        (decoder("llama", kv_heads=2), {"ids": IDS, "labels": IDS}),
        (decoder("mixtral", experts=4, capacity=1.25), {"ids": IDS, "labels": IDS}),
        (decoder("bert"), {"ids": IDS, "labels": IDS}),
        (
            on_meta(lambda: models.Translator(EncoderDecoder.model_validate(tiny("t5")))),
            {"ids": IDS[:, :24], "targets": IDS[:, :16], "labels": IDS[:, :16]},
        ),
        (
            on_meta(
                lambda: models.Vision(
                    VisionTransformer(name="tiny vit", hidden=32, layers=3, heads=4, image=64, classes=10)
                )
            ),
            {"image": torch.zeros(2, 3, 64, 64), "labels": torch.zeros(2, dtype=torch.long)},
        ),
    ],
    ids=["gpt", "gpt eager", "llama", "mixtral", "bert", "t5", "vit"],
)
def test_what_is_divided_is_what_the_planner_counts(model: nn.Module, batch: dict[str, Tensor]) -> None:
    planned = [block for block in profile_module(model, batch, loss).blocks for _ in range(block.count)]
    found = structure_of(model, batch, loss)
    seen: set[str] = set()
    for block, known in zip(found, planned, strict=True):
        # a parameter that several blocks use is counted with the first
        own = block.cuts.keys() - seen
        seen |= block.parameters
        assert sum(model.get_parameter(path).numel() for path in own) == known.split_parameters
        assert all(cut.units >= known.largest_tensor_parallel for cut in block.cuts.values())
