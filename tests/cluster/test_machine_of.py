"""From what a node says of itself to a machine: the reference boxes give the graph that their own text gives."""

import pytest

from heliostat.cluster.catalogue import GIB, builtin
from heliostat.cluster.machine_of import Found, machine_of
from heliostat.cluster.node_report import NodeReport
from heliostat.cluster.nvml_record import NvmlRecord
from heliostat.cluster.sysfs import AMD, NVIDIA, NicFunction, PciFunction, SysfsRecord
from heliostat.cluster.topology import NodeTopology
from tests.cluster.boxes import FIXTURES, bus_id, nvml_record, reference, report

V100, H100, A100 = "Tesla V100-SXM2-32GB", "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"
CPU_LISTS = {0: "0-19,40-59", 1: "20-39,60-79"}


def found(node: NodeReport) -> Found:
    return machine_of(node, builtin(), cpus_per_device=1)


def topology(node: NodeReport) -> NodeTopology:
    told = found(node).machine.topology
    assert told is not None
    return told


def classes(box: NodeTopology) -> dict[frozenset[str], str]:
    return {frozenset((one.a, one.b)): one.link.code for one in box.links}


def gpu(index: int, path: str, numa_node: int | None) -> PciFunction:
    return PciFunction(bus_id=bus_id(index), vendor=NVIDIA, path=tuple(path.split()), numa_node=numa_node)


def nic(name: str, path: str, numa_node: int | None, *, rdma: bool = True, is_up: bool = True) -> NicFunction:
    return NicFunction(
        bus_id=f"0000:f0:{name[-1:]}0.0",
        vendor="0x15b3",
        path=tuple(path.split()),
        numa_node=numa_node,
        name=name,
        rdma=rdma,
        is_up=is_up,
        bits_per_s=100 * 10**9,
    )


def dgx1(*nics: NicFunction) -> SysfsRecord:
    """Two GPUs on each of four host bridges, two of which are on each socket."""
    gpus = (gpu(i, f"bridge{i // 2} port up down{i}", i // 4) for i in range(8))
    return SysfsRecord(gpus=tuple(gpus), nics=nics, cpu_lists=CPU_LISTS)


def test_dgx1_v100_as_its_own_text_tells_it() -> None:
    """Direct NVLinks, one or two a pair; the pairs without are across sockets; mlx5_2 has a host bridge of its own.

    Devices, NIC and all links are those of the text, and nothing is missing.
    """
    text = reference("dgx1_v100_8gpu_1nic.txt")
    box = topology(report(nvml_record(text, V100), dgx1(nic("mlx5_2", "bridge9 port", 0))))
    assert classes(box) == classes(text)
    assert box.devices == text.devices
    assert [(one.name, one.numa_affinity) for one in box.nics] == [("mlx5_2", (0,))]
    assert box.missing == ()
    assert box.islands() == text.islands()


def test_hgx_h100_as_its_own_text_tells_it() -> None:
    """All 18 links of each GPU end at switches: every pair has 18."""
    text = reference("hgx_h100_8gpu_nv18.txt")
    box = topology(report(nvml_record(text, H100, switched=True), dgx1()))
    assert classes(box) == classes(text)
    assert set(classes(box).values()) == {"NV18"}


@pytest.mark.parametrize(
    ("name", "switched"),
    [
        ("gb200_tray_4gpu.txt", True),
        ("k80_4gpu_node.txt", False),
        ("pcie_8gpu_pix_phb_sys_numa.txt", False),
        ("v100_sxm2_8gpu_2nic_variant_mangled_tabs.txt", False),
        ("workstation_2gpu_phb.txt", False),
        ("workstation_4gpu_nv1_pairs_sys.txt", False),
    ],
)
def test_links_between_gpus_of_other_boxes(name: str, switched: bool) -> None:  # noqa: FBT001
    text = reference(name)
    names = {one.name for one in text.devices}
    between_gpus = {pair: code for pair, code in classes(text).items() if pair <= names}
    assert classes(topology(report(nvml_record(text, "some GPU", switched=switched)))) == between_gpus


def test_ten_nics_in_another_order_than_the_gpus() -> None:
    """hgx_a100_8gpu_10nic_pxb.txt: four switches each with two GPUs and two NICs, two NICs on their own.

    NIC0/1 hang with GPU2/3, NIC2/3 with GPU0/1, NIC4/5 with GPU6/7, NIC8/9 with GPU4/5. GPUs are several bridges away
    from any NIC; NIC0 and 1 are one bridge apart, and NIC6 and 7, the other pairs several. Everything else is SYS, so
    each group must be on a NUMA node of its own, as with several of them on each socket.
    """
    text = reference("hgx_a100_8gpu_10nic_pxb.txt")
    names = {one.label: one.name for one in text.nics}
    gpu_groups, nic_groups, deep = "AABBDDCC", "BBAACCEEDD", {3, 5, 9}
    pci = SysfsRecord(
        gpus=tuple(
            gpu(i, f"bridge{g} port up down{i} up{i} deep{i}", "ABCDE".index(g)) for i, g in enumerate(gpu_groups)
        ),
        nics=tuple(
            nic(
                names[f"NIC{i}"],
                f"bridge{g} port up down-nic{i}" + (f" up{i} deep{i}" if i in deep else ""),
                "ABCDE".index(g),
            )
            for i, g in enumerate(nic_groups)
        ),
    )
    box = topology(report(nvml_record(text, A100, switched=True), pci))
    assert classes(box) == classes(text)
    assert [box.nearest_nics(one.name) for one in box.devices] == [text.nearest_nics(one.name) for one in text.devices]


def test_equal_nodes_are_equal_machines() -> None:
    """Names, uuids, temperatures and what the kernel keeps of the memory are of the node; the machine has none."""
    text = reference("hgx_h100_8gpu_nv18.txt")
    one, other = (found(report(nvml_record(text, H100, switched=True, serial=n), dgx1(), serial=n)) for n in (1, 2))
    assert one.machine == other.machine
    assert one.machine.name == "8x-H100-80GB-SXM"
    assert one.machine.memory_bytes == 503 * GIB
    assert one.uuids != other.uuids
    assert one.uuids == tuple(f"GPU-00000001-{index}" for index in range(8))
    assert one.remarks == ()


def test_a_link_that_is_down_is_not_counted() -> None:
    """The pair has three links up at both ends, of which one sleeps; a fourth is down on one side."""
    record = NvmlRecord.model_validate_json((FIXTURES / "nvml_rtx3090_bridge.json").read_text())
    assert set(classes(topology(report(record))).values()) == {"NV3"}
    weak = record.gpus[1].model_copy(update={"nvlinks": record.gpus[1].nvlinks[:1]})
    assert set(classes(topology(report(record.model_copy(update={"gpus": (record.gpus[0], weak)})))).values()) == {
        "NV1"
    }
    cut = record.gpus[1].model_copy(update={"nvlinks": ()})
    assert set(classes(topology(report(record.model_copy(update={"gpus": (record.gpus[0], cut)})))).values()) == {"PHB"}


def test_mig_instances_are_devices_numbered_behind_the_whole_gpus() -> None:
    """GPU0 is cut into three; its NVLinks do not count, so that it reaches GPU1 over PCIe."""
    node = found(report(NvmlRecord.model_validate_json((FIXTURES / "nvml_a100_mig.json").read_text())))
    assert [(one.index, one.kind, one.gpu, one.memory_bytes // GIB) for one in node.machine.devices] == [
        (1, "A100-40GB-SXM", None, 40),
        (2, "A100-40GB-SXM/3g.20gb", 0, 19),
        (3, "A100-40GB-SXM/1g.5gb", 0, 4),
        (4, "A100-40GB-SXM/1g.5gb", 0, 4),
    ]
    assert [uuid[-1] for uuid in node.uuids] == ["4", "1", "2", "3"]
    assert node.machine.name == "1x-A100-40GB-SXM+1x-A100-40GB-SXM-3g.20gb+2x-A100-40GB-SXM-1g.5gb"
    assert [str(node.machine.link(1, index)) for index in (2, 3, 4)] == ["PXB"] * 3
    assert node.remarks == ()


def test_mig_mode_without_instances_and_with_unknown_profiles_is_remarked() -> None:
    record = NvmlRecord.model_validate_json((FIXTURES / "nvml_a100_mig.json").read_text())
    empty = record.gpus[0].model_copy(update={"instances": ()})
    node = found(report(NvmlRecord(gpus=(empty,))))
    assert node.machine.devices == ()
    assert "GPU0 is in MIG mode without an instance" in node.remarks[0]
    part = record.gpus[0].instances[0].model_copy(update={"name": "NVIDIA A100-SXM4-40GB MIG 1c.3g.20gb"})
    shared = record.gpus[0].model_copy(update={"instances": (part,)})
    node = found(report(NvmlRecord(gpus=(shared,))))
    assert [one.mig for one in node.machine.devices] == ["1c.3g.20gb"]
    assert node.remarks == ("the catalogue has no MIG profile '1c.3g.20gb' of A100-40GB-SXM",)


def test_an_unknown_product_keeps_its_name_and_is_remarked_once() -> None:
    box = nvml_record(reference("workstation_2gpu_phb.txt"), "NVIDIA X1000 Ultra")
    node = found(report(box))
    assert [one.type for one in node.machine.devices] == ["NVIDIA X1000 Ultra"] * 2
    assert node.machine.name == "2x-NVIDIA-X1000-Ultra"
    (remark,) = node.remarks
    assert "does not know the product 'NVIDIA X1000 Ultra'" in remark


def test_a_gpu_that_does_not_tell_its_memory_is_left_out() -> None:
    box = nvml_record(reference("workstation_2gpu_phb.txt"), V100)
    mute = box.gpus[0].model_copy(update={"memory_bytes": None})
    node = found(report(box.model_copy(update={"gpus": (mute, box.gpus[1])})))
    assert [one.index for one in node.machine.devices] == [1]
    assert node.remarks == ("GPU0 does not tell its memory: it was left out",)


def test_nics_with_rdma_are_used_and_others_only_where_there_are_none() -> None:
    ethernet, fast = nic("eth0", "bridge0 port9", 0, rdma=False), nic("mlx5_0", "bridge0 port", 0)
    dead, unplugged = (
        nic("mlx5_1", "bridge0 port", 0, is_up=False),
        nic("eth1", "bridge0 port", 0, rdma=False, is_up=False),
    )
    box = nvml_record(reference("workstation_2gpu_phb.txt"), V100)
    node = found(report(box, dgx1(ethernet, fast, dead, unplugged)))
    assert node.machine.topology is not None
    assert [one.name for one in node.machine.topology.nics] == ["mlx5_0"]
    assert node.remarks[-1] == "RDMA NICs without a link were left out: mlx5_1"
    assert [one.name for one in topology(report(box, dgx1(ethernet, unplugged))).nics] == ["eth0"]


def test_what_nobody_tells_is_missing() -> None:
    """One GPU's NUMA node is unknown, NVML cannot compare the pair, and the NIC is on another host bridge."""
    box = nvml_record(reference("workstation_2gpu_phb.txt"), V100).model_copy(update={"pairs": ()})
    pci = SysfsRecord(
        gpus=(gpu(0, "bridge0 port", None), gpu(1, "bridge1 port", 0)), nics=(nic("mlx5_0", "bridge2 port", 0),)
    )
    told = topology(report(box, pci))
    assert told.missing == ("the links GPU0 - GPU1, GPU0 - mlx5_0", "the NUMA node of GPU0")
    assert classes(told) == {frozenset(("GPU1", "mlx5_0")): "NODE"}


def test_a_node_without_gpus_offers_its_cores() -> None:
    """Half of the memory is shared among as many devices as its cores make."""
    node = report(None).model_copy(update={"num_cpus": 5, "memory_bytes": 16 * GIB + 3})
    told = machine_of(node, builtin(), cpus_per_device=2)
    assert told.machine.name == "5-cores"
    assert [(one.type, one.index, one.memory_bytes) for one in told.machine.devices] == [
        ("cpu", 0, 4 * GIB),
        ("cpu", 1, 4 * GIB),
    ]
    assert (told.machine.num_cpus, told.machine.memory_bytes, told.machine.topology) == (5, 16 * GIB, None)
    assert (told.uuids, told.remarks) == ((), ())


def test_a_node_with_too_few_cores_offers_nothing() -> None:
    told = machine_of(report(None).model_copy(update={"num_cpus": 1}), builtin(), cpus_per_device=2)
    assert told.machine.devices == ()
    assert told.remarks == ("its 1 cores are fewer than the 2 of a CPU device",)


def test_gpus_on_the_bus_that_nvml_does_not_show_are_remarked() -> None:
    amd = PciFunction(bus_id="0000:90:00.0", vendor=AMD, path=("bridge9",))
    pci = dgx1().model_copy(update={"gpus": (*dgx1().gpus[:3], amd)})
    box = nvml_record(reference("workstation_2gpu_phb.txt"), V100)
    nvidia, other = found(report(box, pci)).remarks
    assert nvidia.startswith(f"NVIDIA GPUs that NVML does not show are at {bus_id(2)}:")
    assert other.startswith("AMD GPUs that NVML does not show are at 0000:90:00.0:")
