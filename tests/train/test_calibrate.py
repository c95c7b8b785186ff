from pathlib import Path

import pytest

from heliostat.cluster.discovery import discover
from heliostat.cluster.machine import Device
from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.data.versions import DatasetVersion
from heliostat.errors import TrainingFailure
from heliostat.train.calibrate import calibrate, classify, micro_batch_sizes, speeds
from heliostat.train.collectives import operations
from heliostat.train.step_timing import StepTiming

TOY = f"{Path(__file__).parent / 'toy.py'}:Toy"


def test_devices_about_as_fast_as_the_best_are_of_one_kind() -> None:
    assert speeds([1.0, 1.3, 1.5, 2.0, 3.0, 100.0]) == [1.0, 1.0, 0.65, 0.5, 0.35, 0.05]


def test_sizes_end_at_an_even_share() -> None:
    assert micro_batch_sizes(2048, 2) == [128, 256, 512, 1024]
    assert micro_batch_sizes(6, 2) == [1, 2, 3]
    assert micro_batch_sizes(2, 8) == [1, 2]


def test_a_slow_device_is_a_kind_of_its_own_and_types_are_not_compared() -> None:
    devices = tuple(Device(type=kind, index=i, memory_bytes=1) for i, kind in enumerate(["cpu", "cpu", "cpu", "gpu"]))
    cluster = ClusterSpec(nodes=(Node.of("a", devices),), origin="emulated")
    timings = [StepTiming(micro_batch_s=0, sample_s=time, optimizer_s=0.01) for time in (1.0, 1.1, 2.0, 9.0)]
    measured, by_kind = classify(cluster, timings, num_samples=100)
    assert measured.count_by_kind() == {"cpu": 2, "cpu@0.50": 1, "gpu": 1}
    assert {kind: timing.sample_s for kind, timing in by_kind.items()} == {"cpu": 1.05, "cpu@0.50": 2.0, "gpu": 9.0}


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_all_devices_are_measured_at_once(toy_data: DatasetVersion) -> None:
    cluster = discover(1)
    measured = calibrate(TOY, toy_data, {"width": 32}, cluster=cluster, global_batch=1024, cpus_per_device=1)
    assert measured.cluster.measured is not None
    curves = measured.cluster.measured.curves
    assert {curve.operation for curve in curves} == set(operations(2))
    assert all(0 < curve.time_s(1 << 20) < 1 for curve in curves)
    assert set(measured.cluster.measured.rates) == set(measured.timings)
    assert measured.gang_overhead_s is not None
    assert 0 <= measured.gang_overhead_s < 1
    assert set(measured.timings) == set(measured.cluster.count_by_kind())
    assert all(timing.compute_s(num_micro_batches=1, num_samples=512) > 0 for timing in measured.timings.values())
    with pytest.raises(TrainingFailure, match="must return"):
        calibrate(TOY, toy_data, {"fault": "mean"}, cluster=cluster, global_batch=64, cpus_per_device=1)
