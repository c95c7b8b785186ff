"""How samples are dealt out: all of them, by speed, to everybody."""

from hypothesis import given, settings
from hypothesis import strategies as st

from heliostat.placement.search.shares import share_round, whole_step

COUNTS = st.lists(st.integers(0, 4), min_size=1, max_size=3).filter(any).map(tuple)


@given(COUNTS, st.integers(1, 40), st.lists(st.floats(0.1, 10), min_size=3, max_size=3))
def test_a_round_is_shared_so_that_the_slowest_takes_least(
    counts: tuple[int, ...], samples: int, speeds: list[float]
) -> None:
    def seconds(kind: int, own: int) -> float:
        return 0.5 + own / speeds[kind]

    shares = share_round(counts, samples, lambda kind: [seconds(kind, own) for own in range(1, samples + 1)])
    if sum(counts) > samples:
        assert shares is None
        return
    assert shares is not None
    assert [len(own) for own in shares] == list(counts)
    assert sum(map(sum, shares)) == samples
    assert all(own > 0 for of_kind in shares for own in of_kind)
    slowest = max(seconds(kind, max(own)) for kind, own in enumerate(shares) if own)
    if any(own and seconds(kind, max(own)) == slowest and max(own) == 1 for kind, own in enumerate(shares)):
        return
    for kind, own in enumerate(shares):
        if own and seconds(kind, max(own)) < slowest:
            # could it have taken one sample from the slowest and been done sooner?
            assert seconds(kind, min(own) + 1) >= slowest * (1 - 1e-9)


@settings(max_examples=200)
@given(COUNTS, st.integers(1, 24), st.integers(1, 60))
def test_a_step_has_all_samples_and_leaves_nobody_out(counts: tuple[int, ...], size: int, batch: int) -> None:
    shares = share_round(counts, size, lambda kind: [own * (kind + 1.0) for own in range(1, size + 1)])
    if shares is None or size > batch:
        return
    parts = whole_step(shares, batch)
    assert sum(part.num_replicas * part.num_samples for part in parts) == batch
    assert all(part.num_samples > 0 and part.micro_batch > 0 for part in parts)
    for number in range(-(-batch // size)):
        own = [
            part.num_replicas * min(part.micro_batch, part.num_samples - number * part.micro_batch) for part in parts
        ]
        assert sum(max(0, one) for one in own) == min(size, batch - number * size)
    for kind, count in enumerate(counts):
        assert sum(part.num_replicas for part in parts if part.kind == kind) == count


def test_who_has_one_sample_of_the_last_round_gives_that_one_alone() -> None:
    parts = whole_step(((1,), (1, 1)), 7)
    assert sorted((part.kind, part.num_replicas, part.num_samples) for part in parts) == [
        (0, 1, 2),
        (1, 1, 2),
        (1, 1, 3),
    ]
