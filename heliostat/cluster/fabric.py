"""The network between nodes: a tree of switches, racks, zones. Pure.

A level is named like the node label that tells which domain of it a node is in: level `rack`, label `rack: r7`. Two
nodes meet at the innermost level whose domain they share.
"""

from typing import Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from heliostat.cluster.links import NETWORK_LATENCY_S
from heliostat.values import Frozen


class FabricLevel(Frozen):
    """One level of switches."""

    name: str = Field(min_length=1)
    bytes_per_s: PositiveFloat | None = None
    """What one node gets across this level, each way, when all its peers are busy too: oversubscription is in it. None
    where nobody told; then the NICs alone decide."""
    latency_s: NonNegativeFloat = NETWORK_LATENCY_S


class Fabric(Frozen):
    """The levels, the innermost first. The outermost holds all nodes, labelled or not."""

    levels: tuple[FabricLevel, ...] = Field(min_length=1)
    rails: bool = False
    """NIC i of every node hangs on switch i of the innermost level; other pairs of NICs meet one level further out."""

    @model_validator(mode="after")
    def _levels_differ(self) -> Self:
        names = [level.name for level in self.levels]
        if len(set(names)) != len(names):
            raise ValueError(f"two levels have one name among {', '.join(names)}")
        return self
