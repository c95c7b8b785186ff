"""Train without Ray: `torchrun --nproc-per-node 2 -m heliostat.train.torchrun job.json`.

The job is a `TrainJob` as JSON, with any plan; process r plays rank r of it, or `roles[r]` where the job says so. Rank
0 prints the report as JSON. The number of torch threads is torch's own (`OMP_NUM_THREADS`; torchrun sets it to 1).
"""

import argparse
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from heliostat.errors import HeliostatError, PlanError
from heliostat.train import device
from heliostat.train.job import TrainJob, TrainReport
from heliostat.train.loop import execute


def run(
    job: TrainJob, *, num_threads: int, init_method: str = "env://", rank: int = -1, world_size: int = -1
) -> TrainReport:
    """Join the process group, train, and leave it; the defaults take rank and addresses from torchrun's variables.

    Raises:
        PlanError: there are more or fewer processes than the plan has ranks.
        as `heliostat.train.loop.execute`.

    """
    _check_size(job, int(os.environ["WORLD_SIZE"]) if world_size < 0 else world_size)
    device.take(job.plan, int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group(device.backend_of(job.plan), init_method=init_method, rank=rank, world_size=world_size)
    try:
        return execute(job, num_threads=num_threads)
    finally:
        dist.destroy_process_group()  # the other ranks see a lost connection at once, and do not wait


def main() -> None:
    """Run the job named on the command line."""
    parser = argparse.ArgumentParser(prog="heliostat.train.torchrun", description="Run one rank of a training job.")
    parser.add_argument("job", type=Path, help="a TrainJob as JSON")
    job = TrainJob.model_validate_json(parser.parse_args().job.read_bytes())
    sys.path[:0] = [path for path in job.code_paths if path not in sys.path]
    try:
        report = run(job, num_threads=torch.get_num_threads())
    except HeliostatError as error:
        sys.exit(f"rank {os.environ['RANK']}: {error}")
    if os.environ["RANK"] == "0":
        sys.stdout.write(report.model_dump_json(indent=1) + "\n")


def _check_size(job: TrainJob, num_processes: int) -> None:
    if num_processes != job.plan.num_ranks:
        raise PlanError(
            f"the plan needs {job.plan.num_ranks} workers, {num_processes} were started",
            got=job.plan.describe(),
            next_step=f"torchrun with nodes x processes per node = {job.plan.num_ranks}, or plan for what there is",
        )


if __name__ == "__main__":
    main()
