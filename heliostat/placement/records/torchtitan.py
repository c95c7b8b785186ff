"""torchtitan's benchmarks: Llama 3.1 under FSDP with tensor, pipeline and context parallelism. Pure."""

from typing import Literal

from heliostat.placement.measured_run import NAMES, Run, ground_of, group_links
from heliostat.placement.records.common import equal_cuts, hyperparameters, shape_name
from heliostat.placement.strategy import Execution, ReplicaShare, StageStrategy, Strategy
from heliostat.placement.workloads import Transformer, transformer

LLAMA = {
    "8B": (4096, 32, 32, 14336), "70B": (8192, 80, 64, 28672), "405B": (16384, 126, 128, 53248),
}  # fmt: skip
"""Hidden, layers, heads, feed-forward width: torchtitan/models/llama3/__init__.py; 8 heads of keys and values."""


def torchtitan_run(row: dict[str, str]) -> Run:
    """One row.

    Raises:
        DataError: the model is not known.
        UserError: the device is not known.
    """
    hidden, layers, heads, inner = hyperparameters(LLAMA, row["model"].split()[-1].upper())
    number = {name: int(row[name]) for name in ("n_gpus", "dp_shard", "tp", "pp", "cp", "local_batch", "seq_len")}
    workload = transformer(
        Transformer(
            name=row["model"],
            hidden=hidden,
            layers=layers,
            heads=heads,
            kv_heads=8,
            feed_forward=inner,
            gated=True,
            bias="none",
            norm="rms",
            positions="none",
            tied=False,
            seq_len=number["seq_len"],
            vocabulary=128256,
            fused=row["compile"] == "1",
            loss=_loss(row),
            selective="pointwise",
        )
    )
    device = NAMES.get(row["gpu"], row["gpu"])
    pipeline, samples = number["pp"], number["local_batch"]
    # torchtitan's default `pipeline_parallel_microbatches` is the number of stages
    micro_batch = max(1, samples // pipeline)
    replica = ReplicaShare(device_kind=device, num_samples=samples, micro_batch=micro_batch)
    cuts = equal_cuts(workload.num_blocks, pipeline)
    stages = tuple(
        StageStrategy(
            first_block=first,
            end_block=end,
            replicas=(replica,) * number["dp_shard"],
            tensor_parallel=number["tp"],
            sequence_parallel=number["tp"] > 1,
            context_parallel=number["cp"],
            zero=3 if pipeline == 1 else 2,
            recompute="full" if row["recompute"].startswith("full") else "selective",
        )
        for first, end in cuts
    )
    schedule = "none" if pipeline == 1 else "interleaved" if "Interleaved" in row["schedule"] else "1f1b"
    strategy = Strategy(
        global_batch=samples * number["dp_shard"],
        stages=stages,
        schedule=schedule,
        chunks=2 if schedule == "interleaved" else 1,
        execution=Execution(
            dtype="fp8" if row["precision"].startswith("float8") else "bf16",
            row_scaling="row" in row["precision"],
            async_tensor=row["async_tp"] == "1",
            compiled=row["compile"] == "1",
            parameter_bytes=4,
            state_bytes=8,
            sync_each_micro_batch=pipeline == 1,
        ),
    )
    cluster = ground_of(device, number["n_gpus"], 3200.0)
    shape = shape_name(hidden, layers, heads, number["seq_len"])
    measured_s = samples * number["dp_shard"] * number["seq_len"] / number["n_gpus"] / float(row["tps_per_gpu"])
    return Run(
        source="torchtitan",
        group=f"{shape} {row['table']}",
        label=" ".join(
            f"{name}={row[name]}"
            for name in ("dp_shard", "tp", "pp", "cp", "recompute", "compile", "precision", "async_tp")
        ),
        shape=shape,
        device=device,
        workload=workload,
        strategy=strategy,
        links=group_links(cluster, strategy),
        measured_s=measured_s,
        memory_gib=float(row["memory_gib"]) if row["memory_gib"] else None,
    )


def _loss(row: dict[str, str]) -> Literal["fused", "float", "parallel"]:
    """Loss parallel is on with tensor parallelism; the loss is compiled since 2025."""
    if int(row["tp"]) > 1:
        return "parallel"
    return "fused" if row["compile"] == "1" and "202412" not in row["file"] else "float"
