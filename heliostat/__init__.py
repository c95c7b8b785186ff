"""Heliostat: one experiment file in, and mixed machines train, tune and serve the model as if they were one."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heliostat.train.annotations import replicate, split, stage
    from heliostat.train.task import Task

__version__ = "0.1.0"
__all__ = ["Task", "replicate", "split", "stage"]

_HOMES = {
    "Task": "heliostat.train.task",
    "replicate": "heliostat.train.annotations",
    "split": "heliostat.train.annotations",
    "stage": "heliostat.train.annotations",
}


def __getattr__(name: str) -> Any:
    """Import what needs torch only when somebody asks for it."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'heliostat' has no attribute {name!r}")
