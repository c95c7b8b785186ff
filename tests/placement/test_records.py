"""Rows of others' files as the cost model takes them."""

import csv
from collections.abc import Mapping
from pathlib import Path

import pytest

from heliostat.errors import DataError, UserError
from heliostat.placement.measured_run import Run
from heliostat.placement.records import read_runs

VTRAIN = {
    "source_row": "1", "setting": "single-node", "gpu": "A100", "model_params_b": "", "n_gpus": "8",
    "gpus_per_node": "8", "intra_bw_GBs": "150", "inter_bw_Gbps": "800", "gbs": "16", "mbs": "2", "hidden": "1024",
    "heads": "16", "layers": "12", "seq_len": "1024", "tp": "2", "dp": "2", "pp": "2",
    "recompute": "full (use_checkpoint in the shipped configs)", "iter_time_ms": "180",
}  # fmt: skip
FOUNDRY = {
    "table": "", "line": "1", "model": "MPT-7b", "params": "", "seq_len": "2048", "n_gpus": "16", "gpu": "a100_80gb",
    "mbs": "4", "grad_accum": "2", "gbs": "128", "tokens_per_s": "", "tokens_per_s_per_gpu": "4096",
    "precision": "amp_bf16", "mp_mode": "PURE", "sharding": "FULL_SHARD", "act_ckpt": "True", "act_offload": "False",
}  # fmt: skip
TITAN = {
    "file": "b.md", "table": "1", "model": "Llama 3.1 8B", "gpu": "H100-96GB HBM2e 500W", "n_gpus": "8",
    "dp_shard": "4", "tp": "2", "pp": "1", "cp": "1", "schedule": "", "local_batch": "2", "global_batch": "8",
    "seq_len": "8192", "recompute": "selective", "compile": "1", "precision": "float8", "async_tp": "1",
    "tps_per_gpu": "4096", "memory_gib": "50", "assumed": "",
}  # fmt: skip
KORTHIKANTI = {
    "model": "megatron-22B", "hidden": "6144", "layers": "48", "heads": "64", "seq_len": "2048", "gpu": "A100-80GB",
    "n_gpus": "32", "tp": "8", "pp": "4", "dp": "1", "gbs": "4", "mbs": "1", "interleave": "3",
    "recompute": "attn_only", "seq_par": "1", "mode": "seqsel", "source": "", "metric": "iteration_time_s",
    "value": "1.1", "calculon_predicted": "",
}  # fmt: skip


def read(folder: Path, row: Mapping[str, str], **changes: str) -> Run:
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow({**row, **changes})
    (run,) = read_runs(folder)
    return run


def test_single_node_runs_of_vtrain_divide_an_unpadded_vocabulary_and_recompute_nothing(tmp_path: Path) -> None:
    run = read(tmp_path, VTRAIN)
    assert run.measured_s == 0.18
    assert run.workload.blocks[0].split_parameters == 50256 * 1024
    assert {stage.recompute for stage in run.strategy.stages} == {"none"}
    assert not run.strategy.execution.overlap_tensor
    assert [stage.num_ranks for stage in run.strategy.stages] == [4, 4]


def test_multi_node_runs_of_vtrain_are_megatrons(tmp_path: Path) -> None:
    run = read(tmp_path, VTRAIN, setting="multi-node", n_gpus="16", dp="4")
    assert run.workload.blocks[0].split_parameters == 50432 * 1024
    assert {stage.recompute for stage in run.strategy.stages} == {"full"}
    assert run.strategy.execution.overlap_tensor
    assert run.links[0].data.num_nodes == 1
    assert run.links[0].to_next.num_nodes == 2


def test_other_sources(tmp_path: Path) -> None:
    foundry, titan, paper = (read(tmp_path, row) for row in (FOUNDRY, TITAN, KORTHIKANTI))
    assert foundry.measured_s == 8 * 2048 / 4096
    assert foundry.strategy.stages[0].zero == 3
    assert foundry.strategy.num_micro_batches == 2
    assert titan.measured_s == 2 * 4 * 8192 / 8 / 4096
    assert titan.memory_gib == 50
    assert titan.strategy.execution.async_tensor
    assert titan.strategy.execution.dtype == "fp8"
    assert paper.measured_s == 1.1
    assert (paper.strategy.schedule, paper.strategy.chunks) == ("interleaved", 3)
    assert paper.strategy.stages[0].recompute == "selective"


def test_what_is_not_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no CSV file with measured runs"):
        read_runs(tmp_path)
    with pytest.raises(DataError, match="hyperparameters of model 'MPT-8b' are not known"):
        read(tmp_path, FOUNDRY, model="MPT-8b")
    with pytest.raises(UserError, match="there is no device type 'Z100'"):
        read(tmp_path, VTRAIN, gpu="Z100")
