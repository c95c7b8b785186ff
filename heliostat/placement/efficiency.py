"""How much of its peak a device type reaches: few constants, fitted, each with date, source and uncertainty. Pure.

`efficiency.yaml` beside this module holds what `fit` found. A type that is not in it borrows the constants of its
architecture, then those of the default; the band of its predictions is then wider.
"""

from functools import cache
from pathlib import Path

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from heliostat.cluster.catalogue import Catalogue, Dtype, builtin
from heliostat.document import read
from heliostat.values import Frozen

_BUILTIN = Path(__file__).with_name("efficiency.yaml")


class Efficiency(Frozen):
    """The fitted constants of one device type: four."""

    matmul: PositiveFloat
    """Part of the peak that a matrix product of unlimited size reaches."""
    matmul_depth: NonNegativeFloat
    """Depth of a product at which half of that is reached: filling and draining a tile costs as much as this depth."""
    attention: PositiveFloat
    """Part of the peak that a flash-attention kernel reaches over long sequences."""
    memory: PositiveFloat
    """Part of the memory bandwidth that an operation bound by it reaches."""
    errors: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """Relative standard error of each constant."""
    uncertainty: NonNegativeFloat = 0.15
    """Relative standard deviation of step times about their predictions; that of borrowed constants if not fitted."""
    date: str = ""
    source: str = ""


class SharedCosts(Frozen):
    """What the program and the network take beside the devices, the same for all device types."""

    forward_launch_s: NonNegativeFloat
    """Host seconds per kernel of an eager forward pass."""
    backward_launch_s: NonNegativeFloat
    """The same in the backward pass, which runs in C++."""
    collective_launch_s: NonNegativeFloat
    """Host seconds per collective."""
    skew_s: NonNegativeFloat
    """By what the last of two ranks comes late to a collective that everybody waits for; times log2 of the ranks."""
    interference: NonNegativeFloat
    """Part of a collective's time by which computation beside it is slowed: multiprocessors and bandwidth it takes."""
    async_hidden: NonNegativeFloat
    """Part of the tensor-parallel collectives that cutting them up hides behind the products."""
    optimizer_bytes: NonNegativeFloat
    """Memory traffic per parameter of the whole optimizer step: norm, unscaling, update, copy back."""
    errors: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """Relative standard error of each constant."""


class DeviceSpeed(Frozen):
    """What one device does: the catalogue's peaks and the fitted constants of its type."""

    name: str
    kind: str
    """As `Device.kind`: the type with its MIG profile and measured speed."""
    peak_flops: dict[str, float]
    """By input type; empty where nobody knows."""
    memory_bytes_per_s: PositiveFloat
    multiprocessors: PositiveInt
    memory_bytes: PositiveInt
    efficiency: Efficiency
    relative: PositiveFloat = 1.0
    """Measured speed of this very device relative to its type."""

    @property
    def memory_rate(self) -> float:
        """Bytes per second that an operation bound by memory gets."""
        return self.memory_bytes_per_s * self.efficiency.memory * self.relative

    def peak(self, dtype: Dtype) -> float:
        """Peak operations per second; that of the next wider type where the device lacks `dtype`."""
        for one in (dtype, "bf16", "fp16", "tf32", "fp32"):
            if one in self.peak_flops:
                return self.peak_flops[one]
        raise AssertionError(f"{self.name} has no matrix rate")


class Efficiencies(Frozen):
    """All that was fitted."""

    types: dict[str, Efficiency]
    """By catalogue name; `default` for those that are not there and have no relative that is."""
    shared: SharedCosts
    fitted_on: tuple[str, ...] = ()
    """Model shapes of the rows that were fitted on: rows of other shapes test it."""

    def of(self, name: str) -> Efficiency:
        """The constants of type `name`, else those of a type of its architecture, else the default."""
        if name in self.types:
            return self.types[name]
        relative = next((kin for kin in RELATIVES.get(name.split("-", 1)[0], ()) if kin in self.types), "default")
        return self.types[relative]


MULTIPROCESSORS = {
    "cpu": 1,
    "P100": 56, "V100": 80, "T4": 40, "RTX-2080-Ti": 68, "A100": 108, "A800": 108, "A30": 56, "A10G": 80, "A10": 72,
    "A40": 84, "RTX-A6000": 84, "RTX-3090": 82, "L40S": 142, "L40": 142, "L4": 58, "RTX-4090": 128,
    "H100-80GB-PCIe": 114, "H100": 132, "H200": 132, "H800": 132, "H20": 78, "B200": 148,
}  # fmt: skip
"""By the longest prefix of the name, for the waves of a matrix product. NVIDIA's architecture whitepapers."""
RELATIVES = {
    "A100": ("A100-80GB-SXM", "A100-40GB-SXM"), "A800": ("A100-80GB-SXM",), "A30": ("A100-40GB-SXM",),
    "H100": ("H100-80GB-SXM",), "H200": ("H100-80GB-SXM",), "H800": ("H100-80GB-SXM",), "H20": ("H100-80GB-SXM",),
    "V100": ("V100-32GB-SXM", "V100-16GB-SXM"),
}  # fmt: skip
"""Types of the same architecture by the first part of the name, closest first."""


@cache
def fitted() -> Efficiencies:
    """The constants that come with Heliostat."""
    return Efficiencies.model_validate(read(_BUILTIN).data)


def speed_of(name: str, *, catalogue: Catalogue | None = None, efficiencies: Efficiencies | None = None) -> DeviceSpeed:
    """What a device of type `name` does.

    Raises:
        UserError: the catalogue has no such type.
    """
    one = (catalogue or builtin()).find(name)
    longest = max((key for key in MULTIPROCESSORS if one.name.startswith(key)), key=len, default="")
    return DeviceSpeed(
        name=one.name,
        kind=one.name,
        peak_flops={dtype: tflops * 1e12 for dtype, tflops in one.tflops.items()},
        memory_bytes_per_s=one.memory_bytes_per_s or 1.0,
        multiprocessors=MULTIPROCESSORS.get(longest, 100),
        memory_bytes=one.memory_bytes or 1,
        efficiency=(efficiencies or fitted()).of(one.name),
    )
