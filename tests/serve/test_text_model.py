"""Prompts in, texts out."""

import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from heliostat.data.versions import DatasetVersion
from heliostat.errors import DataError, ServingFailure, UserError
from heliostat.serve import served
from heliostat.serve.model import ServedModel
from heliostat.serve.text_model import ServedText
from heliostat.train.text import Sampling
from tests.serve.conftest import LETTERS, MakePackage

DRAWN = Sampling(max_tokens=12, temperature=1.0, seed=5)


def test_a_text_grows_in_pieces_and_repeats_with_its_seed(make_text_package: MakePackage) -> None:
    model = ServedText.load(make_text_package())
    pieces = list(model.generate("a", DRAWN))
    assert len(pieces) == 12
    assert list(model.generate("a", DRAWN)) == pieces
    assert list(model.generate("a", DRAWN.model_copy(update={"seed": 6}))) != pieces


def test_rows_are_requests_and_nulls_are_defaults(make_text_package: MakePackage) -> None:
    model = ServedText.load(make_text_package())
    row = {"prompt": "ab", "max_tokens": 12, "temperature": 1.0, "top_k": None, "seed": 5}
    assert model.predict([row]) == ["".join(model.generate("ab", DRAWN))]
    assert [column.name for column in model.inputs] == list(row)
    with pytest.raises(ValidationError, match="prompt"):
        model.predict([{**row, "prompt": ""}])
    with pytest.raises(UserError, match="letters that the verses lack"):
        model.predict([{**row, "prompt": "xyz"}])


def test_a_package_brings_the_files_of_its_data(make_text_package: MakePackage, verses: DatasetVersion) -> None:
    package = make_text_package()
    shutil.rmtree(verses.uri)
    model = ServedText.load(package)
    assert set("".join(model.generate("a", DRAWN))) <= set(LETTERS)
    assert model.spec.data == verses
    [letters] = (package / "data").rglob("letters.txt")
    letters.write_text("other")
    with pytest.raises(DataError, match="not what was written"):
        ServedText.load(package)


def test_a_package_is_loaded_as_what_it_is(make_text_package: MakePackage, make_package: MakePackage) -> None:
    assert isinstance(served.load(make_text_package()), ServedText)
    assert isinstance(served.load(make_package()), ServedModel)
    with pytest.raises(ServingFailure, match="only if it continues texts"):
        ServedText.load(make_package())
    with pytest.raises(ServingFailure, match="not a FeatureSet"):
        ServedModel.load(make_text_package())


def test_what_is_no_package_is_told(tmp_path: Path) -> None:
    with pytest.raises(ServingFailure, match="not a model package"):
        served.load(tmp_path)
