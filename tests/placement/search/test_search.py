"""The planner's answer as a whole: what must hold of every answer, and how answers to related questions compare."""

from collections import Counter
from functools import cache
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from heliostat.cluster.links import NETWORK_LATENCY_S
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.errors import PlanError, UserError
from heliostat.placement import collective_time, step_time
from heliostat.placement.constraints import Constraints, Pins
from heliostat.placement.efficiency import fitted
from heliostat.placement.prediction import predict
from heliostat.placement.search import tables
from heliostat.placement.search.outcome import Outcome
from heliostat.placement.search.search import enumerate_plans, search
from heliostat.placement.strategy import Strategy
from tests.placement.search.cases import (
    A100,
    H100,
    LATENCY_S,
    T4,
    V100,
    Box,
    Case,
    boxes,
    cases,
    gpt,
    kinds_of_ranks,
    step_s,
)

FEW = settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
MIXED = Case((Box(A100, 2), Box(V100, 2)), layers=3, hidden=4096, global_batch=8)
INFINITE = float("inf")


def best_s(case: Case, **fields: Any) -> float:
    """Seconds of the best plan; infinite if there is none."""
    try:
        return step_s(case.ask(**fields))
    except PlanError:
        return INFINITE


# every answer


def check_answer(case: Case, outcome: Outcome) -> None:
    for found in (outcome.best, *outcome.runners_up):
        strategy = found.strategy
        assert Strategy.model_validate_json(strategy.model_dump_json()) == strategy
        kinds = kinds_of_ranks(strategy)
        there = case.cluster.count_by_kind()
        assert all(count <= there[kind] for kind, count in Counter(kinds).items())
        prediction = predict(case.workload, case.cluster, strategy)
        assert prediction.step_time_s == pytest.approx(found.prediction.step_time_s, rel=1e-9)
        limits = {device.kind: device.memory_bytes for node in case.cluster.nodes for device in node.devices}
        assert all(used <= limits[kind] for used, kind in zip(prediction.memory_bytes, kinds, strict=True))


@FEW
@given(cases)
def test_every_plan_is_valid_and_fits_as_predict_says(case: Case) -> None:
    try:
        outcome = case.ask()
    except PlanError:
        return
    check_answer(case, outcome)
    assert [found.worth for found in outcome.runners_up] == sorted(found.worth for found in outcome.runners_up)
    assert outcome.best.worth <= min((found.worth for found in outcome.runners_up), default=INFINITE)
    assert not outcome.cut_by_budget


def test_plans_for_a_mid_size_cluster_are_valid_and_fit() -> None:
    case = Case((Box(A100, 8), Box(A100, 8), Box(V100, 8), Box(V100, 8)), layers=24, hidden=4096, global_batch=128)
    check_answer(case, case.ask())


def test_the_same_question_has_the_same_answer() -> None:
    assert MIXED.ask() == MIXED.ask()


# related questions


@FEW
@given(cases, st.sampled_from([A100, V100, T4]))
def test_more_memory_is_never_slower(case: Case, kind: str) -> None:
    more = tuple(box._replace(extra_bytes=4 << 30) if box.kind == kind else box for box in case.boxes)
    assert best_s(case._replace(boxes=more)) <= best_s(case) * (1 + 1e-9)


@FEW
@given(cases, st.sampled_from([1.25, 2.0, 10.0]))
def test_faster_links_are_never_slower(case: Case, factor: float) -> None:
    assert best_s(case.with_faster_links(factor)) <= best_s(case) * (1 + 1e-9)


@FEW
@given(cases, st.data())
def test_one_more_device_is_never_slower(case: Case, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(case.boxes) - 1))
    grown = case.boxes[place]._replace(num_devices=case.boxes[place].num_devices + 1)
    more = case._replace(boxes=(*case.boxes[:place], grown, *case.boxes[place + 1 :]))
    assert best_s(more) <= best_s(case) * (1 + 1e-9)


def test_a_mid_size_cluster_gains_by_memory_links_and_devices() -> None:
    case = Case((Box(A100, 8), Box(V100, 8), Box(V100, 8)), layers=24, hidden=4096, global_batch=128)
    before = best_s(case)
    assert best_s(case.with_boxes(extra_bytes=8 << 30)) <= before
    assert best_s(case.with_faster_links(2.0)) <= before
    assert best_s(case._replace(boxes=(*case.boxes, Box(V100, 8)))) <= before


@FEW
@given(cases)
def test_twice_the_speed_of_everything_takes_half_the_time(case: Case) -> None:
    before = best_s(case)
    assume(before < INFINITE)
    twice = case.with_faster_links(2.0).with_boxes(speed=2.0, latency_s=LATENCY_S / 2)
    constants = fitted()
    seconds = {name: value / 2 for name, value in constants.shared if name.endswith("_s")}
    quick = constants.model_copy(update={"shared": constants.shared.model_copy(update=seconds)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collective_time, "BASE_S", collective_time.BASE_S / 2)
        patch.setattr("heliostat.cluster.network.NETWORK_LATENCY_S", NETWORK_LATENCY_S / 2)
        for module in (step_time, tables):
            patch.setattr(module, "HOST_LINK_BYTES_PER_S", 2 * step_time.HOST_LINK_BYTES_PER_S)
        after = step_s(search(twice.workload, twice.cluster, Constraints(global_batch=case.global_batch), quick))
    assert after == pytest.approx(before / 2, rel=1e-9)


@FEW
@given(cases, st.randoms(use_true_random=False), boxes)
def test_names_and_the_order_of_nodes_change_nothing(case: Case, random: Any, other: Box) -> None:
    nodes = list(case._replace(boxes=(*case.boxes[:2], other)).cluster.nodes)
    shuffled = [Node(node_id=f"other-{place}", machine=node.machine) for place, node in enumerate(nodes)]
    random.shuffle(shuffled)
    answers: list[Outcome | str] = []
    for some in (nodes, shuffled):
        wanted = Constraints(global_batch=case.global_batch)
        try:
            answers.append(search(case.workload, ClusterSpec(nodes=tuple(some), origin="file"), wanted))
        except PlanError as error:
            answers.append(str(error))
    assert answers[0] == answers[1]


# goals


PRICES = {A100: 3.0, V100: 1.0}


def parts_of(case: Case) -> list[Case]:
    """Every choice of devices, as a cluster of its own; one box for each kind."""
    counts = product(*(range(box.num_devices + 1) for box in case.boxes))
    return [
        case._replace(
            boxes=tuple(box._replace(num_devices=count) for box, count in zip(case.boxes, chosen, strict=True) if count)
        )
        for chosen in counts
        if any(chosen)
    ]


@cache
def on_all_devices_s(case: Case) -> float:
    """Seconds of the fastest plan that leaves no device over."""
    return best_s(case, pins=Pins(use_all=True))


@pytest.mark.parametrize("hidden", [1024, 4096])
def test_the_cheapest_plan_is_the_best_over_all_choices_of_devices(hidden: int) -> None:
    case = MIXED._replace(hidden=hidden)
    expected = min(
        on_all_devices_s(part) * sum(PRICES[box.kind] * box.num_devices for box in part.boxes) / 3600
        for part in parts_of(case)
    )
    assert case.ask(objective="cheapest", price_per_hour=PRICES).best.worth == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("slower", [1.0, 1.3, 2.0, 20.0])
def test_the_fewest_devices_that_keep_the_target(slower: float) -> None:
    target_s = slower * best_s(MIXED)
    enough = [
        (sum(box.num_devices for box in part.boxes), seconds)
        for part in parts_of(MIXED)
        if (seconds := on_all_devices_s(part)) <= target_s
    ]
    best = MIXED.ask(objective="fewest", target_s=target_s).best
    assert best.strategy.num_ranks == min(enough)[0]
    assert best.prediction.step_time_s == pytest.approx(min(enough)[1])


def test_a_target_that_no_plan_keeps() -> None:
    with pytest.raises(PlanError, match="no plan takes") as caught:
        MIXED.ask(objective="fewest", target_s=1e-4)
    assert "s at best, with" in str(caught.value)


# pins


@pytest.mark.parametrize(
    "pins",
    [
        {"kinds": (V100,)}, {"num_stages": 1}, {"num_stages": 3}, {"schedule": "none"}, {"schedule": "gpipe"},
        {"schedule": "1f1b"}, {"schedule": "zero-bubble"}, {"schedule": "interleaved"},
        {"schedule": "interleaved", "chunks": 2, "num_stages": 2}, {"micro_batch": 1}, {"micro_batch": 4},
        {"tensor_parallel": 1}, {"tensor_parallel": 2}, {"tensor_parallel": 2, "sequence_parallel": False},
        {"tensor_parallel": 2, "sequence_parallel": True}, {"num_stages": 1, "zero": 0}, {"num_stages": 1, "zero": 3},
        {"recompute": "full"}, {"recompute": "none"}, {"offload": True}, {"offload": False}, {"equal_widths": True},
        {"use_all": True}, {"data_parallel": 2}, {"data_parallel": 2, "num_stages": 2},
    ],
    ids=str,
)  # fmt: skip
def test_pins_are_kept(pins: dict[str, Any]) -> None:
    outcome = MIXED.ask(pins=Pins(**pins))
    for found in (outcome.best, *outcome.runners_up):
        check_pins(found.strategy, Pins(**pins))
    assert step_s(outcome) >= step_s(MIXED.ask())


@FEW
@given(
    cases,
    st.fixed_dictionaries(
        {},
        optional={
            "num_stages": st.integers(1, 3),
            "micro_batch": st.sampled_from([1, 2]),
            "tensor_parallel": st.sampled_from([1, 2]),
            "zero": st.integers(0, 3),
            "recompute": st.sampled_from(["none", "selective", "full"]),
            "offload": st.booleans(),
            "data_parallel": st.integers(1, 2),
            "equal_widths": st.booleans(),
        },
    ),
)
def test_pins_together_are_kept_or_refused(case: Case, fields: dict[str, Any]) -> None:
    pins = Pins(**fields)
    try:
        outcome = case.ask(pins=pins)
    except PlanError:
        return
    check_pins(outcome.best.strategy, pins)
    check_answer(case, outcome)


def check_pins(strategy: Strategy, pins: Pins) -> None:
    stages = strategy.stages
    assert pins.num_stages in {None, len(stages)}
    if len(stages) > 1:
        assert pins.schedule in {None, strategy.schedule}
        assert pins.chunks in {None, strategy.chunks}
    assert pins.schedule != "none" or len(stages) == 1
    assert pins.kinds is None or set(kinds_of_ranks(strategy)) <= set(pins.kinds)
    assert not pins.use_all or strategy.num_ranks == MIXED.cluster.num_devices
    for stage in stages:
        assert pins.micro_batch in {None, max(replica.micro_batch for replica in stage.replicas)}
        assert pins.tensor_parallel in {None, stage.tensor_parallel}
        assert pins.data_parallel in {None, len(stage.replicas)}
        assert stage.tensor_parallel == 1 or pins.sequence_parallel in {None, stage.sequence_parallel}
        assert len(stage.replicas) == 1 or pins.zero in {None, stage.zero}
        assert pins.recompute in {None, stage.recompute}
        assert pins.offload in {None, stage.offload}
    if pins.equal_widths:
        widths = {(stage.tensor_parallel, *sorted(one.device_kind for one in stage.replicas)) for stage in stages}
        assert len(widths) == 1


# what else is in an answer


def test_a_search_that_is_cut_short_says_so_and_has_a_plan() -> None:
    outcome = MIXED.ask(budget_s=1e-9)
    assert outcome.cut_by_budget
    assert outcome.num_candidates < MIXED.ask().num_candidates
    check_answer(MIXED, outcome)


def test_runners_up_differ_in_what_one_sees() -> None:
    outcome = MIXED.ask(num_runners_up=8)
    assert len(outcome.runners_up) == 8
    seen = {
        (
            found.strategy.schedule,
            found.strategy.chunks,
            *(
                (stage.first_block, stage.tensor_parallel, tuple(one.device_kind for one in stage.replicas))
                for stage in found.strategy.stages
            ),
        )
        for found in (outcome.best, *outcome.runners_up)
    }
    assert len(seen) == 9


def test_where_only_one_plan_is_possible_its_variants_are_runners_up() -> None:
    outcome = Case((Box(A100, 1),)).ask()
    assert outcome.runners_up
    assert all(len(found.strategy.stages) == 1 for found in outcome.runners_up)


def test_refusals_are_counted_by_reason() -> None:
    refused = MIXED._replace(hidden=8192).ask().refused
    assert all(count > 0 for count in refused.values())
    assert any(f"memory of {V100} does not hold" in reason for reason in refused)
    assert any("by a bound" in reason for reason in refused)


def test_plans_are_enumerated_the_best_first() -> None:
    found = list(enumerate_plans(MIXED.workload, MIXED.cluster, Constraints(global_batch=8), 20))
    assert len(found) == 20
    assert found[0] == MIXED.ask().best
    assert [one.worth for one in found] == sorted(one.worth for one in found)


# bad questions


def test_nodes_that_nothing_joins() -> None:
    apart = Case((Box(T4, 1), Box(T4, 1)), hidden=4096).cluster
    nodes = tuple(
        node.model_copy(
            update={
                "machine": node.machine.model_copy(
                    update={"topology": node.machine.topology and node.machine.topology.model_copy(update={"nics": ()})}
                )
            }
        )
        for node in apart.nodes
    )
    with pytest.raises(UserError, match="nothing tells how fast the links between nodes are"):
        search(gpt(4, 4096), apart.model_copy(update={"nodes": nodes}), Constraints(global_batch=8))


def test_an_empty_cluster() -> None:
    with pytest.raises(PlanError, match="the cluster has no devices"):
        search(gpt(2, 512), ClusterSpec(nodes=(), origin="file"), Constraints(global_batch=8))


def test_a_cluster_that_has_far_too_little_memory() -> None:
    case = Case((Box(T4, 1), Box(V100, 1)), layers=24, hidden=8192)
    with pytest.raises(PlanError) as caught:
        case.ask()
    text = str(caught.value)
    assert "no plan fits into the memory of the devices" in text
    assert "GiB" in text
    assert "smallest change that fits" in text


def test_h100_beats_t4() -> None:
    assert best_s(Case((Box(H100, 1),))) < best_s(Case((Box(T4, 1),)))
