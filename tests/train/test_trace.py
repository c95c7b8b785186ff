import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heliostat.placement.schedule import order
from heliostat.train import trace
from heliostat.train.job import TrainJob, TrainReport
from tests.placement.plans import data_parallel
from tests.train.apply.runs import plan, stage

MakeJob = Callable[..., TrainJob]
RunRanks = Callable[[TrainJob], list[TrainReport]]
NUM_STEPS = 2


def events(job: TrainJob, rank: int) -> list[dict[str, Any]]:
    """The marks of a rank in the order in which they began."""
    found = json.loads(trace.file_of(job.directory, rank).read_text())["traceEvents"]
    marks = [one for one in found if one.get("cat") == "user_annotation" and one["ph"] == "X"]
    return sorted(marks, key=lambda one: one["ts"])


@pytest.mark.dist
def test_every_rank_traces_its_passes_in_the_order_of_the_schedule(make_job: MakeJob, run_ranks: RunRanks) -> None:
    strategy = plan(stage(0, 3, [(24, 6)]), stage(3, 7, [(24, 6)]), schedule="1f1b")
    chosen = data_parallel([("cpu", 24, 6)]).model_copy(update={"strategy": strategy})
    job = make_job(params={"fault": "deep"}, trace_steps=NUM_STEPS).model_copy(update={"plan": chosen})
    reports = run_ranks(job)
    assert reports[0].trace == str(Path(job.directory) / "trace")
    for rank in range(2):
        passes = [trace.name_of(step) for step in order("1f1b", rank, 2, 4)]
        names = [one["name"] for one in events(job, rank) if not one["name"].startswith(("gloo", "Optimizer"))]
        assert names == [*passes, "sync", "update"] * NUM_STEPS


def test_no_step_is_traced_unless_asked_for(make_job: MakeJob) -> None:
    from heliostat.train.loop import execute

    job = make_job()
    assert execute(job, num_threads=1).trace is None
    assert not trace.folder_of(job.directory).exists()


def test_a_run_that_ends_early_keeps_what_was_traced(tmp_path: Path) -> None:
    path = trace.file_of(tmp_path, 0)
    with trace.Tracer(path, 10) as tracer:
        for _ in range(3):
            tracer.before_step()
            with trace.mark("a step"):
                pass
            tracer.after_step()
    names = [one["name"] for one in json.loads(path.read_text())["traceEvents"]]
    assert names.count("a step") == 2
