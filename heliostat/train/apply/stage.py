"""A rank's part of a model: the whole model, of which only some blocks are there.

Other blocks put out zeros of the right shape and have no storage, so the model's own forward runs unchanged. Before the
first block of a chunk the tensors that cross the cut take the place of what came before; before the first block after
it the forward pass ends, and what that block would have been given is the chunk's output. Names of parameters stay
those of the single-device model.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from heliostat.train.apply.chain import Chain, Leaf, Made, blocks_of


class Span(NamedTuple):
    """Blocks `first` to `end` exclusive."""

    first: int
    end: int


class _Cut(BaseException):
    """Ends a forward pass at the end of a chunk. Not an error: a model's own handlers let it through."""

    def __init__(self, outputs: list[Tensor]) -> None:
        super().__init__()
        self.outputs = outputs


class Stage:
    """The chunks of one rank; their blocks are there, and what is in no block."""

    def __init__(self, model: nn.Module, chain: Chain, spans: Sequence[Span], device: torch.device) -> None:
        for span in spans:
            if span.first:
                chain.check_cut(span.first)
        self.model, self.chain, self.spans, self._device = model, chain, tuple(spans), device
        self._active = self.spans[0]
        self._num_samples = 0
        self._received: Sequence[Tensor] = ()
        for at, (link, block) in enumerate(zip(chain.links, _in_order(model, chain), strict=True)):
            block.forward = self._switched(at, link.made, block.forward)
            block.register_forward_pre_hook(self._boundary(at), with_kwargs=True, prepend=True)

    def takes(self, chunk: int) -> tuple[Leaf, ...]:
        """What crosses the cut before a chunk."""
        first = self.spans[chunk].first
        return self.chain.links[first].taken if first else ()

    def gives(self, chunk: int) -> tuple[Leaf, ...]:
        """What crosses the cut after a chunk."""
        end = self.spans[chunk].end
        return self.chain.links[end].taken if end < len(self.chain.links) else ()

    def forward(
        self, chunk: int, loss: Callable[[nn.Module], Any], num_samples: int, received: Sequence[Tensor]
    ) -> Any:
        """The tensors for the next chunk; of the last chunk what `loss` returns."""
        self._active, self._num_samples, self._received = self.spans[chunk], num_samples, received
        try:
            return loss(self.model)
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
            if at == self._active.first and at:
                leaves, spec = pytree.tree_flatten((args, kwargs))
                for leaf, tensor in zip(self.chain.links[at].taken, self._received, strict=True):
                    leaves[leaf.place] = tensor
                return pytree.tree_unflatten(leaves, spec)
            if at == self._active.end:
                leaves = pytree.tree_leaves((args, kwargs))
                raise _Cut([leaves[leaf.place] for leaf in self.chain.links[at].taken])
            return None

        return hook

    def _zeros(self, one: Leaf | Tensor) -> Tensor:
        shape = (self._num_samples, *one.shape) if isinstance(one, Leaf) else tuple(one.shape)
        return torch.zeros((), dtype=one.dtype, device=self._device).expand(shape)


def _in_order(model: nn.Module, chain: Chain) -> list[nn.Module]:
    blocks = blocks_of(model)
    return [blocks[link.name] for link in chain.links]
