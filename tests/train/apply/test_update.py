"""The update is that of a plain loop in PyTorch."""

import pytest
import torch

from heliostat.data.versions import DatasetVersion
from heliostat.train.apply.engine import Engine, EngineSettings
from heliostat.train.evaluate import tensors_of
from heliostat.train.pieces import Held
from heliostat.train.rows import select
from tests.train.apply.runs import plan, stage
from tests.train.apply.tasks import LAYERS, Spelling

RATES = (0.01, 0.005, 0.02)


@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_one_process_trains_like_a_plain_loop(toy_data: DatasetVersion, clip_norm: float | None) -> None:
    """Of whole batches, with the optimizer's own update and torch's clipping."""
    task = Spelling(toy_data)
    rows = tensors_of(task.load("train"))
    torch.manual_seed(0)
    model = task.model()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    settings = EngineSettings(weight_decay=0.1, clip_norm=clip_norm)
    torch.manual_seed(0)
    engine = Engine(task, plan(stage(0, LAYERS + 2, [(12, 5)], recompute="selective")), example=rows, settings=settings)
    for number, rate in enumerate(RATES):
        indices = torch.arange(12) + 12 * number
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss, count = task.loss(model, select(rows, indices))
        (loss / count).backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm or float("inf"))
        optimizer.step()
        result = engine.step(rows, indices, number=number, learning_rate=rate)
        assert result.num_elements == count
        assert (result.loss, result.gradient_norm) == pytest.approx((loss.item() / count, norm.item()), rel=1e-5)
    moments = engine.optimizer_held()
    for name, parameter in model.named_parameters():
        if not name.endswith("qkv.bias"):  # the keys' has no gradient but rounding, which AdamW makes large
            torch.testing.assert_close(values(engine.model_held()[name]), parameter.data, rtol=1e-4, atol=1e-5)
        for moment in ("exp_avg", "exp_avg_sq"):
            wanted = optimizer.state[parameter][moment]
            torch.testing.assert_close(values(moments[f"{name}.{moment}"]), wanted, rtol=1e-3, atol=1e-6)


def values(held: Held) -> torch.Tensor:
    (piece,) = held.pieces
    return piece.values
