from collections.abc import Mapping
from typing import Any

import pytest

from heliostat.data.prepare import Prepared, ray_data, run_prepare
from heliostat.errors import DataError

pytestmark = pytest.mark.ray


def prepare(options: Mapping[str, Any]) -> Prepared:
    import ray

    rows = ray.data.range(options["rows"])
    return Prepared(splits={"train": rows, "validation": rows, "test": rows}, dropped={"odd": 3})


def test_prepare_gets_its_options(ray_cluster: None) -> None:
    prepared = run_prepare(prepare, {"rows": 4})
    assert prepared.splits["test"].count() == 4
    assert prepared.dropped == {"odd": 3}


def test_other_splits_are_refused(ray_cluster: None) -> None:
    with pytest.raises(DataError, match="must return the splits train, validation, test") as caught:
        Prepared(splits={"train": prepare({"rows": 1}).splits["train"]})
    assert caught.value.got == "train"


def test_another_result_is_refused(ray_cluster: None) -> None:
    def careless(options: Mapping[str, Any]) -> Any:
        return {"train": []}

    with pytest.raises(DataError, match=r"must return heliostat\.data\.prepare\.Prepared") as caught:
        run_prepare(careless, {})
    assert caught.value.got == "dict"


def test_an_error_of_ours_in_a_task_is_raised_as_itself_and_others_as_ray_raises_them(ray_cluster: None) -> None:
    import ray

    def broken(error: Exception) -> Any:
        def task(batch: Any) -> Any:
            raise error

        return ray.data.range(3).map_batches(task)

    with pytest.raises(DataError) as caught, ray_data():
        broken(DataError("bad rows", where="block 3")).take_all()
    assert type(caught.value) is DataError
    assert caught.value.where == "block 3"
    with pytest.raises(ray.exceptions.RayTaskError, match="disk on fire"), ray_data():
        broken(RuntimeError("disk on fire")).take_all()
