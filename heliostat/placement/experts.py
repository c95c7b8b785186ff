"""The feed-forward part as a mixture of experts: router, dispatch, expert matrices, combination. Pure.

Every expert's product has as many rows as tokens come to it (Shazeer et al. 2017; with capacity Lepikhin et al. 2020):

    rows per expert = tokens x experts per token x capacity / experts
"""

from math import ceil
from typing import NamedTuple

from heliostat.placement import layers
from heliostat.placement.layers import LayerShape, Part
from heliostat.placement.workload import Experts


class Routing(NamedTuple):
    """How tokens come to experts."""

    experts: int
    per_token: int
    capacity: float | None

    def rows(self, tokens: int) -> int:
        """Of one expert's product."""
        return ceil(tokens * self.per_token * (self.capacity or 1.0) / self.experts)


def expert_layer(shape: LayerShape, tokens: int, routing: Routing) -> tuple[Part, Experts]:
    """The part of a layer, and the description of its experts."""
    h, inner, up = shape.hidden, shape.inner, 2 if shape.gated else 1
    rows = routing.rows(tokens)
    room = rows * routing.experts
    brought, returned = float(room * h), float(tokens * routing.per_token * h)
    scores = float(tokens * routing.experts)
    matrices = routing.experts * (up + 1) * h * inner
    redone = shape.selective == "pointwise"
    part = Part(
        ops=(
            layers.norm(shape, tokens, selective=redone),
            layers.product("router", shape, tokens, routing.experts, h, selective=redone),
            layers.memory("gate", 6.0 * scores, 6.0 * scores, launches=4, selective=redone),
            layers.memory("dispatch", 2.0 * brought, 3.0 * brought, launches=4, selective=redone),
            layers.product(
                "up",
                shape,
                rows,
                up * inner,
                h,
                batch=routing.experts,
                split="column",
                launches=up,
                selective=redone,
            ),
            layers.activation(shape, room),
            layers.product("down", shape, rows, h, inner, batch=routing.experts, split="row"),
            layers.memory("combine", 3.0 * returned + tokens * h, 4.0 * returned + tokens * h, launches=3),
            layers.add(shape, tokens),
        ),
        split_parameters=matrices,
        whole_parameters=shape.norm_parameters + h * routing.experts,
        # inputs of norm and router, what is brought to the experts and what they return
        replicated=(5.0 if shape.dropout else 4.0) * tokens * h + 2.0 * (brought + returned),
        split=layers.activation_bytes(shape, room),
    )
    return part, Experts(
        num_experts=routing.experts,
        per_token=routing.per_token,
        num_parameters=matrices,
        exchanged_elements=brought,
        capacity=routing.capacity,
    )
