from collections.abc import Iterable, Iterator
from itertools import chain

import torch

from heliostat.train.turns import Clock, Work, time_in_turns

NUM_ROUNDS = 6


class Script(Clock):
    """A clock that shows what it is told: each piece of work names the times it will take."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.asked: list[str] = []
        self.now = ""
        self.times: dict[str, Iterator[float]] = {}

    def work(self, name: str, times: Iterable[float]) -> Work:
        self.times[name] = iter(times)

        def run() -> None:
            self.now = name

        return run

    def time_s(self, work: Work, num_times: int) -> float:
        work()
        self.asked.append(self.now)
        assert num_times == 1
        return next(self.times[self.now])


def forever(*values: float) -> Iterator[float]:
    while True:
        yield from values


def test_the_median_and_the_spread() -> None:
    clock = Script()
    works = {"even": clock.work("even", forever(1.0)), "odd": clock.work("odd", forever(1.0, 2.0, 3.0, 50.0, 2.0))}
    found = time_in_turns(works, clock, min_rounds=NUM_ROUNDS, budget_s=0.0)
    assert found["even"] == (1.0, 0.0)
    assert found["odd"].seconds == 2.0
    assert 0 < found["odd"].spread <= 1.0


def test_work_takes_turns_and_short_work_more_timings() -> None:
    clock = Script()
    works = {"long": clock.work("long", forever(1.0)), "short": clock.work("short", forever(0.01))}
    time_in_turns(works, clock, min_rounds=NUM_ROUNDS, budget_s=0.0)
    turn = ["long", *["short"] * 2]
    assert clock.asked[8:] == turn * NUM_ROUNDS


def test_what_is_known_rests_until_the_rest_is() -> None:
    clock = Script()
    times = [1.0, 1.5] * 20
    works = {"sure": clock.work("sure", forever(1.0)), "unsure": clock.work("unsure", chain(times, forever(1.2)))}
    time_in_turns(works, clock, min_rounds=NUM_ROUNDS, budget_s=60.0)
    assert clock.asked.count("sure") == 4 + NUM_ROUNDS
    assert clock.asked.count("unsure") > len(times)


def test_a_budget_ends_what_never_gets_sure() -> None:
    clock = Script()
    works = {"wild": clock.work("wild", forever(1.0, 9.0))}
    time_in_turns(works, clock, min_rounds=NUM_ROUNDS, budget_s=0.0)
    assert len(clock.asked) == 4 + NUM_ROUNDS


def test_tiny_work_is_repeated_within_a_timing() -> None:
    repeats: list[int] = []

    class Counting(Clock):
        def time_s(self, work: Work, num_times: int) -> float:
            work()
            repeats.append(num_times)
            return 1e-5

    time_in_turns({"tiny": lambda: None}, Counting(torch.device("cpu")), min_rounds=2, budget_s=0.0)
    assert repeats[:4] == [1] * 4
    assert set(repeats[4:]) == {20}


def test_real_work_on_a_real_clock() -> None:
    a = torch.ones(64, 64)
    found = time_in_turns({"product": lambda: a @ a}, Clock(a.device), min_rounds=2, budget_s=0.0)
    assert 0 < found["product"].seconds < 1
