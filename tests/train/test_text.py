"""How the next token is chosen."""

import pytest
import torch
from pydantic import ValidationError

from heliostat.train.text import Sampler, Sampling

LOGITS = torch.tensor([0.0, 3.0, 2.0, -1.0, 2.9])


def drawn(num: int, **sampling: float) -> list[int]:
    sampler = Sampler(Sampling.model_validate(sampling))
    return [sampler.choose(LOGITS) for _ in range(num)]


def test_without_temperature_the_likeliest_is_taken() -> None:
    assert drawn(5, seed=3) == [1] * 5


def test_draws_repeat_with_the_seed_and_follow_the_model() -> None:
    first = drawn(4000, temperature=1.0, seed=3)
    assert first == drawn(4000, temperature=1.0, seed=3)
    assert first[:50] != drawn(50, temperature=1.0, seed=4)
    shares = torch.bincount(torch.tensor(first), minlength=5) / len(first)
    assert torch.allclose(shares, LOGITS.softmax(dim=0), atol=0.03)


def test_top_k_draws_among_the_likeliest_alone() -> None:
    assert set(drawn(300, temperature=2.0, top_k=3)) == {1, 2, 4}
    assert set(drawn(300, temperature=5.0, top_k=99)) == {0, 1, 2, 3, 4}
    assert set(drawn(50, temperature=5.0, top_k=1)) == {1}


def test_draws_of_others_do_not_disturb() -> None:
    sampler = Sampler(Sampling(temperature=1.0, seed=3))
    mixed = []
    for _ in range(20):
        torch.rand(3)
        mixed.append(sampler.choose(LOGITS))
    assert mixed == drawn(20, temperature=1.0, seed=3)


@pytest.mark.parametrize(
    "sampling", [{"max_tokens": 0}, {"max_tokens": 1001}, {"temperature": -1}, {"temperature": float("nan")}]
)
def test_what_makes_no_sense_is_refused(sampling: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Sampling.model_validate(sampling)
