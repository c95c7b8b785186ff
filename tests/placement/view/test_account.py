"""What is said of a plan agrees with what was predicted."""

import pytest

from heliostat.placement.memory import replica_memory
from heliostat.placement.strategy import Strategy
from heliostat.placement.view.account import account_of, why_slower
from heliostat.placement.view.explain import explain
from tests.placement.view.plans import A100, CLUSTER, JOB, V100, plan, strategy, uneven


@pytest.mark.parametrize("split", [strategy(), strategy(schedule="interleaved", chunks=2), uneven()])
def test_parts_add_up_to_what_was_predicted(split: Strategy) -> None:
    written = plan(split)
    page, step = account_of(written)
    assert page.step_s == written.prediction.step_time_s == step.step_s
    for stage in page.stages:
        assert sum(stage.seconds.values()) == pytest.approx(page.step_s)
        assert 0 < stage.busy_s <= page.step_s * (1 + 1e-9)
    ranks = [int(group.used_bytes) for stage in page.stages for group in stage.groups for _ in range(group.num_ranks)]
    assert ranks == list(written.prediction.memory_bytes)
    assert replica_memory(JOB.workload, split, step.in_flight)


def test_replicas_of_two_kinds_are_two_groups() -> None:
    page, _ = account_of(plan(uneven()))
    groups = page.stages[0].groups
    assert [(one.kind, one.num_ranks, one.num_samples) for one in groups] == [(A100, 16, 3), (V100, 16, 1)]
    assert [one.capacity_bytes >> 30 for one in groups] == [40, 32]
    assert "every device" in page.binding[0]


def test_devices_that_are_left_over_are_counted() -> None:
    small = strategy(replicas=1)
    page, _ = account_of(plan(small))
    assert page.unused == {A100: 8, V100: 8}
    assert account_of(plan())[0].unused == {}
    full, _ = account_of(plan())
    assert page.utilisation is not None
    assert full.utilisation == pytest.approx(page.utilisation * page.step_s / full.step_s / 2)


def test_what_binds_names_the_busiest_stage_and_the_fullest_device() -> None:
    page, _ = account_of(plan(strategy((12, 22, 32, 42))))
    assert page.binding[0].startswith("stage 3 (8 x V100-32GB-SXM) sets the pace, busy for ")
    assert page.binding[1].startswith("memory leaves room everywhere; the fullest is")
    crowded, _ = account_of(plan(strategy(micro_batch=16)))
    assert not crowded.fits
    assert crowded.binding[1].startswith("memory does not suffice on A100-40GB-SXM of stage 0")


def test_a_rival_loses_for_a_reason() -> None:
    rival = account_of(plan())[0].rivals[0]
    assert "% slower: " in rival.why
    assert "waiting for other stages" in rival.why
    assert rival.plan.startswith("the same with end at block 12 in stage 0")
    best = plan().prediction
    assert why_slower(best, best) == "as fast"
    assert why_slower(best, best.model_copy(update={"step_time_s": 0.9 * best.step_time_s})).startswith("faster")


def test_prices_are_those_of_the_devices_in_use() -> None:
    assert account_of(plan())[0].price_per_hour is None
    wanted = JOB.wanted.model_copy(update={"price_per_hour": {A100: 2.0, V100: 1.0}, "target_s": 9.0})
    page, _ = account_of(plan(strategy(replicas=1), wanted=wanted))
    assert page.price_per_hour == 8 * 2.0 + 8 * 1.0
    told = dict(explain(page))["plan"]
    assert "The target was 9 s a step." in told
    assert told[-1].startswith("Its devices cost 24 an hour: ")


def test_origin_and_measurements_are_told() -> None:
    assert not account_of(plan())[0].measured
    emulated = CLUSTER.model_copy(update={"origin": "emulated"})
    assert account_of(plan(cluster=emulated))[0].origin == "emulated"
