"""Transformer blocks written in the ways in which people write them, to be divided."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

VOCABULARY, WIDTH, HEADS, KV_HEADS, TOKENS = 51, 32, 4, 2, 12
ONE_HEAD = WIDTH // HEADS
STYLES = ("joined", "by head", "by kind", "separate", "grouped", "joined grouped", "torch")
"""How queries, keys and values are made: one product cut into three, one cut into heads of three, one cut into three of
heads, three products, fewer keys than queries with a norm per head, the same in one product, and torch's own."""


def heads(x: Tensor, count: int) -> Tensor:
    """(b, t, count x width) -> (b, count, t, width), with the sizes of the single device."""
    return x.view(x.size(0), x.size(1), count, ONE_HEAD).transpose(1, 2)


class Attention(nn.Module):
    def __init__(self, style: str, dropout: float) -> None:
        super().__init__()
        self.style, self.dropout = style, nn.Dropout(dropout)
        kv = KV_HEADS * ONE_HEAD if "grouped" in style else WIDTH
        if style in ("separate", "grouped"):
            self.q, self.k, self.v = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, kv), nn.Linear(WIDTH, kv)
        else:
            self.qkv = nn.Linear(WIDTH, WIDTH + 2 * kv, bias=False)
        if style == "grouped":
            self.q_norm, self.k_norm = nn.RMSNorm(ONE_HEAD), nn.RMSNorm(ONE_HEAD)
        self.o = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        b, t, width = x.size()
        q, k, v = self._three(x)
        if self.style == "joined":
            scores = (q @ k.transpose(-2, -1)) * (1.0 / k.size(-1) ** 0.5)
            seen = torch.ones(t, t, dtype=torch.bool, device=x.device).tril()
            mixed = self.dropout(scores.masked_fill(~seen, float("-inf")).softmax(dim=-1)) @ v
        else:
            gqa = "grouped" in self.style
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=gqa)
        result: Tensor = self.o(mixed.transpose(1, 2).contiguous().view(b, t, width))
        return result

    def _three(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        b, t, width = x.size()
        if self.style == "joined":
            q, k, v = self.qkv(x).split(width, dim=2)
        elif self.style == "by head":
            q, k, v = self.qkv(x).view(b, t, HEADS, 3 * ONE_HEAD).transpose(1, 2).chunk(3, dim=-1)
            return q, k, v
        elif self.style == "by kind":
            q, k, v = self.qkv(x).reshape(b, t, 3, HEADS, ONE_HEAD).permute(2, 0, 3, 1, 4).unbind(0)
            return q, k, v
        elif self.style == "joined grouped":
            kv = KV_HEADS * ONE_HEAD
            q, k, v = self.qkv(x).split([WIDTH, kv, kv], dim=-1)
        else:
            q, k, v = self.q(x), self.k(x), self.v(x)
        count = KV_HEADS if "grouped" in self.style else HEADS
        q, k, v = heads(q, HEADS), heads(k, count), heads(v, count)
        return (self.q_norm(q), self.k_norm(k), v) if self.style == "grouped" else (q, k, v)


class OwnAttention(nn.Module):
    """torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.size(1), device=x.device)
        result: Tensor = self.attention(x, x, x, need_weights=False, attn_mask=mask, is_causal=True)[0]
        return result


class FeedForward(nn.Module):
    def __init__(self, style: str) -> None:
        super().__init__()
        self.style, inner = style, 48
        self.up = nn.Linear(WIDTH, 2 * inner if style == "joined grouped" else inner)
        if style == "grouped":
            self.gate = nn.Linear(WIDTH, inner)
        self.down = nn.Linear(inner, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        if self.style == "joined grouped":
            gate, up = self.up(x).chunk(2, dim=-1)
            inner = functional.silu(gate) * up
        elif self.style == "grouped":
            inner = functional.silu(self.gate(x)) * self.up(x)
        else:
            inner = functional.gelu(self.up(x))
        result: Tensor = self.down(inner)
        return result


class Layer(nn.Module):
    def __init__(self, style: str, dropout: float) -> None:
        super().__init__()
        self.first_norm, self.second_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = OwnAttention() if style == "torch" else Attention(style, dropout)
        self.feed_forward, self.dropout = FeedForward(style), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.first_norm(x)))
        result: Tensor = x + self.dropout(self.feed_forward(self.second_norm(x)))
        return result


class Decoder(nn.Module):
    """A decoder of two layers; `tied` has one table for words and logits."""

    def __init__(self, style: str, *, tied: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(TOKENS, WIDTH)
        self.layers = nn.ModuleList(Layer(style, dropout) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        for layer in self.layers:
            x = layer(x)
        result: Tensor = self.head(self.norm(x))
        return result


def tokens(seed: int) -> dict[str, Tensor]:
    """A batch of four sequences."""
    generator = torch.Generator().manual_seed(seed)
    return {"ids": torch.randint(0, VOCABULARY, (4, TOKENS), generator=generator)}


def next_token_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Of each next token; the first sequence's do not count."""
    logits = model(batch["ids"])
    targets = batch["ids"][:, 1:].clone()
    targets[0] = -1
    shifted = logits[:, :-1].reshape(-1, logits.size(-1)).float()
    return functional.cross_entropy(shifted, targets.reshape(-1), ignore_index=-1, reduction="sum")
