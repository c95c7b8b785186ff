"""A small classifier; `pause_s` makes a step slow enough to be interrupted."""

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

import heliostat
from heliostat.data.versions import DatasetVersion
from heliostat.train.task import Batch


class Network(nn.Module):
    """An embedding of the size beside the numbers."""

    def __init__(self, num_numeric: int, num_sizes: int, width: int) -> None:
        super().__init__()
        self.size = nn.Embedding(num_sizes, 2, padding_idx=0)
        self.layers = nn.Sequential(nn.Linear(num_numeric + 2, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, batch: Batch) -> Tensor:
        """Logits (b,)."""
        inputs = torch.cat([batch["numeric"], self.size(batch["categorical"][:, 0])], dim=1)
        return self.layers(inputs).squeeze(1)  # type: ignore[no-any-return]


class Tumour(heliostat.Task):
    """Is it benign?"""

    def __init__(self, data: DatasetVersion, width: int = 16, pause_s: float = 0.0) -> None:
        super().__init__(data)
        self.width = width
        self.pause_s = pause_s

    def model(self) -> nn.Module:
        return Network(self.data.encoder.num_numeric, self.data.encoder.cardinalities[0], self.width)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, float]:
        time.sleep(self.pause_s)
        return bce(model(batch), batch["label"], reduction="sum"), len(batch["label"])

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        return torch.sigmoid(model(batch))

    def metrics(self, predictions: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
        accuracy = np.mean((predictions > 0.5) == (labels > 0.5))
        return {"auc": float(roc_auc_score(labels, predictions)), "accuracy": float(accuracy)}
