"""How fast a device of a cluster is: by the catalogue, by what was measured there, and by its share of a GPU. Pure."""

from collections.abc import Mapping
from typing import Any

from heliostat.cluster.catalogue import DeviceType
from heliostat.cluster.machine import Device
from heliostat.cluster.measured import DeviceRates
from heliostat.cluster.spec import ClusterSpec
from heliostat.placement.efficiency import DeviceSpeed, Efficiencies, Efficiency, speed_of


def speed_of_device(device: Device, cluster: ClusterSpec, constants: Efficiencies) -> DeviceSpeed:
    """What `device` does.

    A calibration of the cluster gives rates that were reached: peaks are those over the fitted efficiency, so that
    large operations come out as measured.

    Raises:
        UserError: the catalogue has no such type.
    """
    of_type = speed_of(device.type, catalogue=cluster.catalogue, efficiencies=constants)
    rates = cluster.measured.rates if cluster.measured else {}
    measured, relative = _rates_of(device, rates)
    fields: dict[str, Any] = {"kind": device.kind, "relative": relative}
    if measured is not None:
        fields |= _as_measured(measured, of_type.efficiency)
    elif device.mig is not None:
        fields |= _share(of_type, device, cluster.catalogue.find(device.type))
    return of_type.model_copy(update=fields)


def _rates_of(device: Device, rates: Mapping[str, DeviceRates]) -> tuple[DeviceRates | None, float]:
    """The rates of the device's kind, else those of its type; and its speed relative to them."""
    if device.kind in rates:
        return rates[device.kind], 1.0
    return (None if device.mig else rates.get(device.type)), device.speed


def _as_measured(rates: DeviceRates, efficiency: Efficiency) -> dict[str, Any]:
    types = {one.dtype for one in rates.matmul}
    best = {dtype: rates.flops(dtype) for dtype in types}
    return {
        "peak_flops": {dtype: flops / efficiency.matmul for dtype, flops in best.items() if flops is not None},
        "memory_bytes_per_s": rates.memory_bytes_per_s / efficiency.memory,
    }


def _share(whole: DeviceSpeed, device: Device, known: DeviceType) -> dict[str, Any]:
    """A MIG instance has its slices of the multiprocessors and of the memory's bandwidth (NVIDIA MIG User Guide)."""
    profile = next(one for one in known.mig if one.name == device.mig)
    compute = profile.compute_slices / max(one.compute_slices for one in known.mig)
    memory = profile.memory_slices / max(one.memory_slices for one in known.mig)
    return {
        "peak_flops": {dtype: flops * compute for dtype, flops in whole.peak_flops.items()},
        "multiprocessors": max(1, int(whole.multiprocessors * compute)),
        "memory_bytes_per_s": whole.memory_bytes_per_s * memory,
    }
