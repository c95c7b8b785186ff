"""Tensors between neighbouring stages of any widths: every replica sends each of its neighbours what both have.

Every boundary between two parts of the chain has a process group of its own for activations and one for gradients. On
each of them messages come in the order of the rounds, which is all that NCCL, which knows no tags, goes by; and neither
direction waits for the other.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from heliostat.train.apply.chain import Leaf
from heliostat.train.apply.roles import Interval, Round
from heliostat.train.apply.team import Team

Kind = Literal["F", "B"]
"""Activations of forward passes, or gradients of backward passes."""
MOST_TENSORS = 16
"""That cross one cut."""


class Way(NamedTuple):
    """What a message belongs to."""

    kind: Kind
    boundary: int
    """Among those of the chain, from 0: boundary b lies between the parts b and b + 1."""
    stage: int
    """Of the other end."""


class Arriving(NamedTuple):
    """Tensors on their way."""

    tensors: list[Tensor]
    works: list[dist.Work]

    def wait(self) -> list[Tensor]:
        """The tensors, when they are here."""
        for work in self.works:
            work.wait()
        return self.tensors


class _Peer(NamedTuple):
    rank: int
    begin: int
    end: int
    """Samples that both have, counted from this rank's first."""


class Exchange:
    """One rank's neighbours. All ranks of a team make theirs together."""

    def __init__(self, team: Team, num_parts: int, device: torch.device) -> None:
        self._team, self._device = team, device
        self._groups: dict[tuple[Kind, int], dist.ProcessGroup] = {}
        self._sending: list[tuple[dist.Work, Tensor]] = []
        kinds: tuple[Kind, Kind] = ("F", "B")
        for kind in kinds:
            for boundary in range(num_parts - 1):
                group = dist.new_group(_ranks_at(team, boundary))
                assert group is not None
                self._groups[kind, boundary] = group

    def send(self, way: Way, one: Round, tensors: Sequence[Tensor]) -> None:
        """Begin to send what the other end needs of a round."""
        assert len(tensors) <= MOST_TENSORS
        for peer in self._peers(way.stage, one, self._receivers(way.stage)):
            for place, tensor in enumerate(tensors):
                part = tensor.detach()[peer.begin : peer.end].contiguous()
                work = dist.isend(part, peer.rank, group=self._groups[way[:2]], tag=_tag(one, place))
                assert work is not None
                self._sending.append((work, part))
        self._sending = [(work, part) for work, part in self._sending if not work.is_completed()]

    def receive(self, way: Way, one: Round, leaves: Sequence[Leaf]) -> Arriving:
        """Begin to receive what this rank needs of a round."""
        arriving = Arriving([], [])
        for place, leaf in enumerate(leaves):
            whole = torch.empty((self._own(one).size, *leaf.shape), dtype=leaf.dtype, device=self._device)
            for peer in self._peers(way.stage, one, [self._sender(way.stage)]):
                part = whole[peer.begin : peer.end]
                work = dist.irecv(part, peer.rank, group=self._groups[way[:2]], tag=_tag(one, place))
                assert work is not None
                arriving.works.append(work)
            arriving.tensors.append(whole)
        return arriving

    def finish(self) -> None:
        """Wait until all that was sent has gone."""
        for work, _ in self._sending:
            work.wait()
        self._sending.clear()

    def close(self) -> None:
        """Give the groups back, when nothing uses them any more."""
        for group in self._groups.values():
            dist.destroy_process_group(group)
        self._groups.clear()

    def _own(self, one: Round) -> Interval:
        return one.spans[self._team.role.stage][self._team.role.replica]

    def _peers(self, stage: int, one: Round, tensors: Sequence[int]) -> list[_Peer]:
        own = self._own(one)
        shared = [own.overlap(other) for other in one.spans[stage]]
        return [
            _Peer(self._team.rank(stage, replica, tensor), both.begin - own.begin, both.end - own.begin)
            for replica, both in enumerate(shared)
            if both.size
            for tensor in tensors
        ]

    def _sender(self, stage: int) -> int:
        """Which rank of another stage's replica this one receives from: all of them have the same values."""
        return self._team.role.tensor % self._team.strategy.stages[stage].ranks_per_replica

    def _receivers(self, stage: int) -> list[int]:
        """Which ranks of another stage's replica receive from this one."""
        others = range(self._team.strategy.stages[stage].ranks_per_replica)
        return [other for other in others if other % self._team.stage.ranks_per_replica == self._team.role.tensor]


def _ranks_at(team: Team, boundary: int) -> list[int]:
    num_stages = len(team.strategy.stages)
    ends = {boundary % num_stages, (boundary + 1) % num_stages}
    return [rank for rank, role in enumerate(team.roles) if role.stage in ends]


def _tag(one: Round, place: int) -> int:
    return one.number * MOST_TENSORS + place
