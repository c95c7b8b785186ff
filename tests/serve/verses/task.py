"""The task: a letter depends on the one before it."""

from collections.abc import Iterator
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heliostat.data.versions import DatasetVersion
from heliostat.errors import UserError
from heliostat.train.task import Arrays, Batch
from heliostat.train.text import Sampler, Sampling, TextTask


class VerseTask(TextTask):
    """Letters, and which letters follow them; `fails_at` breaks a text when it is so long."""

    def __init__(self, data: DatasetVersion, fails_at: int | None = None) -> None:
        super().__init__(data)
        self.letters = data.file("letters.txt").decode()
        self.fails_at = fails_at

    def model(self) -> nn.Module:
        """Logits of all letters after each letter."""
        return nn.Embedding(len(self.letters), len(self.letters))

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """Cross entropy."""
        letters = batch["tokens"].long()
        logits = model(letters[:, :-1]).flatten(0, 1)
        return nn.functional.cross_entropy(logits, letters[:, 1:].flatten(), reduction="sum"), letters[:, 1:].numel()

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Nothing of use."""
        logits: Tensor = model(batch["tokens"])
        return logits.sum(dim=(1, 2))

    def metrics(self, predictions: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
        """Nothing of use."""
        return {"mean": float((predictions - labels).mean())}

    def prompts(self, arrays: Arrays, num_prompts: int) -> list[str]:
        """First letters."""
        return [self.letters[int(row[0])] for row in arrays["tokens"][:num_prompts]]

    def generate(self, model: nn.Module, prompt: str, sampling: Sampling) -> Iterator[str]:
        """Letter by letter."""
        if strange := sorted(set(prompt) - set(self.letters)):
            raise UserError("the prompt has letters that the verses lack", where="prompt", got="".join(strange))
        return self._letters(model, self.letters.index(prompt[-1]), sampling)

    def _letters(self, model: nn.Module, last: int, sampling: Sampling) -> Iterator[str]:
        sampler = Sampler(sampling)
        for length in range(sampling.max_tokens):
            if length == self.fails_at:
                raise ZeroDivisionError("the muse is silent")
            last = sampler.choose(model(torch.tensor(last)))
            yield self.letters[last]
