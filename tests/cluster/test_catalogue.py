"""Device types: those that come along, and those that users add."""

from pathlib import Path

import pytest

from heliostat.cluster.catalogue import Catalogue, builtin, load
from heliostat.errors import ConfigError, UserError

ROW = {"memory_gib": 96, "memory_gb_per_s": 1600, "tflops": {"bf16": 250}, "source": "our own measurements, 2026"}


def test_enough_types_each_with_a_source() -> None:
    types = builtin().types
    assert len(types) >= 36
    assert all(one.source and one.name == name for name, one in types.items())
    assert [name for name, one in types.items() if one.always_measured] == ["cpu"]


@pytest.mark.parametrize(
    ("reported", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100-80GB-SXM"),
        ("A100-SXM4-40GB", "A100-40GB-SXM"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB-PCIe"),
        ("Tesla V100-SXM2-16GB", "V100-16GB-SXM"),
        ("Tesla V100-PCIE-32GB", "V100-32GB-PCIe"),
        ("Tesla P100-SXM2-16GB", "P100-16GB-SXM"),
        ("Tesla T4", "T4"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("nvidia rtx 6000 ada generation", "RTX-6000-Ada"),
        ("NVIDIA RTX A6000", "RTX-A6000"),
        ("NVIDIA H100 80GB HBM3", "H100-80GB-SXM"),
        ("NVIDIA H100 PCIe", "H100-80GB-PCIe"),
        ("NVIDIA H100 NVL", "H100-94GB-NVL"),
        ("NVIDIA H200", "H200-141GB-SXM"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA GB200", "GB200"),
        ("NVIDIA GH200 480GB", "GH200-96GB"),
        ("AMD Instinct MI300X", "MI300X"),
        ("RTX-3090", "RTX-3090"),
        ("cpu", "cpu"),
    ],
)
def test_names_that_drivers_report(reported: str, name: str) -> None:
    assert builtin().find(reported).name == name


def test_an_unknown_type_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match=r"no device type 'A100-80G-SXM' \(did you mean 'A100-80GB-SXM'\?\)"):
        builtin().find("A100-80G-SXM")


def test_figures_are_in_base_units_and_links_in_one_direction() -> None:
    """A100 80 GB SXM datasheet: 80 GB, 2039 GB/s, 312 TFLOP/s dense in BF16, NVLink 600 GB/s both ways together."""
    a100 = builtin().find("A100-80GB-SXM")
    assert (a100.memory_bytes, a100.memory_bytes_per_s) == (80 << 30, 2.039e12)
    assert (a100.flops("bf16"), a100.flops("fp8")) == (312e12, None)
    assert a100.peer_links is not None
    assert (a100.peer_links.num_links, a100.peer_links.bytes_per_s) == (12, 300e9)
    assert builtin().find("cpu").memory_bytes is builtin().find("cpu").memory_bytes_per_s is None


def test_rates_keep_the_order_of_the_hardware() -> None:
    """No type computes a wider input faster, which a rate with sparsity or a slipped column would break."""
    narrower = [
        ("fp64", "fp32"),
        ("fp32", "tf32"),
        ("tf32", "fp16"),
        ("tf32", "bf16"),
        ("bf16", "fp8"),
        ("fp16", "int8"),
    ]
    for one in builtin().types.values():
        rates = one.tflops
        assert all(rates[a] <= rates[b] for a, b in narrower if a in rates and b in rates), one.name
        if one.peer_links and one.peer_links.kind == "NVLink":
            assert one.peer_links.gb_per_s / one.peer_links.num_links in {14.0625, 20, 25, 50}, one.name


def test_mig_profiles() -> None:
    """Names, slices and memory agree: 2g.20gb is 2 of 7 compute slices and a quarter of 80 GB, at most three times."""
    a100 = builtin().find("A100-80GB-SXM")
    profiles = {profile.name: profile for profile in a100.mig}
    assert list(profiles) == ["1g.10gb", "1g.10gb+me", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"]
    assert a100.mig_memory_bytes(profiles["2g.20gb"]) == 20 << 30
    for one in builtin().types.values():
        total = max((profile.memory_slices for profile in one.mig), default=0)
        for profile in one.mig:
            compute, _, memory = profile.name.partition("g.")
            assert profile.compute_slices == int(compute)
            assert profile.memory_slices * profile.max_instances <= total
            named_gib = int(memory.partition("gb")[0])
            assert one.mig_memory_bytes(profile) / (1 << 30) == pytest.approx(named_gib, rel=0.04)


def test_a_row_adds_a_type_or_replaces_fields() -> None:
    more = builtin().extended({"X9": {**ROW, "aliases": ["Acme X9"]}, "L4": {"tdp_w": 60, "source": "our racks, 2026"}})
    assert more.find("acme  x9").flops("bf16") == 250e12
    assert (more.find("L4").tdp_w, more.find("L4").memory_gib) == (60, 24)
    assert builtin().find("L4").tdp_w == 72


def test_every_type_survives_a_round_trip() -> None:
    assert Catalogue.model_validate_json(builtin().model_dump_json()) == builtin()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"X9": {**ROW, "memory_gib": -1}}, ["X9.memory_gib", "greater than 0, got -1"]),
        ({"X9": {**ROW, "tpd_w": 3}}, ["X9.tpd_w: there is no such field (did you mean 'tdp_w'?)"]),
        ({"X9": {**ROW, "tflops": {"fp17": 3}}}, ["X9.tflops.fp17", "'bf16'"]),
        ({"X9": {**ROW, "tflops": {}}}, ["X9: memory_gib, memory_gb_per_s and tflops must be given"]),
        ({"X9": {**ROW, "mig": {"1g.10gb": [1, 1]}}}, ["X9.mig: 1g.10gb must be [compute slices"]),
        ({"X9": {**ROW, "mig": {"small": [1, 1, 7]}}}, ["X9.mig.0.name", "got 'small'"]),
        ({"X9": {**ROW, "aliases": ["NVIDIA L4"]}}, ["X9: the name 'l4' already means L4"]),
        ({"L4": {"tdp_w": 60}}, ["L4.source: Field required"]),
        ({"X9": 96}, ["X9: Input should be a valid dictionary", "got 96"]),
    ],
)
def test_mistakes_in_rows(rows: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        builtin().extended(rows)
    assert len(raised.value.mistakes) == 1
    assert not [word for word in words if word not in raised.value.mistakes[0]], raised.value.mistakes


def test_mistakes_in_a_file_have_a_place(tmp_path: Path) -> None:
    file = tmp_path / "types.yaml"
    file.write_text(
        "X9:\n  memory_gib: 96\n  memory_gb_per_s: lots\n  tflops: {bf16: 250}\n  source: us\nL4:\n  tdp_w: 1\n"
    )
    with pytest.raises(ConfigError) as raised:
        load(file)
    assert raised.value.mistakes[0].startswith(f"{file}:3:3: X9.memory_gb_per_s: ")
    assert raised.value.mistakes[1].startswith(f"{file}:6:1: L4.source: ")


def test_a_key_written_twice_in_a_file_is_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "types.yaml"
    file.write_text("X9: {source: a, source: b}\n")
    with pytest.raises(ConfigError, match="is written twice"):
        load(file)


def test_a_file_adds_to_the_built_in_types(tmp_path: Path) -> None:
    file = tmp_path / "types.yaml"
    file.write_text("X9: {memory_gib: 96, memory_gb_per_s: 1600, tflops: {bf16: 250}, source: us}\n")
    assert load(file).find("X9").memory_bytes == 96 << 30
    assert load(file).find("T4") == builtin().find("T4")
