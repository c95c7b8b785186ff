"""Rules of losses on logits whose classes are divided: only a few numbers per token go between the ranks.

As Megatron-LM's vocabulary-parallel cross entropy (Shoeybi et al. 2019).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from heliostat.train.apply.tensor_divided import Divided, rule_for

Args = Sequence[Any]
Kwargs = Mapping[str, Any]
Function = Callable[..., Any]


@rule_for(functional.cross_entropy)
def _cross_entropy(_: Function, args: Args, kwargs: Kwargs) -> Any:
    names = ("input", "target", "weight", "size_average", "ignore_index", "reduce", "reduction", "label_smoothing")
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    logits, target = given["input"], given["target"]
    if given.get("label_smoothing") or not _is_plain(logits, given):
        return NotImplemented
    shifted = _shifted(logits)
    return _combined(_log_total(shifted).squeeze(1) - _picked(shifted, target), given)


@rule_for(functional.nll_loss)
def _nll_loss(_: Function, args: Args, kwargs: Kwargs) -> Any:
    names = ("input", "target", "weight", "size_average", "ignore_index", "reduce", "reduction")
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    if not _is_plain(given["input"], given):
        return NotImplemented
    return _combined(-_picked(given["input"], given["target"]), given)


def _is_plain(scores: Any, given: Mapping[str, Any]) -> bool:
    """Whether the classes are divided, the target is one of them each time, and no class has a weight."""
    target, others = given["target"], (given.get(name) for name in ("weight", "size_average", "reduce"))
    is_divided = isinstance(scores, Divided) and scores.dim() > 1 and scores.place.axis == 1
    is_known = is_divided and len(scores.place.bounds) == 1 and not isinstance(target, Divided)
    return is_known and not target.is_floating_point() and all(one is None for one in others)


def _combined(losses: Tensor, given: Mapping[str, Any]) -> Tensor:
    """Losses as `reduction` says; those of ignored targets are zero and do not count."""
    counts = given["target"] != given.get("ignore_index", -100)
    losses, reduction = torch.where(counts, losses, 0.0), given.get("reduction", "mean")
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / counts.sum()


@rule_for(torch.log_softmax, functional.log_softmax, Tensor.log_softmax)
def _logs(func: Function, args: Args, kwargs: Kwargs) -> Any:
    return _over_classes(_log_softmax, func, args, kwargs)


@rule_for(torch.softmax, functional.softmax, Tensor.softmax)
def _shares(func: Function, args: Args, kwargs: Kwargs) -> Any:
    return _over_classes(lambda logits: logits.like(_log_softmax(logits).local.exp()), func, args, kwargs)


def _over_classes(run: Callable[[Divided], Divided], func: Function, args: Args, kwargs: Kwargs) -> Any:
    part = args[0] if args else kwargs["input"]
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    dtype = kwargs.get("dtype", next((one for one in args[2:] if isinstance(one, torch.dtype)), None))
    if not isinstance(part, Divided) or dim is None:
        return NotImplemented
    if dim % part.dim() != part.place.axis:
        named = {key: one for key, one in kwargs.items() if key != "input"}
        return part.like(func(part.local, *args[1:], **named))
    return run(part.like(part.local.to(dtype or part.local.dtype)))


def _log_softmax(logits: Divided) -> Divided:
    shifted = _shifted(logits)
    return logits.like(shifted.local - logits.group.copy(_log_total(shifted)))


def _shifted(logits: Divided) -> Divided:
    """Logits less the largest of all ranks, so that their exponentials are in range."""
    peak = logits.local.detach().amax(logits.place.axis, keepdim=True)
    return logits.like(logits.local - logits.group.largest(peak))


def _log_total(shifted: Divided) -> Tensor:
    """The logarithm of the sum of exponentials over all ranks."""
    return shifted.group.reduce(shifted.local.exp().sum(shifted.place.axis, keepdim=True)).log()


def _picked(scores: Divided, target: Tensor) -> Tensor:
    """The score of every target, whichever rank has it."""
    group = scores.group
    begin, end = scores.place.bounds[0][group.rank], scores.place.bounds[0][group.rank + 1]
    elsewhere = (target < begin) | (target >= end)
    own = (target - begin).masked_fill(elsewhere, 0).unsqueeze(1)
    return group.reduce(scores.local.gather(1, own).squeeze(1).masked_fill(elsewhere, 0.0))
