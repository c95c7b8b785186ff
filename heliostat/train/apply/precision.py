"""In how many bits passes compute."""

from contextlib import AbstractContextManager, nullcontext

import torch

from heliostat.train.execution import Precision

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


def computing_in(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """A forward pass in here computes in `precision`; parameters stay as they are."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])
