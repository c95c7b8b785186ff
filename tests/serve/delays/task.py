"""The task: a logistic regression with an embedding."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import heliostat
from heliostat.data.versions import DatasetVersion
from heliostat.train.task import Batch


class Logit(nn.Module):
    """One unit."""

    def __init__(self, num_numeric: int, num_airlines: int, width: int) -> None:
        super().__init__()
        self.airlines = nn.Embedding(num_airlines, width, padding_idx=0)
        self.unit = nn.Linear(num_numeric + width, 1)
        self.dropout = nn.Dropout(0.9)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (b,)."""
        inputs = torch.cat([batch["numeric"], self.airlines(batch["categorical"][:, 0])], dim=1)
        logits: Tensor = self.unit(self.dropout(inputs))[:, 0]
        return logits


class LateTask(heliostat.Task):
    """Late or not."""

    def __init__(self, data: DatasetVersion, width: int = 4, answer: str = "probability") -> None:
        super().__init__(data)
        self.width = width
        self.answer = answer

    def model(self) -> nn.Module:
        """The model."""
        encoder = self.data.encoder
        return Logit(encoder.num_numeric, encoder.cardinalities[0], self.width)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """Cross entropy."""
        logits = model(batch)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, batch["label"], reduction="sum")
        return loss, len(logits)

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Probabilities (b,); or two classes (b, 2); or nothing sensible, for the test of that."""
        late = torch.sigmoid(model(batch))
        if self.answer == "nan":
            return late / 0 - late / 0
        return torch.stack([1 - late, late], dim=1) if self.answer == "classes" else late

    def metrics(self, predictions: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
        """Accuracy."""
        return {"accuracy": float(((predictions > 0.5) == labels).mean())}
