"""Ray nodes of our own; that they come up is shown where they are used."""

from pathlib import Path

import pytest

from heliostat.cluster.local import LocalRay, NodeStart, add_nodes
from heliostat.cluster.process import ManagedProcess
from heliostat.errors import ServiceError


def test_a_node_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    cluster = LocalRay(
        keeper=ManagedProcess(what="Ray", pid=2**22 - 1, started=0.0, url=""),
        address="127.0.0.1:1",
        dashboard_url="",
        temp_dir=str(tmp_path),
        token_path=str(tmp_path / "token"),
    )
    log = tmp_path / "a.log"
    log.write_text("Ray runtime started, says an earlier run\n")
    node = NodeStart(name="a", options=("--num-cpus=many",), env={}, log=log)
    with pytest.raises(ServiceError, match="the Ray node a did not come up") as caught:
        add_nodes(cluster, [node])
    assert "'many' is not a valid integer" in str(caught.value)
    assert caught.value.where == str(log)
