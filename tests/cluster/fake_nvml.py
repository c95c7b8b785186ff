# ruff: noqa: N802  # the functions are NVML's
"""Answers in place of an NVIDIA driver, from a record of what one said.

What is None in the record is answered as NVML does: not supported.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import pynvml

from heliostat.cluster.nvml_record import Gpu, MigInstance, NvLink, NvmlRecord

Told = TypeVar("Told")
_STATES = ["inactive", "active", "sleep", "traffic-disabled"]


def told(value: Told | None) -> Told:
    if value is None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    return value


def camel_case(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def pci_info(bus_id: str) -> pynvml.nvmlPciInfo_t:
    domain, _, place = bus_id.partition(":")
    return pynvml.nvmlPciInfo_t(busId=f"{int(domain, 16):08X}:{place.upper()}".encode())


def always(function: str, answer: Any) -> Callable[..., Any]:
    def reply(*_: Any) -> Any:
        if isinstance(answer, pynvml.NVMLError):
            raise answer
        return answer

    reply.__name__ = function
    return reply


class FakeNvml:
    """Satisfies `NvmlApi`; a handle is the part of the record that it names.

    Functions named in `instead` always give, or raise, what is said there.
    """

    def __init__(self, record: NvmlRecord, instead: Mapping[str, Any] | None = None) -> None:
        self.record = record
        for function, answer in (instead or {}).items():
            setattr(self, function, always(function, answer))

    def nvmlSystemGetDriverVersion(self) -> str:
        return told(self.record.driver_version)

    def nvmlSystemGetNVMLVersion(self) -> str:
        return told(self.record.nvml_version)

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        major, _, minor = told(self.record.cuda_version).partition(".")
        return int(major) * 1000 + int(minor) * 10

    def nvmlDeviceGetCount(self) -> int:
        return max((gpu.index for gpu in self.record.gpus), default=-1) + 1

    def nvmlDeviceGetHandleByIndex(self, index: int, /) -> Gpu:
        for gpu in self.record.gpus:
            if gpu.index == index:
                return gpu
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    def nvmlDeviceGetName(self, handle: Gpu | MigInstance, /) -> str:
        return handle.name

    def nvmlDeviceGetUUID(self, handle: Gpu | MigInstance, /) -> str:
        return handle.uuid

    def nvmlDeviceGetPciInfo(self, handle: Gpu, /) -> pynvml.nvmlPciInfo_t:
        return pci_info(handle.bus_id)

    def nvmlDeviceGetMemoryInfo(self, handle: Gpu | MigInstance, /) -> pynvml.c_nvmlMemory_t:
        return pynvml.c_nvmlMemory_t(total=told(handle.memory_bytes))

    def nvmlDeviceGetMigMode(self, handle: Gpu, /) -> list[int]:
        return [int(told(handle.mig)), 0]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Gpu, /) -> int:
        return 7 if told(handle.mig) else 0

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Gpu, index: int, /) -> MigInstance:
        if index >= len(handle.instances):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return handle.instances[index]

    def nvmlDeviceGetNvLinkState(self, handle: Gpu, link: int, /) -> int:
        return _STATES.index(self._link(handle, link).state)

    def nvmlDeviceGetNvLinkVersion(self, handle: Gpu, link: int, /) -> int:
        version = told(self._link(handle, link).version)
        return int(getattr(pynvml, f"NVML_NVLINK_VERSION_{version.replace('.', '_')}"))

    def nvmlDeviceGetNvLinkRemoteDeviceType(self, handle: Gpu, link: int, /) -> int:
        remote = told(self._link(handle, link).remote)
        name = "UNKNOWN" if remote == "other" else remote.upper()
        return int(getattr(pynvml, f"NVML_NVLINK_DEVICE_TYPE_{name}"))

    def nvmlDeviceGetNvLinkRemotePciInfo(self, handle: Gpu, link: int, /) -> pynvml.nvmlPciInfo_t:
        return pci_info(told(self._link(handle, link).remote_bus_id))

    def nvmlDeviceGetCurrPcieLinkGeneration(self, handle: Gpu, /) -> int:
        return told(handle.pcie_generation)

    def nvmlDeviceGetCurrPcieLinkWidth(self, handle: Gpu, /) -> int:
        return told(handle.pcie_lanes)

    def nvmlDeviceGetMaxPcieLinkGeneration(self, handle: Gpu, /) -> int:
        return told(handle.pcie_generation_max)

    def nvmlDeviceGetMaxPcieLinkWidth(self, handle: Gpu, /) -> int:
        return told(handle.pcie_lanes_max)

    def nvmlDeviceGetTotalEccErrors(self, handle: Gpu, error_type: int, counter_type: int, /) -> int:
        assert (error_type, counter_type) == (pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC)
        return told(handle.ecc_uncorrected)

    def nvmlDeviceGetRetiredPagesPendingStatus(self, handle: Gpu, /) -> int:
        return int(told(handle.retirement_pending))

    def nvmlDeviceGetRemappedRows(self, handle: Gpu, /) -> tuple[int, int, int, int]:
        return 0, 0, int(told(handle.remap_pending)), int(told(handle.remap_failed))

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Gpu, /) -> int:
        names = map(camel_case, told(handle.throttle_reasons))
        return sum(int(getattr(pynvml, f"nvmlClocksThrottleReason{name}")) for name in names)

    def nvmlDeviceGetTemperature(self, handle: Gpu, sensor: int, /) -> int:
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
        return told(handle.temperature_c)

    def nvmlDeviceGetPersistenceMode(self, handle: Gpu, /) -> int:
        return int(told(handle.persistence))

    def nvmlDeviceGetTopologyCommonAncestor(self, a: Gpu, b: Gpu, /) -> int:
        found = [pair.ancestor for pair in self.record.pairs if {pair.a, pair.b} == {a.index, b.index}]
        level = told(found[0] if found else None)
        return int(getattr(pynvml, f"NVML_TOPOLOGY_{level.replace('-', '').upper()}"))

    def _link(self, gpu: Gpu, number: int) -> NvLink:
        told(gpu.nvlinks or None)
        for link in gpu.nvlinks:
            if link.number == number:
                return link
        raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
