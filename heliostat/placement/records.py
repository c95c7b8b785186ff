"""Runs that others measured, read from CSV files into what the cost model takes. Pure.

Four kinds of file, told by their columns: vTrain's ground truth, LLM Foundry's benchmark tables, torchtitan's
benchmarks, Korthikanti et al. 2022. What a file does not state is a fact about those runs, given here with its source.
"""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from heliostat.errors import DataError
from heliostat.placement.blocks import WorkloadProfile
from heliostat.placement.measured_run import NAMES, Run, group_links, network_of
from heliostat.placement.strategy import Execution, ReplicaShare, StageStrategy, Strategy
from heliostat.placement.workloads import Transformer, transformer

MPT = {
    "MPT-125m": (768, 12, 12), "MPT-350m": (1024, 24, 16), "MPT-760m": (1536, 24, 12), "MPT-1b": (2048, 24, 16),
    "MPT-3b": (2560, 32, 20), "MPT-7b": (4096, 32, 32), "MPT-13b": (5120, 40, 40), "MPT-30b": (7168, 48, 56),
    "MPT-70b": (8192, 80, 64),
}  # fmt: skip
"""Hidden, layers, heads: mosaicml/llm-foundry scripts/train/yamls/pretrain."""
LLAMA = {
    "8B": (4096, 32, 32, 14336), "70B": (8192, 80, 64, 28672), "405B": (16384, 126, 128, 53248),
}  # fmt: skip
"""Hidden, layers, heads, feed-forward width: torchtitan/models/llama3/__init__.py; 8 heads of keys and values."""


def read_runs(folder: Path) -> list[Run]:
    """Every run with a step time in the CSV files of `folder`, in the order of the files' names.

    Raises:
        DataError: no file there has known columns, or a row names a model that is not known.
        UserError: a device has a name that neither the catalogue nor `NAMES` knows.
    """
    found: list[Run] = []
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        found += [run for row in rows for run in _read(row)]
    if not found:
        raise DataError(
            "no CSV file with measured runs",
            where=str(folder),
            next_step="give files with the columns of vtrain_measured.csv, llmfoundry_measured.csv, "
            "torchtitan_measured.csv or korthikanti2022_reference.csv",
        )
    return found


def _read(row: dict[str, str]) -> Iterator[Run]:
    if "iter_time_ms" in row:
        yield _vtrain(row)
    elif "tokens_per_s_per_gpu" in row:
        yield _llmfoundry(row)
    elif "tps_per_gpu" in row:
        run = _torchtitan(row)
        if run is not None:
            yield run
    elif row.get("metric") == "iteration_time_s":
        yield _korthikanti(row)


def _vtrain(row: dict[str, str]) -> Run:
    number = {
        name: int(row[name])
        for name in ("n_gpus", "gbs", "mbs", "hidden", "heads", "layers", "seq_len", "tp", "dp", "pp")
    }
    workload = transformer(
        Transformer(
            name="gpt",
            hidden=number["hidden"],
            layers=number["layers"],
            heads=number["heads"],
            seq_len=number["seq_len"],
            vocabulary=_padded(50257, 128 * number["tp"]),
            attention="eager",
            bias="fused",
            dropout=True,
            loss="parallel",
        )
    )
    strategy = _pipeline(
        workload,
        row["gpu"],
        number,
        Execution(dtype="fp16", gradient_bytes=2, overlap_gradients=False),
        recompute="full",
    )
    cluster = network_of(NAMES.get(row["gpu"], row["gpu"]), number["n_gpus"], float(row["inter_bw_Gbps"]))
    group = f"{_shape(number)} gbs={row['gbs']} gpus={row['n_gpus']}"
    return Run(
        source=f"vtrain {row['setting']}",
        group=group,
        label=f"tp={row['tp']} dp={row['dp']} pp={row['pp']} mbs={row['mbs']}",
        shape=_shape(number),
        device=NAMES.get(row["gpu"], row["gpu"]),
        workload=workload,
        strategy=strategy,
        links=group_links(cluster, strategy),
        measured_s=float(row["iter_time_ms"]) / 1e3,
    )


def _korthikanti(row: dict[str, str]) -> Run:
    names = ("n_gpus", "gbs", "mbs", "hidden", "heads", "layers", "seq_len", "tp", "dp", "pp", "interleave")
    number = {name: int(row[name]) for name in names}
    workload = transformer(
        Transformer(
            name=row["model"],
            hidden=number["hidden"],
            layers=number["layers"],
            heads=number["heads"],
            seq_len=number["seq_len"],
            vocabulary=_padded(51200, 128 * number["tp"]),
            attention="eager",
            bias="fused",
            dropout=True,
            loss="parallel",
        )
    )
    recompute = {"full": "full", "attn_only": "selective", "none": "none"}[row["recompute"]]
    strategy = _pipeline(
        workload,
        row["gpu"],
        number,
        Execution(dtype="fp16", gradient_bytes=2, overlap_gradients=False),
        recompute=recompute,
        sequence_parallel=row["seq_par"] == "1",
        chunks=number["interleave"],
    )
    cluster = network_of(NAMES.get(row["gpu"], row["gpu"]), number["n_gpus"], 1600.0)
    return Run(
        source="korthikanti",
        group=f"{_shape(number)} gbs={row['gbs']} gpus={row['n_gpus']}",
        label=f"tp={row['tp']} dp={row['dp']} pp={row['pp']} {row['mode']}",
        shape=_shape(number),
        device=NAMES.get(row["gpu"], row["gpu"]),
        workload=workload,
        strategy=strategy,
        links=group_links(cluster, strategy),
        measured_s=float(row["value"]),
    )


def _llmfoundry(row: dict[str, str]) -> Run:
    hidden, layers, heads = _shape_of(MPT, row["model"])
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
    cluster = network_of(device, num_gpus, 3200.0 if "h100" in row["gpu"] else 1600.0)
    shape = {"hidden": hidden, "layers": layers, "heads": heads, "seq_len": seq_len}
    return Run(
        source="llmfoundry",
        group=f"{_shape(shape)} gbs={row['gbs']} gpus={row['n_gpus']} {device} {row['precision']}",
        label=f"mbs={micro_batch} {row['precision']} gpus={num_gpus}",
        shape=_shape(shape),
        device=device,
        workload=workload,
        strategy=strategy,
        links=group_links(cluster, strategy),
        measured_s=samples * seq_len / float(row["tokens_per_s_per_gpu"]),
    )


def _torchtitan(row: dict[str, str]) -> Run | None:
    hidden, layers, heads, inner = _shape_of(LLAMA, row["model"].split()[-1].upper())
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
            loss=_torchtitan_loss(row),
            selective="pointwise",
        )
    )
    device = NAMES.get(row["gpu"], row["gpu"])
    pipeline, samples = number["pp"], number["local_batch"]
    # torchtitan's default `pipeline_parallel_microbatches` is the number of stages
    micro_batch = max(1, samples // pipeline)
    replica = ReplicaShare(device_kind=device, num_samples=samples, micro_batch=micro_batch)
    cuts = _cuts(workload.num_blocks, pipeline)
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
    cluster = network_of(device, number["n_gpus"], 3200.0)
    shape = {"hidden": hidden, "layers": layers, "heads": heads, "seq_len": number["seq_len"]}
    measured_s = samples * number["dp_shard"] * number["seq_len"] / number["n_gpus"] / float(row["tps_per_gpu"])
    return Run(
        source="torchtitan",
        group=f"{_shape(shape)} {row['table']}",
        label=" ".join(
            f"{name}={row[name]}"
            for name in ("dp_shard", "tp", "pp", "cp", "recompute", "compile", "precision", "async_tp")
        ),
        shape=_shape(shape),
        device=device,
        workload=workload,
        strategy=strategy,
        links=group_links(cluster, strategy),
        measured_s=measured_s,
        memory_gib=float(row["memory_gib"]) if row["memory_gib"] else None,
    )


def _shape_of(table: Mapping[str, tuple[int, ...]], name: str) -> tuple[int, ...]:
    if name not in table:
        raise DataError(f"the hyperparameters of model '{name}' are not known", got=f"known: {', '.join(table)}")
    return table[name]


def _torchtitan_loss(row: dict[str, str]) -> Literal["fused", "float", "parallel"]:
    """Loss parallel is on with tensor parallelism; the loss is compiled since 2025."""
    if int(row["tp"]) > 1:
        return "parallel"
    return "fused" if row["compile"] == "1" and "202412" not in row["file"] else "float"


def _shape(number: dict[str, int]) -> str:
    return f"h{number['hidden']} L{number['layers']} a{number['heads']} s{number['seq_len']}"


def _padded(vocabulary: int, multiple: int) -> int:
    return -(-vocabulary // multiple) * multiple


def _cuts(num_blocks: int, pipeline: int) -> list[tuple[int, int]]:
    """Equal numbers of layers; the embedding goes to the first stage and the head to the last."""
    layers = num_blocks - 2
    ends = [1 + layers * (number + 1) // pipeline for number in range(pipeline)]
    ends[-1] = num_blocks
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _pipeline(
    workload: WorkloadProfile,
    gpu: str,
    number: dict[str, int],
    execution: Execution,
    *,
    recompute: str,
    sequence_parallel: bool = False,
    chunks: int = 1,
) -> Strategy:
    """A Megatron-style grid of tp x dp x pp with equal stages."""
    replica = ReplicaShare(
        device_kind=NAMES.get(gpu, gpu), num_samples=number["gbs"] // number["dp"], micro_batch=number["mbs"]
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
        for first, end in _cuts(workload.num_blocks, number["pp"])
    ]
    schedule = "none" if number["pp"] == 1 else "interleaved" if chunks > 1 else "1f1b"
    return Strategy.model_validate(
        {
            "global_batch": number["gbs"],
            "stages": stages,
            "schedule": schedule,
            "chunks": chunks if number["pp"] > 1 else 1,
            "execution": execution,
        }
    )
