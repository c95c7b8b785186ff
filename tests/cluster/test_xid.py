"""XID errors from a kernel log."""

from pathlib import Path

from heliostat.cluster.xid import Xid, parse_xids, read_xids

LOG = """\
[   12.1] nvidia 0000:61:00.0: enabling device (0000 -> 0003)
[ 9001.4] NVRM: Xid (PCI:0000:61:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.
[ 9002.5] NVRM: GPU 0000:61:00.0: GPU has fallen off the bus.
3,1412,9003000000,-;NVRM: Xid (PCI:0000:C1:00.0): 31, pid=7, name=python, Ch 00000010
"""


def test_errors_are_found_among_other_lines() -> None:
    assert parse_xids(LOG) == (
        Xid(bus_id="0000:61:00.0", code=79, text="pid='<unknown>', name=<unknown>, GPU has fallen off the bus."),
        Xid(bus_id="0000:c1:00.0", code=31, text="pid=7, name=python, Ch 00000010"),
    )


def test_a_log_is_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "kmsg").write_text(LOG * 200)
    found = read_xids(tmp_path / "kmsg")
    assert found is not None
    assert {xid.code for xid in found} == {79, 31}
    assert read_xids(tmp_path / "none") is None


def test_this_machines_own_log_is_readable_or_refused() -> None:
    assert read_xids() in (None, ())
