"""Pipeline schedules, simulated event by event: GPipe, 1F1B, interleaved 1F1B, zero-bubble. Pure.

A schedule is for each stage an order of passes; a pass starts when the one before it on the same stage has ended and
its input has arrived. Stage times may differ, and so may the times to hand on activations and gradients. GPipe: Huang
et al. 2019. 1F1B: Narayanan et al. 2019. Interleaved: Narayanan et al. 2021. Zero-bubble: Qi et al. 2024, ZB-H1, which
splits the backward pass in what the previous stage waits for and what only the update waits for.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

Schedule = Literal["none", "gpipe", "1f1b", "interleaved", "zero-bubble"]


class StageTimes(NamedTuple):
    """Seconds of one micro-batch on one stage, or on one chunk of it."""

    forward_s: float
    backward_s: float
    """Of the gradient of the input; without zero-bubble of the parameters too."""
    weight_s: float = 0.0
    """Of the gradient of the parameters, where the schedule separates it."""
    send_forward_s: float = 0.0
    """To hand the output on to the next stage."""
    send_backward_s: float = 0.0
    """To hand the gradient back to the previous stage."""


class Pass(NamedTuple):
    """One pass that was simulated."""

    stage: int
    kind: Literal["F", "B", "W"]
    chunk: int
    micro_batch: int
    start_s: float
    end_s: float


class Timeline(NamedTuple):
    """What a schedule takes."""

    total_s: float
    passes: tuple[Pass, ...]
    """In order of their end on each stage."""
    in_flight: tuple[int, ...]
    """For each stage the most micro-batches (of one chunk each) whose activations it holds at once."""
    busy_s: tuple[float, ...]


Step = tuple[Literal["F", "B", "W"], int, int]


def order(schedule: Schedule, stage: int, num_stages: int, num_micro_batches: int, chunks: int = 1) -> list[Step]:
    """The passes of `stage`: kind, chunk, micro-batch."""
    if schedule == "interleaved" and chunks > 1:
        return _interleaved(stage, num_stages, num_micro_batches, chunks)
    if schedule == "gpipe":
        forward: list[Step] = [("F", 0, number) for number in range(num_micro_batches)]
        return forward + [("B", 0, number) for number in range(num_micro_batches)]
    warm_up = min(num_stages - stage - 1, num_micro_batches)
    steps: list[Step] = [("F", 0, number) for number in range(warm_up)]
    for number in range(num_micro_batches - warm_up):
        steps += [("F", 0, warm_up + number), ("B", 0, number)]
    steps += [("B", 0, number) for number in range(num_micro_batches - warm_up, num_micro_batches)]
    return _with_weight_passes(steps, stage, num_micro_batches) if schedule == "zero-bubble" else steps


def _with_weight_passes(steps: list[Step], stage: int, num_micro_batches: int) -> list[Step]:
    """ZB-H1: stage i puts its W passes i passes late, so that they fill the bubble at the end."""
    found: list[Step] = []
    done, late = 0, min(stage, num_micro_batches)
    for step in steps:
        found.append(step)
        if step[0] == "B" and step[2] >= late:
            found.append(("W", 0, done))
            done += 1
    return found + [("W", 0, number) for number in range(done, num_micro_batches)]


def _interleaved(stage: int, num_stages: int, num_micro_batches: int, chunks: int) -> list[Step]:
    """The order of Megatron-LM and torch: groups of `num_stages` micro-batches go through chunk after chunk."""
    total = num_micro_batches * chunks
    group = num_stages * chunks

    def place(number: int, *, forward: bool) -> tuple[int, int]:
        within = number % group
        left = num_micro_batches - number // group * num_stages
        width = min(num_stages, left)
        chunk = within // width
        return (chunk if forward else chunks - 1 - chunk), number // group * num_stages + within % width

    warm_up = min(total, (num_stages - stage - 1) * 2 + (chunks - 1) * num_stages)
    steps: list[Step] = [("F", *place(number, forward=True)) for number in range(warm_up)]
    for number in range(total - warm_up):
        steps += [("F", *place(warm_up + number, forward=True)), ("B", *place(number, forward=False))]
    return steps + [("B", *place(number, forward=False)) for number in range(total - warm_up, total)]


def simulate(
    schedule: Schedule, times: Sequence[Sequence[StageTimes]], num_micro_batches: int, *, keep: bool = False
) -> Timeline:
    """Run the schedule.

    Args:
        schedule: which.
        times: for each stage those of its chunks; one chunk each unless interleaved.
        num_micro_batches: per step.
        keep: whether the passes are wanted.
    """
    num_stages, chunks = len(times), len(times[0])
    orders = [order(schedule, stage, num_stages, num_micro_batches, chunks) for stage in range(num_stages)]
    at, clock = [0] * num_stages, [0.0] * num_stages
    busy, passes = [0.0] * num_stages, list[Pass]()
    ended: dict[tuple[str, int, int], float] = {}
    last = num_stages * chunks - 1
    waiting: dict[tuple[str, int, int], int] = {}
    ready = list(range(num_stages))
    while ready:
        stage = ready.pop()
        while at[stage] < len(orders[stage]):
            kind, chunk, number = orders[stage][at[stage]]
            virtual = chunk * num_stages + stage
            need = _input_of(kind, virtual, last)
            arrival = 0.0
            if need is not None:
                key = (need[0], need[1], number)
                if key not in ended:
                    waiting[key] = stage
                    break
                arrival = ended[key]
            one = times[stage][chunk]
            length = one.forward_s if kind == "F" else one.backward_s if kind == "B" else one.weight_s
            start = max(clock[stage], arrival)
            end = start + length
            clock[stage] = end
            busy[stage] += length
            sent = one.send_forward_s if kind == "F" and virtual < last else 0.0
            sent = one.send_backward_s if kind == "B" and virtual > 0 else sent
            ended[kind, virtual, number] = end + sent
            if keep:
                passes.append(Pass(stage, kind, chunk, number, start, end))
            at[stage] += 1
            if (kind, virtual, number) in waiting:
                ready.append(waiting.pop((kind, virtual, number)))
    assert all(at[stage] == len(orders[stage]) for stage in range(num_stages)), "the schedule waits for itself"
    in_flight = tuple(most_in_flight(one) for one in orders)
    return Timeline(max(clock), tuple(passes), in_flight, tuple(busy))


def most_in_flight(steps: Sequence[Step]) -> int:
    """The most forward passes of a stage whose backward (and weight) pass has not been."""
    released: Literal["B", "W"] = "W" if any(step[0] == "W" for step in steps) else "B"
    now = most = 0
    for kind, _, _ in steps:
        now += 1 if kind == "F" else -1 if kind == released else 0
        most = max(most, now)
    return most


def closed_form_s(times: Sequence[StageTimes], num_micro_batches: int) -> float:
    """An estimate for 1F1B and GPipe: one micro-batch's way through, and the slowest stage's other micro-batches.

    Exact for equal stages without transfers: (m + p - 1)(f + b).
    """
    once = sum(one.forward_s + one.backward_s for one in times)
    slowest = max(one.forward_s + one.backward_s for one in times)
    transfers = sum(one.send_forward_s for one in times[:-1]) + sum(one.send_backward_s for one in times[1:])
    return once + transfers + (num_micro_batches - 1) * slowest


def _input_of(kind: str, virtual: int, last: int) -> tuple[str, int] | None:
    if kind == "F":
        return None if virtual == 0 else ("F", virtual - 1)
    if kind == "B":
        return ("F", last) if virtual == last else ("B", virtual + 1)
    return "B", virtual
