"""A small model of a user's own code, packaged as the pipeline packages it."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from heliostat.data.encoder import Encoder, Scale, Vocabulary
from heliostat.data.files import write_files
from heliostat.data.versions import DatasetVersion
from heliostat.serve.package import build_package
from heliostat.train import checkpoint
from heliostat.train.checkpointer import Checkpointer, Retention
from heliostat.train.pieces import whole

SOURCE = Path(__file__).parent / "delays"
VERSES = Path(__file__).parent / "verses"
LETTERS = "abcdefgh "

MakePackage = Callable[..., Path]
Rows = list[dict[str, object]]


def dataset_version() -> DatasetVersion:
    return DatasetVersion(
        uri="/data/flights",
        name="flights",
        version=7,
        label="late",
        num_rows={"train": 3, "validation": 1, "test": 1},
        dropped={},
        column_types={},
        statistics={},
        encoder=Encoder(
            numeric=(
                Scale(name="hour", mean=13.0, deviation=4.0),
                Scale(name="log_distance", mean=6.5, deviation=0.8),
                Scale(name="seats_known", mean=0.9, deviation=0.3),
            ),
            categorical=(Vocabulary(name="airline", values=("AA", "DL", "UA")),),
        ),
    )


def weights(num_airlines: int = 4, width: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {
        "airlines.weight": torch.randn(num_airlines, width, generator=generator),
        "unit.weight": torch.randn(1, 3 + width, generator=generator),
        "unit.bias": torch.randn(1, generator=generator),
    }


def commit(directory: Path, state: Mapping[str, torch.Tensor]) -> Path:
    """A committed checkpoint of a model with these weights."""
    with Checkpointer(directory, identity={}, tied={}, retention=Retention(1, "accuracy", "max")) as saver:
        saver.save(10, {checkpoint.MODEL: {name: whole(tensor) for name, tensor in state.items()}}, {"accuracy": 0.8})
    return directory / "step-00000010"


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """The user's working tree."""
    return Path(shutil.copytree(SOURCE, tmp_path / "work" / "delays", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.fixture
def make_package(tmp_path: Path, code: Path) -> MakePackage:
    committed = commit(tmp_path / "checkpoints", weights())

    def make(params: Mapping[str, Any] | None = None, *, more: Mapping[str, Path] | None = None) -> Path:
        return build_package(
            tmp_path / "package",
            task=f"{code}/task.py:LateTask",
            params=params or {},
            features=f"{code}/features.py:FEATURES",
            data=dataset_version(),
            weights=committed,
            modules={"delays.clock": code / "clock.py", **(more or {})},
        )

    return make


@pytest.fixture
def verses(tmp_path: Path) -> DatasetVersion:
    """A dataset version without features, with a file."""
    uri = str(tmp_path / "verses-table")
    return DatasetVersion(
        uri=uri,
        name="verses",
        version=2,
        label=None,
        num_rows={"train": 1, "validation": 1, "test": 1},
        dropped={},
        column_types={"tokens": "list<item: int32>"},
        statistics={},
        encoder=Encoder(numeric=(), categorical=()),
        files=write_files({"letters.txt": LETTERS.encode()}, uri),
    )


@pytest.fixture
def make_text_package(tmp_path: Path, verses: DatasetVersion) -> MakePackage:
    """A package of a model that continues verses."""
    folder = shutil.copytree(VERSES, tmp_path / "work" / "verses", ignore=shutil.ignore_patterns("__pycache__"))
    generator = torch.Generator().manual_seed(3)
    table = torch.randn(len(LETTERS), len(LETTERS), generator=generator)

    def make(params: Mapping[str, Any] | None = None) -> Path:
        return build_package(
            tmp_path / "text-package",
            task=f"{folder}/task.py:VerseTask",
            params=params or {},
            features=None,
            data=verses,
            weights=commit(tmp_path / "text-checkpoints", {"weight": table}),
            modules={},
        )

    return make


@pytest.fixture
def rows() -> Rows:
    return [
        {"carrier": "UA", "dep time": 1715, "distance": 1400.5, "seats": 149},
        {"carrier": "DL", "dep time": 600, "distance": 500, "seats": None, "copy": "x"},
        {"carrier": "unheard of", "dep time": 2359, "distance": 0},
    ]
