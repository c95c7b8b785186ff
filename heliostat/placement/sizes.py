"""Models by name: `gpt-13b`, `llama-3.1-8b`, and what the members of a family have in common. Pure."""

from collections.abc import Mapping
from typing import Any, Literal

Family = Literal["gpt", "llama", "bert", "mpt", "mixtral", "t5", "vit"]

_LLAMA = {"gated": True, "norm": "rms", "positions": "none", "bias": "none", "tied": False}

FAMILIES: Mapping[Family, Mapping[str, Any]] = {
    "gpt": {},
    "llama": _LLAMA,
    "bert": {"causal": False, "norm_first": False, "token_types": 2, "head": "transform"},
    "mpt": {},
    "mixtral": {**_LLAMA, "experts": 8},
    "t5": {"norm": "rms", "bias": "none", "dropout": True, "attention": "eager"},
    "vit": {},
}
"""Fields of the family's shape that differ from its defaults. MPT as llm-foundry's pretraining files have it: learned
positions, biases. BERT with the head of masked language modelling. T5 1.0: no flash kernel takes its biased scores."""


def _gpt(hidden: int, layers: int, heads: int, seq_len: int = 2048) -> dict[str, Any]:
    return {"family": "gpt", "hidden": hidden, "layers": layers, "heads": heads, "seq_len": seq_len, "vocab": 50257}


def _llama_2(hidden: int, layers: int, heads: int, feed_forward: int, **fields: int) -> dict[str, Any]:
    shape = {"hidden": hidden, "layers": layers, "heads": heads, "feed_forward": feed_forward, **fields}
    return {"family": "llama", **shape, "seq_len": 4096, "vocab": 32000}


def _llama_3(hidden: int, layers: int, heads: int, feed_forward: int) -> dict[str, Any]:
    shape = {"hidden": hidden, "layers": layers, "heads": heads, "feed_forward": feed_forward, "kv_heads": 8}
    return {"family": "llama", **shape, "seq_len": 8192, "vocab": 128256}


def _bert(hidden: int, layers: int, heads: int) -> dict[str, Any]:
    return {"family": "bert", "hidden": hidden, "layers": layers, "heads": heads, "seq_len": 512, "vocab": 30522}


def _mpt(hidden: int, layers: int, heads: int) -> dict[str, Any]:
    return {"family": "mpt", "hidden": hidden, "layers": layers, "heads": heads, "seq_len": 2048, "vocab": 50368}


def _mixtral(hidden: int, layers: int, heads: int, feed_forward: int) -> dict[str, Any]:
    shape = {"hidden": hidden, "layers": layers, "heads": heads, "feed_forward": feed_forward, "kv_heads": 8}
    return {"family": "mixtral", **shape, "seq_len": 8192, "vocab": 32000}


def _t5(hidden: int, layers: int, heads: int, feed_forward: int, head_width: int) -> dict[str, Any]:
    shape = {"hidden": hidden, "layers": layers, "heads": heads, "feed_forward": feed_forward}
    return {"family": "t5", **shape, "head_width": head_width, "seq_len": 512, "target_len": 114, "vocab": 32128}


def _vit(hidden: int, layers: int, heads: int, patch: int) -> dict[str, Any]:
    return {"family": "vit", "hidden": hidden, "layers": layers, "heads": heads, "patch": patch}


SIZES: Mapping[str, Mapping[str, Any]] = {
    "gpt-2": _gpt(768, 12, 12, 1024),
    "gpt-2-medium": _gpt(1024, 24, 16, 1024),
    "gpt-2-large": _gpt(1280, 36, 20, 1024),
    "gpt-2-xl": _gpt(1600, 48, 25, 1024),
    "gpt-125m": _gpt(768, 12, 12),
    "gpt-350m": _gpt(1024, 24, 16),
    "gpt-760m": _gpt(1536, 24, 16),
    "gpt-1.3b": _gpt(2048, 24, 16),
    "gpt-2.7b": _gpt(2560, 32, 32),
    "gpt-6.7b": _gpt(4096, 32, 32),
    "gpt-13b": _gpt(5120, 40, 40),
    "gpt-175b": _gpt(12288, 96, 96),
    "llama-2-7b": _llama_2(4096, 32, 32, 11008),
    "llama-2-13b": _llama_2(5120, 40, 40, 13824),
    "llama-2-70b": _llama_2(8192, 80, 64, 28672, kv_heads=8),
    "llama-3.1-8b": _llama_3(4096, 32, 32, 14336),
    "llama-3.1-70b": _llama_3(8192, 80, 64, 28672),
    "llama-3.1-405b": _llama_3(16384, 126, 128, 53248),
    "bert-base": _bert(768, 12, 12),
    "bert-large": _bert(1024, 24, 16),
    "mpt-1b": _mpt(2048, 24, 16),
    "mpt-7b": _mpt(4096, 32, 32),
    "mpt-30b": _mpt(7168, 48, 56),
    "mixtral-8x7b": _mixtral(4096, 32, 32, 14336),
    "mixtral-8x22b": {**_mixtral(6144, 56, 48, 16384), "vocab": 32768},
    "t5-small": _t5(512, 6, 8, 2048, 64),
    "t5-base": _t5(768, 12, 12, 3072, 64),
    "t5-large": _t5(1024, 24, 16, 4096, 64),
    "t5-3b": _t5(1024, 24, 32, 16384, 128),
    "t5-11b": _t5(1024, 24, 128, 65536, 128),
    "vit-b-16": _vit(768, 12, 12, 16),
    "vit-b-32": _vit(768, 12, 12, 32),
    "vit-l-16": _vit(1024, 24, 16, 16),
    "vit-h-14": _vit(1280, 32, 16, 14),
}
"""GPT-2: Radford et al. 2019, table 2. GPT: Brown et al. 2020, table 2.1 (1.3B with heads of width 128; 13B with the
width that divides by its heads). Llama 2: Touvron et al. 2023, table 1 and the published configurations. Llama 3.1:
Grattafiori et al. 2024, table 3. BERT: Devlin et al. 2018. MPT: mosaicml/llm-foundry scripts/train/yamls/pretrain.
Mixtral: Jiang et al. 2024, table 1; 8x22B its published configuration. T5: Raffel et al. 2020, section 3.7, with the
lengths of its pretraining, 512 and 114 tokens (section 3.1.4). ViT: Dosovitskiy et al. 2021, table 1."""
