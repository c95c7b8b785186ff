"""What one block takes on one rank: as measured where it was, else as estimated from its operations. Pure.

Where a block was measured on one rank of a kind but not divided, its estimate on divided ones is corrected by what the
measurement was longer than the estimate, so that both can be compared.
"""

from heliostat.cluster.catalogue import Dtype
from heliostat.errors import UserError
from heliostat.placement.device_time import BlockTime, Degrees, estimate
from heliostat.placement.efficiency import DeviceSpeed
from heliostat.placement.timing import BlockTiming
from heliostat.placement.workload import Block


def block_time(block: Block, degrees: Degrees, speed: DeviceSpeed, dtype: Dtype) -> BlockTime:
    """Seconds of one micro-batch of `block`.

    Raises:
        UserError: it was not measured, and nothing tells how fast the device is.
    """
    timing = _timing(block, speed, degrees.tensor)
    if timing is not None and degrees.context == 1:
        return _measured(block, timing, degrees, speed)
    _check_rates(speed, block)
    one = estimate(block, degrees, speed, dtype)
    whole = _timing(block, speed, 1) if degrees.tensor > 1 else None
    if whole is None:
        return one
    alone = degrees._replace(tensor=1, sequence_parallel=False, context=1)
    ours, theirs = _measured(block, whole, alone, speed), estimate(block, alone, speed, dtype)
    forward, backward = ours.forward_s / theirs.forward_s, ours.backward_s / theirs.backward_s
    return one._replace(
        forward_s=forward * one.forward_s,
        backward_s=backward * one.backward_s,
        selective_s=forward * one.selective_s,
    )


def update_s(block: Block, tensor: int, speed: DeviceSpeed, optimizer_bytes: float) -> float:
    """Seconds of the optimizer's step on the parameters of `block` that one rank of `tensor` holds.

    Args:
        block: whose parameters.
        tensor: the tensor-parallel degree.
        speed: of the device.
        optimizer_bytes: memory traffic per parameter.

    Raises:
        UserError: it was not measured, and nothing tells how fast the device is.
    """
    timing = _timing(block, speed, tensor)
    if timing is not None and timing.update_s is not None:
        return timing.update_s / (1.0 if timing.device_kind == speed.kind else speed.relative)
    _check_rates(speed, block)
    return block.rank_parameters(tensor) * optimizer_bytes / speed.memory_rate


def _check_rates(speed: DeviceSpeed, block: Block) -> None:
    if not speed.peak_flops:
        raise UserError(
            f"nothing tells how long block '{block.name}' takes on a device of kind {speed.kind}",
            causes=("the catalogue knows no rates of this type, and no measurement of it is in the cluster file",),
            next_step="heliostat cluster calibrate",
        )


def _timing(block: Block, speed: DeviceSpeed, tensor: int) -> BlockTiming | None:
    """That of the device's kind, else that of its type."""
    own = {one.device_kind: one for one in block.timings if one.tensor_parallel == tensor}
    return own.get(speed.kind, own.get(speed.name))


def _measured(block: Block, timing: BlockTiming, degrees: Degrees, speed: DeviceSpeed) -> BlockTime:
    forward_s, backward_s = timing.pass_s(degrees.micro_batch)
    relative = 1.0 if timing.device_kind == speed.kind else speed.relative
    redone = sum(op.forward_flops for op in block.ops if op.selective) / max(block.forward_flops, 1.0)
    return BlockTime(
        forward_s / relative, backward_s / relative, redone * forward_s / relative, 0, 0, 0, is_measured=True
    )
