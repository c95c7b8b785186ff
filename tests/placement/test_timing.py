"""Measured block times, and what is made of them."""

import pytest

from heliostat.cluster.machine import Device
from heliostat.cluster.measured import DeviceRates, MatmulRate, Measured
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.errors import UserError
from heliostat.placement.block_time import block_time, update_s
from heliostat.placement.device_speed import speed_of_device
from heliostat.placement.device_time import Degrees, estimate
from heliostat.placement.efficiency import DeviceSpeed, fitted, speed_of
from heliostat.placement.timing import BlockTiming, PassSample
from heliostat.placement.workload import Block
from heliostat.placement.workloads import Transformer, transformer

A100 = "A100-80GB-SXM"
LAYER = transformer(Transformer(name="gpt", hidden=1024, layers=2, heads=16, seq_len=512, vocabulary=1000)).blocks[1]


def timing(*rows: tuple[int, float, float], **fields: object) -> BlockTiming:
    samples = tuple(PassSample(micro_batch=size, forward_s=f, backward_s=b) for size, f, b in rows)
    return BlockTiming.model_validate({"device_kind": A100, "samples": samples, **fields})


def with_timings(*timings: BlockTiming) -> Block:
    return LAYER.model_copy(update={"timings": timings})


def speed(kind: str = A100, relative: float = 1.0) -> DeviceSpeed:
    return speed_of(A100).model_copy(update={"kind": kind, "relative": relative})


def test_a_timing_is_a_line_between_its_samples_and_beyond() -> None:
    curve = timing((1, 3.0, 6.0), (2, 4.0, 8.0), (4, 8.0, 16.0))
    assert curve.pass_s(2) == (4.0, 8.0)
    assert curve.pass_s(3) == (6.0, 12.0)
    assert curve.pass_s(8) == (16.0, 32.0)
    assert timing((2, 4.0, 8.0)).pass_s(5) == (10.0, 20.0)
    with pytest.raises(ValueError, match="increasing micro-batch"):
        timing((2, 1.0, 1.0), (1, 1.0, 1.0))


def test_what_was_measured_goes_before_the_estimate() -> None:
    block = with_timings(timing((1, 0.5, 1.0), update_s=0.25))
    one = block_time(block, Degrees(1), speed(), "bf16")
    assert (one.forward_s, one.backward_s, one.is_measured) == (0.5, 1.0, True)
    assert update_s(block, 1, speed(), 24.0) == 0.25
    slower = block_time(block, Degrees(1), speed(f"{A100}@0.50", 0.5), "bf16")
    assert slower.forward_s == 1.0
    assert not block_time(block, Degrees(1), speed_of("H100-80GB-SXM"), "bf16").is_measured


def test_an_estimate_of_a_divided_block_is_corrected_by_the_measured_whole() -> None:
    whole = estimate(LAYER, Degrees(1), speed(), "bf16")
    twice = with_timings(timing((1, 2 * whole.forward_s, 3 * whole.backward_s)))
    half, plain = (block_time(block, Degrees(1, 2), speed(), "bf16") for block in (twice, LAYER))
    assert half.forward_s == pytest.approx(2 * plain.forward_s)
    assert half.backward_s == pytest.approx(3 * plain.backward_s)


def of_cluster(device: Device, measured: Measured | None = None) -> DeviceSpeed:
    cluster = ClusterSpec(nodes=(Node.of("n0", (device,)),), origin="live", measured=measured)
    return speed_of_device(device, cluster, fitted())


def test_a_type_of_unknown_speed_must_be_measured() -> None:
    cpu = Device(type="cpu", index=0, memory_bytes=1 << 30)
    with pytest.raises(UserError, match="how long block 'layer' takes on a device of kind cpu"):
        block_time(LAYER, Degrees(1), of_cluster(cpu), "fp32")
    rates = DeviceRates(matmul=(MatmulRate(dtype="fp32", size=512, flops_per_s=5e10),), memory_bytes_per_s=1e10)
    measured = Measured(date="2026-11-22", emulated=False, rates={"cpu": rates})
    found = of_cluster(cpu, measured)
    assert found.peak("fp32") * found.efficiency.matmul == pytest.approx(5e10)
    seconds = estimate(LAYER, Degrees(1), found, "fp32").forward_s
    assert seconds == pytest.approx(LAYER.forward_flops / 5e10, rel=0.4)


def test_a_mig_instance_has_its_slices() -> None:
    whole = of_cluster(Device(type=A100, index=0, memory_bytes=80 << 30))
    part = of_cluster(Device(type=A100, index=0, memory_bytes=40 << 30, gpu=0, mig="3g.40gb"))
    assert part.kind == f"{A100}/3g.40gb"
    assert part.peak("bf16") == pytest.approx(3 / 7 * whole.peak("bf16"))
    assert part.memory_bytes_per_s == pytest.approx(whole.memory_bytes_per_s / 2)
