"""A plan that does not fit gets the smallest change that helps, and one that fits none."""

from heliostat.placement.prediction import predict
from heliostat.placement.repair import repair, stages_too_full
from heliostat.placement.rounds import disagreements
from heliostat.placement.strategy import Strategy
from heliostat.placement.view.words import change_in_words
from tests.placement.view.plans import A100, CLUSTER, JOB, V100, stage, strategy, uneven


def full(split: Strategy) -> tuple[int, ...]:
    return stages_too_full(CLUSTER, split, predict(JOB.workload, CLUSTER, split))


def test_stages_that_do_not_fit_are_named() -> None:
    assert full(strategy()) == ()
    assert full(strategy(micro_batch=16)) == (0, 1, 2)
    assert full(uneven().model_copy(update={"stages": (uneven().stages[0].model_copy(update={"zero": 0}),)})) == (0,)


def test_one_setting_of_the_full_stages_is_enough() -> None:
    split = strategy((22, 36, 39, 42), micro_batch=2, replicas=1, tensor=4)
    assert full(split) == (0,)
    found = repair(JOB.workload, CLUSTER, split)
    assert found is not None
    assert full(found.strategy) == ()
    assert [one.recompute for one in found.strategy.stages].count("none") >= 3
    assert change_in_words(split, found.strategy) is not None
    slower = strategy((22, 36, 39, 42), micro_batch=2, replicas=1, tensor=4, recompute="full")
    assert found.prediction.step_time_s < predict(JOB.workload, CLUSTER, slower).step_time_s


def test_two_changes_where_one_is_not_enough() -> None:
    whole = Strategy(global_batch=64, stages=(stage(0, 42, A100, 8, 2, micro_batch=8),), execution=JOB.wanted.execution)
    found = repair(JOB.workload, CLUSTER, whole)
    assert found is not None
    changed = found.strategy.stages[0]
    differences = [
        changed.zero != 0,
        changed.recompute != "none",
        changed.offload,
        changed.replicas != whole.stages[0].replicas,
    ]
    assert sum(differences) == 2
    assert full(found.strategy) == ()


def test_smaller_micro_batches_of_several_stages_stay_in_the_same_rounds() -> None:
    first, second = stage(0, 16, A100, 2, 4, micro_batch=8), stage(16, 42, A100, 2, 4)
    uneven = tuple(
        second.replicas[0].model_copy(update={"num_samples": many, "micro_batch": many // 4}) for many in (44, 20)
    )
    split = Strategy(
        global_batch=64,
        stages=(first, second.model_copy(update={"replicas": uneven, "recompute": "full", "zero": 3})),
        schedule="zero-bubble",
        execution=JOB.wanted.execution,
    )
    assert list(disagreements(split)) == []
    found = repair(JOB.workload, CLUSTER, split)
    assert found is not None
    assert list(disagreements(found.strategy)) == []
    assert found.strategy.stages[0].zero < 2


def test_no_change_makes_everything_fit() -> None:
    whole = Strategy(global_batch=64, stages=(stage(0, 42, V100, 1, 1),), execution=JOB.wanted.execution)
    assert repair(JOB.workload, CLUSTER, whole) is None
