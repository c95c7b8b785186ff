"""What a model is made of, counted without running it: `WorkloadProfile` from the meta device.

One forward and one backward pass over tensors that have shapes and no values, of each sort of repeated block once.

    model = LlamaForCausalLM(config)                    # under `with torch.device("meta")`
    profile_module(model, {"ids": ids}, loss, seq_len=8192)

A model that looks at values cannot run there; it runs where its values are instead, every block of it.

Operations, saved bytes and boundaries are those of the kernels that PyTorch starts on an accelerator without a
compiler, per sample and in elements of the type that most parameters have. What does not depend on the batch, as
rotary tables and masks, is left out. The dimensions that tensor parallelism can divide are those that are certain from
how tensors flow (`profiling.cuts`). Known blind spots: a kernel of the user's own counts as one that reads its inputs
and writes its outputs, and recomputation that the model does by itself (`torch.utils.checkpoint`) is not seen through.
"""

from collections.abc import Collection, Mapping
from copy import deepcopy
from itertools import count, groupby
from typing import Any

import torch

from heliostat.data.versions import DatasetVersion
from heliostat.errors import UserError
from heliostat.placement.constraints import Pins
from heliostat.placement.workload import Block, WorkloadProfile
from heliostat.train.annotated import annotated
from heliostat.train.apply.look import NEEDS_VALUES, cuts_of
from heliostat.train.evaluate import tensors_of
from heliostat.train.profiling.run import Batch, Loss, meta_twin, run
from heliostat.train.rows import loss_of, select
from heliostat.train.task import make_task

NO_PINS = Pins()
NUM_ROWS = 64
"""Rows in a task's counted batch: enough that what does not grow with the batch is lost in the division."""


def profile_module(
    model: torch.nn.Module, batch: Batch, loss: Loss, *, name: str | None = None, seq_len: int = 1
) -> WorkloadProfile:
    """The chain of blocks of `model`, as it is trained on `batch`.

    The chain is the model's children in the order in which they run; a container stands for its elements, and what
    lies before, between and after containers is one block each. Equal neighbours are one block with a count.

    Args:
        model: in the mode in which it is to run; it stays as it is, except that a model on the meta device has no
            gradients afterwards.
        batch: example tensors on any device, samples along their first dimension; two samples suffice.
        loss: called with the model and the batch on the model's device; returns a scalar to differentiate.
        name: of the workload; the model's class if None.
        seq_len: tokens per sample.

    Raises:
        UserError: the model has nothing to train, or it is on the meta device and looks at values.
    """
    title = name or type(model).__name__
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise UserError(f"{title} has no trainable parameter")
    has_values = not parameters[0].is_meta
    try:
        return run(meta_twin(model) if has_values else model, batch, loss, name=title, seq_len=seq_len)
    except NEEDS_VALUES as error:
        if has_values:
            return run(deepcopy(model), batch, loss, name=title, seq_len=seq_len)
        raise UserError(
            f"{title} does not run on the meta device",
            got=f"{type(error).__name__}: {error}",
            causes=("its forward or its loss looks at values", "tensors of shapes that do not fit"),
            next_step="give profile_module a model that holds values, on the CPU",
        ) from error


def profile_task(
    reference: str, data: DatasetVersion, params: Mapping[str, Any], pins: Pins = NO_PINS
) -> tuple[WorkloadProfile, Pins]:
    """The chain of blocks of the task's model, as it is trained on rows of `data`, and what its annotations pin.

    Raises:
        UserError: the task or its parameters; its model has nothing to train.
        TrainingFailure: the task's loss raises or breaks its contract.
        PlanError: annotations of the model contradict each other, its blocks, or `pins`.
    """
    task = make_task(reference, data, params)
    rows = tensors_of(task.load("validation"))
    model = task.model()
    workload = profile_module(
        model,
        select(rows, slice(NUM_ROWS)),
        lambda model, batch: loss_of(task, model, dict(batch), where="profiling")[0],
        name=type(task).__name__,
    )
    blocks, refused = cuts_of(task, model, rows)
    return with_closed(workload, refused), annotated(model, blocks, pins)


def with_closed(workload: WorkloadProfile, closed: Collection[int]) -> WorkloadProfile:
    """`workload` with the blocks, by number, with which no stage may begin."""
    found: list[Block] = []
    numbers = count()
    for block in workload.blocks:
        for opens, alike in groupby(next(numbers) not in closed for _ in range(block.count)):
            found.append(block.model_copy(update={"opens_stage": opens, "count": sum(1 for _ in alike)}))
    return workload.model_copy(update={"blocks": tuple(found)})
