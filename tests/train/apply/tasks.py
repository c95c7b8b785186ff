"""Tasks that ask something of the executor."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from heliostat.train.task import Arrays, Batch, Task

VOCABULARY, WIDTH, HEADS, TOKENS, LAYERS = 32, 16, 4, 8, 4
NUM_ROWS = {"train": 64, "validation": 17}


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.wide = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH))

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        size, tokens, _ = x.shape
        parts = self.qkv(self.norm(x)).chunk(3, dim=-1)
        q, k, v = (part.view(size, tokens, -1, WIDTH // HEADS).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        x = x + self.out(mixed.transpose(1, 2).reshape(size, tokens, -1))
        found: Tensor = x + self.wide(x)
        return found


class Letters(nn.Module):
    """A language model: its head is its embedding, places are a parameter of no block, a mask goes to all layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.places = nn.Parameter(torch.randn(TOKENS, WIDTH))
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, letters: Tensor) -> Tensor:
        x = self.embed(letters) + self.places
        ones = torch.ones(TOKENS, TOKENS, dtype=torch.bool, device=letters.device)
        seen = ones.tril() & (letters > 0)[:, None, None, :] | torch.eye(TOKENS, dtype=torch.bool, device=x.device)
        for layer in self.layers:
            x = layer(x, seen)
        found: Tensor = self.head(self.norm(x))
        return found


class Spelling(Task):
    """Which letter comes next; a loss counts letters."""

    def load(self, split: str) -> Arrays:
        letters = np.random.default_rng(len(split)).integers(0, VOCABULARY, (NUM_ROWS[split], TOKENS + 1))
        return {"letters": letters[:, :-1], "label": letters[:, 1:]}

    def model(self) -> nn.Module:
        return Letters()

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, float]:
        label = batch["label"].flatten()
        return functional.cross_entropy(model(batch["letters"]).flatten(0, 1), label, reduction="sum"), len(label)

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch["letters"]).transpose(1, 2)
        return functional.cross_entropy(logits, batch["label"], reduction="none").sum(1)

    def metrics(self, predictions: NDArray[Any], _: NDArray[Any]) -> dict[str, float]:
        return {"loss": float(predictions.mean())}
