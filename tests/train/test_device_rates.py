from collections.abc import Iterator

import pytest
import torch

from heliostat.cluster.measured import DeviceRates, MatmulRate
from heliostat.train.device_rates import measure_rates, median_rates, slowed
from heliostat.train.effort import QUICK


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rates(memory: float, **flops: float) -> DeviceRates:
    matmul = tuple(MatmulRate.model_validate({"dtype": name, "size": 8, "flops_per_s": f}) for name, f in flops.items())
    return DeviceRates(matmul=matmul, memory_bytes_per_s=memory)


def test_a_cpu_is_measured() -> None:
    found = measure_rates(torch.device("cpu"), QUICK)
    assert {(one.dtype, one.size) for one in found.matmul} >= {
        (dtype, size) for dtype in ("fp64", "fp32", "bf16") for size in QUICK.matmul_sizes
    }
    assert found.flops("tf32") is None
    assert found.flops("fp32") == max(one.flops_per_s for one in found.matmul if one.dtype == "fp32")
    assert found.memory_bytes_per_s > 0
    assert found.to_device_bytes_per_s is None
    assert found.to_host_bytes_per_s is None


def test_a_slow_device_leaves_out_larger_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heliostat.train.device_rates.SLOW_PRODUCT_S", 0.0)
    found = measure_rates(torch.device("cpu"), QUICK)
    assert {one.size for one in found.matmul} == {QUICK.matmul_sizes[0]}


def test_the_median_of_devices_and_what_only_some_have() -> None:
    members = [rates(1.0, fp32=10.0), rates(2.0, fp32=30.0, bf16=7.0), rates(9.0, fp32=20.0)]
    assert median_rates(members) == rates(2.0, fp32=20.0, bf16=7.0)
    copying = members[0].model_copy(update={"to_device_bytes_per_s": 5.0})
    assert median_rates([copying, members[1]]).to_device_bytes_per_s == 5.0


def test_a_slowed_device() -> None:
    fast = rates(10.0, fp32=30.0).model_copy(update={"to_host_bytes_per_s": 4.0})
    assert slowed(fast, 2.5) == rates(4.0, fp32=12.0).model_copy(update={"to_host_bytes_per_s": 4.0})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_measured() -> None:
    before = torch.backends.cuda.matmul.fp32_precision
    found = measure_rates(torch.device("cuda", 0), QUICK)
    assert found.flops("fp16") is not None
    assert found.to_device_bytes_per_s is not None
    assert found.to_host_bytes_per_s is not None
    assert torch.backends.cuda.matmul.fp32_precision == before
