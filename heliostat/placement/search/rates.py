"""How fast a stage on each shape would do the whole chain, run plainly: for the ranking of skeletons. Pure."""

from collections.abc import Sequence

import numpy as np

from heliostat.placement.collective_time import collective_s
from heliostat.placement.constraints import Pins
from heliostat.placement.device_time import element_bytes
from heliostat.placement.ground import Shape
from heliostat.placement.search.costs import PLAIN, Costs
from heliostat.placement.search.menu import suits
from heliostat.placement.search.shares import Shares


class Rates:
    """All shapes for one size of round."""

    def __init__(self, costs: Costs, shapes: Sequence[tuple[Shape, Shares]], num_rounds: int, pins: Pins) -> None:
        self.shapes = [shape for shape, _ in shapes]
        self.shares = [shares for _, shares in shapes]
        self.num_rounds, self.num_blocks = num_rounds, costs.chain.num_blocks
        rows = [_rate(costs, shape, shares, pins) for shape, shares in shapes]
        self.work_s, self.tail_s, self.hop_s = np.array(rows).T


def _rate(costs: Costs, shape: Shape, shares: Shares, pins: Pins) -> tuple[float, float, float]:
    """Seconds of a round, of synchronisation and optimizer, and to hand on."""
    everything = costs.chain.before[-1]
    links = costs.ground.typical_links(shape)
    option = PLAIN._replace(
        sequence_parallel=shape.tensor > 1 and pins.sequence_parallel is not False,
        recompute=pins.recompute or "none",
        zero=0 if shape.width == 1 else 1 if pins.zero is None else pins.zero,
    )
    assert suits(option, shape, pins)
    passes = []
    for kind, own in enumerate(shares):
        if own:
            forward, backward, _ = costs.all_times(kind, shape.tensor, (option,), max(own), links)
            passes.append((float(everything @ forward[:, 0]), float(everything @ backward[:, 0])))
    forward_s, backward_s = max(passes, key=sum)
    held = float(everything @ costs.parameters(shape.tensor))
    updates = [float(everything @ costs.updates(kind, shape.tensor)) for kind, own in enumerate(shares) if own]
    tail_s = max(updates) / shape.width
    if shape.width > 1 and not costs.gathers(option):
        sync_s = collective_s("all_reduce", held * costs.execution.gradient_bytes, links.data)
        tail_s += max(sync_s - backward_s, sync_s / costs.chain.num_blocks)
    kind = shape.first_kind
    sent = costs.chain.blocks[-2 if len(costs.chain.blocks) > 1 else -1].boundary_elements
    micro_batch = max(max(own) for own in shares if own)
    divided = shape.tensor if option.sequence_parallel else 1
    sent_bytes = sent * micro_batch * element_bytes(costs.execution.dtype) / divided
    hop_s = collective_s("send_recv", sent_bytes, costs.ground.pair_links(kind, kind, inside=False))
    return forward_s + backward_s, tail_s, hop_s
