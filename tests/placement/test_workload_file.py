"""Workload files: what they say, and every mistake at its place."""

from pathlib import Path

import pytest

from heliostat.errors import ConfigError
from heliostat.placement.sizes import SIZES
from heliostat.placement.workload_file import Job, load
from heliostat.placement.workloads import Transformer, transformer

EXAMPLE = Path(__file__).parents[2] / "configs" / "plans" / "gpt-13b.yaml"


def written(tmp_path: Path, text: str, *overrides: str) -> Job:
    path = tmp_path / "work.yaml"
    path.write_text(text)
    return load(path, overrides)


def mistakes(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        written(tmp_path, text)
    return [one.removeprefix(str(tmp_path) + "/") for one in error.value.mistakes]


def test_the_example_names_a_size_and_a_cluster() -> None:
    job = load(EXAMPLE)
    assert job.workload.num_parameters == pytest.approx(12.85e9, rel=1e-3)
    assert (job.wanted.global_batch, job.wanted.execution.dtype) == (512, "fp16")
    assert job.cluster is not None
    assert job.cluster.is_file()


def test_a_size_is_its_hyperparameters(tmp_path: Path) -> None:
    text = "model: {family: gpt, hidden: 5120, layers: 40, heads: 40, seq_len: 2048, vocab: 50257}\nglobal_batch: 8\n"
    shape = Transformer(name="gpt-13b", hidden=5120, layers=40, heads=40, seq_len=2048, vocabulary=50257)
    assert written(tmp_path, f"name: gpt-13b\n{text}").workload == transformer(shape)
    assert written(tmp_path, "model: gpt-13b\nglobal_batch: 8\n").workload == transformer(shape)
    longer = written(tmp_path, "model: {size: gpt-13b, seq_len: 4096}\nglobal_batch: 8\n").workload
    assert longer == transformer(shape.model_copy(update={"seq_len": 4096}))


@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        ("gpt-175b", 174.6e9), ("llama-2-7b", 6.738e9), ("llama-2-70b", 68.98e9), ("llama-3.1-8b", 8.030e9),
        ("llama-3.1-70b", 70.55e9), ("llama-3.1-405b", 405.9e9), ("bert-base", 109.5e6), ("mpt-7b", 6.66e9),
        ("mixtral-8x7b", 46.70e9), ("t5-11b", 11.31e9), ("vit-h-14", 632e6),
    ],
)  # fmt: skip
def test_sizes_have_the_published_numbers_of_parameters(tmp_path: Path, size: str, parameters: float) -> None:
    job = written(tmp_path, f"model: {size}\nglobal_batch: 8\n")
    assert job.workload.num_parameters == pytest.approx(parameters, rel=0.02)


def test_families_beyond_decoders_are_written_alike(tmp_path: Path) -> None:
    text = "model: {size: t5-base, target_len: 64, decoder_layers: 6}\nglobal_batch: 8\n"
    assert [block.count for block in written(tmp_path, text).workload.blocks] == [1, 12, 1, 6, 1]
    text = "model: {family: vit, hidden: 64, layers: 2, heads: 4, image: 32, patch: 8, classes: 10}\nglobal_batch: 8\n"
    assert (written(tmp_path, text).workload.name, written(tmp_path, text).workload.seq_len) == ("vit", 17)


def test_every_size_can_be_planned(tmp_path: Path) -> None:
    for size in SIZES:
        assert written(tmp_path, f"model: {size}\nglobal_batch: 8\n").workload.name == size


def test_what_is_asked_stands_beside_the_model(tmp_path: Path) -> None:
    text = "model: gpt-125m\nglobal_batch: 8\npins: {zero: 1, kinds: [T4]}\nexecution: {gradient_bytes: 2}\n"
    wanted = written(tmp_path, text, "objective=fewest", "target_s=3", "pins.zero=2").wanted
    assert (wanted.objective, wanted.target_s, wanted.pins.zero, wanted.pins.kinds) == ("fewest", 3.0, 2, ("T4",))
    assert (wanted.execution.gradient_bytes, wanted.execution.dtype) == (2, "bf16")


def test_every_mistake_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    text = """\
model: {famliy: gpt, size: gpt-13x, hidden: 0}
precision: fp1
global_batch: -3
cluster: nowhere.yaml
execution: {gradient_bytes: 3, dtype: bf16}
pins: {zeor: 1}
what: 3
"""
    found = mistakes(tmp_path, text)
    expected = (
        ("work.yaml:1:9: model.famliy: unknown key", "did you mean 'family'"),
        ("work.yaml:1:22: model.size: is none of the sizes", "did you mean 'gpt-13b'"),
        ("work.yaml:1:37: model.hidden: must be greater than 0", "got 0"),
        ("work.yaml:2:1: precision: must be", "did you mean 'fp16'"),
        ("work.yaml:3:1: global_batch: must be greater than 0", "got -3"),
        ("work.yaml:4:1: cluster: there is no file", "nowhere.yaml"),
        ("work.yaml:5:13: execution.gradient_bytes: must be 2 or 4", "got 3"),
        ("work.yaml:5:32: execution.dtype: is said by `precision`", ""),
        ("work.yaml:6:8: pins.zeor: unknown key", "did you mean 'zero'"),
        ("work.yaml:7:1: what: unknown key", "objective"),
    )
    assert len(found) == len(expected)
    for line, (start, end) in zip(found, expected, strict=True):
        assert line.startswith(start)
        assert end in line


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model: {family: gpt, hidden: 64}", "model.heads: is missing"),
        ("model: {hidden: 64}", "model: needs a `family`"),
        ("model: {size: llama-2-7b, family: gpt}", "model.family: is 'gpt', but llama-2-7b is of the family 'llama'"),
        ("model: {size: gpt-13b, heads: 33}", "model.heads: must divide hidden"),
        ("model: {size: llama-2-7b, kv_heads: 5}", "model.kv_heads: must divide heads"),
        ("model: {family: vit, hidden: 64, layers: 2, heads: 4, image: 65}", "model.patch: must divide image"),
        ("model: {family: vit, hidden: 64, layers: 2, heads: 4, vocab: 9}", "model.vocab: is nothing that a model of"),
        ("model: {family: t5, hidden: 64, layers: 2, heads: 4, vocab: 9, seq_len: 8}", "model.target_len: is missing"),
        ("model: {size: mixtral-8x7b, experts_per_token: 9}", "model.experts_per_token: is 9, but there are 8"),
        ("model: {size: gpt-2, capacity: 1.5}", "model.capacity: is that of experts"),
        ("model: 3", "model: must be the name of a size or a mapping"),
        ("name: x", "model: is missing"),
        ("model: gpt-13b\nexecution: []", "execution: must be a mapping"),
        ("model: gpt-13b\nobjective: cheapest", "needs `price_per_hour`"),
        ("model: gpt-13b\nobjective: fewest", "needs `target_s`"),
    ],
)
def test_what_does_not_fit_together(tmp_path: Path, text: str, told: str) -> None:
    assert any(told in line for line in mistakes(tmp_path, f"{text}\nglobal_batch: 8\n"))
