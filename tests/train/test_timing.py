from pathlib import Path

import pytest

from heliostat.data.versions import DatasetVersion
from heliostat.train import timing
from heliostat.train.evaluate import tensors_of
from heliostat.train.fitting import fit_line
from heliostat.train.task import make_task
from heliostat.train.timing import measure_step


def test_a_line_is_found_and_never_falls_below_zero() -> None:
    assert fit_line([1, 2, 4], [3.0, 5.0, 9.0]) == pytest.approx((1.0, 2.0))
    assert fit_line([1, 2, 4], [1.0, 2.5, 6.0])[0] == 0.0
    assert fit_line([1, 2, 4], [1.0, 0.9, 0.8])[1] == 0.0


def test_steps_are_timed(toy_data: DatasetVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "BUDGET_S", 0.0)
    task = make_task(f"{Path(__file__).parent / 'toy.py'}:Toy", toy_data, {"width": 64})
    measured = measure_step(task, tensors_of(task.load("train")), micro_batches=[16, 512, 4096])
    assert 0 < measured.optimizer_s < 0.1
    assert 0 < measured.sample_s < measured.compute_s(num_micro_batches=1, num_samples=4096) < 1
