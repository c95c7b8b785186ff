"""Tasks whose model continues a text: what they add to a task, and how the next token is drawn.

A deployed `TextTask` answers POST /generate with the pieces of its text as they come.
"""

from abc import abstractmethod
from collections.abc import Iterator

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from torch import Tensor, nn

from heliostat.train.task import Arrays, Task
from heliostat.values import Frozen

MAX_TOKENS = 1000
"""Tokens in one answer; a longer one would hold a thread of the server for minutes."""


class Sampling(Frozen):
    """How a text goes on: for how long, and how each token is chosen from what the model expects."""

    max_tokens: int = Field(default=100, ge=1, le=MAX_TOKENS)
    """Tokens to add, at most; the model may end its text before."""
    temperature: NonNegativeFloat = Field(default=0.0, allow_inf_nan=False)
    """0 takes the likeliest token each time; 1 draws as often as the model expects; above 1 it is bolder."""
    top_k: NonNegativeInt = 0
    """Draw only among so many of the likeliest tokens; 0 for all."""
    seed: NonNegativeInt = Field(default=0, lt=2**63)
    """The same seed draws the same text."""


class TextTask(Task):
    """A task whose model continues texts."""

    @abstractmethod
    def generate(self, model: nn.Module, prompt: str, sampling: Sampling) -> Iterator[str]:
        """The text that follows `prompt`, in pieces as they come; the model is in evaluation mode.

        The same arguments give the same text, whatever other texts are generated meanwhile.

        Raises:
            UserError: the prompt, before the first piece; `where` names it.
        """

    @abstractmethod
    def prompts(self, arrays: Arrays, num_prompts: int) -> list[str]:
        """Prompts made from the first rows of `arrays`; the deployed model is tried with them."""


def text_of(task: TextTask, model: nn.Module, prompt: str, sampling: Sampling) -> str:
    """The whole text after `prompt`, computed on one thread as a deployed model does.

    With more threads sums have another order, and now and then another token is the likeliest.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return "".join(task.generate(model, prompt, sampling))
    finally:
        torch.set_num_threads(before)


class Sampler:
    """Chooses the tokens of one text."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._generator = torch.Generator().manual_seed(sampling.seed)

    def choose(self, logits: Tensor) -> int:
        """The next token, from the logits (V,) of all."""
        if self._sampling.temperature == 0:
            return int(logits.argmax())
        scaled = logits.double() / self._sampling.temperature
        if 0 < self._sampling.top_k < len(scaled):
            least = scaled.topk(self._sampling.top_k).values[-1]
            scaled = scaled.masked_fill(scaled < least, -torch.inf)
        return int(torch.multinomial(scaled.softmax(dim=0), 1, generator=self._generator))
