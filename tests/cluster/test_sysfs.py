"""/sys: trees laid out as Linux does, and the class of the way between two functions of the PCI bus."""

from pathlib import Path

import pytest

from heliostat.cluster.sysfs import AMD, NVIDIA, NicFunction, PciFunction, SysfsRecord, pcie_class, read

MELLANOX = "0x15b3"
SWITCH = "pci0000:5d/0000:5d:00.0/0000:5e:00.0"
"""A host bridge, its root port, and the port up of a switch."""


class Tree:
    """A /sys of our own."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, **files: str) -> Path:
        folder = self.root / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(f"{text}\n")
        return folder

    def link(self, path: str, target: Path) -> None:
        link = self.root / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)

    def numa(self, *cpu_lists: str) -> None:
        for node, cpus in enumerate(cpu_lists):
            self.write(f"devices/system/node/node{node}", cpulist=cpus)

    def function(self, path: str, *, vendor: str, numa_node: int = -1, pci_class: str = "0x020000") -> Path:
        folder = self.write(f"devices/{path}", vendor=vendor, numa_node=str(numa_node), **{"class": pci_class})
        self.link(f"bus/pci/devices/{folder.name}", folder)
        return folder

    def gpu(self, path: str, *, vendor: str = NVIDIA, numa_node: int = -1) -> None:
        self.function(path, vendor=vendor, numa_node=numa_node, pci_class="0x030200")

    def netdev(self, name: str, device: Path, **files: str) -> None:
        folder = self.write(f"{device.relative_to(self.root)}/net/{name}", **files)
        (folder / "device").symlink_to(device)
        self.link(f"class/net/{name}", folder)

    def rdma(self, name: str, device: Path, **ports: tuple[str, str]) -> None:
        folder = self.write(f"{device.relative_to(self.root)}/infiniband/{name}")
        (folder / "device").symlink_to(device)
        self.link(f"class/infiniband/{name}", folder)
        for port, (state, rate) in ports.items():
            self.write(f"{folder.relative_to(self.root)}/ports/{port[1:]}", state=state, rate=rate)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def nic(tree: Tree) -> NicFunction:
    (only,) = read(tree.root).nics
    return only


def test_a_gpu_and_an_rdma_nic_under_one_switch(tree: Tree) -> None:
    """The NIC goes by its RDMA name and speed; its bus ids are the chain of bridges from the host bridge down."""
    tree.numa("0-19,40-59", "20-39,60-79")
    tree.gpu(f"{SWITCH}/0000:5f:00.0/0000:60:00.0", numa_node=1)
    device = tree.function(f"{SWITCH}/0000:5f:04.0/0000:61:00.0", vendor=MELLANOX, numa_node=1)
    tree.netdev("ib0", device, speed="200000", operstate="up")
    tree.rdma("mlx5_2", device, p1=("4: ACTIVE", "200 Gb/sec (4X HDR)"))
    above = ("pci0000:5d", "0000:5d:00.0", "0000:5e:00.0")
    assert read(tree.root) == SysfsRecord(
        gpus=(PciFunction(bus_id="0000:60:00.0", vendor=NVIDIA, path=(*above, "0000:5f:00.0"), numa_node=1),),
        nics=(
            NicFunction(
                bus_id="0000:61:00.0",
                vendor=MELLANOX,
                path=(*above, "0000:5f:04.0"),
                numa_node=1,
                name="mlx5_2",
                rdma=True,
                netdevs=("ib0",),
                is_up=True,
                bits_per_s=200 * 10**9,
            ),
        ),
        cpu_lists={0: "0-19,40-59", 1: "20-39,60-79"},
    )


def test_the_fastest_port_that_is_up_counts(tree: Tree) -> None:
    device = tree.function("pci0000:00/0000:00:02.0/0000:03:00.0", vendor=MELLANOX)
    tree.rdma("mlx4_0", device, p1=("4: ACTIVE", "40 Gb/sec (4X QDR)"), p2=("1: DOWN", "56 Gb/sec (4X FDR)"))
    assert (nic(tree).is_up, nic(tree).bits_per_s) == (True, 40 * 10**9)


def test_a_rate_may_have_a_fraction(tree: Tree) -> None:
    device = tree.function("pci0000:00/0000:03:00.0", vendor=MELLANOX)
    tree.rdma("mlx4_0", device, p1=("4: ACTIVE", "2.5 Gb/sec (1X SDR)"))
    assert nic(tree).bits_per_s == 25 * 10**8


@pytest.mark.parametrize("files", [{"operstate": "down"}, {"operstate": "down", "speed": "-1"}])
def test_a_nic_without_cable_is_down_and_has_no_speed(tree: Tree, files: dict[str, str]) -> None:
    """Linux refuses to read the speed of such a port, or says -1."""
    tree.netdev("eno2", tree.function("pci0000:00/0000:03:00.0", vendor="0x8086"), **files)
    assert (nic(tree).name, nic(tree).rdma, nic(tree).is_up, nic(tree).bits_per_s) == ("eno2", False, False, None)


def test_nics_come_in_the_order_of_their_numbers(tree: Tree) -> None:
    names = ["eth0", "mlx5_0", "mlx5_2", "mlx5_10"]
    for place, name in enumerate(reversed(names)):
        tree.rdma(name, tree.function(f"pci0000:00/0000:0{place}:00.0", vendor=MELLANOX))
    assert [one.name for one in read(tree.root).nics] == names


def test_interfaces_that_are_no_nic_on_the_pci_bus_are_left_out(tree: Tree) -> None:
    """A loopback has no device, a USB adapter hangs on a PCI function that is not its own."""
    tree.link("class/net/lo", tree.write("devices/virtual/net/lo", operstate="unknown"))
    controller = tree.function("pci0000:00/0000:00:14.0", vendor="0x8086")
    tree.netdev("usb0", tree.write(f"{controller.relative_to(tree.root)}/usb1/1-2"), operstate="up", speed="100")
    assert read(tree.root).nics == ()


def test_a_virtio_nic_is_at_the_function_above_it(tree: Tree) -> None:
    function = tree.function("pci0000:00/0000:00:03.0", vendor="0x1af4")
    tree.netdev("eth0", tree.write(f"{function.relative_to(tree.root)}/virtio2"), operstate="up", speed="-1")
    assert (nic(tree).bus_id, nic(tree).path, nic(tree).is_up) == ("0000:00:03.0", ("pci0000:00",), True)


def test_a_host_bridge_may_be_deep_in_the_tree(tree: Tree) -> None:
    """Hyper-V hangs each passed-through GPU on a host bridge of its own, below its bus."""
    tree.gpu("LNXSYSTM:00/LNXSYBUS:00/ACPI0004:00/VMBUS:00/47505500-0001/pci0001:00/0001:00:00.0", numa_node=0)
    (gpu,) = read(tree.root).gpus
    assert (gpu.bus_id, gpu.path) == ("0001:00:00.0", ("pci0001:00",))


def test_gpus_are_those_of_nvidia_and_amd(tree: Tree) -> None:
    tree.gpu("pci0000:00/0000:00:02.0", vendor="0x1a03")
    tree.gpu("pci0000:00/0000:81:00.0", vendor=AMD)
    tree.gpu("pci0000:00/0000:41:00.0")
    tree.function("pci0000:00/0000:41:00.1", vendor=NVIDIA, pci_class="0x040300")
    assert [gpu.bus_id for gpu in read(tree.root).gpus] == ["0000:41:00.0", "0000:81:00.0"]


@pytest.mark.parametrize(("cpu_lists", "numa_node"), [(("0-7",), 0), (("0-7", ""), 0), (("0-3", "4-7"), None)])
def test_an_unknown_numa_node_is_clear_only_where_there_is_one(
    tree: Tree, cpu_lists: tuple[str, ...], numa_node: int | None
) -> None:
    """Nodes without CPUs, such as the memory of a GPU, are none that a device could be near to."""
    tree.numa(*cpu_lists)
    tree.gpu("pci0000:00/0000:00:1e.0", numa_node=-1)
    assert [gpu.numa_node for gpu in read(tree.root).gpus] == [numa_node]


def test_no_tree(tmp_path: Path) -> None:
    assert read(tmp_path / "sys") == SysfsRecord()


def test_this_node_can_be_read() -> None:
    record = read()
    assert SysfsRecord.model_validate_json(record.model_dump_json()) == record
    assert all(nic.path[0].startswith("pci") for nic in record.nics)


@pytest.mark.parametrize(
    ("a", "b", "kind"),
    [
        ("bridge port up down1", "bridge port up down2", "PIX"),
        ("bridge port", "bridge port", "PIX"),
        ("bridge port up down1", "bridge port up down1", "PIX"),
        ("bridge port up down1 up2 down2", "bridge port up down3", "PXB"),
        ("bridge port up down3", "bridge port up down1 up2 down2", "PXB"),
        ("bridge port up down1 up2 down2", "bridge port up down3 up4 down4", "PXB"),
        ("bridge port1", "bridge port2", "PHB"),
        ("bridge port1 up1 down1", "bridge port2", "PHB"),
        ("bridge", "bridge", "PHB"),
        ("bridge1 port", "bridge2 port", "NODE"),
    ],
)
def test_class_of_a_way_on_one_numa_node(a: str, b: str, kind: str) -> None:
    assert str(pcie_class(a.split(), b.split(), 0, 0)) == kind


def test_class_of_a_way_between_host_bridges() -> None:
    """Without its NUMA node nobody can tell NODE from SYS; under one host bridge nobody needs to."""
    assert str(pcie_class(["bridge1"], ["bridge2"], 0, 1)) == "SYS"
    assert pcie_class(["bridge1"], ["bridge2"], None, 1) is None
    assert pcie_class(["bridge1"], ["bridge2"], None, None) is None
    assert str(pcie_class(["bridge", "port1"], ["bridge", "port2"], None, None)) == "PHB"
