"""AdamW over one rank's parameters: gradients summed over the ranks that hold them, clipped, and the update.

What is plain and what ZeRO has sharded are kept apart: the fused update takes one sort at a time.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from heliostat.train import group
from heliostat.train.apply.build import Part
from heliostat.train.apply.team import Team
from heliostat.train.gradients import GradientSum
from heliostat.train.pieces import Held, held

MOMENTS = ("exp_avg", "exp_avg_sq")


class Update:
    """Gradients and AdamW's state of one rank.

    Args:
        part: of the model.
        team: the ranks.
        weight_decay: of AdamW.
        clip_norm: to which the norm of all gradients together is cut; None for no limit.
    """

    def __init__(self, part: Part, team: Team, *, weight_decay: float, clip_norm: float | None) -> None:
        self._part, self._team, self._clip_norm = part, team, clip_norm
        parameters = {name: part.model.get_parameter(name) for name in part.holdings}
        self._parameters = {name: one for name, one in parameters.items() if one.requires_grad}
        self._sharded = {name: one for name, one in self._parameters.items() if isinstance(one, DTensor)}
        self._plain = {name: one for name, one in self._parameters.items() if name not in self._sharded}
        self._sums = list(self._grouped())
        strategy = team.strategy
        self._is_alone = len(strategy.stages) == 1 and team.stage.ranks_per_replica == 1 and not self._sharded
        """Whether all ranks have all gradients, and need not meet over their norm."""
        sorts = [list(self._plain.values()), list(self._sharded.values())]
        groups: list[dict[str, Any]] = [{"params": sort} for sort in sorts if sort]
        self._adamw = torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)
        self._fill_state()

    def begin(self) -> None:
        """Forget the gradients of the last step."""
        for one, _ in self._sums:
            one.zero()
        for parameter in self._sharded.values():
            parameter.grad = None

    def before_last_backward(self) -> None:
        """The next backward pass completes the gradients."""
        for one, _ in self._sums:
            one.send_when_ready()

    def finish(self, count: float) -> float:
        """Wait for the sums, divide them by the global count, and clip.

        Returns:
            The norm of all gradients of the model before clipping, the same on all ranks.
        """
        for one, _ in self._sums:
            one.finish()
        self._multiply(1.0 / count)
        norm = self._norm()
        if self._clip_norm is not None and norm > self._clip_norm:
            self._multiply(self._clip_norm / norm)
        return norm

    def apply(self, learning_rate: float) -> None:
        """Change the parameters."""
        for parameters in self._adamw.param_groups:
            parameters["lr"] = learning_rate
        self._adamw.step()

    def parameters_held(self) -> dict[str, Held]:
        """The parameters that are here."""
        return {name: self._held(name, self._part.model.get_parameter(name)) for name in self._part.holdings}

    def state_held(self) -> dict[str, Held]:
        """AdamW's moments of them, as `NAME.exp_avg` and `NAME.exp_avg_sq`."""
        return {
            f"{name}.{moment}": self._held(name, self._adamw.state[parameter][moment])
            for name, parameter in self._parameters.items()
            for moment in MOMENTS
        }

    def restored(self, num_steps: int) -> None:
        """State was read into what `state_held` returned, after so many steps."""
        for parameter in self._parameters.values():
            self._adamw.state[parameter]["step"].fill_(num_steps)

    def not_finite(self) -> list[str]:
        """The parameters whose gradient is not finite."""
        return [
            name
            for name, parameter in self._parameters.items()
            if parameter.grad is not None and not torch.isfinite(_local(parameter.grad)).all()
        ]

    def _grouped(self) -> Iterable[tuple[GradientSum, int]]:
        """Gradients that are summed over the same ranks, with how many ranks have the same ones."""
        groups: dict[tuple[Any, ...], list[nn.Parameter]] = {}
        for name, parameter in self._plain.items():
            groups.setdefault(self._part.holdings[name][:3], []).append(parameter)
        own = self._team.replicas(self._team.role.stage, self._team.role.tensor)
        for (ranks, scale, num_copies), parameters in sorted(groups.items(), key=lambda item: item[0]):
            ranked = self._team.group(ranks)
            yield GradientSum(parameters, ranked, scale=scale, overlaps=ranks == own), num_copies

    def _multiply(self, factor: float) -> None:
        for one, _ in self._sums:
            one.multiply(factor)
        for parameter in self._sharded.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.mul_(factor)

    def _norm(self) -> float:
        square = sum(one.square() / num_copies for one, num_copies in self._sums)
        for name, parameter in self._sharded.items():
            assert parameter.grad is not None
            holding = self._part.holdings[name]
            copies = holding.num_copies / len(holding.ranks)
            square += torch.linalg.vector_norm(_local(parameter.grad)).item() ** 2 / copies
        if self._is_alone:
            square *= group.size()
        else:
            total = torch.tensor(square, dtype=torch.float64)
            for work in group.start_sum(total):
                work.wait()
            square = total.item()
        return math.sqrt(square) if math.isfinite(square) else math.nan

    def _held(self, name: str, tensor: Tensor) -> Held:
        """What is here of a tensor like a parameter; FSDP divides rows into equal chunks, the last ones smaller."""
        division, shape = self._part.divisions.get(name), self._part.shapes[name]
        first_row = 0
        if isinstance(tensor, DTensor):
            # the tensor's own mesh may be a cached one, made when this process had another rank
            ranks = self._part.holdings[name].ranks
            first_row = min(-(-tensor.shape[0] // len(ranks)) * ranks.index(group.rank()), tensor.shape[0])
        return held(_local(tensor).detach(), shape, division, first_row)

    def _fill_state(self) -> None:
        """What the first update would make, so that a checkpoint can be read into it."""
        for parameter in self._parameters.values():
            self._adamw.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                **{moment: torch.zeros_like(parameter) for moment in MOMENTS},
            }


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
