"""Megatron-style grids of tensor x data x pipeline parallelism: vTrain's ground truth, Korthikanti et al. 2022. Pure.

What the files do not state:

- vTrain's single-node rows. They obey one linear law per hidden size, tensor-parallel degree and micro-batch to 0.01 %,
  with layer times that would exceed the A100's peak if the forward pass ran twice, so nothing is recomputed, whatever
  the column says. The vocabulary of 50,257 is divided without padding and the loss is PyTorch's (VIA-Research/vTrain,
  src/model/gpt_modeling.py and src/trainer.py); collectives do not overlap with products (src/predictor.py).
- The others ran Megatron-LM: a padded vocabulary, a vocabulary-parallel loss, and all-reduces of the backward pass
  beside the products for the parameters' gradients (`async_tensor_model_parallel_allreduce`).
"""

from heliostat.placement.measured_run import NAMES, Run, ground_of, group_links
from heliostat.placement.records.common import equal_cuts, shape_name
from heliostat.placement.strategy import Execution, ReplicaShare, Strategy
from heliostat.placement.workload import WorkloadProfile
from heliostat.placement.workloads import Transformer, transformer

COLUMNS = ("n_gpus", "gbs", "mbs", "hidden", "heads", "layers", "seq_len", "tp", "dp", "pp")
KORTHIKANTI_GBIT_PER_S = 1600.0
"""Of a node, to others: Selene, 8 HDR InfiniBand adapters (Korthikanti et al. 2022, section 6)."""


def vtrain_run(row: dict[str, str]) -> Run:
    """One row of vTrain's.

    Raises:
        UserError: the device is not known.
    """
    tensor = int(row["tp"])
    if row["setting"] == "single-node":
        workload = _gpt("gpt", row, vocabulary=50257 // tensor * tensor, parallel_loss=False)
        overlap, recompute = False, "none"
    else:
        workload = _gpt("gpt", row, vocabulary=_padded(50257, 128 * tensor), parallel_loss=True)
        overlap, recompute = True, "full"
    strategy = _grid(workload, row, overlap=overlap, recompute=recompute)
    label = f"tp={row['tp']} dp={row['dp']} pp={row['pp']} mbs={row['mbs']}"
    return _run(
        f"vtrain {row['setting']}", row, label, workload, strategy, float(row["inter_bw_Gbps"]),
        float(row["iter_time_ms"]) / 1e3,
    )  # fmt: skip


def korthikanti_run(row: dict[str, str]) -> Run:
    """One row of Korthikanti et al. 2022, table 5.

    Raises:
        UserError: the device is not known.
    """
    workload = _gpt(row["model"], row, vocabulary=_padded(51200, 128 * int(row["tp"])), parallel_loss=True)
    strategy = _grid(
        workload,
        row,
        overlap=True,
        recompute={"full": "full", "attn_only": "selective", "none": "none"}[row["recompute"]],
        sequence_parallel=row["seq_par"] == "1",
        chunks=int(row["interleave"]),
    )
    label = f"tp={row['tp']} dp={row['dp']} pp={row['pp']} {row['mode']}"
    return _run("korthikanti", row, label, workload, strategy, KORTHIKANTI_GBIT_PER_S, float(row["value"]))


def _run(
    source: str,
    row: dict[str, str],
    label: str,
    workload: WorkloadProfile,
    strategy: Strategy,
    gbit_per_s: float,
    measured_s: float,
) -> Run:
    device = NAMES.get(row["gpu"], row["gpu"])
    shape = shape_name(*(int(row[name]) for name in ("hidden", "layers", "heads", "seq_len")))
    return Run(
        source=source,
        group=f"{shape} gbs={row['gbs']} gpus={row['n_gpus']}",
        label=label,
        shape=shape,
        device=device,
        workload=workload,
        strategy=strategy,
        links=group_links(ground_of(device, int(row["n_gpus"]), gbit_per_s), strategy),
        measured_s=measured_s,
    )


def _gpt(name: str, row: dict[str, str], *, vocabulary: int, parallel_loss: bool) -> WorkloadProfile:
    return transformer(
        Transformer(
            name=name,
            hidden=int(row["hidden"]),
            layers=int(row["layers"]),
            heads=int(row["heads"]),
            seq_len=int(row["seq_len"]),
            vocabulary=vocabulary,
            attention="eager",
            bias="fused",
            dropout=True,
            loss="parallel" if parallel_loss else "float",
        )
    )


def _padded(vocabulary: int, multiple: int) -> int:
    return -(-vocabulary // multiple) * multiple


def _grid(
    workload: WorkloadProfile,
    row: dict[str, str],
    *,
    overlap: bool,
    recompute: str,
    sequence_parallel: bool = False,
    chunks: int = 1,
) -> Strategy:
    """Equal stages of equal replicas."""
    number = {name: int(row[name]) for name in COLUMNS}
    replica = ReplicaShare(
        device_kind=NAMES.get(row["gpu"], row["gpu"]),
        num_samples=number["gbs"] // number["dp"],
        micro_batch=number["mbs"],
    )
    stages = [
        {
            "first_block": first,
            "end_block": end,
            "replicas": (replica,) * number["dp"],
            "tensor_parallel": number["tp"],
            "sequence_parallel": sequence_parallel,
            "recompute": recompute,
        }
        for first, end in equal_cuts(workload.num_blocks, number["pp"])
    ]
    alone = number["pp"] == 1
    return Strategy.model_validate(
        {
            "global_batch": number["gbs"],
            "stages": stages,
            "schedule": "none" if alone else "interleaved" if chunks > 1 else "1f1b",
            "chunks": 1 if alone else chunks,
            "execution": Execution(
                dtype="fp16",
                gradient_bytes=2,
                overlap_gradients=False,
                overlap_tensor=overlap,
                keeps_gathered=False,
            ),
        }
    )
