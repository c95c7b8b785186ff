import math
from pathlib import Path

import pytest
import torch
from torch import nn

from heliostat.errors import PlanError
from heliostat.train.verify.room import place_for
from heliostat.train.verify.verification import Check, Term, Verification

RIGHT = Term(what="loss", expected=1.0, got=1.00005, tolerance=1e-4)
WRONG = Term(what="messages", expected=4, got=3, unit="messages")


def verification(*terms: Term) -> Verification:
    return Verification(
        checks=(Check(name="sums", compared="this with that", terms=terms, causes=("a cause",), next_step="try"),),
        seconds=1.0,
    )


def test_a_number_that_is_none_agrees_with_nothing() -> None:
    assert RIGHT.passed
    assert not RIGHT.model_copy(update={"got": math.nan}).passed
    assert "got nan" in RIGHT.model_copy(update={"got": math.nan}).describe()


def test_less_than_at_most_is_no_failure() -> None:
    assert WRONG.model_copy(update={"at_most": True}).passed
    assert not WRONG.model_copy(update={"at_most": True, "got": 5}).passed


def test_a_failure_names_the_term_with_both_numbers() -> None:
    verification(RIGHT).require()
    with pytest.raises(PlanError, match="the plan was not verified: sums") as failure:
        verification(RIGHT, *(WRONG,) * 5).require()
    assert failure.value.where == "this with that"
    assert failure.value.got is not None
    assert failure.value.got.startswith("messages: expected 4 messages, got 3 messages; ")
    assert failure.value.got.endswith("; and 2 more")
    assert failure.value.causes == ("a cause",)


def test_what_was_found_stays_with_the_job(tmp_path: Path) -> None:
    assert Verification.read(tmp_path) is None
    found = verification(RIGHT, WRONG)
    found.write(tmp_path / "job")
    assert Verification.read(tmp_path / "job") == found
    assert not found.passed


def test_a_model_larger_than_any_memory_is_trained_nowhere() -> None:
    cpu = torch.device("cpu")
    assert place_for(nn.Linear(4, 4), cpu) == cpu
    with torch.device("meta"):
        assert place_for(nn.Linear(1 << 22, 1 << 22), cpu) is None
