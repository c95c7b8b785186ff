"""What NVML says of one node, answer by answer. Pure: nothing in it is concluded from another answer.

None stands for a question that the GPU or the driver does not support.
"""

from enum import StrEnum

from pydantic import NonNegativeInt

from heliostat.values import Frozen


class NvLinkState(StrEnum):
    """The state of one NVLink."""

    INACTIVE = "inactive"
    """Down, or nothing is plugged in: a PCIe card without its bridge has links in this state."""
    ACTIVE = "active"
    SLEEP = "sleep"
    """Wakes when there is traffic."""
    TRAFFIC_DISABLED = "traffic-disabled"
    UNKNOWN = "unknown"
    """One that drivers newer than this module have."""


class Remote(StrEnum):
    """What is at the far end of an NVLink."""

    GPU = "gpu"
    SWITCH = "switch"
    OTHER = "other"


class Ancestor(StrEnum):
    """The closest thing above both of two GPUs, in NVML's words (`NVML_TOPOLOGY_...`); the closest kind first."""

    INTERNAL = "internal"
    """A board."""
    SINGLE = "single"
    """One PCIe switch."""
    MULTIPLE = "multiple"
    """Several PCIe switches."""
    HOST_BRIDGE = "host-bridge"
    NODE = "node"
    """A NUMA node."""
    SYSTEM = "system"


class NvLink(Frozen):
    """One NVLink of a GPU."""

    number: NonNegativeInt
    state: NvLinkState
    version: str | None = None
    """`3.1`; H100 may report 5.0 although its links are of version 4."""
    remote: Remote | None = None
    """Not asked of a link that is down."""
    remote_bus_id: str | None = None
    """As in `Gpu.bus_id`; meaningless for a switch that this node cannot see."""

    @property
    def is_up(self) -> bool:
        """Whether bytes can go over it."""
        return self.state in {NvLinkState.ACTIVE, NvLinkState.SLEEP}


class MigInstance(Frozen):
    """One compute instance of a GPU in MIG mode: what a process can own."""

    uuid: str
    name: str
    """`NVIDIA A100-SXM4-40GB MIG 1g.5gb`."""
    memory_bytes: NonNegativeInt | None = None

    @property
    def profile(self) -> str:
        """`1g.5gb`; `1c.3g.20gb` for an instance that shares its memory with others."""
        return self.name.rpartition(" ")[2]


class Gpu(Frozen):
    """One GPU."""

    index: NonNegativeInt
    """NVML's, which is the order of the bus ids."""
    name: str
    """The product: `NVIDIA A100-SXM4-80GB`."""
    uuid: str
    bus_id: str
    """PCI bus id as Linux writes it: `0000:61:00.0`."""
    memory_bytes: NonNegativeInt | None = None
    mig: bool | None = None
    """Whether MIG mode is on."""
    instances: tuple[MigInstance, ...] = ()
    nvlinks: tuple[NvLink, ...] = ()
    """Those it has, up or down; empty where it has none."""
    pcie_generation: NonNegativeInt | None = None
    """Of its link now; an idle GPU lowers it."""
    pcie_lanes: NonNegativeInt | None = None
    pcie_generation_max: NonNegativeInt | None = None
    """The most that GPU and slot agree on."""
    pcie_lanes_max: NonNegativeInt | None = None
    ecc_uncorrected: NonNegativeInt | None = None
    """Uncorrectable memory errors since the driver was loaded; None where ECC is off."""
    retirement_pending: bool | None = None
    """Memory pages wait for a reset to be retired; up to Volta."""
    remap_pending: bool | None = None
    """Memory rows wait for a reset to be remapped; since Ampere."""
    remap_failed: bool | None = None
    """A row could not be remapped: the maker takes such a GPU back."""
    throttle_reasons: tuple[str, ...] | None = None
    """Why its clocks are low now: `hw_slowdown`, `sw_power_cap`, `gpu_idle`, ..."""
    temperature_c: NonNegativeInt | None = None
    persistence: bool | None = None
    """Whether the driver stays loaded without a client; without it every first query takes seconds."""


class GpuPair(Frozen):
    """Two GPUs, by index, and what is above both."""

    a: NonNegativeInt
    b: NonNegativeInt
    ancestor: Ancestor


class NvmlRecord(Frozen):
    """All answers."""

    driver_version: str | None = None
    nvml_version: str | None = None
    cuda_version: str | None = None
    """The newest that the driver runs: `12.4`."""
    gpus: tuple[Gpu, ...] = ()
    pairs: tuple[GpuPair, ...] = ()
    errors: tuple[str, ...] = ()
    """Questions that should have had an answer: `GPU 3: GPU is lost`."""
