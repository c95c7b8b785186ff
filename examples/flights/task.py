"""Will the flight arrive late? A multilayer perceptron over numbers and embedded categories.

A single-device program: nothing here knows how many devices there are, or which.
"""

from itertools import pairwise
from typing import Any

import torch
from numpy.typing import NDArray
from sklearn.metrics import log_loss, roc_auc_score
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import heliostat
from heliostat.data.versions import DatasetVersion
from heliostat.train.task import Batch


class LateNetwork(nn.Module):
    """Embeddings beside the numbers, then `depth` hidden layers, to one logit."""

    def __init__(
        self, num_numeric: int, cardinalities: tuple[int, ...], *, width: int, depth: int, dropout: float
    ) -> None:
        super().__init__()
        sizes = [embedding_size(cardinality) for cardinality in cardinalities]
        # number 0 stands for a category that was never seen: it stays at zero
        self.embeddings = nn.ModuleList(
            nn.Embedding(cardinality, size, padding_idx=0)
            for cardinality, size in zip(cardinalities, sizes, strict=True)
        )
        widths = [num_numeric + sum(sizes), *[width] * depth]
        self.hidden = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout))
                for before, after in pairwise(widths)
            )
        )
        self.logit = nn.Linear(widths[-1], 1)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (b,) of `numeric` (b, F) and `categorical` (b, C)."""
        embedded = [layer(batch["categorical"][:, place]) for place, layer in enumerate(self.embeddings)]
        logits: Tensor = self.logit(self.hidden(torch.cat([batch["numeric"], *embedded], dim=1)))
        return logits.squeeze(1)


def embedding_size(cardinality: int) -> int:
    """Half the number of categories, 16 at most."""
    return min(16, (cardinality + 1) // 2)


class LateTask(heliostat.Task):
    """The probability that a flight is late."""

    def __init__(self, data: DatasetVersion, width: int = 128, depth: int = 2, dropout: float = 0.1) -> None:
        super().__init__(data)
        self.width = width
        self.depth = depth
        self.dropout = dropout

    def model(self) -> nn.Module:
        """The network for this dataset's features."""
        encoder = self.data.encoder
        return LateNetwork(
            encoder.num_numeric, encoder.cardinalities, width=self.width, depth=self.depth, dropout=self.dropout
        )

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, float]:
        """The sum of the cross-entropies, and how many there are."""
        return binary_cross_entropy_with_logits(model(batch), batch["label"], reduction="sum"), len(batch["label"])

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Probabilities (b,)."""
        return torch.sigmoid(model(batch))

    def metrics(self, predictions: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
        """Area under the ROC curve, mean cross-entropy, and how many are on the right side of one half."""
        return {
            "auc": float(roc_auc_score(labels, predictions)),
            "log_loss": float(log_loss(labels, predictions.astype("float64"))),
            "accuracy": float(((predictions > 0.5) == (labels > 0.5)).mean()),
        }
