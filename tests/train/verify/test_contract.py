import pytest
import torch

from heliostat.data.versions import DatasetVersion
from heliostat.errors import TrainingFailure
from heliostat.train.task import Task
from heliostat.train.verify.contract import check_contract
from heliostat.train.verify.still import still
from tests.train.toy import Toy
from tests.train.verified import Mean, Penalised, rows


def checked(task: Task) -> bool:
    torch.manual_seed(0)
    quiet = still(task)
    return not check_contract(quiet, quiet.model(), rows(), torch.device("cpu")).failures


def test_a_sum_and_its_count_add_up(toy_data: DatasetVersion) -> None:
    assert checked(Toy(toy_data))


def test_dropout_is_off(toy_data: DatasetVersion) -> None:
    assert checked(Toy(toy_data, dropout=0.5))


def test_a_mean_is_told_from_a_sum(toy_data: DatasetVersion) -> None:
    with pytest.raises(TrainingFailure, match=r"Mean\.loss does not add up") as failure:
        checked(Mean(toy_data))
    assert "mean" in failure.value.causes[0]
    assert failure.value.next_step is not None
    assert "reduction='sum'" in failure.value.next_step
    assert failure.value.got is not None
    assert failure.value.got.startswith("2 rows: ")


def test_a_penalty_does_not_add_up(toy_data: DatasetVersion) -> None:
    with pytest.raises(TrainingFailure, match="does not add up") as failure:
        checked(Penalised(toy_data))
    assert "penalty" in failure.value.causes[0]
