"""A task on data of its own: no dataset is committed for the tests of the executor."""

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from heliostat.data.versions import DatasetVersion
from heliostat.train.task import Arrays, Batch, Task

NUM_ROWS = {"train": 96, "validation": 30, "test": 30}


class Experts(nn.Module):
    """Rows go to one of two layers by the sign of their first value: most micro-batches of one row miss one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 1), nn.Linear(4, 1)

    def forward(self, points: Tensor) -> Tensor:
        parts = [points[:, 0] < 0, points[:, 0] >= 0]
        logits = torch.zeros(len(points), 1)
        for rows, layer in zip(parts, (self.left, self.right), strict=True):
            if rows.any():
                logits = logits.index_put((rows.nonzero().squeeze(1),), layer(points[rows]))
        return logits


class Toy(Task):
    """Which side of a curved surface a point lies on; `fault` says what goes wrong, and from where on."""

    def __init__(self, data: DatasetVersion, width: int = 8, dropout: float = 0.0, fault: str = "") -> None:
        super().__init__(data)
        self.width = width
        self.dropout = dropout
        self.fault = fault

    def load(self, split: str) -> Arrays:
        generator = np.random.default_rng(sorted(NUM_ROWS).index(split))
        points = generator.standard_normal((NUM_ROWS[split], 4)).astype(np.float32)
        label = (points[:, 0] * points[:, 1] + points[:, 2] > 0).astype(np.float32)
        if self.fault == "nan row" and split == "train":
            points[40] = np.nan
        return {"points": points, "label": label}

    def model(self) -> nn.Module:
        if self.fault == "experts":
            return Experts()
        if self.fault == "deep":
            hidden = [nn.Linear(self.width, self.width) for _ in range(5)]
            return nn.Sequential(nn.Linear(4, self.width), *hidden, nn.Linear(self.width, 1))
        layers = [nn.Linear(4, self.width), nn.Tanh(), nn.Dropout(self.dropout), nn.Linear(self.width, 1)]
        model = nn.Sequential(*layers)
        if self.fault == "unused":
            model.register_parameter("unused", nn.Parameter(torch.ones(3)))
        return model

    def loss(self, model: nn.Module, batch: Batch) -> Any:
        logits = self._logits(model, batch)
        loss = functional.binary_cross_entropy_with_logits(logits, batch["label"], reduction="sum")
        count: Any = len(logits)
        match self.fault:
            case "mean":
                return loss / count
            case "rows":
                return loss.expand(2), count
            case "no count":
                return loss, 0
            case "raises":
                raise KeyError("colour")
            case "slow":
                time.sleep(0.03)
        return loss, count

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        return torch.sigmoid(self._logits(model, batch))

    def metrics(self, predictions: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
        accuracy = float(((predictions > 0.5) == labels).mean())
        return {"accuracy": accuracy, "brier": float(((predictions - labels) ** 2).mean())}

    def _logits(self, model: nn.Module, batch: Batch) -> Tensor:
        logits: Tensor = model(batch["points"])
        return logits.squeeze(1)
