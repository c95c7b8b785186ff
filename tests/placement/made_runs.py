"""Measured runs that nobody measured: one node, one stage, of any shape."""

from heliostat.placement.measured_run import NAMES, Run, ground_of, group_links
from heliostat.placement.strategy import Execution, ReplicaShare, StageStrategy, Strategy
from heliostat.placement.workloads import Transformer, transformer

DEVICE = NAMES["A100"]
VTRAIN = {
    "source_row": "1", "setting": "single-node", "gpu": "A100", "model_params_b": "", "n_gpus": "4",
    "gpus_per_node": "8", "intra_bw_GBs": "150", "inter_bw_Gbps": "800", "gbs": "16", "mbs": "2", "hidden": "1024",
    "heads": "16", "layers": "12", "seq_len": "1024", "tp": "2", "dp": "2", "pp": "1",
    "recompute": "full", "iter_time_ms": "180",
}  # fmt: skip
"""A row of a CSV file."""


def run_of(hidden: int, layers: int, micro_batch: int, tensor: int) -> Run:
    shape = Transformer(name="gpt", hidden=hidden, layers=layers, heads=16, seq_len=2048, vocabulary=50304)
    workload = transformer(shape)
    share = ReplicaShare(device_kind=DEVICE, num_samples=16, micro_batch=micro_batch)
    stage = StageStrategy(first_block=0, end_block=workload.num_blocks, replicas=(share,), tensor_parallel=tensor)
    strategy = Strategy(global_batch=16, stages=(stage,), execution=Execution(dtype="fp16"))
    return Run(
        source="made", group="", label="", shape=f"h{hidden} L{layers}", device=DEVICE, workload=workload,
        strategy=strategy, links=group_links(ground_of(DEVICE, tensor, 800.0), strategy), measured_s=1.0,
    )  # fmt: skip
