"""A stage's micro-batch: host against devices, and collectives that hide."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from heliostat.placement.collective_time import GroupLinks
from heliostat.placement.efficiency import fitted, speed_of
from heliostat.placement.stage_time import PassTime, StageLinks, StageTimer, longer
from heliostat.placement.strategy import Execution, ReplicaShare, StageStrategy
from heliostat.placement.workloads import Transformer, transformer

SECONDS = st.floats(0.0, 10.0)
LAYER = transformer(Transformer(name="gpt", hidden=2048, layers=4, heads=16, seq_len=1024, vocabulary=50304)).blocks[1]


def pass_time(execution: Execution, bytes_per_s: float = 240e9, **fields: Any) -> PassTime:
    share = ReplicaShare(device_kind="x", num_samples=8, micro_batch=8)
    stage = StageStrategy(first_block=0, end_block=1, replicas=(share,), tensor_parallel=4, **fields)
    links = StageLinks(tensor=GroupLinks(size=4, inside_bytes_per_s=bytes_per_s, inside_latency_s=3e-6))
    timer = StageTimer(fitted().shared)
    return timer.pass_time(((LAYER, 4),), stage, 8, speed_of("A100-80GB-SXM"), links, execution)


@given(device=SECONDS, host=SECONDS, more=SECONDS)
def test_a_pass_lies_between_the_longer_and_the_sum(device: float, host: float, more: float) -> None:
    together = longer(device, host)
    assert max(device, host) <= together <= (device + host) * (1 + 1e-9)
    assert together == longer(host, device)
    assert together <= longer(device + more, host) * (1 + 1e-9)


def test_collectives_hide_behind_the_gradients_of_the_parameters_and_no_further() -> None:
    plain, hidden = (pass_time(Execution(overlap_tensor=overlap)) for overlap in (False, True))
    assert hidden.tensor_s == plain.tensor_s / 2
    assert hidden.forward_s == plain.forward_s
    assert hidden.backward_s < plain.backward_s
    slow, less_slow = (pass_time(Execution(overlap_tensor=overlap), 2e9) for overlap in (False, True))
    assert slow.tensor_s / 2 < less_slow.tensor_s < slow.tensor_s


def test_a_compiled_program_waits_less_for_its_host() -> None:
    eager, compiled = (pass_time(Execution(compiled=one)) for one in (False, True))
    assert compiled.host_s < eager.host_s
    assert compiled.compute_s == eager.compute_s


def test_recomputation_adds_the_forward_pass_to_the_backward() -> None:
    kept, redone = (pass_time(Execution(), recompute=recompute) for recompute in ("none", "full"))
    assert redone.forward_s == kept.forward_s
    assert redone.recompute_s > 0.8 * kept.compute_s / 3
    assert redone.tensor_s == 1.5 * kept.tensor_s
