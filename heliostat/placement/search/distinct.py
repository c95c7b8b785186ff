"""Which of many plans are distinct to a person: in cuts, devices, degrees or schedule. Pure.

Plans that differ only in ZeRO, recomputation, offload, sequence parallelism or micro-batches are variants of one.
"""

from collections.abc import Sequence

from heliostat.placement.search.draft import Draft
from heliostat.placement.search.judge import Verdict


def distinct(ranked: Sequence[Verdict], most: int) -> list[Verdict]:
    """The best of each of the `most` best sorts of plan; with one sort alone, its variants."""
    chosen: dict[tuple[object, ...], Verdict] = {}
    for verdict in ranked:
        chosen.setdefault(_looks(verdict.draft), verdict)
        if len(chosen) == most:
            break
    return list(chosen.values()) if len(chosen) > 1 else list(ranked[:most])


def _looks(draft: Draft) -> tuple[object, ...]:
    stages = ((stage.first_block, stage.end_block, stage.shape) for stage in draft.stages)
    return (draft.schedule, draft.chunks, *stages)
