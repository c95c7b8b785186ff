"""Equal domains are folded, whatever they are called; nothing is lost on the way."""

from heliostat.cluster.spec import ClusterSpec
from heliostat.cluster.view.fabric_tree import Domain, Nodes, domain_name, fabric_tree, num_nodes
from heliostat.cluster.view.pools import pools
from tests.cluster.view.clusters import A100, CPU, large, mixed


def tree(cluster: ClusterSpec) -> Domain:
    return fabric_tree(cluster, pools(cluster))


def test_ten_thousand_gpus_fold_into_a_few_branches() -> None:
    """1,250 nodes in racks of 16 and pods of 20 racks: three full pods; 18 full racks and one of two nodes are left."""
    root = tree(large())
    full, last = root.branches
    assert (full.count, full.names, num_nodes(full), num_nodes(last)) == (3, ("pod-0", "pod-1", "pod-2"), 960, 290)
    assert isinstance(full.of, Domain)
    assert isinstance(last.of, Domain)
    assert [(branch.count, branch.of) for branch in full.of.branches] == [(20, last.of.branches[0].of)]
    assert [branch.count for branch in last.of.branches] == [18, 1]
    assert [branch.names for branch in last.of.branches] == [tuple(f"rack-{n}" for n in range(60, 78)), ("rack-78",)]


def test_racks_of_different_machines_stay_apart() -> None:
    first, second = tree(mixed()).branches
    assert (first.names, first.of) != (second.names, second.of)
    assert isinstance(first.of, Domain)
    assert [(one.count, one.of) for one in first.of.branches] == [(2, Nodes("a100"))]


def test_nodes_without_a_label_hang_on_the_level_above() -> None:
    cluster = mixed()
    bare = cluster.nodes[0].model_copy(update={"labels": {}})
    cluster = cluster.model_copy(update={"nodes": (bare, *cluster.nodes[1:])})
    assert [(branch.count, type(branch.of)) for branch in tree(cluster).branches] == [
        (1, Domain),
        (1, Domain),
        (1, Nodes),
    ]


def test_without_a_fabric_all_nodes_are_in_one_place() -> None:
    cluster = ClusterSpec.model_validate(
        {"machines": {"a": A100, "c": CPU}, "nodes": [{"machine": "a"}, {"machine": "c", "count": 3}]}
    )
    assert tree(cluster).level == ""
    assert [(branch.count, branch.of) for branch in tree(cluster).branches] == [(1, Nodes("a")), (3, Nodes("c"))]


def test_a_domain_is_called_by_its_level_once() -> None:
    assert (domain_name("rack", "r7"), domain_name("rack", "rack-7")) == ("rack r7", "rack-7")
