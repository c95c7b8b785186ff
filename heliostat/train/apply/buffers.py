"""Buffers, which the passes change on every replica by itself: the running statistics of batch normalisation."""

import torch.distributed as dist
from torch import Tensor

from heliostat.train.apply.build import Part
from heliostat.train.apply.team import Team


def share_buffers(part: Part, team: Team) -> None:
    """Give every rank of this stage the buffers of its first."""
    ranks = tuple(rank for rank, role in enumerate(team.roles) if role.stage == team.role.stage)
    together = team.group(ranks)
    if together is not None:
        for buffer in part.model.buffers():
            dist.broadcast(buffer, src=ranks[0], group=together)


def kept_buffers(part: Part) -> dict[str, Tensor]:
    """The buffers that a checkpoint keeps, but for those of blocks that are elsewhere."""
    kept = set(part.model.state_dict())
    return {
        name: one
        for name, one in part.model.named_buffers()
        if name in kept and not any(name.startswith(f"{path}.") for path in part.elsewhere)
    }
