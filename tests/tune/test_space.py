import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from heliostat.tune.space import Domain, sample

DOMAIN: TypeAdapter[Domain] = TypeAdapter(Domain)
QUICKSTART = {
    "train.lr": {"loguniform": [0.0005, 0.01]},
    "train.params.width": {"choice": [64, 128, 256]},
    "train.params.dropout": {"uniform": [0.0, 0.3]},
    "train.params.depth": {"randint": [1, 4]},
}
SPACE = {path: DOMAIN.validate_python(domain) for path, domain in QUICKSTART.items()}


@given(st.integers(0, 2**32 - 1))
def test_samples_lie_in_their_domains(seed: int) -> None:
    for trial in sample(SPACE, num_trials=4, seed=seed):
        assert set(trial) == set(SPACE)
        assert 0.0005 <= trial["train.lr"] < 0.01
        assert trial["train.params.width"] in (64, 128, 256)
        assert 0.0 <= trial["train.params.dropout"] < 0.3
        assert trial["train.params.depth"] in (1, 2, 3)


def test_the_same_seed_gives_the_same_trials_however_many() -> None:
    ten = sample(SPACE, num_trials=10, seed=7)
    assert sample(SPACE, num_trials=4, seed=7) == ten[:4]
    assert sample(SPACE, num_trials=10, seed=8) != ten
    assert len({str(trial) for trial in ten}) == 10


def test_adding_a_parameter_leaves_the_others_as_they_were() -> None:
    fewer = {path: domain for path, domain in SPACE.items() if path != "train.lr"}
    whole = sample(SPACE, num_trials=3, seed=1)
    assert [{path: trial[path] for path in fewer} for trial in whole] == sample(fewer, num_trials=3, seed=1)


def test_every_power_of_ten_is_equally_likely() -> None:
    space = {"x": DOMAIN.validate_python({"loguniform": [1e-4, 1.0]})}
    powers = [math.floor(math.log10(trial["x"])) for trial in sample(space, num_trials=400, seed=0)]
    assert all(60 < powers.count(power) < 140 for power in (-4, -3, -2, -1))


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        ({"uniform": [1, 0]}, r"\[low, high\]"),
        ({"loguniform": [0, 1]}, "greater than 0"),
        ({"choice": []}, "at least 1 item"),
        ({"uniforme": [0, 1]}, "uniforme"),
        ({"uniform": [0, 1], "choice": [1]}, "must be one of"),
    ],
)
def test_a_domain_that_makes_no_sense_is_refused(domain: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DOMAIN.validate_python(domain)
