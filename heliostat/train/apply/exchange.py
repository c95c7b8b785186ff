"""Tensors between neighbouring stages of any widths: every replica sends each of its neighbours what both have.

Messages are told apart by tags, so that stages may run ahead of one another.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from heliostat.placement.strategy import Strategy
from heliostat.train.apply.chain import Leaf
from heliostat.train.apply.roles import Interval, Role, intervals, roles


class Peer(NamedTuple):
    """A rank to exchange with, and the samples that both have, counted from this rank's first."""

    rank: int
    begin: int
    end: int


class Exchange:
    """One rank's neighbours."""

    def __init__(self, strategy: Strategy, role: Role, device: torch.device) -> None:
        self._strategy, self._role, self._device = strategy, role, device
        self._rank_of = {(one.stage, one.replica, one.tensor): one.rank for one in roles(strategy)}
        self._sending: list[tuple[dist.Work, Tensor]] = []

    def send(self, stage: int, number: int, tag: int, tensors: Sequence[Tensor]) -> None:
        """Begin to send to `stage` what it needs of round `number`."""
        for peer in self._peers(stage, number):
            for place, tensor in enumerate(tensors):
                part = tensor.detach()[peer.begin : peer.end].contiguous()
                work = dist.isend(part, peer.rank, tag=_tag(tag, place))
                assert work is not None
                self._sending.append((work, part))
        self._sending = [(work, part) for work, part in self._sending if not work.is_completed()]

    def receive(self, stage: int, number: int, tag: int, leaves: Sequence[Leaf]) -> list[Tensor]:
        """What this rank needs of round `number`, from `stage`."""
        own = self._own(number)
        found, works = [], []
        for place, leaf in enumerate(leaves):
            whole = torch.empty((own.size, *leaf.shape), dtype=leaf.dtype, device=self._device)
            for peer in self._peers(stage, number):
                works.append(dist.irecv(whole[peer.begin : peer.end], peer.rank, tag=_tag(tag, place)))
            found.append(whole)
        for work in works:
            assert work is not None
            work.wait()
        return found

    def finish(self) -> None:
        """Wait until all that was sent has gone."""
        for work, _ in self._sending:
            work.wait()
        self._sending.clear()

    def _own(self, number: int) -> Interval:
        return intervals(self._strategy.stages[self._role.stage], number)[self._role.replica]

    def _peers(self, stage: int, number: int) -> list[Peer]:
        own = self._own(number)
        shared = [own.overlap(other) for other in intervals(self._strategy.stages[stage], number)]
        return [
            Peer(self._rank_of[stage, replica, self._role.tensor], both.begin - own.begin, both.end - own.begin)
            for replica, both in enumerate(shared)
            if both.size
        ]


MOST_TENSORS = 8
"""That cross one cut."""


def _tag(tag: int, place: int) -> int:
    assert place < MOST_TENSORS
    return tag * MOST_TENSORS + place
