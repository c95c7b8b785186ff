"""LLM Foundry's benchmark tables: MPT under FSDP. Pure."""

from heliostat.placement.measured_run import NAMES, Run, ground_of, group_links
from heliostat.placement.records.common import hyperparameters, shape_name
from heliostat.placement.strategy import Execution, ReplicaShare, StageStrategy, Strategy
from heliostat.placement.workloads import Transformer, transformer

MPT = {
    "MPT-125m": (768, 12, 12), "MPT-350m": (1024, 24, 16), "MPT-760m": (1536, 24, 12), "MPT-1b": (2048, 24, 16),
    "MPT-3b": (2560, 32, 20), "MPT-7b": (4096, 32, 32), "MPT-13b": (5120, 40, 40), "MPT-30b": (7168, 48, 56),
    "MPT-70b": (8192, 80, 64),
}  # fmt: skip
"""Hidden, layers, heads: mosaicml/llm-foundry scripts/train/yamls/pretrain."""


def llmfoundry_run(row: dict[str, str]) -> Run:
    """One row.

    Raises:
        DataError: the model is not known.
        UserError: the device is not known.
    """
    hidden, layers, heads = hyperparameters(MPT, row["model"])
    seq_len, num_gpus, micro_batch = int(row["seq_len"]), int(row["n_gpus"]), int(row["mbs"])
    workload = transformer(
        Transformer(
            name=row["model"],
            hidden=hidden,
            layers=layers,
            heads=heads,
            seq_len=seq_len,
            vocabulary=50368,
        )
    )
    device = NAMES.get(row["gpu"], row["gpu"])
    samples = micro_batch * int(row["grad_accum"])
    strategy = Strategy(
        global_batch=samples * num_gpus,
        stages=(
            StageStrategy(
                first_block=0,
                end_block=workload.num_blocks,
                replicas=(ReplicaShare(device_kind=device, num_samples=samples, micro_batch=micro_batch),) * num_gpus,
                zero=3 if row["sharding"] == "FULL_SHARD" else 2,
                recompute="full" if row["act_ckpt"] == "True" else "none",
            ),
        ),
        execution=Execution(
            dtype="fp8" if "fp8" in row["precision"] else "bf16",
            gradient_bytes=2 if row["mp_mode"] == "PURE" else 4,
        ),
    )
    # the tables' heads give 1600 Gbit/s for A100; the H100 ran on 3200 Gbit/s
    cluster = ground_of(device, num_gpus, 3200.0 if "h100" in row["gpu"] else 1600.0)
    shape = shape_name(hidden, layers, heads, seq_len)
    return Run(
        source="llmfoundry",
        group=f"{shape} gbs={row['gbs']} gpus={row['n_gpus']} {device} {row['precision']}",
        label=f"mbs={micro_batch} {row['precision']} gpus={num_gpus}",
        shape=shape,
        device=device,
        workload=workload,
        strategy=strategy,
        links=group_links(cluster, strategy),
        measured_s=samples * seq_len / float(row["tokens_per_s_per_gpu"]),
    )
