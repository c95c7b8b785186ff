"""Models that others wrote, tiny and with random values, as tasks."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from heliostat.data.versions import DatasetVersion
from heliostat.train.task import Arrays, Batch, Task

VOCABULARY, TOKENS, CLASSES = 48, 8, 5
NUM_ROWS = {"train": 32, "validation": 9}
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
GPT2 = {
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 16,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "resid_pdrop": 0,
    "embd_pdrop": 0,
    "attn_pdrop": 0,
}
T5 = {"d_model": 32, "num_layers": 3, "num_decoder_layers": 3, "num_heads": 4, "d_kv": 8, "d_ff": 64, "dropout_rate": 0}
VIT = {"image_size": 16, "patch_size": 8, "num_labels": CLASSES}
MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT2LMHeadModel": ("GPT2Config", {**GPT2, "vocab_size": VOCABULARY, "use_cache": False}),
    "LlamaForCausalLM": (
        "LlamaConfig", {**SIZES, "num_key_value_heads": 2, "vocab_size": VOCABULARY, "use_cache": False},
    ),
    "BertForMaskedLM": ("BertConfig", {**SIZES, **NO_DROPOUT, "vocab_size": VOCABULARY}),
    "ViTForImageClassification": ("ViTConfig", {**SIZES, **NO_DROPOUT, **VIT}),
    "T5ForConditionalGeneration": ("T5Config", {**T5, "vocab_size": VOCABULARY, "use_cache": False}),
}  # fmt: skip
"""Model -> its configuration."""


class Residual(nn.Module):
    def __init__(self, width: int, made: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, made, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(made, made, 3, padding=1, bias=False)
        self.first_norm, self.second_norm = nn.GroupNorm(4, made), nn.GroupNorm(4, made)
        self.shortcut = nn.Conv2d(width, made, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(self.shortcut(x) + self.second_norm(self.second(inner)))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.stages = nn.Sequential(Residual(8, 8, 1), Residual(8, 16, 2), Residual(16, 16, 1))
        self.head = nn.Linear(16, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.head(self.stages(self.stem(image)).mean((2, 3)))
        return found


class Family(Task):
    """Classes of pictures, or letters of texts."""

    def __init__(self, data: DatasetVersion, kind: str = "ResNet") -> None:
        super().__init__(data)
        self.kind = kind

    def load(self, split: str) -> Arrays:
        generator = np.random.default_rng(len(split))
        num_rows = NUM_ROWS[split]
        if self._sees:
            image = generator.standard_normal((num_rows, 3, 16, 16)).astype(np.float32)
            return {"image": image, "label": generator.integers(CLASSES, size=num_rows)}
        ids = generator.integers(VOCABULARY, size=(num_rows, TOKENS))
        return {"ids": ids, "label": (ids + 1) % VOCABULARY}

    def model(self) -> nn.Module:
        if self.kind == "ResNet":
            return ResNet()
        import transformers

        config, settings = MADE[self.kind]
        made: nn.Module = getattr(transformers, self.kind)(getattr(transformers, config)(**settings))
        return made

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, float]:
        losses = self.predict(model, batch)
        return losses.sum(), len(losses)

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        made: Any
        if self.kind == "ResNet":
            made = model(batch["image"])
        elif self._sees:
            made = model(batch["image"]).logits
        elif self.kind.startswith("T5"):
            made = model(input_ids=batch["ids"], decoder_input_ids=batch["ids"]).logits
        else:
            made = model(input_ids=batch["ids"]).logits
        logits: Tensor = made
        if logits.dim() == 2:
            return functional.cross_entropy(logits, batch["label"], reduction="none")
        return functional.cross_entropy(logits.transpose(1, 2), batch["label"], reduction="none").mean(1)

    def metrics(self, predictions: NDArray[Any], _: NDArray[Any]) -> dict[str, float]:
        return {"loss": float(predictions.mean())}

    @property
    def _sees(self) -> bool:
        return self.kind in ("ResNet", "ViTForImageClassification")
