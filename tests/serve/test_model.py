"""Rows in, predictions out: against a calculation by hand."""

import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from heliostat.errors import DataError, ReferenceNotFound, ServingFailure
from heliostat.references import resolve
from heliostat.serve.model import ServedModel
from tests.serve.conftest import MakePackage, Rows, weights


def by_hand(row: dict[str, object]) -> float:
    state = {name: tensor.numpy().astype(np.float64) for name, tensor in weights().items()}
    time, distance = float(str(row["dep time"])), float(str(row["distance"]))
    numeric = [
        (time // 100 + time % 100 / 60 - 13.0) / 4.0,
        (math.log1p(distance) - 6.5) / 0.8,
        ((0.0 if row.get("seats") is None else 1.0) - 0.9) / 0.3,
    ]
    airline = {"AA": 1, "DL": 2, "UA": 3}.get(str(row["carrier"]), 0)
    inputs = np.concatenate([numeric, state["airlines.weight"][airline]])
    return 1 / (1 + math.exp(-(state["unit.weight"][0] @ inputs + state["unit.bias"][0])))


def test_predictions_are_what_the_weights_say(make_package: MakePackage, rows: Rows) -> None:
    model = ServedModel.load(make_package())
    assert model.predict(rows) == pytest.approx([by_hand(row) for row in rows], abs=1e-6)
    assert model.predict(rows[:1]) == pytest.approx([by_hand(rows[0])], abs=1e-6)


def test_rows_and_columns_agree_exactly(make_package: MakePackage, rows: Rows) -> None:
    model = ServedModel.load(make_package())
    answers = model.predict_columns(model.features.columns_of(rows))
    assert answers.dtype == np.float64
    assert answers.tolist() == model.predict(rows)


def test_several_numbers_per_row(make_package: MakePackage, rows: Rows) -> None:
    answers = ServedModel.load(make_package({"answer": "classes"})).predict(rows)
    assert [sum(answer) for answer in answers if isinstance(answer, list)] == pytest.approx([1.0] * 3)


def test_answers_do_not_depend_on_the_working_tree(make_package: MakePackage, rows: Rows, code: Path) -> None:
    """The process has imported the user's modules, as after training; editing them changes the next model only."""
    package = make_package()
    expected = ServedModel.load(package).predict(rows)
    sys.path.insert(0, str(code.parent))
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "delays"}
    try:
        (code / "clock.py").write_text("def hours(hhmm): return hhmm * 0\n")
        features = resolve(f"{code}/features.py:FEATURES")
        working_tree = {name: module for name, module in sys.modules.items() if name.startswith("delays")}

        model = ServedModel.load(package)
        assert model.predict(rows) == expected
        assert model.features is not features
        assert {name: sys.modules.get(name) for name in working_tree} == working_tree
        assert str(package / "code") not in sys.path
    finally:
        sys.path.remove(str(code.parent))
        for name in [name for name in sys.modules if name.partition(".")[0] == "delays"]:
            del sys.modules[name]
        sys.modules.update(before)


LAZY = """
def hours(hhmm):
    from delays.zero import ZERO
    return hhmm * ZERO
"""


def test_a_dedicated_process_may_import_packaged_code_late(make_package: MakePackage, rows: Rows, code: Path) -> None:
    (code / "clock.py").write_text(LAZY)
    (code / "zero.py").write_text("ZERO = 0.0")
    package = make_package(more={"delays.zero": code / "zero.py"})
    shutil.rmtree(code)
    script = (
        "import sys; from pathlib import Path; from heliostat.serve.model import ServedModel; "
        f"print(*ServedModel.load(Path(sys.argv[1]), dedicated=True).predict({rows!r}))"
    )
    done = subprocess.run([sys.executable, "-c", script, package], capture_output=True, text=True, check=True)
    assert len(done.stdout.split()) == len(rows)


def test_a_row_that_is_not_as_declared(make_package: MakePackage) -> None:
    model = ServedModel.load(make_package())
    with pytest.raises(DataError, match="dep time"):
        model.predict([{"carrier": "UA", "distance": 1.0}])
    with pytest.raises(DataError, match="dep time"):
        model.predict_columns({"carrier": np.array(["UA"], dtype=object)})


def test_an_answer_that_is_not_a_number(make_package: MakePackage, rows: Rows) -> None:
    with pytest.raises(ServingFailure, match="not a finite number") as caught:
        ServedModel.load(make_package({"answer": "nan"})).predict(rows)
    assert "row 0" in str(caught.value)


def test_packages_that_do_not_load(make_package: MakePackage, tmp_path: Path) -> None:
    with pytest.raises(ServingFailure, match="not a model package"):
        ServedModel.load(tmp_path / "nowhere")

    package = make_package()
    torch.save(weights(width=5), package / "weights.pt")
    with pytest.raises(ServingFailure, match="weights do not fit") as caught:
        ServedModel.load(package)
    assert "airlines.weight" in str(caught.value)

    (package / "weights.pt").write_bytes(b"")
    with pytest.raises(ServingFailure, match="weights do not fit"):
        ServedModel.load(package)

    (package / "code" / "delays" / "clock.py").unlink()
    with pytest.raises(ReferenceNotFound, match=r"delays\.clock"):
        ServedModel.load(package)
