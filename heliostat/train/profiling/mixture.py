"""A mixture of experts among the recorded calls."""

from collections.abc import Sequence
from math import prod

import torch

from heliostat.placement.workload import Experts
from heliostat.train.profiling.record import Call

_aten = torch.ops.aten


def experts_of(calls: Sequence[Call], num_samples: int) -> Experts | None:
    """Products with as many matrices as there are experts, of which `topk` chooses some for each token."""
    chosen = [call for call in calls if call.overload is _aten.topk.default]
    mixed = [call for call in calls if _is_mixed(call)]
    if not chosen or not mixed or mixed[0].product is None:
        return None
    first, choice = mixed[0].product, chosen[0].outputs[0].shape
    room, per_token = first.rows * first.batch, choice[-1]
    capacity = room / (prod(choice[:-1]) * per_token)
    weights = {id(weight): weight.numel() for call in mixed for weight in call.weights}
    return Experts(
        num_experts=first.batch,
        per_token=per_token,
        num_parameters=sum(weights.values()),
        exchanged_elements=room * first.k / num_samples,
        capacity=None if capacity == 1 else capacity,
    )


def _is_mixed(call: Call) -> bool:
    if call.product is None or call.product.batch == 1:
        return False
    return any(weight.dim() == 3 and weight.shape[0] == call.product.batch for weight in call.weights)
