"""Which exact device every rank gets: `Placement`. Pure values; the solver makes them, the gang actuates them."""

from pydantic import Field, NonNegativeInt

from heliostat.values import Frozen


class RankPlacement(Frozen):
    """One rank, what it does in the plan, and the device it owns."""

    rank: NonNegativeInt
    role: NonNegativeInt
    """Which rank of the plan it plays: its place in `roles.roles(strategy)`."""
    node_id: str
    device_index: NonNegativeInt
    device_kind: str


class Placement(Frozen):
    """A device for every rank, in rank order; ranks of one node are neighbours."""

    ranks: tuple[RankPlacement, ...] = Field(min_length=1)
    reason: str

    def describe(self) -> str:
        """The placement in one line."""
        return ", ".join(
            f"rank {rank.role} of the plan on {rank.node_id[:8]}/{rank.device_index}" for rank in self.ranks
        )
