"""Step `train`: what it makes of the configuration, and the prediction against what was measured, for any plan."""

import pytest

from heliostat.experiment.steps.train import parts_by_stage, settings_from, work_by_stage
from heliostat.placement.placement import Placement, RankPlacement
from heliostat.placement.prediction import Prediction, StageCost
from heliostat.placement.strategy import Strategy
from heliostat.train.job import TrainReport
from tests.placement.plans import data_parallel
from tests.placement.view.plans import A100, V100, stage

TRAIN = {
    "epochs": 3, "lr": 0.1, "weight_decay": 0.0, "checkpoint_every_steps": 5, "max_restarts": 1, "precision": "bf16",
    "clip_norm": 1.0, "compile": True, "early_stop": {"patience": 2}, "verify": True,
    "trace_steps": 3,
}  # fmt: skip


def test_settings_follow_the_section_train() -> None:
    settings = settings_from(TRAIN, 7, {"metric": "auc", "mode": "max"})
    assert (settings.precision, settings.clip_norm, settings.compile, settings.patience) == ("bf16", 1.0, True, 2)
    assert settings.verify
    assert settings.trace_steps == 3
    plain = settings_from({**TRAIN, "early_stop": None, "clip_norm": None}, 7, {"metric": "auc", "mode": "max"})
    assert (plain.patience, plain.clip_norm) == (None, None)


def test_the_work_of_each_stage_is_held_against_its_prediction() -> None:
    costs = [{"compute": 3.0, "optimizer": 0.5, "bubble": 2.0, "sync": 1.0}, {"compute": 5.0, "bubble": 0.0, "sync": 0}]
    split = Strategy(global_batch=64, stages=(stage(0, 1, A100, 2, 1), stage(1, 2, V100, 1, 2)), schedule="1f1b")
    prediction = Prediction(
        step_time_s=6.5, low_s=6.0, high_s=7.0, memory_bytes=(1, 1, 2, 2),
        stages=tuple(StageCost(seconds=cost, memory_bytes={}) for cost in costs),
    )  # fmt: skip
    plan = data_parallel([("cpu", 1, 1)]).model_copy(update={"strategy": split, "prediction": prediction})
    ranks = tuple(
        RankPlacement(rank=rank, role=role, node_id="a", device_index=rank, device_kind="x")
        for rank, role in enumerate((2, 3, 0, 1))
    )
    report = TrainReport(
        elements_per_s=8.0, parts_s=({},) * 4,
        num_steps=1, metrics={}, checkpoint="", step_time_s=6.0, compute_s=(4.0, 4.5, 3.2, 3.4),
        peak_memory_bytes=(1, 1, 1, 1), wall_s=1.0, placement=Placement(ranks=ranks, reason="test"),
    )  # fmt: skip
    update = [{"passes": 3.0 + rank, "wait": 0.5, "sync": 0.25, "update": 0.125} for rank in range(4)]
    report = report.model_copy(update={"parts_s": tuple(update)})
    parts = parts_by_stage(plan, report)
    assert parts[0]["passes"] == (3.0, 6.0)
    assert parts[0]["wait"] == (2.0, 0.5)
    assert parts[1]["update"] == (0.0, 0.125)
    assert work_by_stage(plan, report) == [(3.5, 3.4), (5.0, 4.5)]
    assert work_by_stage(plan, report.model_copy(update={"placement": None})) == [(3.5, pytest.approx(4.5)), (5.0, 3.4)]
