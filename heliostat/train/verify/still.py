"""A task whose passes can be compared: nothing in them is random, and no row depends on the rows beside it."""

from typing import Any

from numpy.typing import NDArray
from torch import Tensor, nn

from heliostat.train.task import Batch, Task


def still(task: Task) -> Task:
    """`task` in evaluation mode, under its own name: no dropout, and batch normalisation by the running statistics."""
    named = type(type(task).__name__, (_Still,), {})
    made: Task = named(task)
    return made


class _Still(Task):
    def __init__(self, task: Task) -> None:
        super().__init__(task.data)
        self._task = task

    def model(self) -> nn.Module:
        """The task's."""
        return self._task.model()

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor | float]:
        """The task's, of the model in evaluation mode."""
        return self._task.loss(model.eval(), batch)

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """The task's."""
        return self._task.predict(model, batch)

    def metrics(self, predictions: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
        """The task's."""
        return self._task.metrics(predictions, labels)
