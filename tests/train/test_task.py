from pathlib import Path
from typing import Any

import pytest

from heliostat.data.versions import DatasetVersion
from heliostat.errors import ReferenceNotFound, UserError
from heliostat.train.task import make_task

TASKS = '''
import heliostat

class Flat(heliostat.Task):
    """All of a task, done badly."""
    def __init__(self, data, sizes: tuple[int, ...] = (4, 2), rate: float = 0.1, name: str | None = None):
        super().__init__(data)
        self.sizes, self.rate, self.name = sizes, rate, name
    def model(self): ...
    def loss(self, model, batch): ...
    def predict(self, model, batch): ...
    def metrics(self, predictions, labels): ...

class Half(heliostat.Task):
    def model(self): ...
    def loss(self, model, batch): ...

class Other: ...
'''


@pytest.fixture
def reference(tmp_path: Path) -> str:
    file = tmp_path / f"tasks_{tmp_path.name.replace('-', '_')}.py"
    file.write_text(TASKS)
    return str(file)


def test_parameters_take_the_types_they_declare(reference: str, toy_data: DatasetVersion) -> None:
    task = make_task(f"{reference}:Flat", toy_data, {"sizes": [8, 4, 2], "rate": 1})
    assert vars(task) == {"data": toy_data, "sizes": (8, 4, 2), "rate": 1.0, "name": None}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"rat": 0.1}, r"Flat has no parameter 'rat' \(did you mean 'rate'\?\)"),
        ({"data": 1}, "Flat has no parameter 'data'"),
        ({"rate": "fast"}, r"parameter 'rate' of Flat: (.|\n)*train.params.rate(.|\n)*got: 'fast'"),
        ({"sizes": [1.5]}, r"parameter 'sizes' of Flat: (.|\n)*integer"),
        ({"rate": True}, "parameter 'rate' of Flat"),
    ],
)
def test_a_wrong_parameter_is_explained(
    reference: str, toy_data: DatasetVersion, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make_task(f"{reference}:Flat", toy_data, params)


def test_what_is_not_a_whole_task_is_refused(reference: str, toy_data: DatasetVersion) -> None:
    with pytest.raises(UserError, match="Half lacks metrics, predict"):
        make_task(f"{reference}:Half", toy_data, {})
    with pytest.raises(UserError, match="is not a Task"):
        make_task(f"{reference}:Other", toy_data, {})
    with pytest.raises(ReferenceNotFound, match="did you mean 'Flat'"):
        make_task(f"{reference}:Flatt", toy_data, {})
