"""Nodes are gathered by what they are, and called as people call them."""

from heliostat.cluster.spec import ClusterSpec, Node
from heliostat.cluster.view.pools import node_names, pools
from tests.cluster.view.clusters import A100, machine, mixed

RAY_ID = "ab" * 28


def cluster(*nodes: Node) -> ClusterSpec:
    return ClusterSpec(nodes=nodes, origin="live")


def test_equal_machines_are_one_pool_wherever_they_are_listed() -> None:
    spec = mixed()
    shuffled = spec.model_copy(update={"nodes": (*spec.nodes[1:], spec.nodes[0])})
    assert [(pool.name, len(pool.nodes)) for pool in pools(shuffled)] == [("a100", 2), ("v100", 4)]


def test_different_machines_of_one_name_are_numbered_as_in_the_file() -> None:
    other = machine({**A100, "links": "NV4"})
    nodes = (Node(node_id="a", machine=machine(A100)), Node(node_id="b", machine=other))
    assert [pool.name for pool in pools(cluster(*nodes))] == list(cluster(*nodes).model_dump()["machines"])


def test_nodes_are_called_by_host_unless_hosts_repeat() -> None:
    one = Node(node_id=RAY_ID, machine=machine(A100), hostname="h1")
    two = Node(node_id="gpu-box-in-the-corner", machine=machine(A100), hostname="h2")
    assert node_names(cluster(one, two)) == {RAY_ID: "h1", "gpu-box-in-the-corner": "h2"}
    twin = two.model_copy(update={"hostname": "h1"})
    assert list(node_names(cluster(one, twin)).values()) == ["abababababab", "gpu-box-in-the-corner"]
