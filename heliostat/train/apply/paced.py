"""Rests of an emulated slow device between the blocks of a pass, where other ranks may wait for it."""

from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from heliostat.train.apply.build import Part
from heliostat.train.slowdown import Pace


def rest_between_blocks(part: Part, pace: Pace) -> None:
    """Rest after the forward and the backward pass of every module of a block."""
    for name in (name for names in part.modules.values() for name in names):
        module = part.model.get_submodule(name)
        module.register_forward_pre_hook(_at_entry(pace), with_kwargs=True)
        module.register_forward_hook(lambda *_: pace.rest())


def _at_entry(pace: Pace) -> Any:
    """The backward pass of a module ends where the gradient of what it was given is there."""

    def hook(_: nn.Module, args: Any, kwargs: Any) -> None:
        given = [one for one in pytree.tree_leaves((args, kwargs)) if type(one) is Tensor and one.requires_grad]
        if given:
            given[0].register_hook(lambda _: pace.rest())  # type: ignore[no-untyped-call]

    return hook
