"""Plans in words: what a stage holds, on what, and how it is split. Pure."""

from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from typing import Protocol

from heliostat.placement.strategy import StageStrategy, Strategy
from heliostat.placement.workload import WorkloadProfile

GIB, MIB = 1 << 30, 1 << 20
MOST_CHANGES = 3
"""More differences make another plan, not a change of one."""
TIME_WORDS = {
    "compute": "computing",
    "recompute": "recomputing activations",
    "tensor": "tensor-parallel communication",
    "gather": "gathering sharded parameters",
    "host": "waiting for the host",
    "bubble": "waiting for other stages",
    "sync": "gradient synchronisation",
    "optimizer": "the optimizer's update",
}
MEMORY_WORDS = {
    "parameters": "parameters",
    "gradients": "gradients",
    "optimizer": "optimizer states",
    "activations": "activations",
    "temporary": "temporary buffers",
    "reserve": "reserve",
}
SCHEDULE_WORDS = {
    "none": "no pipeline",
    "gpipe": "GPipe",
    "1f1b": "1F1B",
    "interleaved": "interleaved 1F1B",
    "zero-bubble": "zero-bubble (ZB-H1)",
}


class Devices(Protocol):
    """So many devices of a kind."""

    @property
    def kind(self) -> str:
        """Which."""

    @property
    def num_ranks(self) -> int:
        """How many."""


def devices_in_words(groups: Iterable[Devices]) -> str:
    """`8 x A100-40GB-SXM + 8 x V100-32GB-SXM`."""
    counts = Counter[str]()
    for group in groups:
        counts[group.kind] += group.num_ranks
    return kinds_in_words(counts)


def kinds_in_words(counts: dict[str, int]) -> str:
    """`16 x A100-40GB-SXM + 16 x V100-32GB-SXM`."""
    return " + ".join(f"{count:,} x {kind}" for kind, count in counts.items())


def blocks_in_words(workload: WorkloadProfile, stage: StageStrategy, strategy: Strategy) -> str:
    """`embedding, layers 1-15`; with several chunks only how many."""
    found, place = [], 0
    for block in workload.blocks:
        first, end = max(stage.first_block, place), min(stage.end_block, place + block.count)
        if end > first and block.count == 1:
            found.append(block.name)
        elif end > first and strategy.chunks > 1:
            found.append(f"{_count(end - first, block.name)} in {strategy.chunks} parts")
        elif end > first:
            found.append(_range(block.name, first - place + 1, end - place))
        place += block.count
    return ", ".join(found)


def split_in_words(stage: StageStrategy) -> str:
    """`2 replicas, tensor parallel 4, ZeRO 1`."""
    return ", ".join(
        filter(
            None,
            (
                _count(len(stage.replicas), "replica"),
                f"tensor parallel {stage.tensor_parallel}" if stage.tensor_parallel > 1 else "",
                f"context parallel {stage.context_parallel}" if stage.context_parallel > 1 else "",
                f"ZeRO {stage.zero}" if stage.zero and len(stage.replicas) > 1 else "",
                f"{stage.recompute} recomputation" if stage.recompute != "none" else "",
                "optimizer on the host" if stage.offload else "",
            ),
        )
    )


def strategy_in_words(workload: WorkloadProfile, strategy: Strategy) -> str:
    """The whole plan in a line: `2 x [15 layers on 8 x A100 (2 replicas, tensor parallel 4)] | ...; 1F1B`.

    What a stage holds is left out where there is only one.
    """
    main = max(workload.blocks, key=lambda block: block.count * block.forward_flops)
    begin = 0
    for block in workload.blocks:
        if block is main:
            break
        begin += block.count
    parts = []
    for stage in strategy.stages:
        many = max(0, min(stage.end_block, begin + main.count) - max(stage.first_block, begin))
        kinds = Counter[str]()
        for replica in stage.replicas:
            kinds[replica.device_kind] += stage.ranks_per_replica
        held = f"{_count(many, main.name)} on " if len(strategy.stages) > 1 else ""
        parts.append(f"{held}{kinds_in_words(kinds)} ({split_in_words(stage)})")
    folded = [(text, len(list(equal))) for text, equal in groupby(parts)]
    stages = " | ".join(f"{count} x [{text}]" if count > 1 else text for text, count in folded)
    sizes = sorted({replica.micro_batch for stage in strategy.stages for replica in stage.replicas})
    schedule = f"{SCHEDULE_WORDS[strategy.schedule]}, " if len(strategy.stages) > 1 else ""
    return f"{stages}; {schedule}micro-batch {'/'.join(map(str, sizes))}"


def change_in_words(best: Strategy, other: Strategy) -> str | None:
    """What is different in `other`: `ZeRO 1 in stage 2`; None where that is more than a few settings."""
    if len(best.stages) != len(other.stages):
        return None
    changes: dict[str, list[str]] = {}
    if best.schedule != other.schedule or best.chunks != other.chunks:
        parts = f" in {other.chunks} parts" if other.chunks > 1 else ""
        changes[f"{SCHEDULE_WORDS[other.schedule]}{parts}"] = []
    for number, (ours, theirs) in enumerate(zip(best.stages, other.stages, strict=True)):
        kinds = [[one.device_kind for one in stage.replicas] for stage in (ours, theirs)]
        if kinds[0] != kinds[1] or ours.tensor_parallel != theirs.tensor_parallel:
            return None
        for name, words in (
            ("end_block", f"end at block {theirs.end_block}"),
            ("zero", f"ZeRO {theirs.zero}" if theirs.zero else "no ZeRO"),
            ("recompute", f"{theirs.recompute} recomputation"),
            ("offload", f"optimizer {'on the host' if theirs.offload else 'on the device'}"),
            ("sequence_parallel", f"{'' if theirs.sequence_parallel else 'no '}sequence parallelism"),
            ("replicas", _other_shares(ours, theirs)),
        ):
            if getattr(ours, name) != getattr(theirs, name):
                changes.setdefault(words, []).append(str(number))
    if not 0 < len(changes) <= MOST_CHANGES:
        return None
    return " and ".join(f"{words}{_in_stages(stages)}" for words, stages in changes.items())


def _other_shares(ours: StageStrategy, theirs: StageStrategy) -> str:
    if [one.num_samples for one in ours.replicas] != [one.num_samples for one in theirs.replicas]:
        return "other shares"
    return f"micro-batch {'/'.join(map(str, sorted({one.micro_batch for one in theirs.replicas})))}"


def _in_stages(numbers: list[str]) -> str:
    return f" in stage{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}" if numbers else ""


def seconds(value: float) -> str:
    """`12.3 s`, `45.6 ms`."""
    if abs(value) >= 1:
        return f"{value:,.3g} s" if value < 1000 else f"{value:,.0f} s"
    return f"{value * 1e3:.3g} ms" if abs(value) >= 1e-3 else f"{value * 1e6:.3g} us"


def gib(num_bytes: float) -> str:
    """`31.4 GiB`, `46 MiB`."""
    return f"{num_bytes / GIB:.3g} GiB" if num_bytes >= GIB / 10 else f"{num_bytes / GIB * 1024:.3g} MiB"


def large(value: float) -> str:
    """`12.9 billion`, `42.2 thousand`."""
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{value / size:.3g} {word}"
    return f"{value:,.0f}"


def _range(name: str, first: int, last: int) -> str:
    return f"{name} {first}" if first == last else f"{name}s {first}-{last}"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
