"""Labels that place a node, and labels that do not tell the truth."""

import pytest

from heliostat.cluster.fabric import Fabric, FabricLevel
from heliostat.cluster.spec import ClusterSpec
from tests.cluster.doctor.nodes import cluster, found, told


def labelled(*labels: dict[str, str], levels: tuple[str, ...] = ()) -> ClusterSpec:
    """Nodes with these labels; `levels` are those of the fabric."""
    fabric = Fabric(levels=tuple(FabricLevel(name=name) for name in levels)) if levels else None
    return cluster(*({"labels": one} for one in labels), fabric=None).model_copy(update={"fabric": fabric})


LEVELS = ("rack", "zone", "site")


def test_nodes_that_no_label_places() -> None:
    spec = labelled({"rack": "r0", "zone": "z0"}, {"zone": "z0"}, {})
    expected = labelled(*({"rack": "r0", "zone": "z0"},) * 3, levels=LEVELS)
    told_of = [line for line in told(found(spec, expected=expected)) if "no label" in line]
    assert [line.partition(":")[0] for line in told_of] == ["warning a100-1, a100-2", "warning a100-2"]


def test_a_rack_in_two_zones() -> None:
    spec = labelled(*({"rack": "r0", "zone": zone} for zone in ("z0", "z0", "z1")))
    expected = labelled(*({"rack": "r0", "zone": "z0"},) * 2, levels=LEVELS)
    lines = [line for line in told(found(spec, expected=expected)) if "places" in line]
    assert lines == ["error a100-2: rack r0 is in 2 places: zone z0 on a100-0, a100-1; zone z1 on a100-2"]


def test_no_fabric_is_worth_knowing_with_several_nodes() -> None:
    assert [line.split()[0] for line in told(found(labelled({}, {})))] == ["info"]
    assert told(found(labelled({}))) == []


@pytest.mark.parametrize("value", ["H100", "h100-80gb-sxm", "NVIDIA-H100-80GB-HBM3", "Tesla-T4"])
def test_a_label_that_names_another_product(value: str) -> None:
    [line] = told(found(labelled({"accelerator": value})))
    assert line == f"error a100-0: its label accelerator={value} contradicts what it has: A100-40GB-SXM"


@pytest.mark.parametrize("value", ["A100", "A100-40GB-SXM", "NVIDIA-A100-SXM4-40GB", "cpu", "blue", "", "8"])
def test_labels_that_are_true_or_say_nothing_of_products(value: str) -> None:
    assert told(found(labelled({"accelerator": value}))) == []


def test_the_name_of_a_domain_is_no_product() -> None:
    assert told(found(labelled({"rack": "T4"}, {"rack": "L4"}, levels=("rack", "site")))) == []
