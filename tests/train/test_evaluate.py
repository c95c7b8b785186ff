from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from heliostat.data.versions import DatasetVersion
from heliostat.errors import CheckpointError, TrainingFailure
from heliostat.train.evaluate import finite, predict, restore
from heliostat.train.job import TrainJob
from heliostat.train.loop import execute
from heliostat.train.task import make_task

MakeJob = Callable[..., TrainJob]
TOY = f"{Path(__file__).parent / 'toy.py'}:Toy"


def test_a_restored_model_predicts_as_it_was_validated(make_job: MakeJob) -> None:
    job = make_job(params={"dropout": 0.2})
    report = execute(job, num_threads=1)
    task = make_task(job.task, job.data, job.params)
    arrays = task.load("validation")
    model = restore(task, report.checkpoint)
    predictions = predict(task, model, arrays, micro_batch=7)
    assert task.metrics(predictions, arrays["label"]) == pytest.approx(report.metrics)
    np.testing.assert_allclose(predictions, predict(task, model, arrays), rtol=1e-6)
    with pytest.raises(CheckpointError, match="another model"):
        restore(make_task(job.task, job.data, {"width": 5}), report.checkpoint)


def test_a_metric_that_is_not_a_number_is_refused(toy_data: DatasetVersion) -> None:
    task = make_task(TOY, toy_data, {})
    with pytest.raises(TrainingFailure, match=r"finite numbers(.|\n)*got: {'auc': nan}"):
        finite(task, {"auc": float("nan"), "loss": 0.1})
    assert finite(task, {"auc": 1}) == {"auc": 1.0}
