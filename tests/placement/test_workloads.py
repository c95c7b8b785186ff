"""Operation and parameter counts of the transformer families, against published ones."""

from typing import Any

import pytest

from heliostat.placement.encoder_decoder import EncoderDecoder, encoder_decoder
from heliostat.placement.sizes import FAMILIES, SIZES
from heliostat.placement.vision import VisionTransformer, vision_transformer
from heliostat.placement.workload import Block, WorkloadProfile
from heliostat.placement.workloads import Transformer, transformer

PUBLISHED = {
    "gpt-2": 124_439_808,
    "gpt-2-medium": 354_823_168,
    "gpt-2-large": 774_030_080,
    "gpt-2-xl": 1_557_611_200,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "bert-base": 109_514_298,
    "bert-large": 335_174_458,
    "mixtral-8x7b": 46_702_792_704,
    "t5-small": 60_506_624,
    "t5-base": 222_903_552,
    "t5-large": 737_668_096,
    "t5-3b": 2_851_598_336,
    "t5-11b": 11_307_321_344,
    "vit-b-16": 86_567_656,
    "vit-b-32": 88_224_232,
    "vit-l-16": 304_326_632,
    "vit-h-14": 632_045_800,
}
"""Parameters of the released checkpoints, which are those that `transformers` makes of their published configurations:
`GPT2LMHeadModel`, `LlamaForCausalLM`, `BertForMaskedLM`, `MixtralForCausalLM`, `T5ForConditionalGeneration`,
`ViTForImageClassification` with 1000 classes."""


def named(size: str, **fields: Any) -> WorkloadProfile:
    """The workload of a size, with changes."""
    family = SIZES[size]["family"]
    shape = {key: value for key, value in {**FAMILIES[family], **SIZES[size]}.items() if key != "family"}
    if "vocab" in shape:
        shape["vocabulary"] = shape.pop("vocab")
    if family == "t5":
        return encoder_decoder(EncoderDecoder(name=size, **{**shape, **fields}))
    if family == "vit":
        return vision_transformer(VisionTransformer(name=size, **{**shape, **fields}))
    return transformer(Transformer(name=size, **{**shape, **fields}))


def block(workload: WorkloadProfile, name: str) -> Block:
    return next(one for one in workload.blocks if one.name == name)


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters_are_those_of_the_published_models(size: str) -> None:
    assert named(size).num_parameters == PUBLISHED[size]


@pytest.mark.parametrize(
    ("shape", "num_parameters"),
    [
        (Transformer(name="MPT-125m", hidden=768, layers=12, heads=12, seq_len=2048, vocabulary=50368), 125_311_488),
        (Transformer(name="MPT-70b", hidden=8192, layers=80, heads=64, seq_len=2048, vocabulary=50368), 64_862_437_376),
    ],
    ids=lambda value: value.name if isinstance(value, Transformer) else "",
)
def test_parameters_are_those_of_llm_foundry(shape: Transformer, num_parameters: int) -> None:
    assert transformer(shape).num_parameters == num_parameters


def test_gpt3_has_175_billion_parameters_and_the_flops_of_narayanan_2021() -> None:
    h, layers, s, v = 12288, 96, 2048, 51200
    gpt = Transformer(name="gpt3", hidden=h, layers=layers, heads=96, seq_len=s, vocabulary=v, attention="eager")
    workload = transformer(gpt)
    assert workload.num_parameters == pytest.approx(175e9, rel=0.005)
    # forward pass: a quarter of equation 3, which counts full recomputation; the head is not recomputed
    forward = 24 * s * layers * h * h * (1 + s / (6 * h)) + 2 * s * h * v
    assert workload.forward_flops == pytest.approx(forward, rel=1e-9)


def test_flash_attention_of_a_causal_model_skips_half_of_the_scores() -> None:
    shape = Transformer(name="x", hidden=1024, layers=1, heads=16, seq_len=2048, vocabulary=1000)
    attention = next(op for op in transformer(shape).blocks[1].ops if op.kind == "attention")
    assert attention.forward_flops == 2 * 2048 * 2048 * 1024
    whole = next(
        op for op in transformer(shape.model_copy(update={"causal": False})).blocks[1].ops if op.kind == "attention"
    )
    assert whole.forward_flops == 2 * attention.forward_flops


def test_grouped_queries_have_smaller_keys_and_values() -> None:
    full = Transformer(name="x", hidden=1024, layers=1, heads=16, seq_len=64, vocabulary=1000, bias="none")
    grouped = full.model_copy(update={"kv_heads": 4})
    assert transformer(full).num_parameters - transformer(grouped).num_parameters == 2 * 1024 * (1024 - 256)


def test_a_part_of_the_chain_counts_repetitions() -> None:
    workload = transformer(Transformer(name="x", hidden=64, layers=6, heads=2, seq_len=8, vocabulary=100))
    assert workload.num_blocks == 8
    assert [(block.name, count) for block, count in workload.part(0, 3)] == [("embedding", 1), ("layer", 2)]
    assert [(block.name, count) for block, count in workload.part(3, 8)] == [("layer", 4), ("head", 1)]
    assert type(workload).model_validate_json(workload.model_dump_json()) == workload


def test_a_decoder_of_t5_hands_on_the_encoders_output() -> None:
    workload = named("t5-small")
    source, target = 512 * 512, 114 * 512
    encoder, decoder = block(workload, "encoder layer"), block(workload, "decoder layer")
    assert (encoder.boundary_elements, encoder.carried_elements) == (source, 0)
    assert block(workload, "decoder embedding").boundary_elements == source + target
    assert (decoder.boundary_elements, decoder.carried_elements, decoder.made_elements) == (
        source + target, source, target,
    )  # fmt: skip
    assert (encoder.tensor_collectives, decoder.tensor_collectives) == (2, 3)
    assert workload.tied_parameters == 32128 * 512


def test_a_decoder_of_t5_reads_keys_of_the_encoder() -> None:
    ops = {op.name: op for op in block(named("t5-3b", attention="flash"), "decoder layer").ops}
    assert (ops["q"].rows, ops["q"].n, ops["q"].k) == (114, 32 * 128, 1024)
    assert (ops["kv"].rows, ops["kv"].n, ops["kv"].k) == (512, 2 * 32 * 128, 1024)
    attentions = [op for op in block(named("t5-3b", attention="flash"), "decoder layer").ops if op.kind == "attention"]
    assert [(op.rows, op.n, op.causal) for op in attentions] == [(114, 114, True), (114, 512, False)]


def test_vit_embeds_patches_and_has_a_class_token() -> None:
    workload = named("vit-h-14")
    embedding, layer, head = workload.blocks
    assert workload.seq_len == 257
    assert [(op.rows, op.n, op.k) for op in embedding.ops if op.kind == "matmul"] == [(256, 1280, 3 * 14 * 14)]
    assert layer.boundary_elements == 257 * 1280
    assert [(op.rows, op.n) for op in head.ops if op.kind == "matmul"] == [(1, 1000)]
    # torchvision's table of weights gives 17.56 G multiply-adds for ViT-B/16 at 224 pixels
    assert named("vit-b-16").forward_flops / 2 == pytest.approx(17.56e9, rel=0.002)


def test_a_token_meets_two_of_eight_experts() -> None:
    workload = named("mixtral-8x7b")
    layer = block(workload, "layer")
    assert layer.experts is not None
    assert workload.active_parameters == pytest.approx(12.9e9, rel=0.005)  # Jiang et al. 2024, section 1
    assert layer.experts.num_parameters == 8 * 3 * 4096 * 14336
    assert layer.experts.exchanged_elements == 2 * 8192 * 4096
    up = next(op for op in layer.ops if op.name == "up")
    assert (up.batch, up.rows, up.n) == (8, 8192 * 2 // 8, 2 * 14336)
    dense = block(named("llama-3.1-8b", vocabulary=32000), "layer")
    router = next(op for op in layer.ops if op.name == "router")
    feed_forward = 2 * 8192 * 3 * 4096 * 14336
    assert layer.forward_flops - router.forward_flops == dense.forward_flops + feed_forward


def test_room_that_is_not_filled_is_computed_too() -> None:
    plain, roomy = (block(named("mixtral-8x7b", capacity=room), "layer") for room in (None, 1.25))
    assert plain.experts is not None
    assert roomy.experts is not None
    assert roomy.num_parameters == plain.num_parameters
    assert roomy.experts.exchanged_elements == 1.25 * plain.experts.exchanged_elements
    flops = [sum(op.forward_flops for op in one.ops if op.batch == 8) for one in (plain, roomy)]
    assert flops[1] == 1.25 * flops[0]


@pytest.mark.parametrize(
    ("size", "fields", "told"),
    [
        ("gpt-2", {"heads": 11}, "heads must divide hidden: 768 / 11"),
        ("llama-3.1-8b", {"kv_heads": 5}, "kv_heads must divide heads: 32 / 5"),
        ("mixtral-8x7b", {"experts_per_token": 9}, "experts_per_token is 9, but there are 8 experts"),
        ("gpt-2", {"capacity": 1.5}, "capacity is that of experts, and there are none"),
        ("mixtral-8x7b", {"bias": "fused"}, "bias must be none with experts"),
        ("vit-b-16", {"image": 225}, "patch must divide image: 225 / 16"),
    ],
)
def test_hyperparameters_that_contradict_are_refused(size: str, fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        named(size, **fields)
