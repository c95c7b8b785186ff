import math

import pytest
import torch
from torch import nn

from heliostat.train import gradients
from heliostat.train.gradients import GradientSum


@pytest.mark.parametrize("bucket_bytes", [1, 200, 1 << 20])
def test_buckets_hold_the_gradients_of_every_size_and_type(monkeypatch: pytest.MonkeyPatch, bucket_bytes: int) -> None:
    monkeypatch.setattr(gradients, "BUCKET_BYTES", bucket_bytes)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3).double())
    model[0].bias.requires_grad_(False)  # noqa: FBT003
    total = GradientSum(model.parameters(), None)
    batches = torch.randn(2, 4, 5)
    expected = None
    for batch in batches:
        loss = model[1](model[0](batch).double()).square().sum()
        grads = torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])
        expected = [a + b for a, b in zip(expected, grads, strict=True)] if expected else list(grads)
    for _ in range(2):
        total.zero()
        for batch in batches:
            model[1](model[0](batch).double()).square().sum().backward()
        total.send_when_ready()
        total.finish()
        total.multiply(0.5)
        assert total.square() == pytest.approx(sum((one / 2).square().sum().item() for one in expected or []))
        found = [p.grad for p in model.parameters() if p.requires_grad]
        assert expected is not None
        for gradient, sum_ in zip(found, expected, strict=True):
            torch.testing.assert_close(gradient, sum_ / 2)
    assert model[0].bias.grad is None


def test_a_gradient_that_is_not_finite_is_noticed() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    total = GradientSum([parameter], None)
    parameter.sqrt().sum().backward()  # type: ignore[no-untyped-call]  # infinite at zero
    assert not math.isfinite(total.square())
    total.zero()
    assert total.square() == 0.0
