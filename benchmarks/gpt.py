"""A GPT as people write it in plain PyTorch, and as a task of Heliostat: what the benchmarks of the executor train."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

import heliostat
from heliostat.placement.workloads import Transformer


class Attention(nn.Module):
    """Causal self-attention with one product for queries, keys and values."""

    def __init__(self, shape: Transformer) -> None:
        super().__init__()
        self.width = shape.one_head
        self.qkv = nn.Linear(shape.hidden, 3 * shape.hidden)
        self.out = nn.Linear(shape.hidden, shape.hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Attend."""
        batch, length, _ = x.shape
        query, key, value = self.qkv(x).view(batch, length, 3, -1, self.width).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, -1))
        return out


class Layer(nn.Module):
    """Norms before both parts."""

    def __init__(self, shape: Transformer) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(shape.hidden), Attention(shape)
        self.norm = nn.LayerNorm(shape.hidden)
        self.feed_forward = nn.Sequential(
            nn.Linear(shape.hidden, shape.inner), nn.GELU(), nn.Linear(shape.inner, shape.hidden)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply."""
        x = x + self.attention(self.attention_norm(x))
        out: Tensor = x + self.feed_forward(self.norm(x))
        return out


class GPT(nn.Module):
    """Embeddings of tokens and places, layers, and an output layer of its own."""

    def __init__(self, shape: Transformer) -> None:
        super().__init__()
        self.words = nn.Embedding(shape.vocabulary, shape.hidden)
        self.places = nn.Embedding(shape.seq_len, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.hidden)
        self.head = nn.Linear(shape.hidden, shape.vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        x = self.words(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


class NextToken(heliostat.Task):
    """Each token from those before it; `rows` makes the data, so there is no dataset."""

    def __init__(self, shape: Transformer) -> None:
        self.shape = shape

    def rows(self, num_rows: int) -> dict[str, Tensor]:
        """Random tokens, one more than the model reads."""
        generator = torch.Generator().manual_seed(0)
        size = (num_rows, self.shape.seq_len + 1)
        return {"tokens": torch.randint(self.shape.vocabulary, size, generator=generator)}

    def model(self) -> nn.Module:
        """A GPT."""
        return GPT(self.shape)

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """Summed over all tokens."""
        return summed_loss(model, batch["tokens"]), batch["tokens"][:, 1:].numel()

    def predict(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Of each row the token that is to come."""
        last: Tensor = model(batch["tokens"][:, :-1])[:, -1].argmax(dim=-1)
        return last

    def metrics(self, predictions: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
        """The share that is right."""
        return {"accuracy": float(np.mean(predictions == labels))}


def summed_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    """The sum of the losses of all tokens, in 32 bits."""
    logits = model(tokens[:, :-1])
    return functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="sum")
