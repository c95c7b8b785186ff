"""What the executor does, for the planner: facts about its steps, and which plans it can run."""

from heliostat.placement.constraints import Pins
from heliostat.placement.strategy import Execution

EXECUTION = Execution(
    dtype="fp32", gradient_bytes=4, accumulate_bytes=4, parameter_bytes=4, state_bytes=8.0, context_bytes=0.0
)
"""32-bit parameters, gradients and AdamW's two moments, on the CPU; gradients are summed during the backward pass."""
RUNNABLE = Pins(num_stages=1, tensor_parallel=1, sequence_parallel=False, zero=0, recompute="none", offload=False)
"""Data-parallel replicas of the whole model, with shares and micro-batches of their own."""
