"""From recorded calls to the operations of a block. Neighbouring memory operations that are divided alike are one."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from heliostat.placement.workload import Op, Split
from heliostat.train.profiling.cuts import Cuts
from heliostat.train.profiling.layout import is_row_wise
from heliostat.train.profiling.record import Call


class _Kind(NamedTuple):
    """Of a call, what memory operations must have in common to be one."""

    product: Call | None
    split: Split
    selective: bool


def operations(calls: Sequence[Call], cuts: Cuts, num_samples: int) -> tuple[Op, ...]:
    """The operations of `calls`, per sample."""
    cores = _cores(calls)
    in_core = {call for core in cores for call in core}
    counted = [call for call in calls if call.product or call.elements or call.backward_elements]

    def kind(call: Call) -> _Kind:
        return _Kind(call if call.product else None, _split(call, cuts), call in in_core or _is_attention(call))

    return tuple(_op(kind, list(run), num_samples) for kind, run in groupby(counted, kind))


def core_memory(calls: Sequence[Call]) -> set[int]:
    """Memory of attention scores: from a product without weights up to the next one."""
    return {view.storage for core in _cores(calls) for call in core[:-1] for view in call.outputs}


def _op(kind: _Kind, calls: Sequence[Call], num_samples: int) -> Op:
    backward = sum(call.backward_elements for call in calls) / num_samples
    product = kind.product.product if kind.product else None
    if kind.product is None or product is None:
        return Op(
            name="+".join(dict.fromkeys(call.name for call in calls if not call.is_view)) or "copy",
            kind="memory",
            elements=sum(call.elements for call in calls) / num_samples,
            backward_elements=backward,
            split=kind.split,
            launches=sum(not call.is_view for call in calls),
            selective=kind.selective,
        )
    rows, batch = product.rows, product.batch
    if product.has_weight:
        rows = max(1, round(rows / num_samples))
    else:
        batch = max(1, round(batch / num_samples))
    return Op(
        name=kind.product.name,
        kind="attention" if product.is_attention else "matmul",
        rows=rows,
        n=product.n,
        k=product.k,
        batch=batch,
        backward_elements=backward,
        split=kind.split,
        has_weight=product.has_weight,
        causal=product.causal,
        selective=kind.selective,
    )


def _split(call: Call, cuts: Cuts) -> Split:
    if call in cuts.roles and call.product is not None:
        return cuts.roles[call]
    if any(view.storage in cuts.divided for view in call.outputs):
        return "heads"
    return "sequence" if cuts.roles and is_row_wise(call) else "none"


def _is_attention(call: Call) -> bool:
    return call.product is not None and call.product.is_attention


def _cores(calls: Sequence[Call]) -> list[list[Call]]:
    """Runs of calls from scores to context, both products without weights, with what happens to the scores between."""
    return list(_closed(calls))


def _closed(calls: Sequence[Call]) -> Iterator[list[Call]]:
    open_cores: dict[int, list[Call]] = {}
    for call in calls:
        core = next((open_cores[view.storage] for view in call.inputs if view.storage in open_cores), None)
        if call.product is not None:
            if call.product.has_weight or call.product.is_attention:
                continue
            if core is not None:
                yield [*core, call]
                continue
            core = []
        if core is not None:
            core.append(call)
            open_cores |= {view.storage: core for view in call.outputs}
