"""Tasks that ask something of the executor."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from heliostat.data.versions import DatasetVersion
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


class Broken(Layer):
    """A layer that puts out no numbers."""

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        return super().forward(x, seen) * float("nan")


class Steep(Layer):
    """A layer whose outputs are numbers and whose gradients are not."""

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        found: Tensor = super().forward(x, seen)
        return found + (found * 0.0).abs().sqrt()


class Spelling(Task):
    """Which letter comes next; a loss counts letters. `kind` says what is odd about the model."""

    def __init__(self, data: DatasetVersion, kind: str = "") -> None:
        super().__init__(data)
        self.kind = kind

    def load(self, split: str) -> Arrays:
        letters = np.random.default_rng(len(split)).integers(0, VOCABULARY, (NUM_ROWS[split], TOKENS + 1))
        return {"letters": letters[:, :-1], "label": letters[:, 1:]}

    def model(self) -> nn.Module:
        model = Letters()
        match self.kind:
            case "unused":
                model.unused = nn.Parameter(torch.ones(3))
            case "frozen":
                model.layers[1].requires_grad_(requires_grad=False)
                model.norm.requires_grad_(requires_grad=False)
            case "all frozen":
                model.requires_grad_(requires_grad=False)
            case "nan":
                model.layers[2] = Broken()
            case "steep":
                model.layers[2] = Steep()
        return model

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, float]:
        label = batch["label"].flatten()
        return functional.cross_entropy(model(batch["letters"]).flatten(0, 1), label, reduction="sum"), len(label)

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch["letters"]).transpose(1, 2)
        return functional.cross_entropy(logits, batch["label"], reduction="none").sum(1)

    def metrics(self, predictions: NDArray[Any], _: NDArray[Any]) -> dict[str, float]:
        return {"loss": float(predictions.mean())}


class Joined(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(WIDTH, WIDTH, bias=False), nn.BatchNorm1d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + functional.tanh(self.norm(self.linear(x)))


class Tall(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, WIDTH)
        self.layers = nn.Sequential(*(Joined() for _ in range(LAYERS)))
        self.last = nn.Linear(WIDTH, 1)

    def forward(self, points: Tensor) -> Tensor:
        found: Tensor = self.last(self.layers(self.first(points))).squeeze(1)
        return found


class Normalised(Task):
    """A number of every point, from layers with batch normalisation."""

    def load(self, split: str) -> Arrays:
        points = np.random.default_rng(len(split)).standard_normal((NUM_ROWS[split], 4)).astype(np.float32)
        return {"points": points, "label": points[:, 0] * points[:, 1]}

    def model(self) -> nn.Module:
        return Tall()

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, float]:
        return functional.mse_loss(model(batch["points"]), batch["label"], reduction="sum"), len(batch["label"])

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        found: Tensor = model(batch["points"])
        return found

    def metrics(self, predictions: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
        return {"error": float(((predictions - labels) ** 2).mean())}
