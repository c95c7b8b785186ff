"""Ranks that agree on something: an error of one is an error of all, so that none waits for what never comes."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from heliostat.errors import HeliostatError

T = TypeVar("T")
R = TypeVar("R")


class Meeting:
    """All ranks of a run, or the only one, on a process group of their own.

    A collective that another thread starts on the same group would be taken for one of these, so nothing else uses it.
    It is gloo whatever the training uses: objects go through it, not tensors. Every rank makes it at the same point.
    """

    def __init__(self) -> None:
        together = dist.is_initialized() and dist.get_world_size() > 1
        self._group = dist.new_group(backend="gloo") if together else None
        self.rank = dist.get_rank() if together else 0
        self.size = dist.get_world_size() if together else 1

    def meet(self, own: Callable[[], T], join: Callable[[list[T]], list[R]]) -> R:
        """Rank 0's answer to this rank.

        Args:
            own: called on every rank.
            join: called on rank 0 with what all made, in rank order; gives one answer for each rank.

        Raises:
            Exception: what `own` or `join` raised on this rank; else, if one raised elsewhere, that HeliostatError, or
                a RuntimeError in its place.
            RuntimeError: a rank is gone.

        """
        if self._group is None:
            return join([own()])[0]
        mine = _attempt(own)
        gathered: list[Any] | None = [None] * self.size if self.rank == 0 else None
        dist.gather_object(mine, gathered, group=self._group)
        joined = None if gathered is None else _join([mine, *gathered[1:]], join)
        answers: list[Any] | None = [joined] * self.size if isinstance(joined, _Failure) else joined
        received: list[Any] = [None]
        dist.scatter_object_list(received, answers, group=self._group)
        for outcome in (mine, joined, received[0]):
            if isinstance(outcome, _Failure):
                raise outcome.error
        answer: R = received[0]
        return answer


class _Elsewhere(RuntimeError):
    """An error of torch or of the system on another rank, in words: not all of them can be pickled."""


class _Failure:
    """What stands for a value when there was an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __reduce__(self) -> tuple[object, ...]:
        if isinstance(self.error, HeliostatError | _Elsewhere):
            return _Failure, (self.error,)
        return _Failure, (_Elsewhere(f"another rank: {type(self.error).__name__}: {self.error}"),)


def _attempt(act: Callable[[], T]) -> T | _Failure:
    try:
        return act()
    except Exception as error:  # noqa: BLE001  # whatever it is, the others have to know
        return _Failure(error)


def _join(outcomes: list[Any], join: Callable[[list[T]], list[R]]) -> list[R] | _Failure:
    failure = next((outcome for outcome in outcomes if isinstance(outcome, _Failure)), None)
    return _attempt(lambda: join(outcomes)) if failure is None else failure
