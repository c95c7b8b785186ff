"""Measured figures stand beside what the catalogue or the fabric promises, where these promise anything."""

from heliostat.cluster.links import Link
from heliostat.cluster.measured import Curve, DeviceRates, GroupShape, MatmulRate, Measured, Operation, Sample
from heliostat.cluster.view.comparison import comparisons
from tests.cluster.view.clusters import mixed


def curve(operation: Operation, device_type: str, link: str, *, num_nodes: int = 1) -> Curve:
    return Curve(
        operation=operation,
        group=GroupShape(num_ranks=2, num_nodes=num_nodes, device_type=device_type, link=link),
        samples=(Sample(num_bytes=1024, seconds=1e-5, spread=0.1),),
        line=Link(latency_s=8e-6, bytes_per_s=30e9),
    )


def measured() -> Measured:
    rates = DeviceRates(
        matmul=(
            MatmulRate(dtype="fp16", size=1024, flops_per_s=60e12),
            MatmulRate(dtype="fp16", size=4096, flops_per_s=90e12),
            MatmulRate(dtype="fp8", size=4096, flops_per_s=1e12),
        ),
        memory_bytes_per_s=800e9,
        to_device_bytes_per_s=11e9,
    )
    v100 = "V100-32GB-SXM"
    return Measured(
        date="2026-01-02T03:04:05+00:00",
        versions={"torch": "2.13"},
        emulated=False,
        rates={v100: rates, "A100-40GB-SXM/1g.5gb": DeviceRates(matmul=(), memory_bytes_per_s=150e9)},
        curves=(
            curve("send_recv", v100, "NV2"),
            curve("send_recv", v100, "rack", num_nodes=2),
            curve("send_recv", "cpu", "host"),
            curve("all_reduce", v100, "NV2"),
        ),
    )


def test_nothing_was_measured() -> None:
    assert comparisons(mixed()) == ()


def test_both_figures_are_there() -> None:
    found = [
        (one.figure, one.measured / 1e9, one.expected and one.expected / 1e9)
        for one in comparisons(mixed().model_copy(update={"measured": measured()}))
    ]
    assert found == [
        ("fp16 matmul, n = 4096", 90e3, 125e3),
        ("fp8 matmul, n = 4096", 1e3, None),
        ("memory, read and written", 800, 900),
        ("host to device", 11, 12),
        ("memory, read and written", 150, None),
        ("send_recv", 30, 40),
        ("send_recv", 30, 50),
        ("send_recv", 30, None),
        ("all_reduce", 30, None),
    ]
