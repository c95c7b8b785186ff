"""Versions on real Delta tables: committed as a whole or not at all, read back as committed, gone when a file is."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from heliostat.data import versions
from heliostat.data.columns import Columns, InputColumn
from heliostat.data.features import FeatureSet
from heliostat.data.prepare import Prepared
from heliostat.data.versions import DatasetVersion, commit, exists, load_columns, missing, open_version
from heliostat.errors import DataError, StoreError

pytestmark = pytest.mark.ray


def feature_set() -> FeatureSet:
    def transform(columns: Columns) -> Columns:
        return {"log_amount": np.log1p(columns["amount"]), "shop": columns["city"]}

    return FeatureSet(
        inputs=(
            InputColumn(name="amount", kind="number", nullable=True, minimum=0),
            InputColumn(name="city", kind="string"),
        ),
        numeric=("log_amount",),
        categorical=("shop",),
        transform=transform,
    )


FEATURES = feature_set()


def table(num_rows: int, seed: int) -> pa.Table:
    random = np.random.default_rng(seed)
    amount = random.gamma(2.0, 10.0, num_rows).round(2)
    return pa.table(
        {
            "amount": pa.array(amount, mask=random.random(num_rows) < 0.1),
            "city": pa.array(random.choice(["Lyon", "Graz", "Turin"], num_rows)),
            "fraud": pa.array(random.random(num_rows) < 0.3),
            "unused": pa.array(range(num_rows)),
        }
    )


TABLES = {"train": table(300, 1), "validation": table(80, 2), "test": table(90, 3)}


def prepared(blocks: int = 3, **other: pa.Table) -> Prepared:
    import ray

    return Prepared(
        splits={split: ray.data.from_arrow(rows).repartition(blocks) for split, rows in {**TABLES, **other}.items()},
        dropped={"no price": 7},
    )


Commit = Callable[..., DatasetVersion]


@pytest.fixture
def commit_to(ray_cluster: None, tmp_path: Path) -> Commit:
    def run(rows: Prepared | None = None, **changes: Any) -> DatasetVersion:
        settings = {"uri": str(tmp_path / "a table"), "name": "shops", "label": "fraud", "features": FEATURES}
        return commit(rows or prepared(), **{**settings, **changes})

    return run


def test_a_version_is_read_back_as_it_was_committed(commit_to: Commit) -> None:
    version = commit_to()
    assert open_version(version.uri, 0) == version
    assert exists(version)
    assert version.id == "shops@0"
    assert version.num_rows == {"train": 300, "validation": 80, "test": 90}
    assert version.dropped == {"no price": 7}
    assert version.column_types == {
        "amount": "double",
        "city": "string",
        "fraud": "double",
        "log_amount": "double",
        "shop": "string",
    }
    assert DatasetVersion.model_validate_json(version.model_dump_json()) == version


def test_the_encoder_is_fitted_on_the_train_split_alone(commit_to: Commit) -> None:
    outlier = pa.table({"amount": [1e9], "city": ["Oslo"], "fraud": [True]})
    version = commit_to(prepared(test=outlier))
    known = np.log1p(TABLES["train"]["amount"].drop_null().to_numpy())
    assert version.statistics["log_amount"].mean == pytest.approx(known.mean())
    assert version.statistics["log_amount"].num_missing == TABLES["train"]["amount"].null_count
    assert version.encoder.numeric[0].deviation == pytest.approx(known.std())
    assert version.encoder.categorical[0].values == ("Graz", "Lyon", "Turin")
    assert version.statistics["fraud"].mean == pytest.approx(np.mean(TABLES["train"]["fraud"].to_pylist()))


def test_every_row_comes_back_with_its_features_bit_for_bit(commit_to: Commit) -> None:
    columns = load_columns(commit_to(), "train", ["amount", "city", "fraud", "log_amount", "shop"])
    again = FEATURES.compute({"amount": columns["amount"], "city": columns["city"]})
    assert again["log_amount"].tobytes() == columns["log_amount"].tobytes()
    assert again["shop"].tolist() == columns["shop"].tolist()
    stored = zip(columns["amount"].tolist(), columns["city"], columns["fraud"].tolist(), strict=True)
    sent = [(row["amount"] or np.nan, row["city"], float(row["fraud"])) for row in TABLES["train"].to_pylist()]
    assert sorted(map(repr, stored)) == sorted(map(repr, sent))


def test_same_rows_and_code_give_the_same_arrays_however_blocks_are_cut(commit_to: Commit) -> None:
    backwards = {split: rows.take(list(range(len(rows)))[::-1]) for split, rows in TABLES.items()}
    versions = [commit_to(prepared(blocks=1)), commit_to(prepared(blocks=5, **backwards))]
    first, second = (load_columns(version, "train", ["amount", "city", "fraud"]) for version in versions)
    assert versions[0].encoder == versions[1].encoder
    for name in ("amount", "fraud"):
        assert first[name].tobytes() == second[name].tobytes()
    assert first["city"].tolist() == second["city"].tolist()


def test_a_new_version_leaves_the_old_one_readable(commit_to: Commit) -> None:
    first = commit_to()
    doubled = dataclasses.replace(
        FEATURES,
        numeric=("double",),
        transform=lambda columns: {"double": 2 * columns["amount"], "shop": columns["city"]},
    )
    second = commit_to(features=doubled)
    assert (first.version, second.version) == (0, 1)
    assert exists(first)
    assert exists(second)
    assert load_columns(first, "test", ["log_amount"])["log_amount"].shape == (90,)
    assert load_columns(second, "test", ["double"])["double"].shape == (90,)


def test_a_failure_before_the_commit_leaves_the_previous_version(commit_to: Commit, monkeypatch: Any) -> None:
    first = commit_to()
    with pytest.raises(DataError, match="split test is empty"):
        commit_to(prepared(test=TABLES["test"].slice(0, 0)))

    def killed(*_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(versions, "_publish", killed)
    with pytest.raises(KeyboardInterrupt):
        commit_to()
    monkeypatch.undo()
    assert len(list(Path(first.uri).rglob("*.parquet"))) > 2 * 9, "parts were written that no version names"
    assert DeltaTable(first.uri).version() == 0
    assert exists(first)
    assert commit_to().version == 1


def test_two_commits_at_once_cannot_both_be_the_next_version(commit_to: Commit, monkeypatch: Any) -> None:
    first = commit_to()
    stale = DeltaTable(first.uri)
    commit_to()

    class OpenedEarlier:
        is_deltatable = staticmethod(DeltaTable.is_deltatable)

        def __new__(cls, _: str) -> Any:
            return stale

    monkeypatch.setattr(versions, "DeltaTable", OpenedEarlier)
    with pytest.raises(StoreError, match="cannot be committed"):
        commit_to()


def test_a_version_with_a_file_gone_or_cut_short_does_not_exist(commit_to: Commit) -> None:
    version = commit_to()
    victim = next(Path(version.uri).rglob("*.parquet"))
    content = victim.read_bytes()
    victim.write_bytes(content[:-1])
    assert not exists(version)
    victim.unlink()
    assert not exists(version)
    assert "1 of 9 files are gone or cut short" in (missing(version) or "")
    split = victim.parent.name.removeprefix("split=")
    with pytest.raises(DataError, match="shops@0 cannot be read"):
        load_columns(version, split, ["amount"])
    victim.write_bytes(content)
    assert exists(version)


def test_another_dataset_in_the_same_place_is_not_this_version(commit_to: Commit) -> None:
    version = commit_to()
    assert not exists(version.model_copy(update={"name": "tills"}))
    assert not exists(version.model_copy(update={"version": 5}))
    assert not exists(version.model_copy(update={"uri": version.uri + "-moved"}))


def test_what_is_not_there_is_named(commit_to: Commit) -> None:
    version = commit_to()
    with pytest.raises(DataError, match="there is no dataset version 9") as caught:
        open_version(version.uri, 9)
    assert caught.value.got == "versions 0"
    with pytest.raises(DataError, match="there is no dataset"):
        open_version(version.uri + "-moved", 0)
    with pytest.raises(DataError, match=r"no column 'amont' \(did you mean 'amount'\?\)"):
        load_columns(version, "train", ["amont"])
    with pytest.raises(DataError, match=r"no split 'tests' \(did you mean 'test'\?\)"):
        load_columns(version, "tests", ["amount"])


def test_bad_rows_are_named_with_split_and_column(commit_to: Commit) -> None:
    bad = TABLES["validation"]
    cases: list[tuple[pa.Table, str]] = [
        (bad.drop_columns(["city"]), "input column is missing: city"),
        (bad.rename_columns(["amount", "citi", "fraud", "unused"]), "did you mean 'citi'"),
        (bad.drop_columns(["fraud"]), "label column is missing: fraud"),
        (bad.set_column(2, "fraud", pa.array([None] * 79 + [1.0])), "label fraud is missing in 79 of 80 rows"),
        (bad.set_column(0, "amount", pa.array(["12"] * 80)), "input column amount must be of type number"),
        (bad.set_column(0, "amount", pa.array([-1.0] * 80)), "amount is not between 0.0 and inf but -1 in 80 of 80"),
        (bad.set_column(1, "city", pa.array([None] * 80, pa.string())), "input column city is missing in 80 of 80"),
        (bad.slice(0, 0), "split validation is empty"),
    ]
    for rows, message in cases:
        with pytest.raises(DataError, match=message) as caught:
            commit_to(prepared(blocks=1, validation=rows))
        assert "split validation" in str(caught.value)


@pytest.mark.parametrize(
    ("label", "message"),
    [("amount", "the model would be told the answer"), ("shop", "told the answer"), ("_row", "needs for itself: _row")],
)
def test_names_that_collide_are_refused_before_any_work(commit_to: Commit, label: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        commit_to(label=label)


def test_a_place_that_cannot_be_written_is_named(commit_to: Commit, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="the dataset cannot be written") as caught:
        commit_to(uri=str(tmp_path / "file" / "table"))
    assert str(tmp_path) in str(caught.value)


WINDOWS = pa.table({"tokens": pa.array([[row, row + 1, 7] for row in range(40)]), "num_bytes": pa.array(range(40))})


def windows(**files: bytes) -> Prepared:
    import ray

    splits = {name: ray.data.from_arrow(WINDOWS).repartition(3) for name in ("train", "validation", "test")}
    return Prepared(splits=splits, files=files)


def test_without_features_the_columns_and_files_are_committed_as_prepared(commit_to: Commit) -> None:
    version = commit_to(windows(letters=b"abc"), label=None, features=None)
    assert open_version(version.uri, 0) == version
    assert (version.label, version.encoder.num_numeric, version.statistics) == (None, 0, {})
    assert version.column_types == {"tokens": "list<item: int32>", "num_bytes": "double"}
    columns = load_columns(version, "test", list(version.column_types))
    assert columns["tokens"].dtype == np.dtype(np.int32)
    assert columns["tokens"].shape == (40, 3)
    order = np.argsort(columns["num_bytes"])
    assert columns["tokens"][order].tolist() == WINDOWS["tokens"].to_pylist()
    assert order.tolist() != sorted(order), "as good as shuffled"

    assert version.file("letters") == b"abc"
    with pytest.raises(DataError, match=r"shops@0 has no file 'leters' \(did you mean 'letters'\?\)"):
        version.file("leters")
    [stored] = Path(version.uri).rglob("letters")
    copied = version.with_files_at(str(stored.parents[2]))
    assert copied.file("letters") == b"abc"
    stored.write_bytes(b"abcd")
    assert "1 of 10 files" in (missing(version) or "")


def test_rays_own_type_for_arrays_is_stored_as_sequences(commit_to: Commit) -> None:
    splits = {
        name: rows.map_batches(lambda batch: {"tokens": np.stack(batch["tokens"])})
        for name, rows in windows().splits.items()
    }
    version = commit_to(Prepared(splits=splits), label=None, features=None)
    tokens = load_columns(version, "train", ["tokens"])["tokens"]
    assert tokens[np.argsort(tokens[:, 0])].tolist() == WINDOWS["tokens"].to_pylist()


def test_all_splits_have_the_same_columns(commit_to: Commit) -> None:
    import ray

    other = ray.data.from_arrow(WINDOWS.drop_columns(["num_bytes"]))
    with pytest.raises(DataError, match="the prepared rows of test have other columns than those of train"):
        commit_to(Prepared(splits={**windows().splits, "test": other}), label=None, features=None)
