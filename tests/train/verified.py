"""Tasks that a check before the first step must refuse, or that training would get wrong."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from heliostat.train.task import Batch
from tests.train.apply.tasks import Spelling
from tests.train.toy import Toy


class Mean(Toy):
    """Its loss is the mean over the rows."""

    def loss(self, model: nn.Module, batch: Batch) -> Any:
        logits = self._logits(model, batch)
        return functional.binary_cross_entropy_with_logits(logits, batch["label"]), len(logits)


class Penalised(Toy):
    """A part of its loss does not depend on the rows."""

    def loss(self, model: nn.Module, batch: Batch) -> Any:
        loss, count = super().loss(model, batch)
        return loss + sum(parameter.square().sum() for parameter in model.parameters()), count


class _Counting(nn.Module):
    """Puts out less at every call after the first three, in which the loss contract is checked."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.num_calls = model, 0

    def forward(self, letters: Tensor) -> Tensor:
        self.num_calls += 1
        found: Tensor = self.model(letters) / max(1, self.num_calls - 3)
        return found


class Stateful(Spelling):
    """Its model keeps count of its calls, which depends on the plan."""

    def model(self) -> nn.Module:
        return _Counting(super().model())


class Noisy(Spelling):
    """With dropout."""

    def model(self) -> nn.Module:
        return nn.Sequential(super().model(), nn.Dropout(0.5))


def rows(count: int = 96) -> dict[str, Tensor]:
    """Of `Toy`."""
    generator = torch.Generator().manual_seed(3)
    points = torch.randn((count, 4), generator=generator)
    return {"points": points, "label": (points[:, 0] > 0).float()}
