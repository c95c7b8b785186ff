"""The fit finds the constants that made the rows, and says how far it is off elsewhere."""

import random

import numpy as np
import pytest

from heliostat.placement.efficiency import Efficiencies, fitted
from heliostat.placement.fit import as_yaml, fit, is_fitted_on, predict_runs
from heliostat.placement.measured_run import Run
from tests.placement.made_runs import DEVICE, run_of


def truth() -> Efficiencies:
    one = fitted().types[DEVICE].model_copy(update={"matmul": 0.7, "memory": 0.9})
    return fitted().model_copy(update={"types": {**fitted().types, DEVICE: one}})


def made_runs(noise: float) -> list[Run]:
    """Rows of six shapes; each shape is off by the same factor in all its rows."""
    draw, found = random.Random(1), []
    for hidden, layers in ((1024, 8), (2048, 8), (2048, 12), (4096, 4), (4096, 8), (6144, 4)):
        runs = [run_of(hidden, layers, micro, tensor) for micro in (1, 4) for tensor in (1, 4)]
        factor = np.exp(draw.gauss(0.0, noise))
        steps = predict_runs(runs, truth())
        found += [run._replace(measured_s=one.step_s * factor) for run, one in zip(runs, steps, strict=True)]
    return found


@pytest.fixture(scope="module")
def exact() -> Efficiencies:
    return fit(made_runs(0.0), most_steps=6)


def test_the_constants_that_made_the_rows_are_found(exact: Efficiencies) -> None:
    found = exact.types[DEVICE]
    assert found.matmul == pytest.approx(0.7, rel=0.08)
    assert found.uncertainty < 0.05
    assert found.errors["matmul"] < 0.1
    assert exact.fitted_on == tuple(sorted({run.shape for run in made_runs(0.0)}))
    assert "fitted on 24 runs: made" in found.source


def test_the_uncertainty_is_that_of_shapes_left_out(exact: Efficiencies) -> None:
    noisy = fit(made_runs(0.1), most_steps=6).types[DEVICE]
    assert 0.05 < noisy.uncertainty < 0.25
    assert noisy.uncertainty > 1.5 * exact.types[DEVICE].uncertainty


def test_constants_are_written_as_they_are_read(exact: Efficiencies) -> None:
    import yaml

    assert Efficiencies.model_validate(yaml.safe_load(as_yaml(exact))) == exact


def test_shapes_are_divided_in_about_halves() -> None:
    halves = [is_fitted_on(f"h{hidden} L{layers}") for hidden in range(512, 8192, 512) for layers in range(4, 64, 4)]
    assert 0.4 < np.mean(halves) < 0.6
