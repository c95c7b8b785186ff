"""Time pieces of work that take turns until their medians are known.

Turns, so that drift of the machine hits all pieces alike. In each turn a piece is timed for about as long as any other,
so that a short one, which the scheduler disturbs most, is timed often. Every timing is kept by itself and their median
is taken: on a busy machine some of them wait for a whole time slice of another process, and a mean would tell of those.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from statistics import median, quantiles
from typing import NamedTuple, TypeVar

import torch

K = TypeVar("K")
Work = Callable[[], object]
TURN_S = 0.02
"""For how long a piece is timed in one turn, if it is not longer itself."""
SHORTEST_S = 2e-4
"""A timing repeats its work to be at least this long, so that clock, launch and start together do not matter."""
PRECISION = 0.02
"""Half of the 95 % interval of a median that is known well enough."""


class Clock:
    """Times work on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def time_s(self, work: Work, num_times: int) -> float:
        """Seconds that `work` takes until the device is done, each of `num_times`."""
        started = time.perf_counter()
        for _ in range(num_times):
            work()
        self._wait()
        return (time.perf_counter() - started) / num_times

    def meet(self) -> None:
        """Wait until all that are timed together are here."""
        self._wait()

    def slowest(self, values: Sequence[float]) -> list[float]:
        """The greatest of each of the values over all that are timed together; the same for all of them."""
        return list(values)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class Timing(NamedTuple):
    """What is known of the time of a piece of work."""

    seconds: float
    """Median over repetitions of the slowest rank's time."""
    spread: float
    """Interquartile range over the median."""


def time_in_turns(
    works: Mapping[K, Work], clock: Clock, *, min_rounds: int, budget_s: float, shortest_s: float = SHORTEST_S
) -> dict[K, Timing]:
    """Time all `works`. All ranks that are timed together call this with the same works in the same order.

    Args:
        works: what to time.
        clock: what to time it with.
        min_rounds: turns that each of them has.
        budget_s: after this time no round begins; before, those whose medians are known rest.
        shortest_s: shorter work is repeated within a timing until it is about this long.

    """
    for work in works.values():
        clock.time_s(work, 1)  # connections, plans and memory are set up by the first
    times = {key: _turn(work, clock, num_timings=3, num_times=1) for key, work in works.items()}
    repeats = {key: math.ceil(shortest_s / median(seen)) for key, seen in times.items()}
    unknown = list(works)
    started = time.perf_counter()
    for number in count(1):
        for key in unknown:
            seen = times[key]
            enough = math.ceil(TURN_S / (repeats[key] * median(seen)))
            # few at first: the first times may promise too much
            seen += _turn(works[key], clock, num_timings=min(enough, 2 * len(seen)), num_times=repeats[key])
        if number < min_rounds:
            continue
        unknown = [key for key in works if _error(times[key]) > PRECISION]
        [spent_s] = clock.slowest([time.perf_counter() - started])
        if not unknown or spent_s > budget_s:
            break
    return {key: _timing(seen) for key, seen in times.items()}


def _turn(work: Work, clock: Clock, *, num_timings: int, num_times: int) -> list[float]:
    clock.meet()
    return clock.slowest([clock.time_s(work, num_times) for _ in range(num_timings)])


def _error(times_s: Sequence[float]) -> float:
    """Half of the 95 % interval of the median over the median, from order statistics: free of any distribution."""
    ordered = sorted(times_s)
    num_away = 0.98 * math.sqrt(len(ordered))
    middle = (len(ordered) - 1) / 2
    low, high = max(0, math.floor(middle - num_away)), min(len(ordered) - 1, math.ceil(middle + num_away))
    return (ordered[high] - ordered[low]) / 2 / median(ordered)


def _timing(times_s: Sequence[float]) -> Timing:
    low, middle, high = quantiles(times_s, n=4, method="inclusive")
    return Timing(seconds=middle, spread=(high - low) / middle)
