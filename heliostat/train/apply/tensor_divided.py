"""Tensors of which every rank has a part, and that programs see as whole.

A model's own code runs on them unchanged: shapes are those of the single device, and every function of torch does on
the parts what it would do on the whole. What there is no rule for gets the whole, gathered from the ranks. So a
division can be slow, and cannot be wrong.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from heliostat.errors import PlanError
from heliostat.train.apply.tensor_bounds import Bounds, Place, length, widths
from heliostat.train.apply.tensor_group import TensorGroup

Rule = Callable[[Callable[..., Any], Sequence[Any], Mapping[str, Any]], Any]
"""What a function does on parts, from the function, its arguments and its keyword arguments; `NotImplemented` if it
needs the whole."""


class Divided(torch.Tensor):
    """A rank's part of a tensor, divided along one axis."""

    local: Tensor
    """What this rank has."""
    place: Place
    """How the whole is divided."""
    group: TensorGroup
    rules: ClassVar[dict[Any, Rule]] = {}
    """By function of torch."""
    families: ClassVar[list[Callable[[Any], Rule | None]]] = []
    """What finds rules for functions that have none of their own."""

    def __new__(cls, local: Tensor, axis: int, bounds: Bounds, group: TensorGroup) -> Self:
        """A tensor in parts.

        Args:
            local: what this rank has of the tensor.
            axis: that is divided, counted from the first or the last.
            bounds: where.
            group: the ranks that have the other parts.
        """
        axis %= local.dim()
        shape = list(local.shape)
        assert shape[axis] == widths(bounds)[group.rank], (shape, axis, bounds)
        shape[axis] = length(bounds)
        part: Self = torch.Tensor._make_wrapper_subclass(  # noqa: SLF001
            cls, shape, dtype=local.dtype, device=local.device, requires_grad=local.requires_grad
        )
        part.local, part.place, part.group = local, Place(axis, bounds), group
        if part.requires_grad:
            with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001
                part._backward_hooks = _HOOKS
        return part

    @property
    def axis_from_last(self) -> int:
        """1 for the last axis."""
        return self.dim() - self.place.axis

    def like(self, local: Tensor) -> "Divided":
        """Another tensor with as many axes, divided alike."""
        return Divided(local, *self.place, self.group)

    def gathered(self) -> Tensor:
        """The whole."""
        return self.group.gather(self.local, *self.place)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run `func` on the parts."""
        if _made_elsewhere(args):
            raise _refusal("torch.autograd.Function")
        rule = cls.rules.get(func) or cls._found(func)
        result = rule(func, args, kwargs or {})
        if result is NotImplemented:
            if _writes_to_part(func, args, kwargs or {}):
                raise _refusal(f"{func.__name__} on it")
            wholes, named = whole((args, kwargs or {}))
            return func(*wholes, **named)
        return result

    @classmethod
    def _found(cls, func: Any) -> Rule:
        rule = next((one for family in cls.families if (one := family(func)) is not None), _needs_whole)
        cls.rules[func] = rule
        return rule

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Refuse what went past `__torch_function__`."""
        raise _refusal(str(func))


def whole(tree: Any) -> Any:
    """A structure with every part in it made whole."""
    return pytree.tree_map_only(Divided, Divided.gathered, tree)


def rule_for(*functions: Any) -> Callable[[Rule], Rule]:
    """Make a rule that of `functions`."""

    def register(rule: Rule) -> Rule:
        Divided.rules |= dict.fromkeys(functions, rule)
        return rule

    return register


def _refusal(function: str) -> PlanError:
    return PlanError(
        f"tensor parallelism cannot divide what calls {function}",
        causes=("a kernel or a gradient of the model's own reads a divided tensor",),
        next_step="keep the parameters before it whole with tensor_rules, or pin `tensor_parallel: 1`",
    )


def changes_first(name: str) -> bool:
    """Whether a function of that name writes to its first argument."""
    if name.startswith("__"):
        return name == "__setitem__" or (name.startswith("__i") and name not in ("__invert__", "__index__", "__iter__"))
    return name.endswith("_")


def _writes_to_part(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether what `func` does to the whole would be lost on the part."""
    is_changed = changes_first(func.__name__) or func.__name__ in _WATCHED
    return (is_changed and bool(args) and isinstance(args[0], Divided)) or isinstance(kwargs.get("out"), Divided)


_WATCHED = {"register_hook", "register_post_accumulate_grad_hook", "retain_grad"}
"""Functions that ask for the gradient of their argument."""


def _made_elsewhere(args: Sequence[Any]) -> bool:
    """Whether autograd knows an argument: gradients go through the parts, and would not reach them from there."""
    given = [one for arg in args for one in (arg if isinstance(arg, list | tuple) else (arg,))]
    with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001
        return any(isinstance(one, Divided) and one.grad_fn is not None for one in given)


def _refused(_: Tensor) -> Tensor | None:
    raise _refusal("torch.autograd.Function")


_HOOKS: dict[int, Callable[[Tensor], Tensor | None]] = OrderedDict({0: _refused})
"""As `register_hook` would set them, the same for all."""


def _needs_whole(_: Callable[..., Any], __: Sequence[Any], ___: Mapping[str, Any]) -> Any:
    return NotImplemented


def _metadata(func: Any) -> Rule | None:
    """Attributes and questions that the whole's shape answers."""
    name = func.__self__.__name__ if func.__name__ == "__get__" else func.__name__
    return _ask if name in _QUESTIONS else None


_QUESTIONS = {
    "device", "dim", "dtype", "element_size", "get_device", "is_complex", "is_contiguous", "is_cpu", "is_cuda",
    "is_floating_point", "is_leaf", "is_meta", "is_mps", "is_nested", "is_quantized", "is_sparse", "is_tensor",
    "itemsize", "layout", "ndim", "ndimension", "nelement", "numel", "requires_grad", "shape", "size", "stride",
    "storage_offset", "__len__", "is_xpu", "is_same_size", "output_nr", "_version", "names", "__hash__", "_is_view",
}  # fmt: skip


def _ask(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001
        return func(*args, **kwargs)


Divided.families.append(_metadata)
