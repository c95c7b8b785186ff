from hypothesis import given
from hypothesis import strategies as st

from heliostat.placement.strategy import Strategy
from heliostat.train.apply.roles import Round, training_rounds
from heliostat.train.verify.shrink import num_samples, shrunk
from tests.train.apply.runs import plan, stage


def sizes(rounds: tuple[Round, ...]) -> list[list[list[int]]]:
    return [[[span.size for span in own] for own in one.spans] for one in rounds]


def test_shares_keep_their_proportion_and_every_replica_a_sample() -> None:
    strategy = plan(stage(0, 1, [(60, 30), (20, 10), (2, 1)]))
    [first, second] = sizes(shrunk(training_rounds(strategy)))
    assert first == second == [[30, 10, 1]]


def test_few_rounds_are_left_of_many_and_the_last_one_stays() -> None:
    strategy = plan(stage(0, 2, [(100, 8)]), stage(2, 4, [(100, 8)]))
    assert sizes(shrunk(training_rounds(strategy))) == [[[2], [2]]] * 5


def test_stages_of_different_widths_agree_on_every_round() -> None:
    strategy = plan(stage(0, 1, [(36, 9)]), stage(1, 4, [(24, 6), (12, 3)]))
    assert sizes(shrunk(training_rounds(strategy))) == [[[6], [4, 2]]] * 4


def test_an_interleaved_schedule_keeps_whole_groups_of_rounds() -> None:
    stages = [stage(place, place + 2, [(33, 1)]) for place in (0, 2, 4)]
    rounds = shrunk(training_rounds(plan(*stages, schedule="interleaved", chunks=2)))
    assert len(rounds) % 3 == 0


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 20)), min_size=1, max_size=5))
def test_no_share_vanishes_and_none_appears(shares: list[tuple[int, int]]) -> None:
    strategy: Strategy = plan(stage(0, 1, shares))
    whole, small = training_rounds(strategy), shrunk(training_rounds(strategy))
    assert num_samples(small) <= strategy.global_batch
    assert {tuple(size > 0 for size in own[0]) for own in sizes(small)} == {
        tuple(size > 0 for size in own[0]) for own in sizes(whole)
    }
    spans = [span for one in small for span in one.spans[0]]
    assert [span.begin for span in spans[1:]] == [span.end for span in spans[:-1]]
