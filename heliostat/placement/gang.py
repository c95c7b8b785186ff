"""A placement made real on Ray: one placement group, one bundle per rank, every bundle pinned to its node.

A group is granted whole or not at all, so two gangs cannot hold each other's devices and wait for ever.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from heliostat.errors import PlacementError
from heliostat.placement.placement import Placement

NODE_ID_LABEL = "ray.io/node-id"
GRANT_TIMEOUT_S = 30.0
"""Ray grants an idle group of this size within 0.2 s; half a minute leaves room for workers that are just leaving."""


def label_selectors(placement: Placement) -> list[dict[str, str]]:
    """For every rank, the label selector that pins it to its node."""
    return [{NODE_ID_LABEL: rank.node_id} for rank in placement.ranks]


def resources(device_kinds: Iterable[str], cpus_per_rank: float) -> dict[str, float]:
    """What every rank on devices of these kinds asks Ray for: its cores, and its GPU where they are GPUs.

    Raises:
        PlacementError: some are GPUs and some are cores.
    """
    kinds = set(device_kinds)
    on_gpus = {not kind.startswith("cpu") for kind in kinds}
    if len(on_gpus) > 1:
        raise PlacementError(
            "a gang has either GPUs or cores, not both",
            got=", ".join(sorted(kinds)),
            causes=("Ray Train gives all workers the same resources",),
            next_step="plan for one of them: leave the nodes without GPUs out of the cluster",
        )
    return {"CPU": cpus_per_rank, **({"GPU": 1.0} if on_gpus.pop() else {})}


@contextmanager
def reserve(placement: Placement, cpus_per_rank: float) -> Iterator[PlacementGroup]:
    """Hold the devices of `placement` for the length of a `with` block.

    Raises:
        PlacementError: Ray did not grant the group in time.

    """
    group = placement_group(
        [resources((rank.device_kind for rank in placement.ranks), cpus_per_rank)] * len(placement.ranks),
        bundle_label_selector=label_selectors(placement),
    )
    try:
        if not group.wait(GRANT_TIMEOUT_S):
            raise PlacementError(
                f"Ray did not grant the placement within {GRANT_TIMEOUT_S:.0f} s",
                where=placement.describe(),
                got=f"free now: {ray.available_resources()}",
                causes=("another job took the devices after the plan was made", "a node was lost"),
                next_step="heliostat status",
            )
        yield group
    finally:
        remove_placement_group(group)


def verify(placement: Placement, node_ids: Sequence[str]) -> None:
    """Compare the nodes that the ranks really run on, in rank order, with the placement.

    Raises:
        PlacementError: some rank is not where it should be.

    """
    wrong = [
        f"rank {rank.rank} is on {node_id[:8]} and belongs on {rank.node_id[:8]}"
        for rank, node_id in zip(placement.ranks, node_ids, strict=True)
        if rank.node_id != node_id
    ]
    if wrong:
        raise PlacementError("Ray did not place the ranks as told", got="; ".join(wrong), next_step="run again")
