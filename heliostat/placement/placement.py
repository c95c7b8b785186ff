"""Which exact device every rank gets: `Placement`. Pure values; the solver makes them, the gang actuates them."""

from pydantic import Field, NonNegativeInt, PositiveInt

from heliostat.values import Frozen


class RankPlacement(Frozen):
    """One rank, the device it owns, and its share of every global batch."""

    rank: NonNegativeInt
    node_id: str
    device_index: NonNegativeInt
    device_kind: str
    num_samples: PositiveInt
    micro_batch: PositiveInt


class Placement(Frozen):
    """A device for every rank, in rank order; ranks of one node are neighbours."""

    ranks: tuple[RankPlacement, ...] = Field(min_length=1)
    reason: str

    @property
    def shares(self) -> tuple[int, ...]:
        """Samples of every global batch by rank."""
        return tuple(rank.num_samples for rank in self.ranks)

    def describe(self) -> str:
        """The placement in one line."""
        return ", ".join(
            f"rank {rank.rank} on {rank.node_id[:8]}/{rank.device_index} ({rank.num_samples} samples)"
            for rank in self.ranks
        )
