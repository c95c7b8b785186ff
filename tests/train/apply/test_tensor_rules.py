"""Functions of torch give on parts what they give on the whole, and the same gradients."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from heliostat.train.apply import tensor  # noqa: F401 it brings the rules
from heliostat.train.apply.tensor_bounds import even
from heliostat.train.apply.tensor_divided import Divided, whole
from heliostat.train.apply.tensor_group import TensorGroup
from tests.train.apply.tensor_ranks import on_ranks, world

pytestmark = pytest.mark.dist
SHAPE, AXIS = (3, 4, 6, 8), 1
"""Of the tensor that functions get, and its divided axis: as heads are. Others are whole: `row` (8), `heads` (4, 1, 1),
`cube` (3, 4, 6, 8), `square` (8, 8), `mask` (3, 1, 6, 8) of bools."""
Run = Callable[..., Any]

STAY_DIVIDED: dict[str, Run] = {
    "scaled": lambda x, **_: 2 * x / 3 - 1 + (1 - x) * -x,
    "powers": lambda x, **_: x**2 + 2**x + x.abs().sqrt() + x.pow(3) + torch.exp(-x) + x.sigmoid(),
    "in place": lambda x, **_: x.clone().mul_(2).add_(1),
    "compared": lambda x, **_: torch.where(x > 0, x, -0.5 * x) + (x < 0).float() + (x != 0).to(x.dtype),
    "activations": lambda x, **_: functional.gelu(x) + functional.silu(x) + functional.relu(x) + functional.softplus(x),
    "with a whole row": lambda x, row, **_: row * x + row,
    "with a number per head": lambda x, heads, **_: x * heads - heads,
    "with a whole tensor": lambda x, cube, **_: cube * x,
    "larger of two": lambda x, row, **_: torch.maximum(x, row) + torch.min(x, 2 * row) + 1 / (1 + x**2),
    "rounded": lambda x, **_: (5 - x.detach()) // 2 + x,
    "masked": lambda x, mask, **_: x.masked_fill(mask, -1.0) + x.clamp(min=0),
    "moved": lambda x, **_: x.transpose(1, 2).permute(0, 2, 3, 1).contiguous().movedim(1, -1).mT,
    "viewed": lambda x, **_: x.reshape(12, 6, 8).view(3, 4, 48).flatten(1).unflatten(1, (4, 6, 8)).view_as(x),
    "indexed": lambda x, **_: x[..., 1:5] * x[:, :, None, 2, 4:] + x[:, :, :1, 1::2],
    "split": lambda x, **_: torch.cat([one * at for at, one in enumerate(x.split([2, 6], -1))], dim=-1),
    "in chunks": lambda x, **_: torch.stack(x.chunk(2, dim=-1), dim=0).sum(0) + x.unbind(-1)[0][..., None],
    "rotated": lambda x, row, **_: torch.cat([-x[..., 4:], x[..., : x.shape[-1] // 2]], dim=-1) * row,
    "repeated": lambda x, **_: x[:, :, None].expand(3, 4, 2, 6, 8).reshape(3, 8, 6, 8) + x.repeat_interleave(2, 1),
    "tiled": lambda x, **_: x.repeat(2, 1, 1, 3),
    "squeezed": lambda x, **_: x.unsqueeze(0).squeeze(0).narrow(2, 1, 3).select(-1, 2),
    "iterated": lambda x, **_: sum(one * at for at, one in enumerate(x)),
    "padded": lambda x, **_: functional.pad(x, (1, 2, 0, 1)),
    "softmax": lambda x, **_: functional.softmax(x, dim=-1, dtype=torch.float64) + x.log_softmax(-2),
    "summed": lambda x, **_: x.sum(-1) + x.mean((-1,)) + x.amax(dim=-1) + x.max(-1).values + x.var(-1),
    "kept": lambda x, **_: x.sum((2, 3), keepdim=True) + x.pow(2).mean(-1, keepdim=True),
    "normed": lambda x, row, **_: functional.layer_norm(x, (8,), row) + functional.rms_norm(x, (8,), row, 1e-6),
    "linear": lambda x, square, row, **_: functional.linear(x, square, row) @ square,
    "products": lambda x, cube, **_: (x @ cube.transpose(-1, -2)).softmax(-1) @ cube,
    "products of batches": lambda x, cube, **_: torch.bmm(x.reshape(12, 6, 8), cube.view(12, 6, 8).mT),
    "einsum": lambda x, cube, square, **_: torch.einsum("bhid,bhjd,de->bhije", x, cube, square),
    "attention": lambda x, mask, **_: functional.scaled_dot_product_attention(x, x * 2, x + 1, ~mask[..., :6]),
}  # fmt: skip
"""What needs no other rank."""
BECOME_WHOLE: dict[str, Run] = {
    "total": lambda x, **_: x.sum() + x.mean((0, 1)).sum() + x.sum(1).square().mean(),
    "product over the divided axis": lambda x, square, **_: functional.linear(x.transpose(1, -1), square[:, :4]),
    "rows of a product": lambda x, square, row, **_: torch.addmm(
        row, x.transpose(1, 2).reshape(18, 32), square.repeat(4, 1)
    ),
    "einsum over the divided axis": lambda x, cube, **_: torch.einsum("bhid,bhjd->ij", x, cube),
    "largest": lambda x, **_: x.amax(1) + x.max() + x.topk(2, 1).values.sum(),
    "one of the divided axis": lambda x, **_: x[:, 2] + x.select(1, 1) + x.unbind(1)[3],
    "views across the division": lambda x, **_: x.transpose(1, 2).reshape(3, 4, 48) * 2,
    "positions": lambda x, **_: x.gather(1, torch.ones(3, 1, 6, 8, dtype=torch.long)) + x[[0], [1]].sum(),
    "squeezed where parts are one wide": lambda x, **_: x.mean((0, 2, 3)).view(1, 2, 2)[:, :, 0].squeeze(),
    "flipped": lambda x, **_: torch.flip(x, (1,)) + torch.roll(x, 1, 1),
    "norm over the divided axis": lambda x, **_: functional.layer_norm(x.transpose(1, -1), (4,)),
}  # fmt: skip
"""What adds up over the ranks, or has no rule and gets the whole."""


def operands() -> dict[str, Tensor]:
    torch.manual_seed(0)
    shapes = {"x": SHAPE, "row": (8,), "heads": (4, 1, 1), "cube": SHAPE, "square": (8, 8)}
    found = {name: torch.randn(shape, requires_grad=True) for name, shape in shapes.items()}
    return {**found, "mask": torch.rand(3, 1, 6, 8) < 0.3}


def differences(name: str, rank: int, size: int) -> tuple[bool, float]:
    """Whether the result is divided, and the largest difference of it and of the operands' gradients."""
    run = (STAY_DIVIDED | BECOME_WHOLE)[name]
    group = TensorGroup(dist.group.WORLD, rank, size)  # type: ignore[arg-type]
    given, own = operands(), operands()
    bounds = even((SHAPE[AXIS],), SHAPE[AXIS], size)
    part = group.part(own["x"].detach(), AXIS, bounds).requires_grad_()
    known = run(**given)
    found = run(**{**own, "x": Divided(part, AXIS, bounds, group)})
    weights = torch.randn(known.shape, dtype=known.dtype)
    (known * weights).sum().backward()
    gathered = whole(found)
    (gathered * weights).sum().backward()
    gradient = given["x"].grad
    assert gradient is not None
    gradients: list[tuple[Tensor | None, Tensor | None]] = [(group.part(gradient, AXIS, bounds), part.grad)]
    gradients += [(given[one].grad, own[one].grad) for one in ("row", "heads", "cube", "square")]
    worst = max((one - other).abs().max().item() for one, other in gradients if one is not None and other is not None)
    missing = any((one is None) != (other is None) for one, other in gradients)
    assert tuple(found.shape) == tuple(known.shape)
    assert found.dtype == known.dtype
    assert not missing
    return isinstance(found, Divided), max(worst, (gathered - known).abs().max().item())


def all_differences(meeting: str, rank: int, size: int) -> dict[str, tuple[bool, float]]:
    with world(meeting, rank, size):
        return {name: differences(name, rank, size) for name in STAY_DIVIDED | BECOME_WHOLE}


@pytest.mark.parametrize("size", [2, 3])
def test_functions_on_parts(ranks: ProcessPoolExecutor, tmp_path: Path, size: int) -> None:
    for found in on_ranks(ranks, tmp_path, size, all_differences):
        assert {name for name, (_, error) in found.items() if error > 1e-4} == set()
        assert {name for name, (is_divided, _) in found.items() if is_divided} == STAY_DIVIDED.keys()


LOSSES: dict[str, Run] = {
    "sum": partial(functional.cross_entropy, reduction="sum"),
    "mean": functional.cross_entropy,
    "none": lambda logits, target: (functional.cross_entropy(logits, target, reduction="none") * target).sum(),
    "ignored": lambda logits, target: functional.cross_entropy(logits, target, ignore_index=3),
    "smoothed": lambda logits, target: functional.cross_entropy(logits, target, label_smoothing=0.1),
    "weighted": lambda logits, target: functional.cross_entropy(logits, target, weight=torch.arange(7.0)),
    "logarithms": lambda logits, target: functional.nll_loss(logits.log_softmax(1), target, reduction="sum"),
    "shares": lambda logits, target: -logits.softmax(1)[torch.arange(5), target].log().sum(),
    "positions": lambda logits, target: functional.cross_entropy(
        logits[:, :, None].repeat(1, 1, 2), target[:, None].repeat(1, 2)
    ),
    "binary": lambda logits, target: functional.binary_cross_entropy_with_logits(
        logits, functional.one_hot(target, 7).float(), reduction="sum"
    ),
}  # fmt: skip


def loss_differences(meeting: str, rank: int, size: int) -> dict[str, float]:
    found = {}
    with world(meeting, rank, size):
        group, bounds = TensorGroup(dist.group.WORLD, rank, size), even((7,), 7, size)  # type: ignore[arg-type]
        for name, loss in LOSSES.items():
            torch.manual_seed(1)
            logits, target = torch.randn(5, 7, requires_grad=True), torch.tensor([0, 3, 6, 3, 5])
            part = group.part(logits.detach(), 1, bounds).requires_grad_()
            known, made = loss(logits, target), whole(loss(Divided(part, 1, bounds, group), target))
            known.backward()
            made.backward()
            assert part.grad is not None
            gradient = group.part(logits.grad, 1, bounds)  # type: ignore[arg-type]
            found[name] = max((known - made).abs().item(), (gradient - part.grad).abs().max().item())
    return found


def test_losses_on_divided_classes(ranks: ProcessPoolExecutor, tmp_path: Path) -> None:
    for found in on_ranks(ranks, tmp_path, 2, loss_differences):
        assert {name: error for name, error in found.items() if error > 1e-5} == {}
