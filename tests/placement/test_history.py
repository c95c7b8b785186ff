"""What runs of other shapes teach about equal layers."""

import pytest

from heliostat.placement.efficiency import fitted
from heliostat.placement.fit import predict_runs
from heliostat.placement.history import learn, predict_from_others
from heliostat.placement.measured_run import Run
from tests.placement.made_runs import run_of


def runs_of(factor: float, layers: tuple[int, ...] = (4, 8, 12, 16)) -> list[Run]:
    runs = [run_of(2048, depth, micro, 1) for depth in layers for micro in (1, 4)]
    steps = predict_runs(runs, fitted())
    return [run._replace(measured_s=factor * one.step_s) for run, one in zip(runs, steps, strict=True)]


def test_equal_layers_of_other_depth_are_corrected() -> None:
    runs = runs_of(1.5)
    for run, one in zip(runs, predict_from_others(runs, fitted()), strict=True):
        assert one.step_s == pytest.approx(run.measured_s, rel=0.06)


def test_nothing_is_learned_from_the_own_shape() -> None:
    runs = runs_of(1.0)
    odd = [run._replace(measured_s=3 * run.measured_s) if run.shape == "h2048 L8" else run for run in runs]
    before, after = (
        [one.step_s for run, one in zip(each, predict_from_others(each, fitted()), strict=True)
         if run.shape == "h2048 L8"]
        for each in (runs, odd)
    )  # fmt: skip
    assert before == after


def test_blocks_that_nobody_ran_keep_their_estimate() -> None:
    stranger = run_of(4096, 4, 1, 1)
    (alone,) = predict_runs([stranger], fitted())
    (corrected,) = predict_runs([stranger], fitted(), corrections=learn(runs_of(1.5), fitted()))
    assert corrected == alone
