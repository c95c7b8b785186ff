"""Activations made again give the same gradients, and less is kept."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.pipelining._backward import stage_backward_input, stage_backward_weight

from heliostat.placement.strategy import Recompute
from heliostat.train.apply.recompute import recomputed

TOKENS, WIDTH = 32, 4


class Attention(nn.Module):
    """Not fused, with dropout; counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.dropout, self.num_passes = nn.Linear(WIDTH, 3 * WIDTH), nn.Dropout(0.5), 0

    def forward(self, x: Tensor) -> Tensor:
        self.num_passes += 1
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        found: Tensor = self.dropout((q @ k.transpose(1, 2)).softmax(dim=-1)) @ v
        return found


def made(recompute: Recompute, *, in_two: bool) -> tuple[Attention, Tensor, Tensor, int]:
    """A module after its forward pass: it, its input and output, and the bytes that are kept for the backward pass."""
    torch.manual_seed(0)
    module = Attention()
    if recompute != "none":
        module.forward = recomputed(module.forward, recompute, in_two=in_two)  # type: ignore[method-assign]
    x = torch.randn(2, TOKENS, WIDTH, requires_grad=True)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = module(x)
    return module, x, out, sum(kept.values())


def gradients(recompute: Recompute, *, in_two: bool) -> tuple[Sequence[Any], int]:
    """Of input and parameters, and how often the module ran."""
    module, x, out, _ = made(recompute, in_two=in_two)
    if in_two:
        parameters = list(module.parameters())
        (own,), groups = stage_backward_input([out], [torch.ones_like(out)], [x], iter(parameters))
        stage_backward_weight(iter(parameters), groups)
        return [own, *(one.grad for one in parameters)], module.num_passes
    out.sum().backward()  # type: ignore[no-untyped-call]
    return [x.grad, *(one.grad for one in module.parameters())], module.num_passes


@pytest.mark.parametrize("recompute", ["selective", "full"])
@pytest.mark.parametrize("in_two", [False, True])
def test_gradients_are_the_same(recompute: Recompute, *, in_two: bool) -> None:
    """Dropout too. A backward pass in two makes the activations again for each."""
    wanted, num_passes = gradients("none", in_two=False)
    found, num_again = gradients(recompute, in_two=in_two)
    assert (num_passes, num_again) == (1, 3 if in_two else 2)
    for one, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, right)


def test_nothing_is_made_again_without_a_backward_pass() -> None:
    module = Attention()
    with torch.no_grad():
        recomputed(module.forward, "full")(torch.randn(1, TOKENS, WIDTH))
    assert module.num_passes == 1
