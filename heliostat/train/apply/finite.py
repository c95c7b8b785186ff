"""Which block of a model first puts out values that are not finite."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from heliostat.train.apply.build import Part


@contextmanager
def finding(part: Part, found: Callable[[tuple[int, str]], object]) -> Iterator[None]:
    """Tell `found` the number and path of every module of a block that puts out such values in the passes in here."""

    def look(number: int, name: str, _: nn.Module, __: Any, output: Any) -> None:
        leaves = [one for one in pytree.tree_leaves(output) if isinstance(one, Tensor) and one.is_floating_point()]
        if not all(torch.isfinite(one).all() for one in leaves):
            found((number, name))

    with ExitStack() as hooks:
        for number, names in part.modules.items():
            for name in names:
                module = part.model.get_submodule(name)
                hooks.callback(module.register_forward_hook(partial(look, number, name)).remove)
        yield
