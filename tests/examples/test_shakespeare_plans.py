"""The example's model under plans of several kinds: it learns what it learns in one process."""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from heliostat.data.encoder import Encoder
from heliostat.data.files import write_files
from heliostat.data.versions import DatasetVersion
from heliostat.placement.strategy import Strategy
from heliostat.references import resolve
from heliostat.train.apply.engine import EngineSettings
from heliostat.train.task import Arrays, make_task
from tests.train.apply.runs import EXACT, Outcome, plan, stage, trained
from tests.train.conftest import ranks
from tests.train.gloo import together

__all__ = ["ranks"]  # the session's processes

pytestmark = pytest.mark.dist

SHAKESPEARE = Path(__file__).parents[2] / "examples" / "shakespeare"
PARAMS = {"width": 32, "num_heads": 4, "depth": 3, "context": 16}
FP32, BF16 = EngineSettings(weight_decay=0.01), EngineSettings(weight_decay=0.01, precision="bf16")
BF16_TOLERANCE = 2e-2
PLANS = {
    "uneven replicas": plan(stage(0, 5, [(9, 4), (3, 3)])),
    "tensor parallel": plan(stage(0, 5, [(12, 6)], tensor_parallel=2)),
    "pipeline": plan(stage(0, 2, [(12, 3)]), stage(2, 5, [(12, 3)])),
    "pipeline, zero-bubble": plan(stage(0, 2, [(12, 3)]), stage(2, 5, [(12, 3)]), schedule="zero-bubble"),
    "pipeline of uneven replicas, ZeRO 1": plan(
        stage(0, 2, [(8, 4), (4, 2)], zero=1), stage(2, 5, [(6, 3), (6, 3)], zero=1)
    ),
}


def rows(split: str) -> Arrays:
    """Windows of any tokens."""
    tokens = np.random.default_rng(len(split)).integers(0, 260, (24, 17)).astype(np.int32)
    return {"tokens": tokens, "label": tokens[:, 1:].sum(axis=1).astype(np.float64)}


def played(rank: int, data: DatasetVersion, strategy: Strategy, settings: EngineSettings) -> Outcome:
    task = make_task(f"{SHAKESPEARE}/task.py:PlayTask", data, PARAMS)
    task.load = rows  # type: ignore[method-assign]
    return trained(rank, task, strategy, settings)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    resolve(f"{SHAKESPEARE}/prepare.py:prepare")
    from shakespeare.tokenizer import BytePairs  # type: ignore[import-not-found]

    uri = str(tmp_path_factory.mktemp("table"))
    return DatasetVersion(
        uri=uri,
        name="shakespeare",
        version=0,
        label=None,
        num_rows={},
        dropped={},
        column_types={},
        statistics={},
        encoder=Encoder(numeric=(), categorical=()),
        files=write_files({"tokenizer.json": BytePairs.train(["to be or not to be"] * 9, size=260).content}, uri),
    )


@pytest.fixture(scope="module")
def alone(data: DatasetVersion) -> dict[EngineSettings, Outcome]:
    strategy = plan(stage(0, 5, [(12, 12)]))
    return {settings: played(0, data, strategy, settings) for settings in (FP32, BF16)}


@pytest.mark.parametrize(
    ("name", "settings", "tolerance"),
    [
        *((name, FP32, EXACT) for name in PLANS),
        *((name, BF16, BF16_TOLERANCE) for name in PLANS),
    ],
)
def test_any_plan_learns_what_one_process_learns(
    name: str,
    settings: EngineSettings,
    tolerance: float,
    data: DatasetVersion,
    alone: dict[EngineSettings, Outcome],
    ranks: ProcessPoolExecutor,
    tmp_path: Path,
) -> None:
    strategy = PLANS[name]
    for outcome in together(ranks, tmp_path, played, strategy.num_ranks, data, strategy, settings):
        assert outcome.distance(alone[settings]) < tolerance
