"""Asks the NVIDIA driver of this node, through NVML, what GPUs it has.

`python -m heliostat.cluster.nvml` prints the answers as JSON.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeVar

import pynvml

from heliostat.cluster.nvml_api import Handle, NvmlApi
from heliostat.cluster.nvml_record import (
    Ancestor,
    Gpu,
    GpuPair,
    MigInstance,
    NvLink,
    NvLinkState,
    NvmlRecord,
    Remote,
)
from heliostat.errors import ServiceError

Answer = TypeVar("Answer")

_NO_DRIVER = (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded)
_NOT_THERE = (
    pynvml.NVMLError_NotSupported,
    pynvml.NVMLError_FunctionNotFound,  # a driver older than the question
    pynvml.NVMLError_InvalidArgument,  # an NVLink beyond the last
    pynvml.NVMLError_NotFound,  # a MIG instance that nobody made
)
_LINK_STATES = {
    pynvml.NVML_NVLINK_STATE_INACTIVE: NvLinkState.INACTIVE,
    pynvml.NVML_NVLINK_STATE_ACTIVE: NvLinkState.ACTIVE,
    pynvml.NVML_NVLINK_STATE_SLEEP: NvLinkState.SLEEP,
    pynvml.NVML_NVLINK_STATE_ACTIVE_TRAFFIC_DISABLED: NvLinkState.TRAFFIC_DISABLED,
}
_LINK_VERSIONS = {
    pynvml.NVML_NVLINK_VERSION_1_0: "1.0",
    pynvml.NVML_NVLINK_VERSION_2_0: "2.0",
    pynvml.NVML_NVLINK_VERSION_2_2: "2.2",
    pynvml.NVML_NVLINK_VERSION_3_0: "3.0",
    pynvml.NVML_NVLINK_VERSION_3_1: "3.1",
    pynvml.NVML_NVLINK_VERSION_4_0: "4.0",
    pynvml.NVML_NVLINK_VERSION_5_0: "5.0",
    pynvml.NVML_NVLINK_VERSION_6_0: "6.0",
}
_REMOTES = {
    pynvml.NVML_NVLINK_DEVICE_TYPE_GPU: Remote.GPU,
    pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH: Remote.SWITCH,
}
_ANCESTORS = {
    pynvml.NVML_TOPOLOGY_INTERNAL: Ancestor.INTERNAL,
    pynvml.NVML_TOPOLOGY_SINGLE: Ancestor.SINGLE,
    pynvml.NVML_TOPOLOGY_MULTIPLE: Ancestor.MULTIPLE,
    pynvml.NVML_TOPOLOGY_HOSTBRIDGE: Ancestor.HOST_BRIDGE,
    pynvml.NVML_TOPOLOGY_NODE: Ancestor.NODE,
    pynvml.NVML_TOPOLOGY_SYSTEM: Ancestor.SYSTEM,
}
_THROTTLE_REASONS = {
    pynvml.nvmlClocksThrottleReasonGpuIdle: "gpu_idle",
    pynvml.nvmlClocksThrottleReasonApplicationsClocksSetting: "applications_clocks_setting",
    pynvml.nvmlClocksThrottleReasonSwPowerCap: "sw_power_cap",
    pynvml.nvmlClocksThrottleReasonHwSlowdown: "hw_slowdown",
    pynvml.nvmlClocksThrottleReasonSyncBoost: "sync_boost",
    pynvml.nvmlClocksThrottleReasonSwThermalSlowdown: "sw_thermal_slowdown",
    pynvml.nvmlClocksThrottleReasonHwThermalSlowdown: "hw_thermal_slowdown",
    pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "hw_power_brake_slowdown",
    pynvml.nvmlClocksThrottleReasonDisplayClockSetting: "display_clock_setting",
    pynvml.nvmlClocksThrottleReasonBoardLimit: "board_limit",
    pynvml.nvmlClocksThrottleReasonReliability: "reliability",
}


def read_here() -> NvmlRecord | None:
    """What the driver of this node says; None where there is no NVIDIA driver.

    Raises:
        ServiceError: there is a driver, but it does not answer.
    """
    try:
        pynvml.nvmlInit()
    except _NO_DRIVER:
        return None
    except pynvml.NVMLError as error:
        raise _no_answer(error) from error
    try:
        return read(pynvml)
    except pynvml.NVMLError as error:
        raise _no_answer(error) from error
    finally:
        pynvml.nvmlShutdown()


def _no_answer(error: Exception) -> ServiceError:
    return ServiceError(
        "the NVIDIA driver of this node does not answer",
        got=str(error),
        causes=("the driver was updated and the node not restarted since", "a GPU fell off the bus"),
        next_step="nvidia-smi",
    )


def read(api: NvmlApi) -> NvmlRecord:
    """Every answer of `api`, which must be initialised.

    Raises:
        pynvml.NVMLError: it cannot even tell how many GPUs there are.
    """
    errors: list[str] = []
    driver = _Asking("driver", (), errors)
    handles = {index: driver.ask(api.nvmlDeviceGetHandleByIndex, index) for index in range(api.nvmlDeviceGetCount())}
    about = {
        index: _Asking(f"GPU {index}", (handle,), errors) for index, handle in handles.items() if handle is not None
    }
    gpus = {index: gpu for index, asking in about.items() if (gpu := _gpu(api, index, asking)) is not None}
    cuda = driver.ask(api.nvmlSystemGetCudaDriverVersion_v2)
    return NvmlRecord(
        driver_version=driver.ask(api.nvmlSystemGetDriverVersion),
        nvml_version=driver.ask(api.nvmlSystemGetNVMLVersion),
        cuda_version=None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
        gpus=tuple(gpus.values()),
        pairs=tuple(_pairs(api, {index: handles[index] for index in gpus}, errors)),
        errors=tuple(errors),
    )


@dataclass(frozen=True)
class _Asking:
    """Questions about one thing, and a note of each that should have had an answer."""

    subject: str
    handles: tuple[Handle, ...]
    errors: list[str]

    def ask(self, function: Callable[..., Answer], *arguments: int) -> Answer | None:
        try:
            return function(*self.handles, *arguments)
        except _NOT_THERE:
            return None
        except pynvml.NVMLError as error:
            given = ", ".join(map(str, arguments))
            self.errors.append(f"{self.subject}: {function.__name__}({given}): {error}")
            return None

    def flag(self, function: Callable[..., int]) -> bool | None:
        answer = self.ask(function)
        return None if answer is None else bool(answer)


def _gpu(api: NvmlApi, index: int, gpu: _Asking) -> Gpu | None:
    """None where the driver has lost the GPU since it counted it."""
    name, uuid, bus_id = gpu.ask(api.nvmlDeviceGetName), gpu.ask(api.nvmlDeviceGetUUID), _bus_id(api, gpu)
    if name is None or uuid is None or bus_id is None:
        return None
    mig = gpu.ask(api.nvmlDeviceGetMigMode)
    remapped = gpu.ask(api.nvmlDeviceGetRemappedRows)
    return Gpu(
        index=index,
        name=name,
        uuid=uuid,
        bus_id=bus_id,
        memory_bytes=_memory_bytes(api, gpu),
        mig=None if mig is None else bool(mig[0]),
        instances=tuple(_instances(api, gpu)) if mig is not None and mig[0] else (),
        nvlinks=tuple(_nvlinks(api, gpu)),
        pcie_generation=gpu.ask(api.nvmlDeviceGetCurrPcieLinkGeneration),
        pcie_lanes=gpu.ask(api.nvmlDeviceGetCurrPcieLinkWidth),
        pcie_generation_max=gpu.ask(api.nvmlDeviceGetMaxPcieLinkGeneration),
        pcie_lanes_max=gpu.ask(api.nvmlDeviceGetMaxPcieLinkWidth),
        ecc_uncorrected=gpu.ask(
            api.nvmlDeviceGetTotalEccErrors, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
        ),
        retirement_pending=gpu.flag(api.nvmlDeviceGetRetiredPagesPendingStatus),
        remap_pending=None if remapped is None else bool(remapped[2]),
        remap_failed=None if remapped is None else bool(remapped[3]),
        throttle_reasons=_throttle_reasons(api, gpu),
        temperature_c=gpu.ask(api.nvmlDeviceGetTemperature, pynvml.NVML_TEMPERATURE_GPU),
        persistence=gpu.flag(api.nvmlDeviceGetPersistenceMode),
    )


def _memory_bytes(api: NvmlApi, gpu: _Asking) -> int | None:
    memory = gpu.ask(api.nvmlDeviceGetMemoryInfo)
    return None if memory is None else memory.total


def _bus_id(api: NvmlApi, gpu: _Asking) -> str | None:
    pci = gpu.ask(api.nvmlDeviceGetPciInfo)
    return None if pci is None else as_linux_writes(pci.busId)


def as_linux_writes(bus_id: str) -> str:
    """NVML's `00000000:61:00.0` as `0000:61:00.0`."""
    domain, _, place = bus_id.lower().partition(":")
    return f"{int(domain, 16):04x}:{place}"


def _instances(api: NvmlApi, gpu: _Asking) -> Iterator[MigInstance]:
    for place in range(gpu.ask(api.nvmlDeviceGetMaxMigDeviceCount) or 0):
        handle = gpu.ask(api.nvmlDeviceGetMigDeviceHandleByIndex, place)
        if handle is None:
            continue
        instance = _Asking(f"{gpu.subject} instance {place}", (handle,), gpu.errors)
        name, uuid = instance.ask(api.nvmlDeviceGetName), instance.ask(api.nvmlDeviceGetUUID)
        if name is not None and uuid is not None:
            yield MigInstance(uuid=uuid, name=name, memory_bytes=_memory_bytes(api, instance))


def _nvlinks(api: NvmlApi, gpu: _Asking) -> Iterator[NvLink]:
    for number in range(pynvml.NVML_NVLINK_MAX_LINKS):
        state = gpu.ask(api.nvmlDeviceGetNvLinkState, number)
        if state is None:
            continue
        link = NvLink(
            number=number,
            state=_LINK_STATES.get(state, NvLinkState.UNKNOWN),
            version=_LINK_VERSIONS.get(gpu.ask(api.nvmlDeviceGetNvLinkVersion, number)),
        )
        yield link.model_copy(update=_far_end(api, gpu, number)) if link.is_up else link


def _far_end(api: NvmlApi, gpu: _Asking, number: int) -> dict[str, Any]:
    kind = gpu.ask(api.nvmlDeviceGetNvLinkRemoteDeviceType, number)
    pci = gpu.ask(api.nvmlDeviceGetNvLinkRemotePciInfo, number)
    return {
        "remote": None if kind is None else _REMOTES.get(kind, Remote.OTHER),
        "remote_bus_id": None if pci is None else as_linux_writes(pci.busId),
    }


def _throttle_reasons(api: NvmlApi, gpu: _Asking) -> tuple[str, ...] | None:
    # drivers before 535 do not know the newer name of this question
    reasons = gpu.ask(api.nvmlDeviceGetCurrentClocksThrottleReasons)
    if reasons is None:
        return None
    bits = (1 << place for place in range(reasons.bit_length()))
    return tuple(_THROTTLE_REASONS.get(bit, hex(bit)) for bit in bits if reasons & bit)


def _pairs(api: NvmlApi, handles: Mapping[int, Handle], errors: list[str]) -> Iterator[GpuPair]:
    for a, b in combinations(handles, 2):
        pair = _Asking(f"GPU {a} and GPU {b}", (handles[a], handles[b]), errors)
        ancestor = _ANCESTORS.get(pair.ask(api.nvmlDeviceGetTopologyCommonAncestor))
        if ancestor is not None:
            yield GpuPair(a=a, b=b, ancestor=ancestor)


def main() -> None:
    """Print what the driver of this node says."""
    record = read_here()
    if record is None:
        sys.exit("there is no NVIDIA driver on this node")
    sys.stdout.write(record.model_dump_json(indent=2, exclude_none=True) + "\n")


if __name__ == "__main__":
    main()
