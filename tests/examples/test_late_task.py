"""The example's model, on a table where neither the number nor the category says anything by itself."""

from pathlib import Path

import numpy as np
import pytest
import torch

from heliostat.data.encoder import Encoder, Scale, Vocabulary
from heliostat.data.versions import DatasetVersion
from heliostat.train.apply.engine import Engine
from heliostat.train.evaluate import predict, tensors_of
from heliostat.train.task import Arrays, Task, make_task
from heliostat.train.timing import replicas

LATE = f"{Path(__file__).parents[2] / 'examples' / 'flights' / 'task.py'}:LateTask"


@pytest.fixture(scope="module")
def task() -> Task:
    data = DatasetVersion(
        uri="nowhere",
        name="flights",
        version=0,
        label="late",
        num_rows={},
        dropped={},
        column_types={},
        statistics={},
        encoder=Encoder(
            numeric=(Scale(name="wind", mean=1.0, deviation=2.0),),
            categorical=(Vocabulary(name="airline", values=("AA", "UA")),),
        ),
    )
    return make_task(LATE, data, {"width": 16, "depth": 2, "dropout": 0.0})


def arrays(task: Task, num_rows: int) -> Arrays:
    generator = np.random.default_rng(0)
    wind = generator.normal(1.0, 2.0, num_rows)
    airline = generator.choice(np.array(["AA", "UA"], dtype=object), num_rows)
    late = ((wind > 1.0) == (airline == "AA")).astype(np.float64)
    return task.arrays({"wind": wind, "airline": airline, "late": late})


def test_it_learns_what_a_linear_model_cannot(task: Task) -> None:
    torch.manual_seed(0)
    rows = arrays(task, 1000)
    engine = Engine(task, replicas(1, 1000), example=tensors_of(rows))
    for number in range(60):
        engine.step(tensors_of(rows), torch.arange(1000), number=number, learning_rate=0.02)
    metrics = task.metrics(predict(task, engine.model, rows), rows["label"])
    assert set(metrics) == {"auc", "log_loss", "accuracy"}
    assert metrics["auc"] > 0.97


def test_a_missing_number_and_an_unknown_airline_get_an_answer(task: Task) -> None:
    torch.manual_seed(0)
    columns = {"wind": np.array([np.nan, 3.0]), "airline": np.array(["ZZ", None], dtype=object)}
    answers = predict(task, task.model().eval(), task.arrays(columns))
    assert answers.shape == (2,)
    assert ((answers > 0) & (answers < 1)).all()


def test_the_loss_is_a_sum_and_its_count(task: Task) -> None:
    torch.manual_seed(0)
    model, rows = task.model(), tensors_of(arrays(task, 10))
    whole, count = task.loss(model, rows)
    parts = [
        task.loss(model, {name: tensor[part] for name, tensor in rows.items()}) for part in (slice(3), slice(3, 10))
    ]
    assert count == sum(count for _, count in parts) == 10
    assert whole.item() == pytest.approx(sum(loss.item() for loss, _ in parts), rel=1e-5)
