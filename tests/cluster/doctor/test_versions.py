"""Software that differs between nodes."""

from tests.cluster.doctor.nodes import VERSIONS, cluster, found, report, told

TWO = cluster({"count": 3})


def differing(**versions: str | None) -> list[str]:
    other = {name: version for name, version in {**VERSIONS, **versions}.items() if version is not None}
    return told(found(TWO, report("a"), report("b"), report("c", versions=other)))


def test_what_workers_must_have_in_common_is_an_error() -> None:
    assert differing(ray="2.59.0") == ["error a100-2: ray differs: 2.60.0 on a100-0, a100-1; 2.59.0 on a100-2"]
    assert differing(torch=None) == ["error a100-2: torch differs: 2.13.0 on a100-0, a100-1; none on a100-2"]
    assert [line.split()[0] for line in differing(python="3.12.1", heliostat="0.2.0")] == ["error", "error"]


def test_drivers_may_differ_but_are_told_once() -> None:
    both = {**VERSIONS, "cuda": "12.4", "nvml": "12.550"}
    older = {**VERSIONS, "driver": "535.1", "cuda": "12.2", "nvml": "12.535"}
    findings = found(TWO, report("a", versions=both), report("b", versions=both), report("c", versions=older))
    assert told(findings) == ["warning a100-2: driver differs: 550.54 on a100-0, a100-1; 535.1 on a100-2"]


def test_a_node_without_gpus_has_no_driver() -> None:
    assert differing(driver=None) == []
