"""How thoroughly a calibration measures."""

from pydantic import NonNegativeFloat, PositiveInt

from heliostat.values import Frozen


class Effort(Frozen):
    """What is measured, and for how long at most when medians do not settle earlier."""

    message_bytes: tuple[PositiveInt, ...]
    """Sizes of messages, increasing."""
    matmul_sizes: tuple[PositiveInt, ...]
    """n of n x n matrix products, increasing; a slow device leaves out the largest."""
    copy_bytes: PositiveInt
    """What is copied to measure memory: more than caches hold."""
    min_rounds: PositiveInt
    """How often everything is measured in any case."""
    rates_s: NonNegativeFloat
    """For all rates of a device."""
    collectives_s: NonNegativeFloat
    """For all collectives of one group."""


KIB, MIB = 1 << 10, 1 << 20
FULL = Effort(
    message_bytes=(
        *(KIB * size for size in (1, 4, 16, 64, 128, 256, 512, 768)),
        *(MIB * size // 2 for size in (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)),
    ),
    matmul_sizes=tuple(1 << shift for shift in range(8, 14)),
    copy_bytes=1 << 28,
    min_rounds=5,
    rates_s=20.0,
    collectives_s=120.0,
)
"""Messages from 1 KiB to 64 MiB, denser where gloo bends: at 1 MiB, and at 32 MiB where memory is fresh each time.
On two cores it takes all of its time, on idle GPUs a part."""
QUICK = Effort(
    message_bytes=(1 << 10, 1 << 14, 1 << 20),
    matmul_sizes=(64, 128),
    copy_bytes=1 << 20,
    min_rounds=2,
    rates_s=0.1,
    collectives_s=0.1,
)
"""To see that everything works; the figures are rough."""
