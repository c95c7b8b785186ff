"""Block times from a CSV file."""

from pathlib import Path

import pytest

from heliostat.cluster.catalogue import builtin
from heliostat.errors import ConfigError
from heliostat.placement.timings_file import with_timings
from heliostat.placement.workload import WorkloadProfile
from heliostat.placement.workloads import Transformer, transformer

HEAD = "model,gpu,mbs,tp,layer_first,layer_last,fwd_s,bwd_s,update_s\n"
OPT = transformer(Transformer(name="OPT", hidden=64, layers=4, heads=4, seq_len=16, vocabulary=100))


def read(path: Path, text: str, workload: WorkloadProfile = OPT) -> WorkloadProfile:
    path.write_text(HEAD + text)
    return with_timings(workload, path, builtin())


def test_rows_become_timings_of_the_blocks_they_cover(tmp_path: Path) -> None:
    found = read(
        tmp_path / "rows.csv",
        "OPT,A100-40,1,1,0,0,0.1,0.2,0\nOPT,A100-40,1,1,1,1,0.5,1,0.01\nOPT,A100-40,1,1,2,4,0.3,0.6,0.03\n"
        "OPT,A100-40,2,1,1,4,0.7,1.4,0\nother,T4,1,1,0,0,9,9,9\n",
    )
    embedding, layer, head = (block.timings for block in found.blocks)
    assert {one.device_kind for one in layer} == {"A100-40GB-SXM", "A100-40GB-PCIe"}
    assert layer[0].pass_s(1) == pytest.approx(((0.5 + 3 * 0.3) / 4, (1 + 3 * 0.6) / 4))
    assert layer[0].pass_s(2) == pytest.approx((0.7, 1.4))
    assert layer[0].update_s == pytest.approx(0.02)
    assert embedding[0].pass_s(1) == (0.1, 0.2)
    assert embedding[0].update_s is None
    assert head == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("OPT,T4,0,1,0,0,1,1,0\nOPT,T4,1,1,0,0,x,1,0\n", r"rows.csv:2: mbs: .*\n.*rows.csv:3: fwd_s"),
        ("", "has no rows"),
        ("a,T4,1,1,0,0,1,1,0\nOPX,T4,1,1,0,0,1,1,0\n", r"no rows of 'OPT'.*it has OPX, a"),
        ("OPT,T4,1,1,0,6,1,1,0\n", r"layer 6 is measured, but OPT has 6 blocks"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        read(tmp_path / "rows.csv", text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        with_timings(OPT, tmp_path / "none.csv", builtin())
