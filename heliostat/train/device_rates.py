"""What one device does by itself: matrix products, copies in its memory, copies to and from the host.

The same code for CPUs and GPUs. Devices that will work at once must be measured at once, each by its own process.
"""

from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import NamedTuple

import torch

from heliostat.cluster.catalogue import Dtype
from heliostat.cluster.measured import DeviceRates, MatmulRate
from heliostat.train.effort import Effort
from heliostat.train.turns import Clock, Work, time_in_turns

TIMING_S = 0.02
"""Longer than a scheduler's time slices: where devices share a core, every timing has its part of the waits."""
SLOW_PRODUCT_S = 0.02
"""Larger products than the first that takes so long are left out: they would tell nothing new."""
_ELEMENTS: dict[Dtype, torch.dtype] = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
"""The types torch multiplies with its plain product; fp8 and int8 need scales and are not measured."""


def measure_rates(device: torch.device, effort: Effort) -> DeviceRates:
    """Measure `device`, which this process has to itself."""
    clock = Clock(device)
    products = dict(_products(clock, effort))
    copies = dict(_copies(device, effort.copy_bytes))
    before = torch.backends.cuda.matmul.fp32_precision
    try:
        timings = time_in_turns(
            {**products, **copies},
            clock,
            min_rounds=effort.min_rounds,
            budget_s=effort.rates_s,
            shortest_s=TIMING_S,
        )
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
    to_device, to_host = (timings.get(name) for name in ("to_device", "to_host"))
    return DeviceRates(
        matmul=tuple(
            MatmulRate(dtype=key.dtype, size=key.size, flops_per_s=2 * key.size**3 / timings[key].seconds)
            for key in products
        ),
        memory_bytes_per_s=2 * effort.copy_bytes / timings["memory"].seconds,
        to_device_bytes_per_s=effort.copy_bytes / to_device.seconds if to_device else None,
        to_host_bytes_per_s=effort.copy_bytes / to_host.seconds if to_host else None,
    )


def slowed(rates: DeviceRates, factor: float) -> DeviceRates:
    """The rates of a device that takes `factor` times as long for its own work; copies to and from the host do not."""
    matmul = (one.model_copy(update={"flops_per_s": one.flops_per_s / factor}) for one in rates.matmul)
    memory_bytes_per_s = rates.memory_bytes_per_s / factor
    return rates.model_copy(update={"matmul": tuple(matmul), "memory_bytes_per_s": memory_bytes_per_s})


def median_rates(members: Sequence[DeviceRates]) -> DeviceRates:
    """The median of each rate over those of `members` that have it."""
    products: dict[tuple[Dtype, int], list[float]] = {}
    for one in members:
        for rate in one.matmul:
            products.setdefault((rate.dtype, rate.size), []).append(rate.flops_per_s)
    return DeviceRates(
        matmul=tuple(
            MatmulRate(dtype=dtype, size=size, flops_per_s=median(found)) for (dtype, size), found in products.items()
        ),
        memory_bytes_per_s=median(one.memory_bytes_per_s for one in members),
        to_device_bytes_per_s=_median_of_told(one.to_device_bytes_per_s for one in members),
        to_host_bytes_per_s=_median_of_told(one.to_host_bytes_per_s for one in members),
    )


class _Product(NamedTuple):
    dtype: Dtype
    size: int


def _products(clock: Clock, effort: Effort) -> Iterator[tuple[_Product, Work]]:
    for dtype in _ELEMENTS:
        if not _multiplies(clock.device, dtype):
            continue
        for size in effort.matmul_sizes:
            work = _product(clock.device, dtype, size)
            yield _Product(dtype, size), work
            if min(clock.time_s(work, 1) for _ in range(3)) > SLOW_PRODUCT_S:
                break


def _multiplies(device: torch.device, dtype: Dtype) -> bool:
    """Whether the device has products of this type."""
    if dtype == "tf32":
        return device.type == "cuda" and torch.version.cuda is not None and _capability(device) >= (8, 0)
    try:
        _product(device, dtype, 16)()
    except RuntimeError:
        return False
    return True


def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def _product(device: torch.device, dtype: Dtype, size: int) -> Work:
    # values as in training: a GPU multiplies zeros faster, because they take less power
    a, b = (torch.randn(size, size, device=device).to(_ELEMENTS[dtype]) for _ in range(2))
    c = torch.empty_like(a)
    precision = "tf32" if dtype == "tf32" else "ieee"

    def multiply() -> None:
        torch.backends.cuda.matmul.fp32_precision = precision
        torch.mm(a, b, out=c)

    return multiply


def _copies(device: torch.device, num_bytes: int) -> Iterator[tuple[str, Work]]:
    there, here = (torch.empty(num_bytes, dtype=torch.uint8, device=device).zero_() for _ in range(2))
    yield "memory", lambda: there.copy_(here)
    if device.type != "cpu":
        host = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True).zero_()
        yield "to_device", lambda: there.copy_(host, non_blocking=True)
        yield "to_host", lambda: host.copy_(there, non_blocking=True)


def _median_of_told(rates: Iterable[float | None]) -> float | None:
    told = [rate for rate in rates if rate is not None]
    return median(told) if told else None
