from typing import Any

import pytest

from heliostat.errors import PlanError
from heliostat.placement.strategy import Strategy
from heliostat.placement.workload import Block, SavedActivations, WorkloadProfile
from heliostat.train.apply.roles import Round, roles, training_rounds
from heliostat.train.verify.expected import Sums, between_replicas, inside_replica, over_replicas
from heliostat.train.verify.signature import RankFacts, check_signature
from heliostat.train.verify.traffic import Message
from tests.train.apply.runs import plan, stage

WIDTH = 10
LAYER = Block(
    name="layer",
    count=4,
    num_parameters=30,
    split_parameters=20,
    ops=(),
    saved=SavedActivations(replicated=0, split=0),
    boundary_elements=WIDTH,
    tensor_collectives=2,
)
WORKLOAD = WorkloadProfile(name="layers", blocks=(LAYER,))
TWO = (((0,), (6,)),)
"""One piece of six elements."""


def rounds_of(strategy: Strategy) -> tuple[Round, ...]:
    return training_rounds(strategy)


def test_activations_go_to_whoever_has_their_samples_and_gradients_back() -> None:
    strategy = plan(stage(0, 1, [(6, 3)]), stage(1, 4, [(4, 2), (2, 1)]))
    found = between_replicas(WORKLOAD, strategy, rounds_of(strategy), {1: 1})
    assert found == {
        ((0, 0), (1, 0)): (2, 4 * WIDTH),
        ((1, 0), (0, 0)): (2, 4 * WIDTH),
        ((0, 0), (1, 1)): (2, 2 * WIDTH),
        ((1, 1), (0, 0)): (2, 2 * WIDTH),
    }


def test_every_rank_of_a_replica_is_given_all_of_its_samples() -> None:
    strategy = plan(stage(0, 2, [(6, 3)]), stage(2, 4, [(6, 3)], tensor_parallel=2))
    found = between_replicas(WORKLOAD, strategy, rounds_of(strategy), {2: 1})
    assert found == {((0, 0), (1, 0)): (4, 12 * WIDTH), ((1, 0), (0, 0)): (2, 6 * WIDTH)}


def test_an_interleaved_chain_crosses_its_stages_again() -> None:
    strategy = plan(stage(0, 2, [(2, 1)]), stage(2, 4, [(2, 1)]), schedule="interleaved", chunks=2)
    found = between_replicas(WORKLOAD, strategy, rounds_of(strategy), {1: 1, 2: 1, 3: 1})
    assert found[(0, 0), (1, 0)] == (2 * 2 + 2, 6 * WIDTH)


@pytest.mark.parametrize(
    ("zero", "expected"),
    [(1, Sums(6, 8, 8)), (2, Sums(6, 8, 16)), (3, Sums(6, 32, 16))],
)
def test_shards_are_gathered_and_scattered_as_often_as_the_stage_of_zero_says(zero: int, expected: Sums) -> None:
    strategy = plan(stage(0, 4, [(4, 2), (4, 2)], zero=zero))
    halves = [{"sharded": (((0,), (4,)),), "whole": TWO}, {"sharded": (((4,), (3,)),), "whole": TWO}]
    assert over_replicas(strategy, roles(strategy), rounds_of(strategy), halves) == [expected] * 2


def test_what_one_replica_holds_is_not_summed_and_what_is_frozen_neither() -> None:
    strategy = plan(stage(0, 2, [(4, 2)]), stage(2, 4, [(4, 2)]))
    held = [{"own": TWO, "tied": TWO, "frozen": TWO}, {"other": TWO, "tied": TWO, "frozen": TWO}]
    found = over_replicas(strategy, roles(strategy), rounds_of(strategy), held, frozenset({"frozen"}))
    assert found == [Sums(6, 0, 0)] * 2


@pytest.mark.parametrize(
    ("how", "expected"),
    [({}, 640), ({"recompute": "full"}, 960), ({"sequence_parallel": True}, 1280)],
)
def test_a_block_sums_forward_backward_and_when_it_is_made_again(how: dict[str, Any], expected: int) -> None:
    strategy = plan(stage(0, 4, [(4, 2)], tensor_parallel=2, **how))
    [role, _] = roles(strategy)
    assert inside_replica(WORKLOAD, strategy, role, rounds_of(strategy)) == expected


def test_a_missing_message_is_named_with_what_was_expected() -> None:
    strategy = plan(stage(0, 2, [(2, 1)]), stage(2, 4, [(2, 1)]))
    ahead = RankFacts(messages=[Message("send", WIDTH, 1)] * 2, held={}, frozen=frozenset())
    back = RankFacts(messages=[Message("send", WIDTH, 0)], held={}, frozen=frozenset())
    arguments = (WORKLOAD, strategy, roles(strategy), rounds_of(strategy), {2: 1})
    assert not check_signature(
        *arguments, [ahead, RankFacts(**(vars(back) | {"messages": [*back.messages] * 2}))]
    ).failures
    error = check_signature(*arguments, [ahead, back]).error()
    assert isinstance(error, PlanError)
    assert error.got is not None
    assert error.got.startswith("stage 1 replica 0 to stage 0 replica 0: expected 2 messages, got 1 messages")
