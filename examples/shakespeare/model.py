"""A GPT as one writes it for one device: token and position embeddings, pre-norm blocks, a norm and a head."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

INITIAL_DEVIATION = 0.02
"""Of all weights at the start, as in GPT-2."""


class Cache:
    """Keys and values of the positions that one attention has seen, so that each is computed once."""

    def __init__(self) -> None:
        self._seen: tuple[Tensor, Tensor] | None = None

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values (b, heads, seen, head_dim), the new ones last."""
        if self._seen is not None:
            keys, values = (torch.cat(pair, dim=2) for pair in zip(self._seen, (keys, values), strict=True))
        self._seen = keys, values
        return keys, values


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a GPT is like."""

    vocabulary: int
    context: int
    """Tokens that it sees at once."""
    width: int
    num_heads: int
    depth: int


class Attention(nn.Module):
    """Each position looks at itself and those before it."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.head_dim = width // num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        """(b, t, width) to the same; with a filled `cache` t is 1."""
        queries, keys, values = (self._heads(layer(x)) for layer in (self.query, self.key, self.value))
        if cache is not None:
            keys, values = cache.extend(keys, values)
        mixed = functional.scaled_dot_product_attention(
            queries, keys, values, is_causal=queries.shape[2] == keys.shape[2]
        )
        result: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], -1, self.head_dim).transpose(1, 2)


class Block(nn.Module):
    """Attention and a perceptron, each beside the way around it."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        """(b, t, width) to the same."""
        x = x + self.attention(self.attention_norm(x), cache)
        result: Tensor = x + self.mlp(self.mlp_norm(x))
        return result


class Gpt(nn.Module):
    """Tokens in, logits of the token after each of them out."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.tokens = nn.Embedding(size.vocabulary, size.width)
        self.positions = nn.Embedding(size.context, size.width)
        self.blocks = nn.ModuleList(Block(size.width, size.num_heads) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, size.vocabulary, bias=False)
        self.apply(_initialise)

    def forward(self, tokens: Tensor, caches: list[Cache] | None = None, first: int = 0) -> Tensor:
        """Logits (b, t, vocabulary) of `tokens` (b, t), which stand at the positions from `first` on."""
        places = torch.arange(first, first + tokens.shape[1], device=tokens.device)
        x = self.tokens(tokens) + self.positions(places)
        for number, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[number])
        logits: Tensor = self.head(self.norm(x))
        return logits


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INITIAL_DEVIATION)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
