"""Context managers around the construction of modules: what their author knows of how they are to be run.

    with heliostat.stage():
        self.embedding = nn.Embedding(...)
        with heliostat.split(tensor_parallel=2):
            self.first = nn.ModuleList(...)
    with heliostat.stage(device_kind="A100-40GB-SXM"):
        self.second = nn.ModuleList(...)

They pin parts of the plan and leave the rest to the planner (Whale: Jia et al. 2022). A module keeps what held when it
was made; the model runs the same with and without them. `annotated` turns them into pins.
"""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any, Literal, NamedTuple

from torch import nn

from heliostat.errors import PlanError


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One context: what it says of the modules that are made inside."""

    sort: Literal["stage", "split", "replicate"]
    words: str
    """The call and where it stands, for messages."""
    number: int = 0
    """Tells stages apart that are opened by the same line."""
    tensor_parallel: int | None = None
    """Of `split`; None for any degree above 1."""
    device_kind: str | None = None
    """Of `stage`."""


class Marks(NamedTuple):
    """What holds for a module."""

    stage: Mark | None = None
    division: Mark | None = None
    """A `split` or a `replicate`."""


def stage(*, device_kind: str | None = None) -> AbstractContextManager[None]:
    """The modules made inside are one stage of the pipeline; each such context is a stage of its own.

    A model that has them has these stages and no others, in the order in which their modules run. What was made outside
    of them goes with the stage before it, or with the first.

    Args:
        device_kind: that the stage stands on, as `heliostat cluster show` names it; None leaves it to the planner.

    Raises:
        PlanError: on entering it inside of another stage.
    """
    call = "stage()" if device_kind is None else f"stage(device_kind={device_kind!r})"
    mark = Mark(sort="stage", words=_words(call), number=next(_NUMBERS), device_kind=device_kind)
    return _opened(mark)


def split(*, tensor_parallel: int | None = None) -> AbstractContextManager[None]:
    """The blocks of the modules made inside are tensor-divided.

    Args:
        tensor_parallel: ranks that share them; None leaves it to the planner how many, two at least.

    Raises:
        PlanError: the degree is below 2; or on entering it inside of `split` or `replicate`.
    """
    call = "split()" if tensor_parallel is None else f"split(tensor_parallel={tensor_parallel})"
    if tensor_parallel is not None and tensor_parallel < 2:
        raise PlanError(
            f"{_words(call)} divides nothing",
            got=f"tensor_parallel {tensor_parallel}",
            next_step="give 2 or more, or use `heliostat.replicate()`",
        )
    return _opened(Mark(sort="split", words=_words(call), tensor_parallel=tensor_parallel))


def replicate() -> AbstractContextManager[None]:
    """The blocks of the modules made inside are never tensor-divided: replicas of their stage hold all of them.

    Raises:
        PlanError: on entering it inside of `split` or `replicate`.
    """
    return _opened(Mark(sort="replicate", words=_words("replicate()")))


def marks_of(model: nn.Module) -> dict[str, Marks]:
    """What holds for every module of `model`, by its path: what held when it was made, else what holds above it."""
    found: dict[str, Marks] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        own = getattr(module, _ATTRIBUTE, _NOTHING)
        above = found[path.rpartition(".")[0]] if path else _NOTHING
        found[path] = Marks(own.stage or above.stage, own.division or above.division)
    return found


_ATTRIBUTE = "_heliostat_marks"
_NUMBERS = count(1)
_NOTHING = Marks()
_OPEN: ContextVar[Marks] = ContextVar("heliostat_marks", default=_NOTHING)
"""What holds here; threads and tasks each have their own."""


def _words(call: str) -> str:
    frame = sys._getframe(2)  # noqa: SLF001  # of the line that made the context
    return f"{call} at {Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


@contextmanager
def _opened(mark: Mark) -> Iterator[None]:
    outer = _OPEN.get()
    before = outer.stage if mark.sort == "stage" else outer.division
    if before is not None:
        raise PlanError(
            f"{mark.words} is inside of {before.words}",
            causes=("a module is of one stage, and is either split or replicated",),
            next_step="close one before the other is opened",
        )
    inner = outer._replace(stage=mark) if mark.sort == "stage" else outer._replace(division=mark)
    token = _OPEN.set(inner)
    try:
        with _MARKING:
            yield
    finally:
        _OPEN.reset(token)


class _Marking(AbstractContextManager[None]):
    """While it is open anywhere, modules note on themselves what holds where they are made."""

    def __init__(self) -> None:
        self._lock, self._num_open = Lock(), 0
        self._plain = nn.Module.__init__

    def __enter__(self) -> None:
        with self._lock:
            if not self._num_open:
                self._plain = nn.Module.__init__
                nn.Module.__init__ = _marked(self._plain)  # type: ignore[method-assign]
            self._num_open += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._num_open -= 1
            if not self._num_open:
                nn.Module.__init__ = self._plain  # type: ignore[method-assign]


_MARKING = _Marking()


def _marked(plain: Any) -> Any:
    def __init__(self: nn.Module, *args: Any, **kwargs: Any) -> None:  # noqa: N807  # it stands for the method
        plain(self, *args, **kwargs)
        marks = _OPEN.get()
        if marks != _NOTHING:
            # past __setattr__, which a module may have made its own
            vars(self)[_ATTRIBUTE] = marks

    return __init__
