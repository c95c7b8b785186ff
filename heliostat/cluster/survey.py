"""What a look at a live cluster found: the spec, the nodes that are lost, and what each node said of itself. Pure."""

from pydantic import Field

from heliostat.cluster.node_report import NodeReport
from heliostat.cluster.spec import ClusterSpec
from heliostat.values import Frozen

NODE_LABEL = "heliostat.io/node"
"""Names a node of a cluster file on its raylet, where the two are the same thing: in an emulation."""


class LostNode(Frozen):
    """A node that was there and does not answer."""

    node_id: str
    name: str
    """Its name in the file it was started from, else its host."""
    why: str


class Survey(Frozen):
    """One look."""

    cluster: ClusterSpec
    """The nodes that answered, with all their devices, free or not."""
    lost: tuple[LostNode, ...] = ()
    reports: dict[str, NodeReport] = Field(default_factory=dict)
    """By node id."""
    remarks: tuple[str, ...] = ()
    """What could not be understood, in words: an unknown product, a topology that is not complete."""
