"""Tensor parallelism of a single-device model: every rank of a group keeps its part of the parameters that divide.

The model's code is not changed. Where it reads a divided parameter it gets a `Divided`, which its functions work on; an
all-reduce makes their result whole where a product sums over divided features. Parameters keep their names.
"""

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils import _pytree as pytree

from heliostat.errors import PlanError
from heliostat.train.apply import tensor_elements, tensor_losses, tensor_products, tensor_shapes  # noqa: F401 they register rules
from heliostat.train.apply.tensor_bounds import Bounds, Place, even, spans
from heliostat.train.apply.tensor_divided import Divided
from heliostat.train.apply.tensor_group import TensorGroup
from heliostat.train.pieces import Division
from heliostat.train.profiling.divisions import ParameterCut
from heliostat.train.profiling.structure import BlockParts, canonical_names

Rules = Mapping[str, int | None]
"""Pattern of parameter paths -> the dimension that is divided; None: the parameter is whole. Later ones win."""


def divide(
    model: nn.Module,
    blocks: Sequence[BlockParts],
    group: TensorGroup,
    *,
    rules: Rules | None = None,
    keep: Collection[str] = (),
) -> dict[str, Division]:
    """Keep only this rank's part of the parameters that tensor parallelism divides.

    Args:
        model: with the same values on all ranks of the group, or on the meta device; it is changed.
        blocks: that this rank runs.
        group: the ranks that share them.
        rules: what the user says of parameters, beside or against what follows from the model.
        keep: first paths of parameters that stay whole whatever is said of them.

    Returns:
        By the first path of every divided parameter, which part of it this rank has.

    Raises:
        PlanError: a rule that fits no parameter, or cannot be followed.
    """
    names = canonical_names(model)
    known = {path: cut for block in reversed(blocks) for path, cut in block.cuts.items()}
    cuts = _ruled(model, known, rules or {})
    found: dict[str, Division] = {}
    for path, cut in cuts.items():
        bounds = even(cut.groups, cut.units, group.size)
        if cut.units < group.size or path in keep:
            continue
        found[path] = Division(cut.dim, spans(bounds, group.rank))
        _replace(model, [alias for alias, first in names.items() if first == path], found[path], bounds, group)
    for block in blocks:
        for module in block.modules:
            model.get_submodule(module).register_forward_hook(lambda *_: group.forget())
    _change(model, {"get_parameter": _own_parameter})
    return found


def pass_hooks(module: nn.Module) -> None:
    """Let other hooks of `module`, all there by now, see what this rank has of divided arguments and results.

    ZeRO's hooks mark tensors in the autograd graph, in which are the parts alone.
    """
    places: list[tuple[Place, TensorGroup] | None] = []

    def opened(tree: Any) -> Any:
        leaves, structure = pytree.tree_flatten(tree)
        places[:] = [(one.place, one.group) if isinstance(one, Divided) else None for one in leaves]
        return pytree.tree_unflatten([one.local if isinstance(one, Divided) else one for one in leaves], structure)

    def closed(tree: Any) -> Any:
        leaves, structure = pytree.tree_flatten(tree)
        found = [
            one if known is None else Divided(one, *known[0], known[1])
            for one, known in zip(leaves, places, strict=True)
        ]
        return pytree.tree_unflatten(found, structure)

    module.register_forward_pre_hook(lambda _, *given: opened(given), with_kwargs=True, prepend=True)
    module.register_forward_pre_hook(lambda _, *given: closed(given), with_kwargs=True)
    module.register_forward_hook(lambda _, __, result: opened(result), prepend=True)
    module.register_forward_hook(lambda _, __, result: closed(result))


def _replace(model: nn.Module, paths: Sequence[str], division: Division, bounds: Bounds, group: TensorGroup) -> None:
    """Put this rank's part in the place of a parameter, under all of its names."""
    whole = model.get_parameter(paths[0])
    part = nn.Parameter(division.of(whole.detach()), requires_grad=whole.requires_grad)
    for path in paths:
        owner, _, name = path.rpartition(".")
        module = model.get_submodule(owner)
        module._parameters[name] = part  # noqa: SLF001 setting the attribute would go through `_shown`
        _shown(module, name, division.dim, bounds, group)


def _shown(module: nn.Module, name: str, dim: int, bounds: Bounds, group: TensorGroup) -> None:
    """Let the module's code see a parameter as a `Divided`; lists of parameters still hold the part itself."""

    def show(self: nn.Module) -> Tensor | None:
        parameter = self._parameters[name]
        # ZeRO looks at its shards of the part here; while the module runs the part is in their place
        if parameter is None or isinstance(parameter, DTensor):
            return parameter
        return Divided(parameter, dim, bounds, group)

    _change(module, {name: property(show)})


def _change(module: nn.Module, members: Mapping[str, Any]) -> None:
    """Give one module a class of its own, with other members."""
    kind = type(module)
    module.__class__ = type(kind.__name__, (kind,), {"__module__": kind.__module__, **members})


def _own_parameter(self: nn.Module, target: str) -> nn.Parameter:
    """What this rank holds of a parameter, as `named_parameters` gives it."""
    owner, _, name = target.rpartition(".")
    parameter = self.get_submodule(owner)._parameters.get(name)  # noqa: SLF001
    if parameter is None:
        raise AttributeError(f"{target} is no parameter of {type(self).__name__}")
    return parameter


def _ruled(model: nn.Module, cuts: Mapping[str, ParameterCut], rules: Rules) -> dict[str, ParameterCut]:
    """The cuts with what the user says."""
    found, names = dict(cuts), canonical_names(model)
    for pattern, dim in rules.items():
        paths = {first for path, first in names.items() if fnmatchcase(path, pattern)}
        if not paths:
            raise PlanError(
                f"the tensor rule '{pattern}' fits no parameter",
                causes=("a path that the model does not have",),
                next_step=f"name parameters as the model does, for instance '{next(iter(names))}'",
            )
        for path in sorted(paths):
            found.pop(path, None)
            if dim is not None:
                found[path] = _cut_at(path, tuple(model.get_parameter(path).shape), dim)
    return found


def _cut_at(path: str, shape: tuple[int, ...], dim: int) -> ParameterCut:
    if not -len(shape) <= dim < len(shape):
        raise PlanError(
            f"the tensor rule for {path} names dimension {dim}",
            got=f"a parameter of shape {shape}",
            next_step=f"name a dimension below {len(shape)}, or null to keep the parameter whole",
        )
    return ParameterCut("column", dim % len(shape), (shape[dim],), shape[dim])
