"""What links carry: bytes per second and latency by link class. Pure.

Figures are effective ones, in one direction, as a collective library gets them: what the catalogue gives times an
efficiency. A figure that the user gives, or that was measured, goes before them (`Machine.figures`).
"""

from pydantic import Field, PositiveFloat

from heliostat.cluster.catalogue import DeviceType, Pcie
from heliostat.cluster.topology import LinkClass, LinkKind
from heliostat.values import Frozen

NVLINK_EFFICIENCY = 0.8
"""NCCL 2.28 graph/topo.h counts 20.0 of 25 GB/s per link on V100 and A100, 20.6 on H100, 40.1 of 50 on B200."""
IN_SWITCH_EFFICIENCY = {4: 0.85, 5: 0.74}
"""Part of the rate at which switches of that NVLink generation reduce: NCCL 2.28 graph/tuning.cc nvlsEfficiency."""
XGMI_EFFICIENCY = 0.75
"""All-reduce of two MI300X: 47.7 of 64 GB/s (reference/topology/allreduce_busbw_measured.csv)."""
PCIE_3_BYTES_PER_S = 12e9
"""16 lanes of generation 3, NCCL 2.28 graph/topo.h PCI_BW; each generation doubles it."""
HOST_BRIDGE_EFFICIENCY = 5 / 6
"""Processors cut peer-to-peer traffic into small packets: NCCL 2.28 graph/topo.h INTEL_P2P_OVERHEAD."""
SOCKET_BYTES_PER_S = {1: 6e9, 2: 6e9, 3: 10e9, 4: 16e9, 5: 22e9, 6: 40e9}
"""Between sockets by the PCIe generation of their time: NCCL 2.28 graph/topo.h QPI, SKL_QPI, AMD, SRP_QPI, ERP_QPI."""
NETWORK_EFFICIENCY = 0.96
"""NCCL 2.28 graph/topo.h NET_BW: 12 of 12.5 GB/s on 100 Gbit/s."""
PEER_LATENCY_S, PCIE_LATENCY_S, NETWORK_LATENCY_S = 3.4e-6, 5.7e-6, 14e-6
"""Per hop of a ring: NCCL 2.28 graph/tuning.cc, hwLat of the simple protocol over NVLink, PCI and network."""


class Link(Frozen):
    """A way for bytes: `time = latency_s + bytes / bytes_per_s`."""

    latency_s: float = Field(ge=0)
    bytes_per_s: PositiveFloat

    def time_s(self, num_bytes: float) -> float:
        """Seconds to move `num_bytes` once over this link."""
        return self.latency_s + num_bytes / self.bytes_per_s


def peer_link(link: LinkClass, a: DeviceType, b: DeviceType) -> Link | None:
    """What two devices joined by `link` get of it, each way; None where neither catalogue nor source tells.

    The weaker of the two ends decides.
    """
    ends = [one for one in (_of_type(link, a), _of_type(link, b)) if one is not None]
    if len(ends) < 2:
        return None
    return Link(latency_s=_latency_s(link), bytes_per_s=min(ends))


def pcie_bytes_per_s(pcie: Pcie) -> float:
    """What a device gets out of its host interface, each way."""
    return float(PCIE_3_BYTES_PER_S * 2.0 ** (pcie.generation - 3) * pcie.lanes / 16)


def is_peer(link: LinkClass) -> bool:
    """Whether the link joins devices directly, without PCIe."""
    return link.kind in {LinkKind.NVLINK, LinkKind.XGMI}


def _of_type(link: LinkClass, one: DeviceType) -> float | None:
    if is_peer(link):
        if one.peer_links is None:
            return None
        efficiency = NVLINK_EFFICIENCY if link.kind is LinkKind.NVLINK else XGMI_EFFICIENCY
        # rocm-smi counts hops instead of links: neighbours are joined by one
        return efficiency * one.peer_links.bytes_per_s / one.peer_links.num_links * (link.num_links or 1)
    if one.pcie is None:
        return None
    direct = pcie_bytes_per_s(one.pcie)
    if link.kind in {LinkKind.PIX, LinkKind.PXB}:
        return direct
    if link.kind in {LinkKind.PHB, LinkKind.NODE, LinkKind.PCIE}:
        return direct * HOST_BRIDGE_EFFICIENCY
    return min(direct * HOST_BRIDGE_EFFICIENCY, SOCKET_BYTES_PER_S[min(one.pcie.generation, 6)])


def _latency_s(link: LinkClass) -> float:
    return PEER_LATENCY_S if is_peer(link) else PCIE_LATENCY_S
