"""What the ranks of a tensor-parallel group do in tests: train a divided model beside the whole one."""

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from heliostat.train.apply.tensor import Rules, divide
from heliostat.train.apply.tensor_group import TensorGroup
from heliostat.train.profiling.run import meta_twin
from heliostat.train.profiling.structure import structure_of

Batch = Mapping[str, Tensor]
STEPS = 4


class Case(NamedTuple):
    """A model, its loss and its data."""

    make: Callable[[], nn.Module]
    loss: Callable[[nn.Module, Batch], Tensor]
    batch: Callable[[int], Batch]


class Outcome(NamedTuple):
    """How far a divided model is from the whole one."""

    losses: float
    """Largest relative difference over the steps."""
    gradients: float
    """Largest difference of a gradient in the first step, against the largest of all gradients."""
    divided: frozenset[str]
    """Paths of divided parameters."""
    collectives: Counter[str]
    """Of one forward pass."""


class Collectives(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "_c10d_functional" and not func.__name__.startswith(("wait", "_")):
            self.counts[func.__name__.split(".")[0]] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def world(meeting: str, rank: int, size: int) -> Iterator[None]:
    """A process group of gloo."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
    try:
        yield
    finally:
        dist.destroy_process_group()


def on_ranks(pool: ProcessPoolExecutor, directory: Path, size: int, job: Callable[..., Any], *args: Any) -> list[Any]:
    """What `job(meeting, rank, size, *args)` returns on every rank."""
    meeting = (directory / uuid4().hex).as_uri()
    futures = [pool.submit(job, meeting, rank, size, *args) for rank in range(size)]
    return [future.result(timeout=120) for future in futures]


def compare(
    case: Case, rank: int, size: int, *, sequence_parallel: bool = False, rules: Rules | None = None
) -> Outcome:
    """Train a model whole and divided over all ranks."""
    torch.manual_seed(0)
    whole = case.make()
    model = copy.deepcopy(whole)
    group = TensorGroup(_world(), rank, size, sequence_parallel=sequence_parallel)
    try:
        blocks = structure_of(meta_twin(whole), case.batch(0), case.loss)
    except RuntimeError:
        blocks = structure_of(copy.deepcopy(whole), case.batch(0), case.loss)
    divisions = divide(model, blocks, group, rules=rules)
    with torch.no_grad(), Collectives() as counted:
        case.loss(model, case.batch(0))
    wanted, gradients = _trained(whole, case)
    losses, own = _trained(model, case)
    largest = max(one.abs().max().item() for one in gradients.values())
    parts = {name: divisions[name].of(one) if name in divisions else one for name, one in gradients.items()}
    return Outcome(
        losses=max(abs(one - other) / abs(one) for one, other in zip(wanted, losses, strict=True)),
        gradients=max((own[name] - one).abs().max().item() for name, one in parts.items()) / largest,
        divided=frozenset(divisions),
        collectives=counted.counts,
    )


def _trained(model: nn.Module, case: Case) -> tuple[list[float], dict[str, Tensor]]:
    """The losses of some steps, and the gradients of the first."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses: list[float] = []
    first: dict[str, Tensor] = {}
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = case.loss(model, case.batch(step)) / 48
        loss.backward()  # type: ignore[no-untyped-call]
        first = first or {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
        optimizer.step()
        losses.append(loss.item())
    return losses, first


def _world() -> dist.ProcessGroup:
    found = dist.group.WORLD
    assert found is not None
    return found
