"""The plays, their tokens, and the model that goes on with them."""

import importlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heliostat.data.encoder import Encoder
from heliostat.data.files import write_files
from heliostat.data.versions import DatasetVersion, load_columns
from heliostat.errors import DataError, UserError
from heliostat.references import code_paths, resolve
from heliostat.train.evaluate import predict
from heliostat.train.task import Arrays, make_task
from heliostat.train.text import Sampling

SHAKESPEARE = Path(__file__).parents[2] / "examples" / "shakespeare"
PREPARE, TASK = f"{SHAKESPEARE}/prepare.py:prepare", f"{SHAKESPEARE}/task.py:PlayTask"
CONTEXT = 32
OPTIONS = {"vocabulary": 300, "context": CONTEXT, "plays": 1}
SMALL = {"width": 32, "num_heads": 4, "depth": 2, "context": CONTEXT}


@pytest.fixture(scope="module")
def code() -> Any:
    """The example's package."""
    resolve(PREPARE)
    return importlib.import_module("shakespeare")


@pytest.fixture(scope="module")
def plays(code: Any) -> dict[str, str]:
    found: dict[str, str] = importlib.import_module("shakespeare.plays").plays()
    return found


@pytest.fixture(scope="module")
def pairs(code: Any, plays: dict[str, str]) -> Any:
    """A tokenizer of 300 tokens."""
    return importlib.import_module("shakespeare.tokenizer").BytePairs.train([plays["hamlet"]], size=300)


@pytest.fixture(scope="module")
def task(code: Any, pairs: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    uri = str(tmp_path_factory.mktemp("table"))
    data = DatasetVersion(
        uri=uri,
        name="shakespeare",
        version=0,
        label=None,
        num_rows={},
        dropped={},
        column_types={},
        statistics={},
        encoder=Encoder(numeric=(), categorical=()),
        files=write_files({"tokenizer.json": pairs.content}, uri),
    )
    return make_task(TASK, data, SMALL)


@pytest.fixture(scope="module")
def rows(code: Any, plays: dict[str, str], pairs: Any) -> Arrays:
    """Windows of the beginning of Hamlet."""
    windows = importlib.import_module("shakespeare.prepare").windows(pairs.encode(plays["hamlet"][:20_000]), CONTEXT)
    return {"tokens": windows, "label": pairs.num_bytes[windows[:, 1:]].sum(axis=1).astype(np.float64)}


def test_plays_are_plain_text(plays: dict[str, str]) -> None:
    assert len(plays) == 38
    assert plays["hamlet"].startswith(
        "Hamlet\n\nACT I\n\nSCENE I. Elsinore. A platform before the castle.\n\n[FRANCISCO"
    )
    assert "\nHAMLET:\nTo be, or not to be: that is the question:\n" in plays["hamlet"]
    assert "[Aside]" in plays["the-tempest"]
    assert not any(mark in text for text in plays.values() for mark in ("*", "\\", "#"))


def test_the_splits_share_no_play(code: Any, plays: dict[str, str]) -> None:
    module = importlib.import_module("shakespeare.plays")
    splits = {name: module.split_of(name) for name in plays}
    assert {split: list(splits.values()).count(split) for split in set(splits.values())} == {
        "train": 34,
        "validation": 2,
        "test": 2,
    }


def test_a_tokenizer_is_trained_again_to_the_same(pairs: Any, plays: dict[str, str]) -> None:
    assert pairs.size == 300
    assert type(pairs).train([plays["hamlet"]], size=300).content == pairs.content


@settings(max_examples=50)
@given(text=st.text(max_size=40))
def test_any_text_comes_back_from_its_tokens(pairs: Any, text: str) -> None:
    tokens = pairs.encode(text)
    assert pairs.decode(tokens) == text
    assert pairs.num_bytes[tokens].sum() == len(text.encode())
    pieces = list(pairs.pieces(iter(tokens)))
    assert "".join(pieces) == text
    assert "\N{REPLACEMENT CHARACTER}" in text or not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_the_end_of_a_play_cannot_be_written(pairs: Any) -> None:
    assert 0 not in pairs.encode("<|end|>")
    assert pairs.decode(pairs.encode("<|end|>")) == "<|end|>"
    assert pairs.num_bytes[0] == 0


def test_a_character_that_never_ends_is_told_at_last(pairs: Any) -> None:
    first_bytes = pairs.encode("é")[:1]
    assert list(pairs.pieces(iter(first_bytes))) == ["\N{REPLACEMENT CHARACTER}"]


def test_windows_predict_each_token_once(code: Any) -> None:
    windows = importlib.import_module("shakespeare.prepare").windows
    assert windows(list(range(10)), 3).tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert windows(list(range(9)), 3).tolist() == [[0, 1, 2, 3], [3, 4, 5, 6]]
    assert windows([1, 2], 3).shape == (0, 4)


@pytest.mark.ray
def test_the_data_step_on_a_part_of_the_plays(ray_cluster: None, tmp_path: Path, plays: dict[str, str]) -> None:
    import ray

    def data_step(options: dict[str, Any]) -> str:
        from heliostat.data.prepare import run_prepare
        from heliostat.data.versions import commit

        prepare: Any = resolve(PREPARE)
        prepared = run_prepare(prepare, options)
        return commit(prepared, uri=str(tmp_path / "table"), name="shakespeare").model_dump_json()

    environment = {"env_vars": {"PYTHONPATH": ":".join(code_paths([PREPARE]))}}
    step = ray.remote(num_cpus=0, runtime_env=environment)(data_step)
    version = DatasetVersion.model_validate_json(ray.get(step.remote(OPTIONS)))
    assert version.dropped == {"end of a play": 5}
    assert version.column_types == {"tokens": "list<item: int32>", "num_bytes": "double"}
    task: Any = make_task(TASK, version, SMALL)
    assert task.tokenizer.size == 300
    held_out = plays["macbeth"] + plays["twelfth-night"]
    columns = load_columns(version, "test", ["tokens", "num_bytes"])
    assert columns["tokens"].shape[1] == CONTEXT + 1
    assert columns["num_bytes"].sum() == pytest.approx(len(held_out.encode()), abs=2 * CONTEXT * 10)
    for window, num_bytes in zip(columns["tokens"][:50], columns["num_bytes"][:50], strict=True):
        text = task.tokenizer.decode(window[1:])
        assert num_bytes == task.tokenizer.num_bytes[window[1:]].sum()
        assert text in held_out or 0 in window or "\N{REPLACEMENT CHARACTER}" in text
    assert set(task.load("validation")) == {"tokens", "label"}

    with pytest.raises(DataError, match="no option vocabluary"):
        ray.get(step.remote({"vocabluary": 300}))


def test_the_model_of_the_experiment_has_ten_million_parameters(task: Any) -> None:
    with torch.device("meta"):
        whole: Any = type(task)(task.data)
        num_parameters = sum(parameter.numel() for parameter in whole.model().parameters())
    # of the experiment's 512 tokens, this tokenizer has 300
    assert num_parameters + 2 * 320 * (512 - 300) == 10_232_960


@pytest.fixture(scope="module")
def model(task: Any, rows: Arrays) -> Any:
    """A model that has learned a little."""
    torch.manual_seed(0)
    model = task.model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    tokens = torch.from_numpy(rows["tokens"])
    for step in range(60):
        loss, count = task.loss(model, {"tokens": tokens[step * 16 % 200 :][:16]})
        (loss / count).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def test_it_learns_more_than_counting_single_tokens(task: Any, model: Any, rows: Arrays) -> None:
    with torch.no_grad():
        loss, count = task.loss(model, {"tokens": torch.from_numpy(rows["tokens"])})
    metrics = task.metrics(predict(task, model, rows, micro_batch=50), rows["label"])
    assert metrics["loss"] == pytest.approx(float(loss) / count, rel=1e-5)
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["loss"]))
    num_bytes = rows["label"].sum()
    assert metrics["bits_per_byte"] == pytest.approx(metrics["loss"] * count / num_bytes / math.log(2))
    baselines = {
        name: task.metrics(answers, rows["label"])["loss"] for name, answers in task.baselines(rows, rows).items()
    }
    assert baselines["bigrams"] < baselines["unigrams"]
    assert metrics["loss"] < baselines["unigrams"]


def test_counted_pairs_are_probabilities_and_what_a_loop_counts(code: Any) -> None:
    ngrams = importlib.import_module("shakespeare.ngrams")
    windows = np.array([[0, 1, 1, 2], [2, 0, 1, 0]], dtype=np.int32)
    single, pair = ngrams.unigram(windows, 5), ngrams.bigram(windows, 5)
    assert single == pytest.approx([3 / 11, 4 / 11, 2 / 11, 1 / 11, 1 / 11])
    assert pair.sum(axis=1) == pytest.approx(1.0)
    # 1 is followed by 1, 2 and 0, each once: three of three followers are different
    assert pair[1] == pytest.approx((np.array([1, 1, 1, 0, 0]) + 3 * single) / 6)
    assert pair[4] == pytest.approx(single)
    assert ngrams.losses(pair, windows[:1])[0] == pytest.approx([-math.log(pair[0, 1] * pair[1, 1] * pair[1, 2]), 3.0])


def test_later_tokens_change_nothing_before_them(model: Any) -> None:
    tokens = torch.arange(1, 21)[None]
    other = tokens.clone()
    other[0, 12:] = 7
    torch.testing.assert_close(model(tokens)[:, :12], model(other)[:, :12])


def without_cache(model: Any, tokens: list[int], num_tokens: int) -> Iterator[int]:
    """The likeliest tokens, everything computed anew for each."""
    seen = list(tokens)
    for _ in range(num_tokens):
        if len(seen) > CONTEXT:
            seen = seen[-CONTEXT // 2 :]
        token = int(model(torch.tensor([seen]))[0, -1].argmax())
        yield token
        seen.append(token)


@pytest.mark.parametrize("length", [1, 9, CONTEXT - 1])
def test_the_cache_changes_no_token_also_beyond_the_context(code: Any, model: Any, length: int) -> None:
    continued = importlib.import_module("shakespeare.task").continued
    tokens = list(range(1, length + 1))
    told = list(continued(model, tokens, Sampling(max_tokens=3 * CONTEXT)))
    expected = list(without_cache(model, tokens, 3 * CONTEXT))
    assert told == (expected if 0 not in expected else expected[: expected.index(0)])
    assert len(told) > CONTEXT


def test_each_token_goes_through_the_model_once(code: Any, model: Any) -> None:
    continued = importlib.import_module("shakespeare.task").continued
    widths: list[int] = []
    handle = model.register_forward_pre_hook(lambda _, arguments: widths.append(arguments[0].shape[1]))
    try:
        list(continued(model, [5, 6, 7], Sampling(max_tokens=10)))
    finally:
        handle.remove()
    assert widths == [3] + [1] * 9


def test_a_text_repeats_with_its_seed_and_ends_with_the_play(task: Any, model: Any) -> None:
    drawn = Sampling(max_tokens=40, temperature=1.0, top_k=50, seed=4)
    text = "".join(task.generate(model, "HAMLET:\n", drawn))
    assert text == "".join(task.generate(model, "HAMLET:\n", drawn))
    assert text != "".join(task.generate(model, "HAMLET:\n", drawn.model_copy(update={"seed": 5})))

    ending = task.model().eval()
    with torch.no_grad():
        ending.head.weight.zero_()
        ending.norm.bias.fill_(1.0)
        ending.head.weight[0].fill_(1.0)
    assert list(task.generate(ending, "HAMLET:\n", Sampling())) == []


@pytest.mark.parametrize(
    ("prompt", "message"), [("", "the prompt is empty"), ("To be " * 40, "the prompt is too long")]
)
def test_a_prompt_that_cannot_be_continued_is_refused_at_once(task: Any, model: Any, prompt: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        task.generate(model, prompt, Sampling())
    assert caught.value.where == "prompt"


def test_prompts_are_the_beginnings_of_windows(task: Any, rows: Arrays, plays: dict[str, str]) -> None:
    prompts = task.prompts(rows, 3)
    assert len(prompts) == 3
    assert all(prompt in plays["hamlet"] for prompt in prompts)
