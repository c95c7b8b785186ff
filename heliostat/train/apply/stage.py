"""A rank's part of a model: the whole model, of which only some blocks are there.

Modules of other blocks put out zeros of the right shape and have no storage, so the model's own forward runs unchanged.
Before the first block of a chunk the tensors that cross the cut take the place of what came before; before the first
block after it the forward pass ends, and what that block would have been given is the chunk's output. Names of
parameters stay those of the single-device model.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from heliostat.placement.spans import Span, spans
from heliostat.placement.strategy import Strategy
from heliostat.train.apply.chain import Chain, Leaf, Made
from heliostat.train.apply.tensor_divided import whole

Call = Callable[[nn.Module], Any]
"""Runs the model on the samples of one pass: its loss, or its predictions."""


def spans_of(strategy: Strategy, stage: int) -> tuple[Span, ...]:
    """The blocks of every chunk of `stage`."""
    lengths = [one.end_block - one.first_block for one in strategy.stages]
    return tuple(span for span in spans(lengths, strategy.chunks) if span.stage == stage)


class Whole:
    """A stage that is the whole model."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def close(self) -> None:
        """There is nothing to cut."""

    def takes(self, _: int) -> tuple[Leaf, ...]:
        """Nothing."""
        return ()

    def gives(self, _: int) -> tuple[Leaf, ...]:
        """Nothing."""
        return ()

    def forward(self, chunk: int, call: Call, num_samples: int, received: Sequence[Tensor]) -> Any:
        """What `call` returns."""
        del chunk, num_samples, received
        return call(self.model)


class _Cut(BaseException):
    """Ends a forward pass at the end of a chunk. Not an error: a model's own handlers let it through."""

    def __init__(self, outputs: list[Tensor]) -> None:
        super().__init__()
        self.outputs = outputs


class Stage:
    """The chunks of one rank.

    Raises:
        PlanError: the model cannot be cut there.
    """

    def __init__(self, model: nn.Module, chain: Chain, spans: Sequence[Span], device: torch.device) -> None:
        for span in spans:
            for edge in (span.first, span.end):
                chain.check_cut(edge)
        self.model, self._chain, self._spans, self._device = model, chain, tuple(spans), device
        self._active = self._spans[0]
        self._num_samples = 0
        self._received: Sequence[Tensor] = ()
        for at, block in enumerate(chain.blocks):
            for name in block.modules:
                module = model.get_submodule(name)
                module.forward = self._switched(at, chain.made[name], module.forward)

    def close(self) -> None:
        """Put the cuts in force, ahead of whatever else looks at what the blocks are given."""
        for at, block in enumerate(self._chain.blocks):
            if block.modules:
                entry = self.model.get_submodule(self._chain.entry(at))
                entry.register_forward_pre_hook(self._boundary(at), with_kwargs=True, prepend=True)

    def takes(self, chunk: int) -> tuple[Leaf, ...]:
        """What crosses the cut before a chunk."""
        return self._chain.crossing(self._spans[chunk].first)

    def gives(self, chunk: int) -> tuple[Leaf, ...]:
        """What crosses the cut after a chunk."""
        return self._chain.crossing(self._spans[chunk].end)

    def forward(self, chunk: int, call: Call, num_samples: int, received: Sequence[Tensor]) -> Any:
        """The tensors for the next chunk; of the last chunk what `call` returns.

        Args:
            chunk: which of the stage's.
            call: runs the model.
            num_samples: of this pass.
            received: what the chunk before has put out, as `takes` says.
        """
        self._active, self._num_samples, self._received = self._spans[chunk], num_samples, received
        try:
            return call(self.model)
        except _Cut as cut:
            return cut.outputs

    def _switched(self, at: int, made: Made, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if self._active.first <= at < self._active.end:
                return forward(*args, **kwargs)
            leaves = [self._zeros(one) if isinstance(one, Leaf | Tensor) else one for one in made.leaves]
            return pytree.tree_unflatten(leaves, made.spec)

        return run

    def _boundary(self, at: int) -> Callable[..., Any]:
        def hook(_: nn.Module, args: Any, kwargs: Any) -> Any:
            crossing = self._chain.crossing(at)
            if at == self._active.first and at:
                leaves, spec = pytree.tree_flatten((args, kwargs))
                for leaf, tensor in zip(crossing, self._received, strict=True):
                    leaves[leaf.place] = tensor
                return pytree.tree_unflatten(leaves, spec)
            if at == self._active.end:
                leaves = pytree.tree_leaves((args, kwargs))
                raise _Cut([whole(leaves[leaf.place]).to(leaf.dtype) for leaf in crossing])
            return None

        return hook

    def _zeros(self, one: Leaf | Tensor) -> Tensor:
        shape = (self._num_samples, *one.shape) if isinstance(one, Leaf) else tuple(one.shape)
        return torch.zeros((), dtype=one.dtype, device=self._device).expand(shape)
