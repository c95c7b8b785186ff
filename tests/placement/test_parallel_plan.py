"""A plan in words, and what is left of it on one device."""

from heliostat.placement.strategy import Strategy
from tests.placement.plans import data_parallel
from tests.placement.view.plans import A100, V100, stage


def test_a_plan_in_one_line() -> None:
    split = Strategy(
        global_batch=64, stages=(stage(0, 3, A100, 1, 2), stage(3, 8, V100, 2, 1, zero=1, recompute="full")),
        schedule="gpipe",
    )  # fmt: skip
    text = data_parallel([("cpu", 1, 1)]).model_copy(update={"strategy": split}).describe()
    assert text == (
        f"blocks 0..2 on {A100} (64 samples, 32 micro-batches), 2 devices each; "
        f"blocks 3..7 on {V100} (32 samples, 16 micro-batches), {V100} (32 samples, 16 micro-batches), "
        "ZeRO 1, full recomputation (gpipe)"
    )


def test_on_one_device_the_whole_model_has_the_whole_batch() -> None:
    assert (
        data_parallel([("cpu", 15, 10), ("cpu", 9, 9)]).on_one_device().strategy
        == data_parallel([("cpu", 24, 10)]).strategy
    )
    split = Strategy(
        global_batch=64,
        stages=(stage(0, 3, A100, 1, 2, micro_batch=8), stage(3, 8, V100, 2, 1, micro_batch=4, recompute="full")),
        schedule="1f1b",
    )
    alone = data_parallel([("cpu", 1, 1)]).model_copy(update={"strategy": split}).on_one_device()
    assert (alone.num_ranks, alone.global_batch, alone.strategy.schedule) == (1, 64, "none")
    (whole,) = alone.stages
    assert (whole.first_block, whole.end_block, whole.recompute, whole.tensor_parallel) == (0, 8, "full", 1)
    assert (whole.replicas[0].num_samples, whole.replicas[0].micro_batch) == (64, 4)
