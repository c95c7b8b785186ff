"""Where a whole model can be trained by one process: on the rank's device, else in host memory, else nowhere."""

import psutil
import torch
from torch import nn

STATES = 4
"""Parameters, gradients and AdamW's two moments: what training holds of every parameter, in 32 bits."""
USED = 0.5
"""The part of the free memory that they may take: activations and other ranks of the machine need some too."""
HOST = torch.device("cpu")


def place_for(model: nn.Module, device: torch.device) -> torch.device | None:
    """Where there is room to train `model`; None if nowhere.

    Args:
        model: on any device, the meta device too.
        device: of this rank.
    """
    needed = STATES * sum(parameter.nbytes for parameter in model.parameters())
    return next((place for place in dict.fromkeys((device, HOST)) if needed <= USED * _free_bytes(place)), None)


def _free_bytes(place: torch.device) -> int:
    return torch.cuda.mem_get_info(place)[0] if place.type == "cuda" else int(psutil.virtual_memory().available)
