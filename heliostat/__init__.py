"""Heliostat: one experiment file in, and mixed machines train, tune and serve the model as if they were one."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heliostat.train.annotations import replicate, split, stage
    from heliostat.train.task import Task

__version__ = "0.1.0"
__all__ = ["Task", "replicate", "split", "stage"]

_ANNOTATIONS = ("replicate", "split", "stage")


def __getattr__(name: str) -> Any:
    """Import what needs torch only when somebody asks for it."""
    if name == "Task":
        from heliostat.train.task import Task

        return Task
    if name in _ANNOTATIONS:
        from heliostat.train import annotations

        return getattr(annotations, name)
    raise AttributeError(f"module 'heliostat' has no attribute {name!r}")
