"""What the executor does, for the planner: facts about its steps, and which plans it can run."""

from typing import Literal

from heliostat.placement.constraints import Pins
from heliostat.placement.strategy import Execution

Precision = Literal["fp32", "bf16"]
"""Of the passes."""
RUNNABLE = Pins(offload=False)
"""All plans but those that keep optimizer states in host memory."""


def execution_of(precision: Precision = "fp32", *, compiled: bool = False, on_gpus: bool = False) -> Execution:
    """Facts about the executor's steps.

    Parameters, gradients and AdamW's two moments are in 32 bits whatever the passes compute in; gradients are summed
    during the backward pass.

    Args:
        precision: of the passes.
        compiled: whether blocks are compiled.
        on_gpus: whether the devices are GPUs, on which a CUDA context takes memory beside the tensors.
    """
    context_bytes = Execution.model_fields["context_bytes"].default if on_gpus else 0.0
    return Execution(
        dtype=precision,
        gradient_bytes=4,
        accumulate_bytes=4,
        parameter_bytes=4,
        state_bytes=8.0,
        context_bytes=context_bytes,
        compiled=compiled,
    )
