"""Train without Ray: `torchrun --nproc-per-node 2 -m heliostat.train.torchrun job.json`.

The job is a `TrainJob` as JSON; rank r runs replica r of its plan. Rank 0 prints the report as JSON. The number of
torch threads is torch's own (`OMP_NUM_THREADS`; torchrun sets it to 1).
"""

import argparse
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from heliostat.train.job import TrainJob, TrainReport
from heliostat.train.loop import execute


def run(
    job: TrainJob, *, num_threads: int, init_method: str = "env://", rank: int = -1, world_size: int = -1
) -> TrainReport:
    """Join the process group, train, and leave it; the defaults take rank and addresses from torchrun's variables.

    Raises:
        as `heliostat.train.loop.execute`.

    """
    dist.init_process_group("gloo", init_method=init_method, rank=rank, world_size=world_size)
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
    report = run(job, num_threads=torch.get_num_threads())
    if os.environ["RANK"] == "0":
        sys.stdout.write(report.model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main()
