"""Model families of `transformers` and torch, never written for this product, divided over two ranks."""

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.train.apply.tensor_ranks import Case, Outcome, compare, on_ranks, world

pytestmark = pytest.mark.dist
EXACT = 1e-5
VOCABULARY, TOKENS = 51, 8
SIZES: Any = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
NO_DROPOUT: Any = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
GPT2: Any = {
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 16,
    "resid_pdrop": 0,
    "embd_pdrop": 0,
    "attn_pdrop": 0,
}
T5: Any = {
    "d_model": 32,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "d_kv": 8,
    "d_ff": 64,
    "dropout_rate": 0,
}


def batch(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "ids": torch.randint(0, VOCABULARY, (4, TOKENS), generator=generator),
        "image": torch.randn(4, 3, 16, 16, generator=generator),
    }


def seen(rows: Mapping[str, Tensor], *, causal: bool) -> Tensor:
    """A mask with a row per query: one for all tokens is looked at, which the meta device does not allow."""
    ones = torch.ones(len(rows["ids"]), 1, TOKENS, TOKENS, dtype=torch.bool, device=rows["ids"].device)
    return ones.tril() if causal else ones


def token_loss(logits: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, -2), rows["ids"].flatten(), reduction="sum")


def language(model: nn.Module, rows: Mapping[str, Tensor], *, causal: bool) -> Tensor:
    return token_loss(model(input_ids=rows["ids"], attention_mask=seen(rows, causal=causal)).logits, rows)


def own_loss(model: nn.Module, rows: Mapping[str, Tensor]) -> Tensor:
    """The one that the model computes itself, which looks at values."""
    loss: Tensor = model(input_ids=rows["ids"], labels=rows["ids"]).loss
    return loss * len(rows["ids"])


def translation(model: nn.Module, rows: Mapping[str, Tensor]) -> Tensor:
    masks = {"attention_mask": seen(rows, causal=False), "decoder_attention_mask": seen(rows, causal=True)}
    return token_loss(model(input_ids=rows["ids"], decoder_input_ids=rows["ids"], **masks).logits, rows)


def picture(model: nn.Module, rows: Mapping[str, Tensor]) -> Tensor:
    return functional.cross_entropy(model(rows["image"]).logits, rows["ids"][:, 0] % 5, reduction="sum")


def pretrained(kind: str, config: str, attention: str, **settings: Any) -> nn.Module:
    """A model of `transformers` with random values."""
    import transformers

    settings = settings if kind.startswith("ViT") else {**settings, "vocab_size": VOCABULARY, "use_cache": False}
    made: nn.Module = getattr(transformers, kind)._from_config(
        getattr(transformers, config)(**settings), attn_implementation=attention
    )
    return made


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.second(functional.relu(self.first(x))))


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)
        self.blocks = nn.Sequential(Residual(), Residual())

    def forward(self, image: Tensor) -> Any:
        from types import SimpleNamespace

        return SimpleNamespace(logits=self.head(self.blocks(self.stem(image).relu()).mean((2, 3))))


def families() -> dict[str, Case]:
    """Every family, some with both ways to attend."""
    causal, both = partial(language, causal=True), partial(language, causal=False)
    gpt2 = partial(pretrained, "GPT2LMHeadModel", "GPT2Config", **GPT2)
    llama = partial(pretrained, "LlamaForCausalLM", "LlamaConfig", num_key_value_heads=2, **SIZES)
    qwen = partial(pretrained, "Qwen3ForCausalLM", "Qwen3Config", num_key_value_heads=2, head_dim=8, **SIZES)
    bert = partial(pretrained, "BertForMaskedLM", "BertConfig", **SIZES, **NO_DROPOUT)
    sizes: Any = {"image_size": 16, "patch_size": 8, "num_labels": 5}
    vit = partial(pretrained, "ViTForImageClassification", "ViTConfig", **sizes, **SIZES, **NO_DROPOUT)
    t5 = partial(pretrained, "T5ForConditionalGeneration", "T5Config", **T5)
    experts: Any = {"num_local_experts": 4, "num_key_value_heads": 2, **SIZES}
    mixtral = partial(pretrained, "MixtralForCausalLM", "MixtralConfig", **experts)
    return {
        "gpt-2": Case(partial(gpt2, attention="sdpa"), causal, batch),
        "gpt-2 eager": Case(partial(gpt2, attention="eager"), own_loss, batch),
        "llama": Case(partial(llama, attention="sdpa"), own_loss, batch),
        "llama eager": Case(partial(llama, attention="eager"), causal, batch),
        "qwen": Case(partial(qwen, attention="sdpa"), causal, batch),
        "bert": Case(partial(bert, attention="sdpa"), both, batch),
        "bert eager": Case(partial(bert, attention="eager"), both, batch),
        "vit": Case(partial(vit, attention="sdpa"), picture, batch),
        "vit eager": Case(partial(vit, attention="eager"), picture, batch),
        "t5": Case(partial(t5, attention="eager"), translation, batch),
        "mixtral": Case(partial(mixtral, attention="sdpa"), causal, batch),
        "convolutions": Case(Convolutions, picture, batch),
    }


DIVIDED = {
    "gpt-2": {"transformer.wte.weight", "transformer.h.1.attn.c_attn.weight", "transformer.h.1.mlp.c_proj.weight"},
    "gpt-2 eager": {"transformer.wte.weight", "transformer.h.1.attn.c_attn.weight"},
    "llama": {"lm_head.weight", "model.layers.1.self_attn.k_proj.weight", "model.layers.1.mlp.down_proj.weight"},
    "llama eager": {"lm_head.weight", "model.layers.1.self_attn.o_proj.weight"},
    "qwen": {"lm_head.weight", "model.layers.1.self_attn.q_proj.weight"},
    "bert": {"bert.encoder.layer.1.attention.self.key.weight", "bert.encoder.layer.1.output.dense.weight"},
    "bert eager": {"bert.encoder.layer.1.attention.self.value.bias"},
    "t5": {"shared.weight", "encoder.block.1.layer.1.DenseReluDense.wi.weight"},
    "mixtral": {"model.layers.1.mlp.experts.down_proj", "model.layers.1.self_attn.v_proj.weight"},
    "convolutions": {"blocks.1.first.bias", "blocks.1.second.weight"},
}
"""Some of the parameters that are to be divided."""


def compare_families(meeting: str, rank: int, size: int) -> dict[str, Outcome]:
    with world(meeting, rank, size):
        found = {name: compare(case, rank, size) for name, case in families().items()}
        for name in ("llama", "gpt-2", "vit"):
            outcome = compare(families()[name], rank, size, sequence_parallel=True)
            found[f"{name}, sequence parallel"] = outcome
        return found


def test_families_learn_as_on_one_process(ranks: ProcessPoolExecutor, tmp_path: Path) -> None:
    for outcomes in on_ranks(ranks, tmp_path, 2, compare_families):
        for name, found in outcomes.items():
            assert found.losses < EXACT, name
            assert found.gradients < EXACT, name
            assert found.divided >= DIVIDED.get(name, set()), name
