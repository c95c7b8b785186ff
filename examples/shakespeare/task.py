"""The next token of a play, and the ones after it. A single-device program: nothing here knows of other devices."""

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from heliostat.data.versions import DatasetVersion
from heliostat.errors import UserError
from heliostat.train.task import Arrays, Batch
from heliostat.train.text import Sampler, Sampling, TextTask

from . import ngrams
from .model import Cache, Gpt, Size
from .tokenizer import END_ID, FILE, BytePairs

PROMPT_TOKENS = 24
"""Of the prompts made from windows: a line or two."""


class PlayTask(TextTask):
    """A GPT that goes on with a play."""

    def __init__(
        self, data: DatasetVersion, width: int = 320, num_heads: int = 10, depth: int = 8, context: int = 128
    ) -> None:
        super().__init__(data)
        self.width = width
        self.num_heads = num_heads
        self.depth = depth
        self.context = context

    @cached_property
    def tokenizer(self) -> BytePairs:
        """The one that the data was prepared with."""
        return BytePairs(self.data.file(FILE))

    def load(self, split: str) -> Arrays:
        """`tokens` (n, context + 1), and as `label` the bytes that the predicted ones stand for, (n,)."""
        columns = super().load(split)
        return {"tokens": columns["tokens"], "label": columns["num_bytes"]}

    def model(self) -> Gpt:
        """A GPT for the tokens of the data."""
        return Gpt(
            Size(
                vocabulary=self.tokenizer.size,
                context=self.context,
                width=self.width,
                num_heads=self.num_heads,
                depth=self.depth,
            )
        )

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, float]:
        """The sum of the cross-entropies over all positions, and how many there are."""
        tokens = batch["tokens"].long()
        logits = model(tokens[:, :-1])
        return cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="sum"), tokens[
            :, 1:
        ].numel()

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Of each window the sum of its log losses in nats, and how many there are: (b, 2)."""
        tokens = batch["tokens"].long()
        logits = model(tokens[:, :-1]).float()
        losses = cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
        return torch.stack([losses.sum(dim=1), torch.full_like(losses[:, 0], losses.shape[1])], dim=1)

    def metrics(self, predictions: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
        """Nats per token, the perplexity that they are, and bits per byte, which does not depend on the tokens."""
        nats, num_tokens = predictions.astype(np.float64).sum(axis=0)
        return {
            "loss": nats / num_tokens,
            "perplexity": math.exp(nats / num_tokens),
            "bits_per_byte": nats / math.log(2) / float(labels.sum()),
        }

    def baselines(self, train: Arrays, test: Arrays) -> dict[str, NDArray[Any]]:
        """Single tokens and pairs of tokens, counted."""
        size = self.tokenizer.size
        expected = {"bigrams": ngrams.bigram(train["tokens"], size), "unigrams": ngrams.unigram(train["tokens"], size)}
        return {name: ngrams.losses(table, test["tokens"]) for name, table in expected.items()}

    def prompts(self, arrays: Arrays, num_prompts: int) -> list[str]:
        """How the first windows begin."""
        return [self.tokenizer.decode(window[1:PROMPT_TOKENS]) for window in arrays["tokens"][:num_prompts]]

    def generate(self, model: nn.Module, prompt: str, sampling: Sampling) -> Iterator[str]:
        """The play after `prompt`, until it ends or is long enough."""
        assert isinstance(model, Gpt)
        tokens = self.tokenizer.encode(prompt)
        if not tokens:
            raise UserError("the prompt is empty", where="prompt", next_step="give the beginning of a line")
        if len(tokens) >= self.context:
            raise UserError(
                "the prompt is too long",
                where="prompt",
                got=f"{len(tokens)} tokens; at most {self.context - 1} leave room for an answer",
                next_step="give only its end",
            )
        return self.tokenizer.pieces(continued(model, tokens, sampling))


@torch.inference_mode()
def continued(model: Gpt, tokens: list[int], sampling: Sampling) -> Iterator[int]:
    """The tokens after `tokens`, each computed from the cache of those before it.

    Positions are learned, so a text cannot slide through the context: when that is full, it starts again with its
    second half. Half a context is then computed anew, once in half a context of tokens.
    """
    device = model.head.weight.device
    context, sampler = model.size.context, Sampler(sampling)
    seen, caches, first = list(tokens), [Cache() for _ in model.blocks], 0
    for _ in range(sampling.max_tokens):
        if len(seen) > context:
            seen, caches, first = seen[-(context // 2) :], [Cache() for _ in model.blocks], 0
        logits = model(torch.tensor([seen[first:]], device=device), caches, first)[0, -1]
        token = sampler.choose(logits.float().cpu())
        if token == END_ID:
            return
        yield token
        first = len(seen)
        seen.append(token)
