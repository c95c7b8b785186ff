"""Which modules are the links of a model's chain, and which of them are equal.

The model stands for its children, a container for its elements, and a module that holds a stack of equal layers for its
children, unless it is such a layer itself. Any other module is one part.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import torch
from torch import nn

_LISTS = (nn.ModuleList, nn.ModuleDict)
"""Containers that cannot be called."""
_CONTAINERS = (*_LISTS, nn.Sequential)
_PLAIN = (bool, int, float, str, type(None), torch.dtype)


@dataclass(frozen=True, eq=False)
class Part:
    """A module of the chain."""

    name: str
    """Its path in the model."""
    module: nn.Module
    position: int | None = None
    """Of an element in its container; None for a part that stands alone."""
    sort: int = 0
    """Equal parts have the same number."""

    @property
    def is_element(self) -> bool:
        """Whether a container holds it."""
        return self.position is not None


def parts_of(model: nn.Module) -> list[Part]:
    """The parts of `model` in the order of its children."""
    sorts: list[Part] = []
    found = []
    for part in list(_parts("", model)) or [Part("model", model)]:
        sort = next((one.sort for one in sorts if _equal(one, part)), len(sorts))
        found.append(replace(part, sort=sort))
        if sort == len(sorts):
            sorts.append(found[-1])
    return found


def _parts(name: str, module: nn.Module, *, position: int | None = None) -> Iterator[Part]:
    prefix = f"{name}." if name else ""
    if isinstance(module, _CONTAINERS):
        repeated = _is_repeated(module)
        for number, (key, element) in enumerate(module.named_children()):
            if isinstance(element, _LISTS) or (not repeated and _holds_stack(element)):
                yield from _parts(prefix + key, element, position=number)
            else:
                yield Part(prefix + key, element, number)
    elif not name or _holds_stack(module):
        for key, child in module.named_children():
            yield from _parts(prefix + key, child)
    else:
        yield Part(name, module, position)


def _holds_stack(module: nn.Module) -> bool:
    return any(_is_repeated(below) for below in module.modules())


def _is_repeated(module: nn.Module) -> bool:
    """Whether two elements are equal and have parameters: a stack of layers."""
    if not isinstance(module, _CONTAINERS):
        return False
    elements = [
        Part(key, element, number)
        for number, (key, element) in enumerate(module.named_children())
        if any(True for _ in element.parameters())
    ]
    return any(_equal(one, other) for one, other in combinations(elements, 2))


def _equal(one: Part, other: Part) -> bool:
    """The same classes with the same shapes and settings; a setting that is the element's own position is the same."""
    if type(one.module) is not type(other.module):
        return False
    mine, its = list(one.module.named_modules()), list(other.module.named_modules())
    if len(mine) != len(its):
        return False
    return all(
        name == other_name and _alike(module, one.position, other_module, other.position)
        for (name, module), (other_name, other_module) in zip(mine, its, strict=True)
    )


def _alike(one: nn.Module, position: int | None, other: nn.Module, other_position: int | None) -> bool:
    if type(one) is not type(other) or _shapes(one) != _shapes(other):
        return False
    mine, its = _settings(one), _settings(other)
    return mine.keys() == its.keys() and all(
        mine[key] == its[key] or (position is not None and (mine[key], its[key]) == (position, other_position))
        for key in mine
    )


def _shapes(module: nn.Module) -> list[tuple[Any, ...]]:
    held = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return [(name, tensor.shape, tensor.dtype, tensor.requires_grad) for name, tensor in held]


def _settings(module: nn.Module) -> dict[str, Any]:
    """Attributes that may change what the module does: plain values, and functions such as its activation."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and (isinstance(value, _PLAIN) or _is_plain_tuple(value) or callable(value))
    }


def _is_plain_tuple(value: object) -> bool:
    return isinstance(value, tuple | list) and all(isinstance(item, _PLAIN) for item in value)
